//! A hold that nobody gave back.
//!
//! Verifies that after a device reset none of that device's earlier holds is open, and that none is open when the log of an orderly end (power-off
//! or reset by the guest) is over. A leaked hold is a fault of the machine: its devices must complete or abandon each request.
//!
//! Does not verify machines that were stopped, hung, panicked or failed, nor a log without an end: there the holds of the last moment are
//! counted only.

use pincushion_devices::trace::event::{Event, EventKind};

use super::bench::{Opinion, Oracle, machine_finding, merge};
use crate::timeline::{Index, Request, Timeline};

const NAME: &str = "leaked-hold";

/// The oracle.
#[derive(Default)]
pub(super) struct LeakedHold {
    /// Holds that outlived a reset of their device: which, and the reset's place.
    across_reset: Vec<(Index, u64)>,
}

impl Oracle for LeakedHold {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        let EventKind::DeviceReset { device, .. } = &event.kind else {
            return;
        };
        let leaked = timeline
            .indices()
            .filter(|index| timeline[*index].id.device == *device && timeline[*index].is_held());
        self.across_reset
            .extend(leaked.map(|index| (index, event.seq.0)));
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for &(index, reset) in &self.across_reset {
            let request = &timeline[index];
            let text = format!(
                "The hold of the {} was still open after the reset of disk {}.",
                request.name(),
                request.id.device
            );
            findings.push(machine_finding(
                NAME,
                "a hold outlived its device's reset",
                text,
                evidence(request, reset),
            ));
        }
        let open = timeline
            .indices()
            .filter(|index| timeline[*index].is_held());
        for index in
            open.filter(|index| self.across_reset.iter().all(|(leaked, _)| leaked != index))
        {
            let request = &timeline[index];
            let boot = timeline
                .boots
                .iter()
                .find(|boot| boot.number == request.boot);
            match boot.and_then(|boot| boot.ended.as_ref()) {
                Some((at, how, _)) if matches!(how.as_str(), "power-off" | "reset") => {
                    let text = format!(
                        "The machine ended in order ({how}) and the hold of the {} was never closed.",
                        request.name()
                    );
                    findings.push(machine_finding(
                        NAME,
                        "a hold outlived the machine",
                        text,
                        evidence(request, at.seq),
                    ));
                }
                Some(_) | None => opinion.count("leaked-hold.open-at-a-sudden-end", 1),
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

fn evidence(request: &Request, end: u64) -> Vec<u64> {
    let opened = request.hold.as_ref().map(|hold| hold.span.began.seq);
    opened
        .into_iter()
        .chain([request.fetched.seq, end])
        .collect()
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{HoldEnd, Operation};

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    fn reset(script: &mut Script, device: &str) {
        script.push(EventKind::DeviceReset {
            device: device.to_owned(),
            abandoned: 1,
        });
    }

    #[test]
    fn a_hold_that_is_open_at_an_orderly_end_is_caught() {
        for how in ["power-off", "reset"] {
            let mut script = Script::booted();
            script.fetch("b#0", Operation::Read, frame(7));
            script.stop(how);
            let opinion = ask(LeakedHold::default(), &script);
            assert_eq!(
                opinion.findings[0].title, "a hold outlived the machine",
                "{how}"
            );
        }
    }

    #[test]
    fn a_hold_that_is_open_after_its_devices_reset_is_caught_once() {
        let mut script = Script::booted();
        script.fetch("b#0", Operation::Read, frame(7));
        reset(&mut script, "b");
        script.stop("power-off");
        let opinion = ask(LeakedHold::default(), &script);
        assert_eq!(opinion.findings.len(), 1);
        assert_eq!(
            opinion.findings[0].title,
            "a hold outlived its device's reset"
        );
    }

    #[test]
    fn holds_that_were_completed_or_abandoned_pass_also_when_the_machine_gave_them_back_after_its_end()
     {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.fetch("b#1", Operation::Read, frame(7));
        script.close("b#1", HoldEnd::Abandoned);
        reset(&mut script, "b");
        script.fetch("a#0", Operation::Read, frame(8));
        reset(&mut script, "b");
        script.stop("reset");
        script.close("a#0", HoldEnd::Abandoned);
        script.boot(2);
        script.stop("power-off");
        assert_eq!(ask(LeakedHold::default(), &script), Opinion::default());
    }

    #[test]
    fn a_sudden_end_is_not_judged() {
        for how in [
            Some("stopped"),
            Some("panic"),
            Some("hang"),
            Some("failed"),
            None,
        ] {
            let mut script = Script::booted();
            script.fetch("b#0", Operation::Read, frame(7));
            how.map(|how| script.stop(how));
            let opinion = ask(LeakedHold::default(), &script);
            assert!(opinion.findings.is_empty(), "{how:?}");
            assert_eq!(opinion.counts["leaked-hold.open-at-a-sudden-end"], 1);
        }
    }
}
