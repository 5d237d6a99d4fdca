//! Looks for held frames in a piece of memory, without a look at each frame: where nothing was ever held there are no counters.

use crate::trace::event::{FRAME_SIZE, GuestRange, HeldFrames};

use super::{Held, Ledger, NEIGHBOURS, Table, low};

impl Ledger {
    /// Frames of `range` that devices hold now, by queue, ascending; frames side by side that are held alike are one range.
    #[must_use]
    pub fn held_within(&self, range: GuestRange) -> Vec<HeldFrames> {
        let mut found = Vec::new();
        for table in self.tables() {
            table.held_within(range, &mut found);
        }
        found
    }
}

impl Table {
    fn held_within(&self, range: GuestRange, found: &mut Vec<HeldFrames>) {
        if range.len == 0 {
            return;
        }
        let end = range.addr.saturating_add(range.len - 1) / FRAME_SIZE + 1;
        let mut frame = range.addr / FRAME_SIZE;
        while frame < end {
            let neighbourhood = frame / NEIGHBOURS;
            let next = end.min((neighbourhood + 1) * NEIGHBOURS);
            if self.get(neighbourhood).is_some() {
                for frame in frame..next {
                    let count = self.count(frame);
                    if count != 0 {
                        let held = Held {
                            device: self.device.clone(),
                            to_device: low(count),
                            from_device: low(count >> 32),
                        };
                        add(found, frame, held);
                    }
                }
            }
            frame = next;
        }
    }
}

/// Adds a frame to the list, or to its last range if that ends here and is held alike.
fn add(found: &mut Vec<HeldFrames>, frame: u64, held: Held) {
    let addr = frame * FRAME_SIZE;
    if let Some(last) = found.last_mut()
        && last.range.addr + last.range.len == addr
        && (last.to_device, last.from_device) == (held.to_device, held.from_device)
        && last.device == held.device
    {
        last.range.len += FRAME_SIZE;
        return;
    }
    found.push(HeldFrames {
        range: GuestRange {
            addr,
            len: FRAME_SIZE,
        },
        device: held.device,
        to_device: held.to_device,
        from_device: held.from_device,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::Direction;

    fn pages(first: u64, count: u64) -> GuestRange {
        GuestRange {
            addr: first * FRAME_SIZE,
            len: count * FRAME_SIZE,
        }
    }

    #[test]
    fn held_frames_are_found_over_the_borders_of_neighbourhoods_and_no_others() {
        let ledger = Ledger::default();
        let mut a = ledger.shard("a", 4 * NEIGHBOURS);
        let mut b = ledger.shard("b", 4 * NEIGHBOURS);
        let border = pages(2 * NEIGHBOURS - 1, 2);
        let write = a.open(Direction::FromDevice, &[border]);
        let half = GuestRange {
            addr: border.addr + FRAME_SIZE + 512,
            len: 512,
        };
        let read = b.open(Direction::ToDevice, &[half]);

        let all = ledger.held_within(pages(0, 4 * NEIGHBOURS));
        let told: Vec<_> = all
            .iter()
            .map(|held| {
                (
                    held.device.as_str(),
                    held.range,
                    held.to_device,
                    held.from_device,
                )
            })
            .collect();
        let second = pages(2 * NEIGHBOURS, 1);
        assert_eq!(told, [("a", border, 0, 1), ("b", second, 1, 0)]);
        assert_eq!(ledger.held_within(second).len(), 2);
        assert!(ledger.held_within(pages(0, 2 * NEIGHBOURS - 1)).is_empty());
        assert!(
            ledger
                .held_within(GuestRange {
                    addr: border.addr,
                    len: 0
                })
                .is_empty()
        );

        write.complete(&mut a, &[border]);
        read.complete(&mut b, &[half]);
        assert!(ledger.held_within(pages(0, 4 * NEIGHBOURS)).is_empty());
        let end = GuestRange {
            addr: !0xfff,
            len: 0x1000,
        };
        assert!(ledger.held_within(end).is_empty());
    }
}
