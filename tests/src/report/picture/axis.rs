//! The columns of a picture: the events that are shown, evenly spaced, in their order.

use crate::report::words;
use crate::timeline::{Request, Stamp, Step};

/// A place of the axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Column {
    pub at: Stamp,
    /// Which lane it belongs to; absent for a gate.
    pub lane: Option<usize>,
    /// A few words.
    pub label: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Opened,
    Released,
    TouchBegan,
    TouchEnded,
    Closed,
    Began,
    Ended,
    Gate,
}

pub(super) fn of_request(columns: &mut Vec<Column>, lane: usize, request: &Request) {
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

pub(super) fn of_step(columns: &mut Vec<Column>, requests: usize, threads: &[String], step: &Step) {
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

/// Joins events of one actor that nothing shown comes between and that belong together.
pub(super) fn joined(columns: Vec<Column>) -> Vec<Column> {
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
pub(super) fn column_of(columns: &[Column], seq: u64) -> usize {
    columns
        .partition_point(|column| column.at.seq <= seq)
        .saturating_sub(1)
}

pub(super) fn thread(step: &Step) -> String {
    step.thread.clone().unwrap_or_else(|| "main".to_owned())
}

pub(super) fn step_name(step: &Step) -> &str {
    if step.op.is_empty() {
        &step.name
    } else {
        &step.op
    }
}
