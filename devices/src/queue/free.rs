//! Frames that the guest gives up: what a device still holds of them is kept.

use crate::backend::Buffers;
use crate::trace::event::{EventKind, FRAME_SIZE, GuestRange, HeldFrames};

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::logic::Logic;
use super::run::guest_buffers;

impl<L: Logic> Core<L> {
    /// Asks the ledger about the frames of a request and says what it answered. Gives those that nobody holds.
    ///
    /// A hold that opens after this look is of a frame which the guest had called free before it gave it to the device: it
    /// may find zeros there, and the log has both events.
    pub(super) fn free_buffers(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
    ) -> Buffers {
        let slot = queue.in_flight.slot(index);
        let ledger = self.context.ledger();
        let held: Vec<HeldFrames> = slot
            .ranges
            .iter()
            .flat_map(|range| ledger.held_within(*range))
            .collect();
        let free = if held.is_empty() {
            slot.ranges.clone()
        } else {
            without(&slot.ranges, &held)
        };
        let bytes = free.iter().map(|range| range.len).sum();
        self.emit(|| EventKind::FramesFreed {
            request: self.request_id(slot.ordinal),
            bytes,
            held,
        });
        guest_buffers(self.spare.buffers.pop(), &queue.memory, &free)
    }
}

/// Ranges of whole frames without those that are held, ascending if they are.
fn without(ranges: &[GuestRange], held: &[HeldFrames]) -> Vec<GuestRange> {
    let mut kept: Vec<u64> = held.iter().flat_map(|held| held.range.frames()).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut free = Vec::new();
    for range in ranges {
        let (mut addr, end) = (range.addr, range.addr.saturating_add(range.len));
        let first = kept.partition_point(|frame| *frame < addr / FRAME_SIZE);
        for frame in &kept[first..] {
            let at = frame * FRAME_SIZE;
            if at >= end {
                break;
            }
            push(&mut free, addr, at);
            addr = at + FRAME_SIZE;
        }
        push(&mut free, addr, end);
    }
    free
}

fn push(into: &mut Vec<GuestRange>, addr: u64, end: u64) {
    if addr < end {
        let len = end - addr;
        into.push(GuestRange { addr, len });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> GuestRange {
        GuestRange {
            addr: first * FRAME_SIZE,
            len: count * FRAME_SIZE,
        }
    }

    fn held(range: GuestRange) -> HeldFrames {
        HeldFrames {
            range,
            device: "a".into(),
            to_device: 1,
            from_device: 0,
        }
    }

    #[test]
    fn held_frames_are_cut_out_wherever_they_lie() {
        let ranges = [pages(2, 4), pages(8, 1), pages(16, 4)];
        // At the start, inside, a whole range, at the end; twice, as two devices would.
        let kept = [
            pages(2, 1),
            pages(4, 1),
            pages(4, 1),
            pages(8, 1),
            pages(18, 2),
        ];
        assert_eq!(
            without(&ranges, &kept.map(held)),
            [pages(3, 1), pages(5, 1), pages(16, 2)]
        );
        assert_eq!(without(&ranges, &[held(pages(30, 1))]), ranges);
        assert!(without(&ranges, &[held(pages(0, 32))]).is_empty());
    }
}
