//! What devices did wrong because the plan wanted it, and for whom that is an excuse.
//!
//! Promises that every fault that the log tells of is in one of the questions below, so that an oracle which asks the
//! right one never takes it for a guest's doing. An interrupt that is put off and completions in another order are none: every
//! correct device may do that.

use pincushion_devices::trace::event::{Direction, Fault, GuestRange, Status};

use super::history::Timeline;
use super::request::{Misdeed, Request, Stamp};

/// What a fault spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoils {
    /// Nothing that a guest may rely on.
    Nothing,
    /// The bytes that this request moved, or the word about them.
    Data,
    /// Memory that the device did not own.
    Memory,
    /// The guest's knowledge of what is complete: it may use frames that the device still owns, or wait for ever.
    Knowledge,
}

/// What a fault spoils.
fn spoils(fault: &Fault) -> Spoils {
    match fault {
        Fault::Short { .. } | Fault::Torn { .. } | Fault::Corrupt { .. } | Fault::Status { .. } => {
            Spoils::Data
        }
        Fault::LateTouch { .. } | Fault::RogueTouch { .. } => Spoils::Memory,
        Fault::Duplicate | Fault::InterruptDropped | Fault::NeedsReset => Spoils::Knowledge,
        Fault::Reordered { .. }
        | Fault::InterruptCoalesced
        | Fault::InterruptSpurious
        | Fault::ConfigChanges { .. } => Spoils::Nothing,
    }
}

impl Request {
    /// Whether its bytes, or the word about them, were made wrong.
    #[must_use]
    pub fn was_spoiled(&self) -> bool {
        self.was_failed_by_plan()
            || self
                .faults
                .iter()
                .any(|misdeed| spoils(&misdeed.fault) == Spoils::Data)
    }

    /// Whether the guest took bytes for good, in memory or on a disk, that were not.
    fn deceived(&self) -> bool {
        self.faults.iter().any(|misdeed| match misdeed.fault {
            // Who is told that it failed does not rely on it.
            Fault::Status { .. } => self.used.is_none_or(|(_, told)| told == Status::Ok),
            _ => spoils(&misdeed.fault) != Spoils::Nothing,
        })
    }

    /// Whether it was to wait for others before its completion.
    #[must_use]
    pub fn was_gathered(&self) -> bool {
        let mut words = self
            .applied
            .iter()
            .flat_map(|applied| applied.action.split(", "));
        words.any(|word| word.starts_with("reorder"))
    }
}

impl Timeline {
    /// Every fault that acted, with the request that it acted on, in the order of their fetch.
    pub fn misdeeds(&self) -> impl Iterator<Item = (&Request, &Misdeed)> {
        self.requests
            .iter()
            .flat_map(|request| request.faults.iter().map(move |misdeed| (request, misdeed)))
    }

    /// Whether a device wrote any of these bytes between two events although it did not own them, because the plan wanted it.
    #[must_use]
    pub fn touched_by_plan(&self, ranges: &[GuestRange], from: u64, until: u64) -> bool {
        self.misdeeds().any(|(_, misdeed)| {
            let touched = match &misdeed.fault {
                Fault::LateTouch { ranges } => ranges.as_slice(),
                Fault::RogueTouch { range } => std::slice::from_ref(range),
                _ => &[],
            };
            // One that is not told to have ended lasted as long as it needed.
            misdeed.span.meets(from, until)
                && touched
                    .iter()
                    .any(|theirs| ranges.iter().any(|ours| ours.overlaps(*theirs)))
        })
    }

    /// Whether a device wrote memory that it did not own before an event of this boot, because the plan wanted it: in this boot, or
    /// in an earlier one into a region of persistent memory, which outlives a boot.
    #[must_use]
    pub fn memory_was_spoiled(&self, boot: u32, before: u64) -> bool {
        self.acted(boot, before, |_, fault| spoils(fault) == Spoils::Memory)
            || self
                .devices
                .values()
                .filter_map(|device| device.region)
                .any(|region| self.touched_by_plan(&[region], 0, before))
    }

    /// Whether a device wrote into the region of persistent memory of this name what it did not own, before an event.
    #[must_use]
    pub fn region_was_spoiled(&self, device: &str, before: u64) -> bool {
        let region = self.devices.get(device).and_then(|device| device.region);
        region.is_some_and(|region| self.touched_by_plan(&[region], 0, before))
    }

    /// Whether the guest may have believed something wrong about what a device had completed at an event: then it may use
    /// frames that the device still owned, without any fault of its own.
    #[must_use]
    pub fn guest_was_misled(&self, device: &str, boot: u32, before: u64) -> bool {
        self.acted(boot, before, |request, fault| {
            request.id.device == device && *fault == Fault::Duplicate
        })
    }

