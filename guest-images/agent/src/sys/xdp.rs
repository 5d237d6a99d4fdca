//! AF_XDP sockets in copy mode: a umem of a mapping, and the rings (Documentation/networking/af_xdp.rst).
//!
//! The rings are mapped memory that the kernel changes; everything in them is read and written by atomic operations.
#![expect(
    unsafe_code,
    reason = "socket options with C structs, and rings in mapped memory"
)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::memory::Span;
use super::net::{bind, socket};
use super::{check, memory};
use crate::fault::Errno;

/// Entries of each ring.
pub const ENTRIES: u32 = 64;
/// Bytes of a frame of the umem.
pub const FRAME: u32 = 4096;

/// A socket with its umem.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    transmit: Ring,
    complete: Ring,
    fill: Ring,
    receive: Ring,
}

/// One ring, as user space sees it.
#[derive(Debug)]
struct Ring {
    span: Span,
    offsets: libc::xdp_ring_offset,
}

impl Socket {
    /// Registers a mapping as umem: the kernel pins each of its pages for as long as anybody needs it.
    pub fn new(umem: Span) -> Result<Self, Errno> {
        let fd = socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
        let registered = libc::xdp_umem_reg {
            addr: umem.address() as u64,
            len: umem.len() as u64,
            chunk_size: FRAME,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&fd, libc::XDP_UMEM_REG, &registered)?;
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_TX_RING,
            libc::XDP_RX_RING,
        ] {
            set(&fd, ring, &ENTRIES)?;
        }
        let offsets = offsets(&fd)?;
        let descriptors = size_of::<libc::xdp_desc>();
        let map = |offsets, size, place: u64| Ring::map(&fd, offsets, size, place);
        Ok(Self {
            transmit: map(
                offsets.tx,
                descriptors,
                libc::XDP_PGOFF_TX_RING.cast_unsigned(),
            )?,
            receive: map(
                offsets.rx,
                descriptors,
                libc::XDP_PGOFF_RX_RING.cast_unsigned(),
            )?,
            complete: map(offsets.cr, 8, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?,
            fill: map(offsets.fr, 8, libc::XDP_UMEM_PGOFF_FILL_RING)?,
            fd,
        })
    }

    /// Binds it to a queue of an interface, in copy mode.
    pub fn bind(&self, index: u32, queue: u32) -> Result<(), Errno> {
        let address = libc::sockaddr_xdp {
            sxdp_family: u16::try_from(libc::AF_XDP).unwrap_or(44),
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        bind(&self.fd, &address)
    }

    /// Its descriptor.
    pub fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Puts a piece of the umem into the transmit ring. `false`: the ring is full.
    pub fn offer(&self, offset: u64, len: u32) -> bool {
        self.transmit.produce(|ring, place| {
            ring.word(place, 16, 0).store(offset, Ordering::Relaxed);
            ring.word(place, 16, 8)
                .store(u64::from(len), Ordering::Relaxed);
        })
    }

    /// Lets the kernel send what is in the transmit ring.
    pub fn kick(&self) -> Result<(), Errno> {
        // SAFETY: no buffer is given.
        let sent = check("sendto", unsafe {
            let sent = libc::sendto(
                self.raw(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            );
            i32::try_from(sent).unwrap_or(0)
        });
        sent.map(drop)
    }

    /// Takes one transmitted piece back: its place in the umem.
    pub fn completed(&self) -> Option<u64> {
        self.complete
            .consume(|ring, place| ring.word(place, 8, 0).load(Ordering::Relaxed))
    }

    /// Gives the kernel a frame of the umem to receive into. `false`: the ring is full.
    pub fn give(&self, offset: u64) -> bool {
        self.fill
            .produce(|ring, place| ring.word(place, 8, 0).store(offset, Ordering::Relaxed))
    }

    /// Takes a received frame: its place in the umem and its length.
    pub fn received(&self) -> Option<(u64, u64)> {
        self.receive.consume(|ring, place| {
            let addr = ring.word(place, 16, 0).load(Ordering::Relaxed);
            let len = ring.word(place, 16, 8).load(Ordering::Relaxed);
            (addr, len & u64::from(u32::MAX))
        })
    }
}

impl Ring {
    fn map(
        fd: &OwnedFd,
        offsets: libc::xdp_ring_offset,
        entry: usize,
        place: u64,
    ) -> Result<Self, Errno> {
        let start = usize::try_from(offsets.desc).unwrap_or(usize::MAX);
        let len = start.saturating_add(entry * ENTRIES as usize);
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let span = memory::map(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            Some(fd.as_raw_fd()),
            i64::try_from(place).unwrap_or(0),
        )?;
        Ok(Self { span, offsets })
    }

    fn index(&self, offset: u64) -> &AtomicU32 {
        let offset = usize::try_from(offset).unwrap_or(0);
        let pointer = self.span.pointer().wrapping_byte_add(offset);
        // SAFETY: the kernel's offset lies in the mapping, is aligned, and the mapping lives as long as `self`.
        unsafe { AtomicU32::from_ptr(pointer.cast()) }
    }

    fn word(&self, place: u32, entry: usize, offset: usize) -> &AtomicU64 {
        let desc = usize::try_from(self.offsets.desc).unwrap_or(0);
        let place = (place & (ENTRIES - 1)) as usize;
        let pointer = self
            .span
            .pointer()
            .wrapping_byte_add(desc + place * entry + offset);
        // SAFETY: the place is masked to the ring, whose entries are aligned to 8 and lie in the mapping.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    fn produce(&self, put: impl FnOnce(&Self, u32)) -> bool {
        let produced = self.index(self.offsets.producer).load(Ordering::Relaxed);
        let consumed = self.index(self.offsets.consumer).load(Ordering::Acquire);
        if produced.wrapping_sub(consumed) >= ENTRIES {
            return false;
        }
        put(self, produced);
        let next = produced.wrapping_add(1);
        self.index(self.offsets.producer)
            .store(next, Ordering::Release);
        true
    }

    fn consume<T>(&self, take: impl FnOnce(&Self, u32) -> T) -> Option<T> {
        let produced = self.index(self.offsets.producer).load(Ordering::Acquire);
        let consumed = self.index(self.offsets.consumer).load(Ordering::Relaxed);
        if produced == consumed {
            return None;
        }
        let taken = take(self, consumed);
        let next = consumed.wrapping_add(1);
        self.index(self.offsets.consumer)
            .store(next, Ordering::Release);
        Some(taken)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A ring that stays mapped harms nobody but keeps its socket.
        let _ = memory::unmap(self.span);
    }
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the value is a live C struct of that length.
    check("setsockopt", unsafe {
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, value, len)
    })
    .map(drop)
}

fn offsets(fd: &OwnedFd) -> Result<libc::xdp_mmap_offsets, Errno> {
    // SAFETY: the struct is plain data for which zeros are valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&offsets)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes into a struct of that length.
    check("getsockopt", unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut len,
        )
    })?;
    Ok(offsets)
}
