//! What there is to see of one frame: lanes, bars in them, the columns of the axis, and the band of the violation.

use pincushion_devices::trace::event::Direction;

use crate::report::words;
use crate::timeline::{Hashed, Index, Request, Span, Stamp, Step, Timeline};

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

/// A request or a guest thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Lane {
    pub kind: LaneKind,
    /// `b #0`.
    pub name: String,
    /// `read: disk to memory`.
    pub detail: String,
    pub bars: Vec<Bar>,
    /// Hashes of the payload.
    pub marks: Vec<Mark>,
}

/// Decides the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum LaneKind {
    /// A device writes memory.
    FromDevice,
    /// A device reads memory.
    ToDevice,
    /// The guest's CPU.
    Guest,
}

/// A span in a lane, by columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Bar {
    pub kind: BarKind,
    pub from: usize,
    /// Absent: to the end of the picture.
    pub to: Option<usize>,
    /// Fits into a wide bar.
    pub label: String,
    /// The whole story, for a pointer and for screen readers.
    pub title: String,
}

/// What a bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum BarKind {
    /// The device owns the frame.
    Held,
    /// It waits meanwhile.
    Parked,
    /// It touches the frame.
    Touch,
    /// A guest step.
    Step,
}

/// A hash in a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Mark {
    pub column: usize,
    /// Whether it differs from the first.
    pub changed: bool,
    pub title: String,
}

/// A place of the axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Column {
    pub at: Stamp,
    /// Which lane it belongs to; absent for a gate.
    pub lane: Option<usize>,
    /// A few words.
    pub label: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Opened,
    Released,
    TouchBegan,
    TouchEnded,
    Closed,
    Began,
    Ended,
    Gate,
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

fn thread(step: &Step) -> String {
    step.thread.clone().unwrap_or_else(|| "main".to_owned())
}

fn of_request(columns: &mut Vec<Column>, lane: usize, request: &Request) {
    let name = words::request(&request.id);
    let mut push = |at: Option<Stamp>, what, label: &str| {
        if let Some(at) = at {
            columns.push(Column {
                at,
                lane: Some(lane),
                label: format!("{name} {label}"),
                what,
            });
        }
    };
    if let Some(hold) = &request.hold {
        push(Some(hold.span.began), What::Opened, "held");
        push(hold.span.ended, What::Closed, "returned");
    }
    for park in &request.parks {
        push(park.span.ended, What::Released, "released");
    }
    for touch in &request.touches {
        push(Some(touch.began), What::TouchBegan, "touches");
        push(touch.ended, What::TouchEnded, "touched");
    }
}

fn of_step(columns: &mut Vec<Column>, requests: usize, threads: &[String], step: &Step) {
    let lane = threads
        .iter()
        .position(|name| *name == thread(step))
        .map(|position| requests + position);
    let name = step_name(step);
    for (at, what, word) in [
        (step.began, What::Began, "begins"),
        (step.ended, What::Ended, "ends"),
    ] {
        if let Some(at) = at {
            columns.push(Column {
                at,
                lane,
                label: format!("{name} {word}"),
                what,
            });
        }
    }
}

fn step_name(step: &Step) -> &str {
    if step.op.is_empty() {
        &step.name
    } else {
        &step.op
    }
}

/// Joins events of one actor that nothing shown comes between and that belong together.
fn joined(columns: Vec<Column>) -> Vec<Column> {
    let mut out: Vec<Column> = Vec::new();
    for column in columns {
        let together = out.last().is_some_and(|last| {
            last.lane == column.lane
                && matches!(
                    (last.what, column.what),
                    (What::Opened | What::Released, What::TouchBegan)
                        | (What::TouchEnded, What::Closed)
                )
        });
        match out.last_mut().filter(|_| together) {
            Some(last) => {
                let word = column.label.rsplit(' ').next().unwrap_or_default();
                last.label = format!("{}, {word}", last.label);
                // What it ends with decides what can be joined next.
                last.what = column.what;
            }
            None => out.push(column),
        }
    }
    out
}

