//! What the control socket answers, as tables for people.

use super::table::{Table, bytes, duration_ns};
use crate::control::model;

pub(super) fn state(machine: &model::Machine) -> String {
    let word = serde_json::to_value(machine.state).unwrap_or_default();
    let rows = [
        ("state", word.as_str().unwrap_or("?").to_owned()),
        (
            "since",
            duration_ns(machine.uptime_ms.saturating_mul(1_000_000)),
        ),
        ("boots", machine.boots.to_string()),
        ("process", machine.pid.to_string()),
        ("kernel", machine.kernel.clone()),
        ("vcpus", machine.vcpus.to_string()),
        ("memory", bytes(machine.memory_bytes)),
        (
            "plan",
            if machine.plan_armed {
                "armed"
            } else {
                "disarmed"
            }
            .to_owned(),
        ),
        ("in flight", machine.in_flight.to_string()),
        ("held", machine.holds.to_string()),
        ("parked", machine.parked.to_string()),
        ("events", machine.events.to_string()),
    ];
    rows.iter()
        .map(|(name, value)| format!("{name:<10} {value}\n"))
        .collect()
}

pub(super) fn snapshot(made: &model::SnapshotMade) -> String {
    format!("{}, {}\n", made.path, bytes(made.bytes))
}

pub(super) fn holds(page: &model::Holds) -> String {
    let head = [
        "#AGE",
        "REQUEST",
        "#HEAD",
        "OPERATION",
        "#SECTOR",
        "#SIZE",
        "DIRECTION",
        "FRAMES",
        "WAITS FOR",
    ];
    let mut table = Table::new(&head);
    for hold in &page.holds {
        let waits = hold.waits.as_ref();
        table.row([
            duration_ns(hold.age_us.saturating_mul(1000)),
            format!("{}:{}#{}", hold.device, hold.queue, hold.ordinal),
            hold.head.to_string(),
            hold.operation.clone(),
            hold.sector.to_string(),
            bytes(hold.bytes),
            hold.direction.clone(),
            frames(&hold.ranges),
            waits.map_or_else(
                || "-".to_owned(),
                |wait| format!("{} (at {})", wait.what, wait.point),
            ),
        ]);
    }
    match page.holds.len() as u64 {
        0 => "nothing is held\n".to_owned(),
        shown if shown == page.total => table.to_string(),
        shown => format!("{table}{shown} of {} open holds\n", page.total),
    }
}

/// The first frames of a request, and how many more there are.
pub(super) fn frames(ranges: &[model::Range]) -> String {
    let mut words: Vec<String> = ranges
        .iter()
        .take(2)
        .map(|range| match range.frames {
            1 => format!("{:#x}", range.first_frame),
            count => format!("{:#x}+{count}", range.first_frame),
        })
        .collect();
    if ranges.len() > 2 {
        words.push(format!("({} more pieces)", ranges.len() - 2));
    }
    words.join(" ")
}

pub(super) fn one_frame(frame: &model::Frame) -> String {
    let mut table = Table::new(&["DEVICE", "#READERS", "#WRITERS"]);
    for holder in &frame.holders {
        table.row([
            holder.device.clone(),
            holder.to_device.to_string(),
            holder.from_device.to_string(),
        ]);
    }
    match frame.holders.as_slice() {
        [] => format!(
            "nobody holds frame {} (at {:#x})\n",
            frame.frame, frame.address
        ),
        _ => table.to_string(),
    }
}

pub(super) fn gates(gates: &model::Gates) -> String {
    let mut table = Table::new(&["GATE", "STATE", "#WAITING", "IN PLAN"]);
    for gate in &gates.gates {
        table.row([
            gate.name.clone(),
            if gate.open { "open" } else { "closed" }.to_owned(),
            gate.waiting.to_string(),
            if gate.in_plan { "yes" } else { "no" }.to_owned(),
        ]);
    }
    match gates.gates.as_slice() {
        [] => "no gate: the plan names none, and nobody waits\n".to_owned(),
        _ => table.to_string(),
    }
}

pub(super) fn one_gate(gate: &model::Gate) -> String {
    gates(&model::Gates {
        gates: vec![gate.clone()],
    })
}

pub(super) fn plan(plan: &model::Plan) -> String {
    let armed = if plan.armed { "armed" } else { "disarmed" };
    let mut table = Table::new(&["RULE", "#ACTED"]);
    for rule in &plan.rules {
        table.row([rule.name.clone(), rule.acted.to_string()]);
    }
    match plan.rules.as_slice() {
        [] => format!("the plan is {armed} and has no rules\n"),
        _ => format!("{table}the plan is {armed}\n"),
    }
}

pub(super) fn devices(devices: &model::Devices) -> String {
    let mut table = Table::new(&["DEVICE", "#VIRTIO ID", "#QUEUES", "SETTINGS"]);
    for device in &devices.devices {
        let mut settings = vec![format!("hold-ms={}", device.hold_ms)];
        let setting = |setting: &model::Setting| {
            format!("{}={} {}", setting.name, setting.value, setting.unit)
        };
        settings.extend(device.settings.iter().map(setting));
        table.row([
            device.name.clone(),
            device.virtio_id.to_string(),
            device.queues.to_string(),
            settings.join(", "),
        ]);
    }
    table.to_string()
}

pub(super) fn metrics(metrics: &model::Metrics) -> String {
    let head = [
        "QUEUE", "#FETCHED", "#USED", "#FAILED", "#READ", "#WRITTEN", "#HELD", "#PARKED",
        "#FAULTS", "#P50", "#P99", "#MAX",
    ];
    let mut table = Table::new(&head);
    for device in &metrics.devices {
        for queue in &device.queues {
            table.row([
                format!("{}:{}", device.device, queue.queue),
                queue.fetched.to_string(),
                queue.used.to_string(),
                queue.failed.to_string(),
                bytes(queue.bytes_from_device),
                bytes(queue.bytes_to_device),
                queue.held.to_string(),
                queue.parked.to_string(),
                queue.faults.to_string(),
                duration_ns(queue.latency.p50_ns),
                duration_ns(queue.latency.p99_ns),
                duration_ns(queue.latency.max_ns),
            ]);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_by_the_first_two_pieces() {
        let range = |first_frame, frames| model::Range {
            address: first_frame * 4096,
            bytes: frames * 4096,
            first_frame,
            frames,
        };
        assert_eq!(frames(&[range(16, 1)]), "0x10");
        assert_eq!(
            frames(&[range(16, 3), range(1, 1), range(9, 1)]),
            "0x10+3 0x1 (1 more pieces)"
        );
    }
}
