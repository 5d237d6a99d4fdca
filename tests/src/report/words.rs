//! Events in plain words, for the evidence tables and the pictures.

use std::collections::BTreeSet;

use pincushion_devices::trace::event::{
    Direction, Event, EventKind, Fault, HoldEnd, Moment, Operation, Point, ReleaseCause, Status,
    Until,
};

pub(super) use crate::timeline::short as request;

/// `12345.678 ms` since the log was opened: always milliseconds, so that a column of them can be compared.
pub(super) fn time(time_ns: u64) -> String {
    format!("{}.{:03} ms", time_ns / 1_000_000, time_ns / 1000 % 1000)
}

/// `+1.204 ms` after another moment; `+1.204567 s` from a second on.
pub(super) fn since(base_ns: u64, time_ns: u64) -> String {
    match time_ns.saturating_sub(base_ns) {
        passed @ 0..1_000_000_000 => format!("+{}", time(passed)),
        passed => {
            format!(
                "+{}.{:06} s",
                passed / 1_000_000_000,
                passed / 1000 % 1_000_000
            )
        }
    }
}

/// Who acted.
pub(super) fn actor(event: &Event) -> String {
    match &event.kind {
        EventKind::Fetched { request: id, .. }
        | EventKind::HoldOpened { request: id, .. }
        | EventKind::PayloadHashed { request: id, .. }
        | EventKind::FaultApplied { request: id, .. }
        | EventKind::FaultActed { request: id, .. }
        | EventKind::FaultTouchEnded { request: id }
        | EventKind::Parked { request: id, .. }
        | EventKind::Released { request: id, .. }
        | EventKind::TouchBegan { request: id }
        | EventKind::TouchEnded { request: id }
        | EventKind::Executed { request: id, .. }
        | EventKind::HoldClosed { request: id, .. }
        | EventKind::Used { request: id, .. }
        | EventKind::FramesFreed { request: id, .. }
        | EventKind::PlantedFault { request: id, .. } => request(id),
        EventKind::DeviceAdded { device, .. }
        | EventKind::DeviceStatus { device, .. }
        | EventKind::Activated { device, .. }
        | EventKind::DeviceReset { device, .. }
        | EventKind::Signalled { device, .. }
        | EventKind::FrameDropped { device, .. }
        | EventKind::LinkChanged { device, .. }
        | EventKind::HostMemory { device, .. }
        | EventKind::BalloonTarget { device, .. }
        | EventKind::BalloonActual { device, .. }
        | EventKind::BalloonStatistics { device, .. }
        | EventKind::GuestMistake { device, .. } => device.clone(),
        EventKind::StepBegan { .. }
        | EventKind::StepEnded { .. }
        | EventKind::AgentReport { .. }
        | EventKind::Console { .. } => "guest".to_owned(),
        EventKind::StepSent { .. }
        | EventKind::Fact { .. }
        | EventKind::GateOpened { .. }
        | EventKind::PlanReplaced { .. }
        | EventKind::Control { .. }
        | EventKind::RuleUnmatched { .. } => "scenario".to_owned(),
        EventKind::LogOpened { .. }
        | EventKind::BootBegan { .. }
        | EventKind::Restored { .. }
        | EventKind::MachineEnded { .. } => "machine".to_owned(),
    }
}

fn fetched(what: Operation, bytes: u64, sector: u64) -> String {
    let what = operation(what);
    format!("fetched: {what} of {bytes} bytes at sector {sector}")
}