/// The column at or before a place in the order.
fn column_of(columns: &[Column], seq: u64) -> usize {
    columns
        .partition_point(|column| column.at.seq <= seq)
        .saturating_sub(1)
}

fn bar(columns: &[Column], kind: BarKind, span: Span, label: String, what: &str) -> Bar {
    let until = span.ended.map_or("the end of the log".to_owned(), |ended| {
        format!("{} (event {})", words::time(ended.time_ns), ended.seq)
    });
    Bar {
        kind,
        from: column_of(columns, span.began.seq),
        to: span.ended.map(|ended| column_of(columns, ended.seq)),
        label,
        title: format!(
            "{what} from {} (event {}) to {until}",
            words::time(span.began.time_ns),
            span.began.seq
        ),
    }
}

fn request_lane(columns: &[Column], request: &Request) -> Lane {
    let name = words::request(&request.id);
    let device = &request.id.device;
    let mut bars = Vec::new();
    let mut kind = LaneKind::Guest;
    let mut detail = words::operation(request.operation).to_owned();
    if let Some(hold) = &request.hold {
        kind = match hold.direction {
            Direction::FromDevice => LaneKind::FromDevice,
            Direction::ToDevice => LaneKind::ToDevice,
        };
        detail += match hold.direction {
            Direction::FromDevice => ": disk \u{2192} memory",
            Direction::ToDevice => ": memory \u{2192} disk",
        };
        let what = format!("disk {device} owns the page for {name}");
        bars.push(bar(
            columns,
            BarKind::Held,
            hold.span,
            "held".to_owned(),
            &what,
        ));
    }
    for park in &request.parks {
        let what = format!("{name} is parked {}", words::until(&park.until));
        bars.push(bar(
            columns,
            BarKind::Parked,
            park.span,
            format!("parked {}", words::until(&park.until)),
            &what,
        ));
    }
    for touch in &request.touches {
        let what = match kind {
            LaneKind::FromDevice => format!("disk {device} writes the page"),
            LaneKind::ToDevice | LaneKind::Guest => format!("disk {device} reads the page"),
        };
        bars.push(bar(
            columns,
            BarKind::Touch,
            *touch,
            "touch".to_owned(),
            &what,
        ));
    }
    Lane {
        kind,
        name,
        detail,
        bars,
        marks: marks(columns, request),
    }
}

fn marks(columns: &[Column], request: &Request) -> Vec<Mark> {
    let hash = |hashed: &Hashed| {
        hashed
            .pages
            .first()
            .map(|page| page.hash.clone())
            .unwrap_or_default()
    };
    let first = request.hashes.first().map(hash).unwrap_or_default();
    request
        .hashes
        .iter()
        .map(|hashed| Mark {
            column: column_of(columns, hashed.at.seq),
            changed: hash(hashed) != first,
            title: format!(
                "payload at {}: {}",
                words::moment(hashed.moment),
                hash(hashed)
            ),
        })
        .collect()
}

fn thread_lane(columns: &[Column], thread_name: &str, steps: &[&Step]) -> Lane {
    let bars = steps
        .iter()
        .filter(|step| thread(step) == thread_name)
        .filter_map(|step| {
            let span = Span {
                began: step.began?,
                ended: step.ended,
            };
            let what = format!("guest step {} ({})", step.id, step.name);
            Some(bar(
                columns,
                BarKind::Step,
                span,
                step_name(step).to_owned(),
                &what,
            ))
        })
        .collect();
    Lane {
        kind: LaneKind::Guest,
        name: format!("guest {thread_name}"),
        detail: "steps of this thread".to_owned(),
        bars,
        marks: Vec::new(),
    }
}

fn owner(timeline: &Timeline, frame: u64) -> Option<String> {
    use crate::timeline::Fact;
    timeline.facts.iter().find_map(|(_, fact)| {
        let Fact::FilePage(page) = fact else {
            return None;
        };
        let (number, _) = (page.first_page..)
            .zip(&page.frames)
            .find(|(_, of)| **of == frame)?;
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
