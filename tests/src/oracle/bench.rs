//! Where the oracles sit: they see each event with the timeline up to it, and say their opinion when they are asked.

use std::collections::BTreeMap;

use pincushion_devices::trace::event::Event;

use super::{
    broken_filesystem::BrokenFilesystem, dax_block_reused::DaxBlockReused,
    dma_into_freed_frame::DmaIntoFreedFrame, guest_splat::GuestSplat, leaked_hold::LeakedHold,
    lost_after_power_cut::LostAfterPowerCut, lost_completion::LostCompletion,
    lost_dma_data::LostDmaData, lying_flush::LyingFlush, must_hold::MustHold,
    pins_balanced::PinsBalanced, touch_after_completion::TouchAfterCompletion,
    unexplained_fsync_error::UnexplainedFsyncError, unstable_payload::UnstablePayload,
    write_while_frozen::WriteWhileFrozen, writeback_of_held_page::WritebackOfHeldPage,
};
use crate::timeline::Timeline;
use crate::verdict::{Certainty, Finding, Promise};

/// What oracles have to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opinion {
    /// What they found.
    pub findings: Vec<Finding>,
    /// What they only counted, by `oracle.what`.
    pub counts: BTreeMap<String, u64>,
}

impl Opinion {
    /// Adds to a count; a count of nothing is not noted.
    pub fn count(&mut self, name: &str, by: u64) {
        if by > 0 {
            *self.counts.entry(name.to_owned()).or_default() += by;
        }
    }
}

/// Looks for one kind of broken promise.
///
/// An oracle reads events and the timeline, nothing else: no clock, no file, no guest.
pub trait Oracle {
    /// The name that scenarios and findings use.
    fn name(&self) -> &'static str;

    /// The next event; `timeline` has taken it already. For what can only be seen at the moment.
    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        let _ = (event, timeline);
    }

    /// What is to be said up to now. May be asked at any time.
    fn say(&self, timeline: &Timeline, opinion: &mut Opinion);
}

/// All oracles, in the order in which reports name them.
#[must_use]
pub fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(WritebackOfHeldPage::default()),
        Box::new(UnstablePayload::default()),
        Box::new(WriteWhileFrozen),
        Box::new(LostDmaData),
        Box::new(UnexplainedFsyncError),
        Box::new(MustHold),
        Box::new(DmaIntoFreedFrame::default()),
        Box::new(DaxBlockReused),
        Box::new(GuestSplat::default()),
        Box::new(BrokenFilesystem),
        Box::new(PinsBalanced::default()),
        Box::new(LeakedHold::default()),
        Box::new(LostCompletion),
        Box::new(TouchAfterCompletion),
        Box::new(LyingFlush),
        Box::new(LostAfterPowerCut),
    ]
}

/// The timeline and those who watch it.
pub struct Bench {
    timeline: Timeline,
    oracles: Vec<Box<dyn Oracle>>,
}

impl Default for Bench {
    fn default() -> Self {
        Self {
            timeline: Timeline::default(),
            oracles: all(),
        }
    }
}

impl Bench {
    /// Takes the next event.
    pub fn feed(&mut self, event: &Event) {
        self.timeline.feed(event);
        for oracle in &mut self.oracles {
            oracle.feed(event, &self.timeline);
        }
    }

    /// What is known.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Keeps what is known and lets the oracles go.
    #[must_use]
    pub fn into_timeline(self) -> Timeline {
        self.timeline
    }

    /// What all oracles have to say up to now, certain findings first.
    #[must_use]
    pub fn opinion(&self) -> Opinion {
        let mut opinion = Opinion::default();
        for oracle in &self.oracles {
            oracle.say(&self.timeline, &mut opinion);
        }
        opinion
            .findings
            .sort_by_key(|finding| std::cmp::Reverse(finding.certainty));
        opinion
    }
}

/// Puts findings with the same title together, since a title is what people and suites count by: the first tells its story, the others add
/// their frames and are counted in its text.
pub(super) fn merge(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<(Finding, usize)> = Vec::new();
    for finding in findings {
        let same = merged.iter_mut().find(|(first, _)| {
            first.title == finding.title
                && first.certainty == finding.certainty
                && first.promise == finding.promise
        });
        match same {
            Some((first, others)) => {
                first.frames.extend(finding.frames);
                *others += 1;
            }
            None => merged.push((finding, 0)),
        }
    }
    let told = |(mut finding, others): (Finding, usize)| {
        if others > 0 {
            finding.text += &format!(
                " It happened {} times in this run; this was the clearest.",
                others + 1
            );
        }
        finding.frames.sort_unstable();
        finding.frames.dedup();
        finding.evidence.sort_unstable();
        finding.evidence.dedup();
        finding
    };
    merged.into_iter().map(told).collect()
}

/// A finding about the machine: nothing that the guest did.
pub(super) fn machine_finding(
    oracle: &str,
    title: &str,
    text: String,
    evidence: Vec<u64>,
) -> Finding {
    Finding {
        oracle: oracle.to_owned(),
        title: title.to_owned(),
        promise: Promise::Machine,
        certainty: Certainty::Certain,
        text,
        evidence,
        frames: Vec::new(),
    }
}

/// Runs one oracle over a story.
#[cfg(test)]
pub(super) fn ask(mut oracle: impl Oracle, script: &crate::timeline::script::Script) -> Opinion {
    let mut timeline = Timeline::default();
    for event in &script.events {
        timeline.feed(event);
        oracle.feed(event, &timeline);
    }
    let mut opinion = Opinion::default();
    oracle.say(&timeline, &mut opinion);
    for finding in &opinion.findings {
        assert_eq!(finding.oracle, oracle.name());
    }
    opinion
}
