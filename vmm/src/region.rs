//! Regions of guest memory that are files: persistent memory, mapped shared above RAM.
//!
//! Promises: a region lies above RAM and above 4 GiB, on a boundary of [`PLACE_ALIGNMENT`]; its host mapping is aligned to
//! [`HUGE_PAGE`] wherever the address space allows it, so that KVM may map huge pages; it is one memory slot of its own. It is
//! never in the guest's memory map as RAM, never cleared by a reset, and the file's bytes are the guest's bytes at once.
//! It does not open, size or lock the file: that is the device's part (`pincushion_devices::pmem`), which allocates every block
//! first, since a store into a hole on a full disk would be a SIGBUS in this process.

use std::fs::File;
use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use pincushion_devices::device::Memory;
use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, VolatileMemory};

use crate::layout::HIGH_RAM_START;
use crate::memory;
use crate::store_log::StoreLog;

/// Size of the page that a region's addresses are aligned to, in the guest and on the host.
pub const HUGE_PAGE: u64 = 2 << 20;
/// Alignment of a region in guest memory: a memory section of Linux, so that no region shares one with RAM.
pub const PLACE_ALIGNMENT: u64 = 128 << 20;
/// Attempts to have the host place a mapping on a boundary of [`HUGE_PAGE`].
const ATTEMPTS: usize = 64;

/// Why a region could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The host could not map the file.
    #[error("cannot map {len} bytes of it into memory")]
    Map {
        /// Length in bytes.
        len: u64,
        /// Why.
        source: MmapRegionError,
    },
    /// The file's descriptor could not be shared.
    #[error("cannot share its descriptor")]
    Share(#[source] io::Error),
    /// It would lie where other memory is, or beyond the end of addresses.
    #[error("{len} bytes at guest address {start:#x} overlap other memory or the end of addresses")]
    Place {
        /// First guest physical address.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// A file as guest memory. Clones are the same mapping, which lives as long as the last of them and of the maps it is in.
#[derive(Debug, Clone)]
pub struct Region {
    start: u64,
    mapping: Arc<MmapRegion>,
    stores: Option<Arc<StoreLog>>,
}

impl Region {
    /// Maps the first `len` bytes of `file` shared, to be at guest address `start`.
    ///
    /// # Errors
    /// [`RegionError::Map`] and [`RegionError::Share`].
    pub fn map(file: &File, start: u64, len: u64) -> Result<Self, RegionError> {
        let mapping = aligned(file, len)?;
        let base = mapping.as_ptr() as u64;
        if !base.is_multiple_of(HUGE_PAGE) {
            log::warn!(
                "the region at {start:#x} is mapped at host address {base:#x}: without huge pages"
            );
        }
        Ok(Self {
            start,
            mapping: Arc::new(mapping),
            stores: None,
        })
    }

    /// Has KVM note which pages the guest stores to. Each page costs the guest a fault at its first store after [`Self::stored`].
    #[must_use]
    pub fn noting_stores(self) -> Self {
        Self {
            stores: Some(Arc::default()),
            ..self
        }
    }

    /// Whether KVM notes stores.
    pub(crate) fn notes_stores(&self) -> bool {
        self.stores.is_some()
    }

    /// A new VM has the region in this slot.
    pub(crate) fn connect(&self, vm: &Arc<VmFd>, slot: u32) {
        if let Some(stores) = &self.stores {
            stores.connect(vm, slot);
        }
    }

    /// Pages that the guest's CPUs have stored to since the last call, a bit for each; `None`: nobody knows, so any. Devices' writes are not
    /// among them.
    #[must_use]
    pub fn stored(&self) -> Option<Vec<u64>> {
        self.stores.as_ref()?.take(self.mapping.size())
    }

    /// Copies bytes out of it, as they are now.
    ///
    /// # Panics
    /// They are not within the region.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        let offset = usize::try_from(offset).expect("a 64-bit host maps 64-bit lengths");
        let slice = self.mapping.get_slice(offset, into.len());
        slice.expect("within the region").copy_to(into);
    }

    /// First guest physical address.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.mapping.size() as u64
    }

    /// Whether it has no byte; no region has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mapping.size() == 0
    }
}

/// Where regions of these lengths go in a machine with `ram` bytes of memory, in order.
#[must_use]
pub fn place(ram: u64, lengths: &[u64]) -> Vec<u64> {
    let end = memory::ranges(ram)
        .last()
        .map_or(0, |(start, len)| start + len);
    let mut next = end.max(HIGH_RAM_START);
    let place = |len: &u64| {
        let start = next.next_multiple_of(PLACE_ALIGNMENT);
        next = start.saturating_add(*len);
        start
    };
    lengths.iter().map(place).collect()
}

