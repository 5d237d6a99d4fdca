//! The guest's memory map (e820), one for both boot protocols.

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::layout::{CONVENTIONAL_END, HIMEM_START};

/// What a range is, in e820's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// Usable RAM.
    Ram = 1,
    /// Not for the guest's allocator.
    Reserved = 2,
}

/// One range of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: MapKind,
}

/// The map of a machine with the RAM `memory`: the space between conventional memory and 1 MiB is
/// reserved, since ACPI tables live there.
#[must_use]
pub fn of(memory: &GuestMemoryMmap) -> Vec<MapEntry> {
    let mut map = vec![
        MapEntry {
            start: 0,
            len: CONVENTIONAL_END,
            kind: MapKind::Ram,
        },
        MapEntry {
            start: CONVENTIONAL_END,
            len: HIMEM_START - CONVENTIONAL_END,
            kind: MapKind::Reserved,
        },
    ];
    for region in memory.iter() {
        let start = region.start_addr().raw_value().max(HIMEM_START);
        let end = region.last_addr().raw_value() + 1;
        if end > start {
            map.push(MapEntry {
                start,
                len: end - start,
                kind: MapKind::Ram,
            });
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    #[test]
    fn ram_ends_at_the_hole_and_goes_on_above_it() {
        let ranges = [(GuestAddress(0), 4 << 20), (GuestAddress(1 << 32), 1 << 20)];
        let map = of(&GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let ram: Vec<_> = map
            .iter()
            .filter(|e| e.kind == MapKind::Ram)
            .map(|e| (e.start, e.len))
            .collect();
        assert_eq!(
            ram,
            [
                (0, CONVENTIONAL_END),
                (HIMEM_START, 3 << 20),
                (1 << 32, 1 << 20)
            ]
        );
    }
}