    /// Whether a device may have left the guest waiting for a completion at an event.
    #[must_use]
    pub fn guest_was_left_waiting(&self, boot: u32, before: u64) -> bool {
        self.acted(boot, before, |_, fault| spoils(fault) == Spoils::Knowledge)
    }

    /// Whether a device had asked for a reset, and so was at rest, at an event.
    #[must_use]
    pub fn had_asked_for_reset(&self, device: &str, boot: u32, before: u64) -> bool {
        self.acted(boot, before, |request, fault| {
            request.id.device == device && *fault == Fault::NeedsReset
        })
    }

    /// Whether bytes of a disk, or the word about them, were made wrong before an event, in this boot or an earlier one.
    #[must_use]
    pub fn disk_was_spoiled(&self, device: &str, before: Stamp) -> bool {
        let theirs = |request: &&Request| request.id.device == device && request.fetched < before;
        self.requests.iter().filter(theirs).any(Request::deceived)
    }

    /// Whether the bytes that a device put into these frames, before an event, were not those that it acknowledged.
    #[must_use]
    pub fn source_was_spoiled(&self, frames: &[u64], before: Stamp) -> bool {
        self.requests
            .iter()
            .filter(|request| request.direction() == Some(Direction::FromDevice))
            .filter(|request| request.fetched < before && request.deceived())
            .any(|request| {
                let mut theirs = request.ranges.iter().flat_map(|range| range.frames());
                theirs.any(|frame| frames.contains(&frame))
            })
    }

    fn acted(&self, boot: u32, before: u64, what: impl Fn(&Request, &Fault) -> bool) -> bool {
        self.misdeeds().any(|(request, misdeed)| {
            request.boot == boot && misdeed.span.began.seq < before && what(request, &misdeed.fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Operation};

    use super::*;
    use crate::timeline::script::{Script, frame, id};

    #[test]
    fn a_planned_touch_lasts_from_its_word_to_its_end() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        let ranges = vec![frame(7)];
        let began = script.fault("b#0", Fault::LateTouch { ranges });
        let ended = script.push(EventKind::FaultTouchEnded { request: id("b#0") });
        let timeline = script.timeline();
        assert!(
            timeline.anomalies.is_empty(),
            "a planned touch is no anomaly"
        );
        assert!(timeline.stray_touches.is_empty());
        assert!(timeline.touched_by_plan(&[frame(7)], began, ended));
        assert!(!timeline.touched_by_plan(&[frame(8)], began, ended));
        assert!(!timeline.touched_by_plan(&[frame(7)], ended, ended + 9));
        assert!(timeline.memory_was_spoiled(1, ended) && !timeline.memory_was_spoiled(2, ended));
    }

    #[test]
    fn what_a_touch_did_to_a_region_outlives_the_boot() {
        let region = GuestRange {
            addr: 1 << 32,
            len: 32 << 20,
        };
        let spoiled_in_boot_2 = |addr: u64| {
            let mut script = Script::booted();
            script.region("p", region);
            script.whole("b#0", Operation::Read, frame(7));
            let range = GuestRange { addr, len: 64 };
            script.fault("b#0", Fault::RogueTouch { range });
            script.push(EventKind::FaultTouchEnded { request: id("b#0") });
            let now = script.push(EventKind::BootBegan { boot: 2 });
            let timeline = script.timeline();
            assert!(!timeline.region_was_spoiled("b", now));
            (
                timeline.memory_was_spoiled(2, now),
                timeline.region_was_spoiled("p", now),
            )
        };
        assert_eq!(spoiled_in_boot_2(region.addr + 4096), (true, true));
        assert_eq!(spoiled_in_boot_2(4096), (false, false));
    }

    #[test]
    fn who_is_told_of_a_failure_is_not_deceived() {
        for (told, deceived) in [(Status::Ok, true), (Status::Ioerr, false)] {
            let mut script = Script::booted();
            script.fetch("a#0", Operation::Write, frame(7));
            script.fault("a#0", Fault::Status { worked: None });
            script.push(EventKind::Used {
                request: id("a#0"),
                head: 0,
                status: told,
                written: 1,
            });
            let timeline = script.timeline();
            let now = timeline.last.unwrap();
            let later = Stamp {
                seq: now.seq + 1,
                ..now
            };
            assert_eq!(timeline.disk_was_spoiled("a", later), deceived, "{told}");
            assert!(!timeline.disk_was_spoiled("b", later));
        }
    }

    #[test]
    fn what_any_correct_device_may_do_spoils_nothing() {
        for fault in [
            Fault::InterruptCoalesced,
            Fault::InterruptSpurious,
            Fault::Reordered { place: 1, of: 2 },
            Fault::ConfigChanges { count: 9 },
        ] {
            assert_eq!(spoils(&fault), Spoils::Nothing, "{fault:?}");
        }
    }
}