/// RAM and regions in one map: what devices may reach, and what KVM gets slots for.
///
/// # Errors
/// [`RegionError::Place`].
pub fn join(ram: &Memory, regions: &[Region]) -> Result<Memory, RegionError> {
    let mut all: GuestMemoryMmap = GuestMemoryMmap::clone(ram);
    for region in regions {
        let refused = || RegionError::Place {
            start: region.start,
            len: region.len(),
        };
        let start = GuestAddress(region.start);
        let piece = GuestRegionMmap::with_arc(region.mapping.clone(), start).ok_or_else(refused)?;
        all = all.insert_region(Arc::new(piece)).map_err(|_| refused())?;
    }
    Ok(Arc::new(all))
}

/// Maps the file until the host happens to place it on a boundary.
///
/// The host fills its address space from one end, so a pad of just what is too much moves the next mapping to the boundary. This needs no
/// address of our choosing, and so no unsafe code; with another thread that maps at the same time it may take some attempts.
fn aligned(file: &File, len: u64) -> Result<MmapRegion, RegionError> {
    let map = || {
        let file = file.try_clone().map_err(RegionError::Share)?;
        let size = usize::try_from(len).expect("a 64-bit host maps 64-bit lengths");
        MmapRegion::from_file(FileOffset::new(file, 0), size)
            .map_err(|source| RegionError::Map { len, source })
    };
    let mut pads: Vec<MmapRegion> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mapping = map()?;
        let excess = mapping.as_ptr() as u64 % HUGE_PAGE;
        if excess == 0 {
            return Ok(mapping);
        }
        drop(mapping);
        match MmapRegion::new(usize::try_from(excess).expect("less than a huge page")) {
            Ok(pad) => pads.push(pad),
            Err(_) => break,
        }
    }
    map()
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn regions_go_above_ram_and_above_four_gib_in_order() {
        const GIB: u64 = 1 << 30;
        assert_eq!(
            place(GIB, &[HUGE_PAGE, GIB]),
            [4 * GIB, 4 * GIB + PLACE_ALIGNMENT]
        );
        // RAM that goes on above 4 GiB, up to the middle of a section.
        assert_eq!(
            place(5 * GIB + HUGE_PAGE, &[GIB]),
            [6 * GIB + PLACE_ALIGNMENT]
        );
        assert!(place(GIB, &[]).is_empty());
    }

    #[test]
    fn what_a_device_writes_is_in_the_file_at_once_and_ram_keeps_its_own() {
        let ram: Memory = Arc::new(memory::create(memory::MIN_MEMORY).unwrap());
        let file = file(HUGE_PAGE);
        let start = place(memory::MIN_MEMORY, &[HUGE_PAGE])[0];
        let region = Region::map(&file, start, HUGE_PAGE).unwrap();
        let all = join(&ram, std::slice::from_ref(&region)).unwrap();
        all.write_obj(0x77u8, GuestAddress(start + 4097)).unwrap();
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 4097).unwrap();
        assert_eq!(byte, [0x77]);
        all.write_obj(1u8, GuestAddress(0)).unwrap();
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0)).unwrap(), 1);
        assert!(ram.find_region(GuestAddress(start)).is_none());
        // A second machine of the same run sees the same bytes.
        let again = join(&ram, &[region]).unwrap();
        assert_eq!(
            again.read_obj::<u8>(GuestAddress(start + 4097)).unwrap(),
            0x77
        );
    }

    #[test]
    fn the_host_mapping_is_aligned_for_huge_pages() {
        let file = file(3 * HUGE_PAGE);
        let regions: Vec<_> = (0..4)
            .map(|n| Region::map(&file, n << 32, 3 * HUGE_PAGE).unwrap())
            .collect();
        let all = join(
            &Arc::new(memory::create(memory::MIN_MEMORY).unwrap()),
            &regions[1..],
        )
        .unwrap();
        let aligned = all
            .iter()
            .skip(1)
            .filter(|region| (region.as_ptr() as u64).is_multiple_of(HUGE_PAGE));
        assert_eq!(aligned.count(), 3);
    }

    #[test]
    fn regions_that_overlap_or_leave_the_address_space_are_refused() {
        let ram: Memory = Arc::new(memory::create(memory::MIN_MEMORY).unwrap());
        let file = file(HUGE_PAGE);
        for starts in [vec![0], vec![1 << 32, 1 << 32], vec![u64::MAX - 4095]] {
            let regions: Vec<_> = starts
                .iter()
                .map(|start| Region::map(&file, *start, HUGE_PAGE).unwrap())
                .collect();
            let refused = join(&ram, &regions);
            assert!(
                matches!(refused, Err(RegionError::Place { .. })),
                "{starts:x?}"
            );
        }
    }
}
