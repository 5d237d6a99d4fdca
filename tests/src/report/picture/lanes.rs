//! The lanes of a picture: one for each request that held the frame, one for each thread of the guest, with bars and marks.

use pincushion_devices::trace::event::Direction;

use super::axis::{Column, column_of, step_name, thread};
use crate::report::words;
use crate::timeline::{Hashed, Request, Span, Step};

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

pub(super) fn request_lane(columns: &[Column], request: &Request) -> Lane {
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

pub(super) fn thread_lane(columns: &[Column], thread_name: &str, steps: &[&Step]) -> Lane {
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
