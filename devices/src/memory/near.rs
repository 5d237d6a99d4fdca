//! Guest memory with one of its regions remembered.
//!
//! What belongs to one request, and what belongs to one queue, is nearly always in one region, so that all accesses
//! but the first cost two comparisons instead of a search. It is a [`GuestMemory`] that gives the same answers as the
//! whole memory to every question, so virtio-queue works on it as it does on any other.

use std::iter::FusedIterator;

use vm_memory::guest_memory::{GuestMemoryBackendSliceIterator, GuestMemorySliceIterator};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestMemoryResult, Permissions, VolatileSlice,
};

use crate::trace::event::GuestRange;

use super::contains;

/// Guest memory with one of its regions remembered.
#[derive(Debug, Clone, Copy)]
pub struct Near<'m> {
    memory: &'m GuestMemoryMmap<()>,
    start: u64,
    region: VolatileSlice<'m>,
}

impl<'m> Near<'m> {
    /// Remembers the region of an address; `None` if that is not in guest memory.
    #[inline]
    #[must_use]
    pub fn new(memory: &'m GuestMemoryMmap<()>, addr: u64) -> Option<Self> {
        let region = memory.find_region(GuestAddress(addr))?;
        Some(Self {
            memory,
            start: region.start_addr().0,
            region: region.as_volatile_slice().ok()?,
        })
    }

    /// All of guest memory.
    #[must_use]
    pub fn memory(&self) -> &'m GuestMemoryMmap<()> {
        self.memory
    }

    /// Whether all of a range is guest memory, as [`contains`] says.
    #[inline]
    #[must_use]
    pub fn contains(&self, range: GuestRange) -> bool {
        let (offset, len) = (
            range.addr.wrapping_sub(self.start),
            self.region.len() as u64,
        );
        (offset < len && range.len <= len - offset) || contains(self.memory, range)
    }

    /// A piece of the remembered region, if all of it is there.
    #[inline]
    fn slice(&self, addr: GuestAddress, count: usize) -> Option<VolatileSlice<'m>> {
        let offset = usize::try_from(addr.0.wrapping_sub(self.start)).ok()?;
        self.region.subslice(offset, count).ok()
    }
}

impl GuestMemory for Near<'_> {
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, _access: Permissions) -> bool {
        GuestMemoryBackend::check_range(self.memory, addr, count)
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        _access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, ()>> {
        let slice = self.slice(addr, count).filter(|_| count > 0);
        Ok(match slice {
            Some(slice) => Slices::Near(Some(slice)),
            None => Slices::Far(GuestMemoryBackend::get_slices(self.memory, addr, count)),
        })
    }

    fn physical_memory(&self) -> Option<&GuestMemoryMmap<()>> {
        Some(self.memory)
    }
}

/// The pieces of a range: one in the remembered region, or as the whole memory cuts it.
enum Slices<'a> {
    Near(Option<VolatileSlice<'a>>),
    Far(GuestMemoryBackendSliceIterator<'a, GuestMemoryMmap<()>>),
}

impl<'a> Iterator for Slices<'a> {
    type Item = GuestMemoryResult<VolatileSlice<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Near(slice) => slice.take().map(Ok),
            Self::Far(slices) => slices.next(),
        }
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use vm_memory::Bytes;

    use super::*;
    use crate::memory::write;

    const EDGES: [u64; 9] = [
        0,
        1,
        0x3fff,
        0x4000,
        0x7fff,
        0x8000,
        0xbfff,
        0xc000,
        u64::MAX,
    ];

    /// Two regions side by side, a hole, and a third.
    fn memory() -> GuestMemoryMmap<()> {
        let regions = [(0, 0x2000), (0x2000, 0x2000), (0x8000, 0x4000)];
        let regions = regions.map(|(addr, len)| (GuestAddress(addr), len));
        let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
        let counting: Vec<u8> = (0..0x4000).map(|at: u32| at.to_le_bytes()[0]).collect();
        for addr in [0, 0x8000] {
            let range = GuestRange { addr, len: 0x4000 };
            write(&memory, &[range], &counting).unwrap();
        }
        memory
    }

    #[test]
    fn a_remembered_region_changes_no_answer() {
        let memory = memory();
        assert!(Near::new(&memory, 0x4000).is_none());
        for near in [0, 0x2000, 0x3fff, 0x8000, 0xbfff] {
            let near = Near::new(&memory, near).unwrap();
            for addr in EDGES.into_iter().chain([0x1fff, 0x2000]) {
                let at = GuestAddress(addr);
                for len in [0, 1, 2, 0x3fff, 0x4000, 0x4001, 0xc000, u64::MAX] {
                    let range = GuestRange { addr, len };
                    assert_eq!(near.contains(range), contains(&memory, range), "{range:x?}");
                }
                let mut bytes = [[0xee; 3]; 2];
                let read = near.read(&mut bytes[0], at).ok();
                assert_eq!(read, memory.read(&mut bytes[1], at).ok(), "{addr:x}");
                assert_eq!(bytes[0], bytes[1], "{addr:x}");
                let (read, expected) = (near.read_obj::<u16>(at), memory.read_obj(at));
                assert_eq!(read.ok(), expected.ok(), "{addr:x}");
                let loaded = near.load::<u16>(at, Ordering::Relaxed).ok();
                assert_eq!(loaded, memory.load(at, Ordering::Relaxed).ok(), "{addr:x}");
            }
        }
    }

    #[test]
    fn what_is_written_near_is_there_for_all() {
        let memory = memory();
        let near = Near::new(&memory, 0).unwrap();
        for addr in [0, 0x1ffe, 0x1fff, 0x3fff, 0x8000] {
            let bytes = [0xa0, 0xb1, 0xc2];
            let written = near.write(&bytes, GuestAddress(addr)).unwrap();
            let mut read = [0; 3];
            assert_eq!(memory.read(&mut read, GuestAddress(addr)).unwrap(), written);
            assert_eq!(read[..written], bytes[..written], "{addr:x}");
        }
        assert!(near.write(&[1], GuestAddress(0x4000)).is_err());
        assert_eq!(near.write(&[], GuestAddress(0)).unwrap(), 0);
    }
}
