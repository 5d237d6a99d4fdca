//! What the page needs of a run's log: its timeline, and the events that prove the findings.

use std::collections::{BTreeMap, BTreeSet};

use pincushion_devices::trace::event::Event;

use crate::report::RunSummary;
use crate::timeline::{ReadError, Reader, Timeline};

/// A run's log, read once.
pub(super) struct Evidence {
    pub(super) timeline: Timeline,
    /// Events by their place, only those that a finding names.
    pub(super) events: BTreeMap<u64, Event>,
}

impl Evidence {
    /// Reads the log of a run directory.
    ///
    /// # Errors
    /// A log that is missing or is none.
    pub(super) fn read(run: &RunSummary) -> Result<Self, ReadError> {
        let wanted: BTreeSet<u64> = run
            .judgement
            .findings
            .iter()
            .flat_map(|finding| finding.evidence.iter().copied())
            .collect();
        let mut timeline = Timeline::default();
        let mut events = BTreeMap::new();
        for event in Reader::open(&run.run_dir.join("events.jsonl"))? {
            let event = event?;
            timeline.feed(&event);
            if wanted.contains(&event.seq.0) {
                events.insert(event.seq.0, event);
            }
        }
        Ok(Self { timeline, events })
    }
}
