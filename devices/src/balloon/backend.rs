//! The host side of a balloon's queues: gives frames back to the host, and keeps the driver's list of statistics until
//! somebody wants a new one.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, fstat};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::backend::{Backend, Buffers, Completion, Submitted, Transfer, Work};
use crate::context::Context;
use crate::trace::event::{EventKind, GuestRange};

use super::handle::Shared;

/// The host's side of one queue.
pub(super) struct HostSide {
    pub(super) device: String,
    pub(super) context: Context,
    pub(super) shared: Arc<Shared>,
    /// Frames that the driver fills with a value are left as they are, and so keep it: for reports, after which the guest
    /// may use a frame without a word.
    pub(super) keeps_poison: bool,
    /// Wake up when somebody wants statistics.
    pub(super) hears_wishes: bool,
    /// Buffers that wait for such a wish.
    pub(super) waiting: Vec<Transfer>,
}

impl Backend for HostSide {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        if transfer.work == Work::Receive {
            self.waiting.push(transfer);
            return Submitted::Pending;
        }
        let result = match transfer.work {
            Work::Free => self.discard(&transfer.buffers),
            _ => Ok(0),
        };
        Submitted::Done(Completion { transfer, result })
    }

    fn completion_fd(&self) -> Option<RawFd> {
        self.hears_wishes.then(|| self.shared.ask_fd())
    }

    /// Giving the buffer back is how a device asks for statistics (virtio 1.2, 5.5.6.3). A wish that comes while the driver
    /// has the buffer is fulfilled by what it brings next.
    fn completions(&mut self, done: &mut Vec<Completion>) {
        if self.hears_wishes && self.shared.take_wish() {
            self.give_back(done, || Ok(0));
        }
    }

    /// All that is here waits for the outside world.
    fn settle(&mut self, _done: &mut Vec<Completion>) {}

    fn drain(&mut self, done: &mut Vec<Completion>) {
        self.give_back(done, || Err(io::ErrorKind::Interrupted.into()));
    }
}

impl HostSide {
    fn give_back(&mut self, done: &mut Vec<Completion>, result: impl Fn() -> io::Result<u64>) {
        let ended = self.waiting.drain(..).map(|transfer| Completion {
            transfer,
            result: result(),
        });
        done.extend(ended);
    }

    /// Punches frames out of the file that guest memory is mapped from; they read zero afterwards.
    fn discard(&self, buffers: &Buffers) -> io::Result<u64> {
        let Buffers::Guest { memory, ranges } = buffers else {
            return Ok(0);
        };
        if self.keeps_poison && self.shared.poison() != 0 {
            return Ok(0);
        }
        let Some(first) = ranges.first() else {
            return Ok(0);
        };
        let (file, _) = region_file(memory, first.addr)?;
        let before_bytes = resident_bytes(file)?;
        let mut bytes = 0;
        for range in ranges {
            bytes += punch(memory, *range)?;
        }
        let resident_bytes = resident_bytes(file)?;
        self.context.tracer().emit(|| EventKind::HostMemory {
            device: self.device.clone(),
            before_bytes,
            resident_bytes,
        });
        Ok(bytes)
    }
}

/// How much of a file is in the host's memory: of a memfd, which has no other place.
fn resident_bytes(file: &File) -> io::Result<u64> {
    let blocks = u64::try_from(fstat(file)?.st_blocks).unwrap_or(0);
    Ok(blocks.saturating_mul(512))
}

/// Punches a range, which may go over the border of regions, out of its file.
fn punch(memory: &GuestMemoryMmap<()>, range: GuestRange) -> io::Result<u64> {
    let (mut addr, end) = (range.addr, range.addr.saturating_add(range.len));
    while addr < end {
        let (file, offset) = region_file(memory, addr)?;
        let region = memory.find_region(GuestAddress(addr));
        let region_end = region.map_or(addr, |region| region.last_addr().0.saturating_add(1));
        let len = end.min(region_end).saturating_sub(addr);
        fallocate(
            file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            len,
        )?;
        addr = addr.saturating_add(len);
    }
    Ok(range.len)
}

/// The file behind an address, and the address's place in it.
fn region_file(memory: &GuestMemoryMmap<()>, addr: u64) -> io::Result<(&File, u64)> {
    let region = memory
        .find_region(GuestAddress(addr))
        .ok_or(io::ErrorKind::InvalidInput)?;
    let file = region.file_offset().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "guest memory has no file to punch the pages out of",
        )
    })?;
    Ok((file.file(), file.start() + (addr - region.start_addr().0)))
}
