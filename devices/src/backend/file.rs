//! A disk in a file or on a block device, by positioned vectored system calls.
//!
//! Every transfer is done when [`Backend::submit`] returns. Payload goes straight between the file and guest memory; only
//! direct I/O of what does not fit the host's alignment takes a detour. A flush is `fdatasync`; it is never skipped and
//! never merged. An error of the host is the completion's, and the disk goes on.

use std::io;

use super::direct::{self, Alignment, BOUNCE_MAX, Bounce};
use super::disk::{Disk, Geometry};
use super::error::OpenError;
use super::image::{FileOptions, Image};
use super::vectored::{self, Segments};
use super::work::{Backend, Buffers, Completion, Submitted, Transfer, Work};
use super::zeroes;

/// Zeros kept for file systems that cannot zero a range, in bytes.
const ZEROS: u64 = 64 << 10;

/// A disk in a file.
#[derive(Debug)]
pub struct FileDisk {
    image: Image,
    /// Kept between transfers for its memory only.
    segments: Segments,
    zeros: Option<Bounce>,
}

impl FileDisk {
    /// Opens and locks an image.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &FileOptions) -> Result<Self, OpenError> {
        Ok(Self::of(Image::open(options)?))
    }

    /// The same disk, for another queue.
    pub(super) fn same(&self) -> Self {
        Self::of(self.image.clone())
    }

    fn of(image: Image) -> Self {
        Self {
            image,
            segments: Segments::default(),
            zeros: None,
        }
    }

    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    /// Does all of a transfer now.
    ///
    /// # Errors
    /// What the host says, and what [`Image::check`] refuses.
    pub(super) fn run(&mut self, transfer: &mut Transfer) -> io::Result<u64> {
        self.image.check(transfer)?;
        let done = match transfer.work {
            Work::Read => self.read(transfer),
            Work::Write => self.write(transfer),
            Work::Flush => self.image.file.sync_data(),
            Work::Discard => zeroes::discard(&self.image.file, transfer.offset, transfer.len),
            Work::WriteZeroes { unmap } => self.write_zeroes(transfer.offset, transfer.len, unmap),
            Work::Transmit | Work::Receive | Work::Free => Err(io::ErrorKind::Unsupported.into()),
        };
        done.map(|()| transfer.payload_len())
    }

    fn read(&mut self, transfer: &mut Transfer) -> io::Result<()> {
        self.segments.load(&mut transfer.buffers, transfer.len)?;
        match self.detour(transfer) {
            None => vectored::read_all(&self.image.file, &mut self.segments, transfer.offset),
            Some(alignment) => self.each_window(alignment, transfer, Self::read_window),
        }
    }

    fn write(&mut self, transfer: &mut Transfer) -> io::Result<()> {
        self.segments.load(&mut transfer.buffers, transfer.len)?;
        match self.detour(transfer) {
            None => vectored::write_all(&self.image.file, &mut self.segments, transfer.offset),
            Some(alignment) => self.each_window(alignment, transfer, Self::write_window),
        }
    }

    /// Whether the loaded transfer must go by way of a bounce buffer, and how that must be aligned.
    fn detour(&self, transfer: &Transfer) -> Option<Alignment> {
        self.image.alignment.filter(|alignment| {
            !(alignment.fits_disk(transfer.offset, transfer.len)
                && alignment.fits_memory(&self.segments))
        })
    }

    /// Cuts a transfer into windows of whole blocks that a bounce buffer can hold, and works on each.
    fn each_window(
        &mut self,
        alignment: Alignment,
        transfer: &mut Transfer,
        work: fn(&mut Self, &mut Window<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let block = u64::from(alignment.block);
        let mut bounce = Bounce::new(alignment, transfer.len.min(BOUNCE_MAX) + 2 * block);
        let mut done = 0;
        while done < transfer.len {
            let offset = transfer.offset + done;
            let len = (transfer.len - done).min(BOUNCE_MAX);
            let start = offset - offset % block;
            let head = offset - start;
            let whole = (head + len).next_multiple_of(block);
            work(
                self,
                &mut Window {
                    start,
                    blocks: &mut bounce.bytes()[..to_index(whole)],
                    covers: to_index(head)..to_index(head + len),
                    buffers: &mut transfer.buffers,
                    at: done,
                },
            )?;
            done += len;
        }
        Ok(())
    }

    fn read_window(&mut self, window: &mut Window<'_>) -> io::Result<()> {
        self.read_blocks(window.start, window.blocks)?;
        direct::scatter(
            window.buffers,
            window.at,
            &window.blocks[window.covers.clone()],
        )
    }

    fn write_window(&mut self, window: &mut Window<'_>) -> io::Result<()> {
        if window.covers != (0..window.blocks.len()) {
            // Part of a block belongs to somebody else and goes back as it was.
            self.read_blocks(window.start, window.blocks)?;
        }
        direct::gather(
            window.buffers,
            window.at,
            &mut window.blocks[window.covers.clone()],
        )?;
        self.segments.load_bytes(window.blocks);
        vectored::write_all(&self.image.file, &mut self.segments, window.start)
    }

    fn read_blocks(&mut self, start: u64, blocks: &mut [u8]) -> io::Result<()> {
        self.segments.load_bytes(blocks);
        vectored::read_all(&self.image.file, &mut self.segments, start)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let modes: Vec<_> = self.image.zeroing.modes(unmap).collect();
        for mode in modes {
            match zeroes::allocate(&self.image.file, mode, offset, len) {
                Err(error) if zeroes::is_refusal(&error) => self.note_refusal(mode, &error),
                answer => return answer,
            }
        }
        self.write_zeros_out(offset, len)
    }

    /// Remembers that the file system has no such `fallocate`; a range that it did not like is no reason to give up.
    pub(super) fn note_refusal(&mut self, mode: rustix::fs::FallocateFlags, error: &io::Error) {
        if error.raw_os_error() != Some(libc::EINVAL) {
            self.image.zeroing.refused(mode);
        }
    }

    /// What always works: zeros, written.
    pub(super) fn write_zeros_out(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if let Some(alignment) = self.image.alignment
            && !alignment.fits_disk(offset, len)
        {
            return self.write_odd_zeros(alignment, offset, len);
        }
        let alignment = self.image.alignment.unwrap_or(Alignment {
            block: 512,
            memory: 512,
        });
        let zeros = self.zeros.get_or_insert_with(|| {
            Bounce::new(
                alignment,
                ZEROS.next_multiple_of(u64::from(alignment.block)),
            )
        });
        let mut done = 0;
        while done < len {
            self.segments.load_repeated(zeros.bytes(), len - done);
            let count = self.segments.remaining();
            vectored::write_all(&self.image.file, &mut self.segments, offset + done)?;
            done += count;
        }
        Ok(())
    }

    /// Zeros over parts of blocks, a detour at a time.
    fn write_odd_zeros(&mut self, alignment: Alignment, offset: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let count = (len - done).min(BOUNCE_MAX);
            let mut piece = Transfer {
                token: 0,
                ordinal: 0,
                work: Work::Write,
                offset: offset + done,
                len: count,
                buffers: Buffers::Owned(vec![0; to_index(count)]),
            };
            self.each_window(alignment, &mut piece, Self::write_window)?;
            done += count;
        }
        Ok(())
    }
}

/// Whole blocks of the disk in a bounce buffer, and the part of a transfer that they hold.
struct Window<'a> {
    /// First byte on the disk.
    start: u64,
    blocks: &'a mut [u8],
    /// Which bytes of `blocks` belong to the transfer.
    covers: std::ops::Range<usize>,
    buffers: &'a mut Buffers,
    /// Where in the buffers they begin.
    at: u64,
}

/// A length that [`BOUNCE_MAX`] and two blocks bound.
fn to_index(len: u64) -> usize {
    usize::try_from(len).expect("a detour is far smaller than the address space")
}

impl Disk for FileDisk {
    fn geometry(&self) -> Geometry {
        self.image.geometry()
    }

    fn another(&self) -> io::Result<Box<dyn Disk>> {
        Ok(Box::new(self.same()))
    }
}

impl Backend for FileDisk {
    fn submit(&mut self, mut transfer: Transfer) -> Submitted {
        let result = self.run(&mut transfer);
        Submitted::Done(Completion { transfer, result })
    }
}
