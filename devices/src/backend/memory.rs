//! A disk in the host's memory. Its contents end with the process, and a flush has nothing to do.

use std::io;

use vm_memory::{Bytes, GuestAddress};

use super::disk::{Disk, Geometry};
use super::work::{Backend, Buffers, Completion, Submitted, Transfer, Work};

/// A RAM disk. Every transfer is done when [`Backend::submit`] returns.
#[derive(Debug)]
pub struct MemoryDisk {
    bytes: Vec<u8>,
    read_only: bool,
}

impl MemoryDisk {
    /// A disk of zeros. The host commits its memory as it is written.
    ///
    /// # Panics
    /// `capacity_bytes` is not a multiple of 512, or more than the host can address.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        let len = usize::try_from(capacity_bytes).expect("capacity fits the host's address space");
        Self::from_bytes(vec![0; len])
    }

    /// A disk with these contents.
    ///
    /// # Panics
    /// The length is not a multiple of 512.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        assert!(
            bytes.len().is_multiple_of(512),
            "a disk is made of sectors of 512 bytes"
        );
        Self {
            bytes,
            read_only: false,
        }
    }

    /// Refuses writes.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// What is on it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn work(&mut self, transfer: &mut Transfer) -> io::Result<()> {
        let at = |value: u64| {
            usize::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let start = at(transfer.offset)?;
        let end = start.checked_add(at(transfer.len)?);
        if self.read_only && !matches!(transfer.work, Work::Read | Work::Flush) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if transfer.work == Work::Flush {
            return Ok(());
        }
        let place = end.and_then(|end| self.bytes.get_mut(start..end));
        let place = place.ok_or(io::ErrorKind::UnexpectedEof)?;
        let has_payload = matches!(transfer.work, Work::Read | Work::Write);
        if has_payload && transfer.buffers.len() != transfer.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match transfer.work {
            Work::Read => read(place, &mut transfer.buffers),
            Work::Write => write(place, &transfer.buffers),
            Work::Discard | Work::WriteZeroes { .. } => {
                place.fill(0);
                Ok(())
            }
            Work::Flush => Ok(()),
            Work::Transmit | Work::Receive | Work::Free => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn read(place: &[u8], buffers: &mut Buffers) -> io::Result<()> {
    match buffers {
        Buffers::None => Ok(()),
        Buffers::Owned(copy) => {
            copy.clear();
            copy.extend_from_slice(place);
            Ok(())
        }
        Buffers::Guest { memory, ranges } => {
            crate::memory::write(memory, ranges, place).map_err(io::Error::other)
        }
    }
}

fn write(place: &mut [u8], buffers: &Buffers) -> io::Result<()> {
    match buffers {
        Buffers::None => Ok(()),
        Buffers::Owned(copy) => {
            let whole = copy.get(..place.len()).ok_or(io::ErrorKind::WriteZero)?;
            place.copy_from_slice(whole);
            Ok(())
        }
        Buffers::Guest { memory, ranges } => {
            let mut left = place;
            for range in ranges {
                let len = usize::try_from(range.len)
                    .unwrap_or(usize::MAX)
                    .min(left.len());
                let (now, later) = left.split_at_mut(len);
                memory
                    .read_slice(now, GuestAddress(range.addr))
                    .map_err(io::Error::other)?;
                left = later;
            }
            Ok(())
        }
    }
}

impl Disk for MemoryDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity_bytes: self.bytes.len() as u64,
            read_only: self.read_only,
            block_size: 512,
            discard: true,
            write_zeroes: true,
        }
    }
}

impl Backend for MemoryDisk {
    fn submit(&mut self, mut transfer: Transfer) -> Submitted {
        let result = self.work(&mut transfer).map(|()| transfer.payload_len());
        Submitted::Done(Completion { transfer, result })
    }
}