/// What happened.
pub(super) fn event(event: &Event) -> String {
    match &event.kind {
        EventKind::LogOpened { .. } => "the log was opened".to_owned(),
        EventKind::DeviceAdded { kind, .. } => format!("a {kind} device"),
        EventKind::DeviceStatus { status, .. } => format!("the driver wrote status {status:#04x}"),
        EventKind::Activated { .. } => "the driver is ready".to_owned(),
        EventKind::DeviceReset { abandoned, .. } => {
            format!("reset; {abandoned} requests were taken back")
        }
        EventKind::Fetched {
            operation: what,
            sector,
            bytes,
            ..
        } => fetched(*what, *bytes, *sector),
        EventKind::HoldOpened { direction, .. } => owning(*direction).to_owned(),
        EventKind::PayloadHashed {
            moment: when,
            pages,
            ..
        } => {
            let hash = pages.first().map_or("", |page| page.hash.as_str());
            format!("payload hashed at {}: {hash}", moment(*when))
        }
        EventKind::FaultApplied { rule, action, .. } => format!("rule \"{rule}\": {action}"),
        EventKind::FaultActed { fault: what, .. } => format!("fault: {}", fault(what)),
        EventKind::FaultTouchEnded { .. } => "fault: has stopped touching the frame".to_owned(),
        EventKind::PlanReplaced { rules, .. } => {
            format!("the plan was replaced by one of {} rules", rules.len())
        }
        EventKind::Parked { until: what, .. } => format!("parked {}", until(what)),
        EventKind::Released { by, .. } => format!("released {}", cause(by)),
        EventKind::TouchBegan { .. } => "begins to touch the page".to_owned(),
        EventKind::TouchEnded { .. } => "has stopped touching the page".to_owned(),
        EventKind::Executed {
            status: what,
            host_error,
            ..
        } => done(*what, host_error.as_deref()),
        EventKind::HoldClosed { how, .. } => giving_back(*how).to_owned(),
        EventKind::Used { status: what, .. } => {
            format!("completed for the guest: {}", status(*what))
        }
        EventKind::Signalled { .. } => "the guest was told".to_owned(),
        EventKind::GuestMistake { what, answer, .. } => {
            format!("the guest's mistake: {what}; answer: {answer}")
        }
        EventKind::FrameDropped { why, .. } => format!("lost a frame: {why}"),
        EventKind::LinkChanged { up, .. } => link(*up).to_owned(),
        EventKind::FramesFreed { .. }
        | EventKind::HostMemory { .. }
        | EventKind::BalloonTarget { .. }
        | EventKind::BalloonActual { .. }
        | EventKind::BalloonStatistics { .. } => memory(&event.kind),
        EventKind::PlantedFault { planted, .. } => format!("planted fault: {planted:?}"),
        EventKind::GateOpened { gate } => format!("opened the gate \"{gate}\""),
        EventKind::Control { action, detail } => format!("somebody outside: {action} {detail}"),
        EventKind::RuleUnmatched { rule } => format!("rule \"{rule}\" never matched"),
        EventKind::StepBegan { step } => format!("step {step} begins"),
        EventKind::StepEnded { step } => format!("step {step} has ended"),
        EventKind::StepSent { step, name, .. } => format!("sent step {step}: {name}"),
        EventKind::AgentReport { text } | EventKind::Console { line: text } => text.clone(),
        EventKind::Fact { key, value } => format!("fact {key}: {value}"),
        EventKind::BootBegan { boot } => format!("boot {boot} begins"),
        EventKind::Restored { snapshot } => format!("it goes on from the snapshot {snapshot}"),
        EventKind::MachineEnded { how, detail } => end(how, detail),
    }
}

/// A fault that the plan wanted.
fn fault(fault: &Fault) -> String {
    match fault {
        Fault::Short { bytes } => format!("only {bytes} bytes move, and the answer says so"),
        Fault::Torn { arrived } => {
            let pieces: Vec<String> = arrived
                .iter()
                .map(|[from, to]| format!("{from}-{to}"))
                .collect();
            format!("only bytes {} move", pieces.join(" "))
        }
        Fault::Corrupt { bits } => format!("{} bits flip", bits.len()),
        Fault::Status { worked: Some(how) } => {
            format!("answered otherwise than it ended, which was {how}")
        }
        Fault::Status { worked: None } => "answered without being run".to_owned(),
        Fault::Reordered { place, of } => format!("completed as number {place} of {of}, from 0"),
        Fault::Duplicate => "completed twice".to_owned(),
        Fault::LateTouch { .. } => "the device writes the page although it gave it back".to_owned(),
        Fault::RogueTouch { range } => {
            format!("the device writes {:#x}, which nobody gave", range.addr)
        }
        Fault::InterruptDropped => "its interrupt is dropped".to_owned(),
        Fault::InterruptCoalesced => "its interrupt is put off".to_owned(),
        Fault::InterruptSpurious => "an interrupt without a cause".to_owned(),
        Fault::ConfigChanges { count } => {
            format!("{count} configuration changes in which nothing changed")
        }
        Fault::NeedsReset => "the device asks for a reset".to_owned(),
    }
}

