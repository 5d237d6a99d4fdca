//! Copies and hashes of a payload.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use xxhash_rust::xxh3::xxh3_64;

use crate::memory::pieces;
use crate::trace::event::{FRAME_SIZE, GuestRange, PageHash};

use super::page_hash::hash;

/// Size of a guest frame as a length in the host's memory.
const FRAME: usize = 4096;
const _: () = assert!(FRAME as u64 == FRAME_SIZE);

/// Hashes payloads, one hash per piece of a guest frame.
pub(super) struct Hasher {
    scratch: Box<[u8; FRAME]>,
    pub(super) hashes: Vec<u64>,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            scratch: Box::new([0; FRAME]),
            hashes: Vec::new(),
        }
    }
}

impl Hasher {
    /// Hashes guest memory into `self.hashes`.
    pub(super) fn hash_guest(&mut self, memory: &GuestMemoryMmap<()>, ranges: &[GuestRange]) {
        self.hashes.clear();
        for piece in pieces(ranges) {
            let slice = memory.get_slice(GuestAddress(piece.addr), length(piece));
            // Pieces never cross a frame, so none lies across two mappings.
            let slice = slice.expect("the payload was checked when the chain was parsed");
            self.hashes.push(hash(&slice, &mut self.scratch));
        }
    }
}

/// Hashes the copy of a payload, cut like the guest memory it came from.
pub(super) fn hash_copy(copy: &[u8], ranges: &[GuestRange], hashes: &mut Vec<u64>) {
    hashes.clear();
    let mut left = copy;
    for piece in pieces(ranges) {
        let (now, later) = left.split_at(length(piece).min(left.len()));
        hashes.push(xxh3_64(now));
        left = later;
    }
}

/// As the event log spells it.
pub(super) fn spelled(ranges: &[GuestRange], hashes: &[u64]) -> Vec<PageHash> {
    let spell = |(range, hash): (GuestRange, &u64)| PageHash {
        range,
        hash: format!("{hash:016x}"),
    };
    pieces(ranges).zip(hashes).map(spell).collect()
}

fn length(piece: GuestRange) -> usize {
    usize::try_from(piece.len).unwrap_or(FRAME).min(FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_hashes_like_the_memory_it_came_from() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        let ranges = [
            GuestRange {
                addr: 0xff0,
                len: 0x1020,
            },
            GuestRange {
                addr: 0x3000,
                len: 512,
            },
        ];
        crate::memory::write(&memory, &ranges, &[7; 0x1220]).unwrap();
        let mut copy = Vec::new();
        crate::memory::read(&memory, &ranges, &mut copy).unwrap();

        let mut hasher = Hasher::default();
        hasher.hash_guest(&memory, &ranges);
        let mut of_copy = Vec::new();
        hash_copy(&copy, &ranges, &mut of_copy);
        assert_eq!(of_copy, hasher.hashes);
        assert_eq!(of_copy.len(), 4);
        assert_eq!(
            spelled(&ranges, &of_copy)[1].hash,
            format!("{:016x}", xxh3_64(&[7; 0x1000]))
        );
    }
}
