//! What there is to see of one frame: lanes, bars in them, the columns of the axis, and the band of the violation.

use super::axis::{Column, What, column_of, joined, of_request, of_step, thread};
use super::lanes::{Lane, request_lane, thread_lane};
use crate::report::words;
use crate::timeline::{Index, Request, Step, Timeline};

/// Most requests that one picture shows.
const MAX_REQUESTS: usize = 6;
/// Most guest steps that one picture shows.
const MAX_STEPS: usize = 10;

/// Everything that a picture shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Scene {
    /// Guest frame number.
    pub frame: u64,
    /// What it belongs to, where that is known.
    pub owner: Option<String>,
    /// From top to bottom (left to right).
    pub lanes: Vec<Lane>,
    /// Places of the axis, ascending.
    pub columns: Vec<Column>,
    /// Where two devices certainly owned the frame at once: first and last column.
    pub band: Option<(usize, usize)>,
    /// Requests of this frame that did not fit.
    pub left_out: usize,
}

impl Scene {
    /// Time of a column, after the first.
    pub(super) fn when(&self, column: usize) -> String {
        let base = self.columns.first().map_or(0, |first| first.at.time_ns);
        words::since(base, self.columns[column].at.time_ns)
    }
}

impl Scene {
    /// What there is to see of `frame`. Requests of `evidence` come first where not all fit.
    pub(in crate::report) fn of(timeline: &Timeline, frame: u64, evidence: &[u64]) -> Option<Self> {
        let (requests, left_out) = requests(timeline, frame, evidence);
        let first = requests
            .iter()
            .map(|index| timeline[*index].fetched.seq)
            .min()?;
        let last = requests
            .iter()
            .map(|index| last_seq(&timeline[*index]))
            .max()?;
        let steps = steps(timeline, first, last);
        let mut columns = Vec::new();
        for (lane, index) in requests.iter().enumerate() {
            of_request(&mut columns, lane, &timeline[*index]);
        }
        let threads = threads(&steps);
        for step in &steps {
            of_step(&mut columns, requests.len(), &threads, step);
        }
        for (at, gate) in &timeline.gates {
            if (first..=last).contains(&at.seq) {
                columns.push(Column {
                    at: *at,
                    lane: None,
                    label: format!("gate {gate} opens"),
                    what: What::Gate,
                });
            }
        }
        columns.sort_by_key(|column| column.at.seq);
        let columns = joined(columns);
        let mut lanes: Vec<Lane> = requests
            .iter()
            .map(|index| request_lane(&columns, &timeline[*index]))
            .collect();
        lanes.extend(
            threads
                .iter()
                .map(|thread| thread_lane(&columns, thread, &steps)),
        );
        Some(Self {
            frame,
            owner: owner(timeline, frame),
            lanes,
            band: band(timeline, frame, &columns),
            columns,
            left_out,
        })
    }
}

fn requests(timeline: &Timeline, frame: u64, evidence: &[u64]) -> (Vec<Index>, usize) {
    let mut all: Vec<Index> = timeline
        .indices()
        .filter(|index| {
            let hold = timeline[*index].hold.as_ref();
            hold.is_some_and(|hold| {
                hold.ranges
                    .iter()
                    .any(|range| range.frames().any(|of| of == frame))
            })
        })
        .collect();
    // Stable: those that prove something, then the others, each in their order.
    all.sort_by_key(|index| !evidence.contains(&timeline[*index].fetched.seq));
    // In another boot the frame is another page.
    let boot = all.first().map(|index| timeline[*index].boot);
    all.retain(|index| Some(timeline[*index].boot) == boot);
    let count = all.len();
    all.truncate(MAX_REQUESTS);
    all.sort();
    let left_out = count - all.len();
    (all, left_out)
}

fn last_seq(request: &Request) -> u64 {
    let hold = request.hold.as_ref().and_then(|hold| hold.span.ended);
    let touch = request.touches.iter().filter_map(|touch| touch.ended).max();
    hold.max(touch)
        .map_or(request.fetched.seq, |stamp| stamp.seq)
}

fn steps(timeline: &Timeline, first: u64, last: u64) -> Vec<&Step> {
    let overlaps = |step: &&Step| {
        step.began.is_some_and(|began| began.seq <= last)
            && step.ended.is_none_or(|ended| ended.seq >= first)
            && !matches!(
                step.op.as_str(),
                "where-blocked" | "mark" | "frames" | "page-flags" | "counters"
            )
    };
    timeline
        .steps
        .iter()
        .filter(overlaps)
        .take(MAX_STEPS)
        .collect()
}

fn threads(steps: &[&Step]) -> Vec<String> {
    let mut threads = Vec::new();
    for step in steps {
        let thread = thread(step);
        if !threads.contains(&thread) {
            threads.push(thread);
        }
    }
    threads
}

fn owner(timeline: &Timeline, frame: u64) -> Option<String> {
    use crate::timeline::Fact;
    timeline.facts.iter().find_map(|(_, fact)| {
        let Fact::FilePage(page) = fact else {
            return None;
        };
        let (index, _) = (0..).zip(&page.frames).find(|(_, of)| **of == frame)?;
        let number = page.first_page.saturating_add(index);
        Some(format!(
            "page {number} of {} on disk {}",
            page.file, page.device
        ))
    })
}

/// The first overlap of opposite holds of this frame.
fn band(timeline: &Timeline, frame: u64, columns: &[Column]) -> Option<(usize, usize)> {
    let overlap = timeline
        .overlaps
        .iter()
        .find(|overlap| overlap.frames.iter().any(|(of, _)| *of == frame))?;
    let end = [overlap.write, overlap.read]
        .into_iter()
        .filter_map(|index| timeline[index].hold.as_ref()?.span.ended)
        .map(|stamp| column_of(columns, stamp.seq))
        .min()
        .unwrap_or(columns.len().saturating_sub(1));
    Some((column_of(columns, overlap.since.seq), end))
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::Operation;

    use super::super::lanes::LaneKind;
    use super::*;
    use crate::timeline::script::{Script, frame};

    #[test]
    fn a_race_has_a_lane_per_request_and_a_band_where_both_own_the_page() {
        let mut script = Script::booted();
        script.fetch("b#0", Operation::Read, frame(7));
        script.fetch("a#0", Operation::Write, frame(7));
        script.finish("b#0");
        script.finish("a#0");
        let scene = Scene::of(&script.timeline(), 7, &[]).expect("the frame was held");
        let kinds: Vec<LaneKind> = scene.lanes.iter().map(|lane| lane.kind).collect();
        assert_eq!(kinds, [LaneKind::FromDevice, LaneKind::ToDevice]);
        let (from, to) = scene.band.expect("both held it at once");
        assert_eq!(scene.columns[from].label, "a #0 held");
        assert_eq!(scene.columns[to].label, "b #0 touched, returned");
    }

    #[test]
    fn a_frame_of_another_boot_is_another_page() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.boot(2);
        script.whole("b#1", Operation::Read, frame(7));
        let scene = Scene::of(&script.timeline(), 7, &[]).expect("the frame was held");
        assert_eq!(scene.lanes.len(), 1);
        assert_eq!(scene.left_out, 0);
    }

    #[test]
    fn a_frame_that_nobody_held_has_no_picture() {
        assert_eq!(Scene::of(&Script::booted().timeline(), 7, &[]), None);
    }
}