/// What a balloon says of memory; nothing for other events.
fn memory(kind: &EventKind) -> String {
    match kind {
        EventKind::FramesFreed { bytes, held, .. } if held.is_empty() => {
            format!("{bytes} bytes are free, and nobody holds them")
        }
        EventKind::FramesFreed { bytes, held, .. } => {
            let frames: u64 = held
                .iter()
                .map(|held| held.range.frames().count() as u64)
                .sum();
            let devices: BTreeSet<&str> = held.iter().map(|held| held.device.as_str()).collect();
            let devices = Vec::from_iter(devices).join(", ");
            format!(
                "{bytes} bytes are free; {frames} more frames are called free and held by {devices}"
            )
        }
        EventKind::HostMemory { resident_bytes, .. } => {
            format!("the host has {resident_bytes} bytes of guest memory")
        }
        EventKind::BalloonTarget { bytes, .. } => {
            format!("the host asks for a balloon of {bytes} bytes")
        }
        EventKind::BalloonActual { bytes, .. } => {
            format!("the driver says that the balloon has {bytes} bytes")
        }
        EventKind::BalloonStatistics { statistics, .. } => {
            format!("the guest's statistics: {statistics:?}")
        }
        _ => String::new(),
    }
}

fn end(how: &str, detail: &str) -> String {
    let text = format!("the machine ended: {how} {detail}");
    text.trim_end().to_owned()
}

fn done(what: Status, host_error: Option<&str>) -> String {
    match host_error {
        Some(error) => format!("done: {} ({error})", status(what)),
        None => format!("done: {}", status(what)),
    }
}

fn owning(direction: Direction) -> &'static str {
    match direction {
        Direction::FromDevice => "the device owns the page and will write into it",
        Direction::ToDevice => "the device owns the page and will read it",
    }
}

fn link(up: bool) -> &'static str {
    if up {
        "the link is up"
    } else {
        "the link is down"
    }
}

fn giving_back(how: HoldEnd) -> &'static str {
    match how {
        HoldEnd::Completed => "the device gives the page back",
        HoldEnd::Abandoned => "the request is taken back from the device",
    }
}

pub(super) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Flush => "flush",
        Operation::Discard => "discard",
        Operation::WriteZeroes => "write-zeroes",
        Operation::GetId => "get-id",
        Operation::Transmit => "transmit",
        Operation::Receive => "receive",
        Operation::Control => "control",
        Operation::Inflate => "inflate",
        Operation::Deflate => "deflate",
        Operation::Statistics => "statistics",
        Operation::ReportFree => "report-free",
        Operation::Unknown => "unknown",
    }
}

pub(super) fn moment(moment: Moment) -> &'static str {
    match moment {
        Moment::Fetch => "fetch",
        Moment::Transfer => "transfer",
        Moment::Completion => "completion",
    }
}

/// `until ...`.
pub(super) fn until(until: &Until) -> String {
    match until {
        Until::Gate(gate) => format!("until gate \"{gate}\" opens"),
        Until::SameFrame { point, device } => {
            let who = device
                .as_ref()
                .map_or("another request".to_owned(), |device| {
                    format!("a request of {device}")
                });
            format!("until {who} on the page is {}", self::point(*point))
        }
        Until::Duration { ns } => format!("for {}", time(*ns)),
    }
}

fn cause(by: &ReleaseCause) -> String {
    match by {
        ReleaseCause::Gate(gate) => format!("by gate \"{gate}\""),
        ReleaseCause::SameFrame(id) => format!("by {}", request(id)),
        ReleaseCause::Elapsed => "since its time is over".to_owned(),
        ReleaseCause::Stopping => "since the machine stops".to_owned(),
    }
}

fn point(point: Point) -> &'static str {
    match point {
        Point::Fetched => "fetched",
        Point::Executed => "executed",
        Point::Completed => "completed",
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Ioerr => "I/O error",
        Status::Unsupp => "unsupported",
        Status::Other(_) => "a status that the specification does not know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_microsecond() {
        assert_eq!(time(12_345_678_901), "12345.678 ms");
        assert_eq!(since(1_000_000, 2_204_567), "+1.204 ms");
        assert_eq!(since(0, 12_345_678_901), "+12.345678 s");
    }
}
