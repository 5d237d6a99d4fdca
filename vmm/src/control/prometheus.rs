//! Metrics in Prometheus' text format (0.0.4).

use std::fmt::Write;

use super::api::Operate;
use super::observer::{BOUNDS, Counted, Histogram, QueueCounters, bound_ns};
use crate::machine::RunState;

/// A family of one number per queue.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: fn(&QueueCounters) -> u64,
}

type OfQueue = fn(&QueueCounters) -> &Histogram;

const FAMILIES: [Family; 14] = [
    counter("requests_fetched", "Requests popped.", |queue| {
        queue.fetched
    }),
    counter("requests_used", "Requests given back.", |queue| queue.used),
    counter(
        "requests_failed",
        "Requests given back with a status other than OK.",
        |queue| queue.failed,
    ),
    counter(
        "to_device_bytes",
        "Bytes that given back requests asked the device to read.",
        |queue| queue.bytes_to_device,
    ),
    counter(
        "from_device_bytes",
        "Bytes that given back requests asked the device to write.",
        |queue| queue.bytes_from_device,
    ),
    counter("faults", "Times that a rule of the plan acted.", |queue| {
        queue.faults
    }),
    counter("parkings", "Times that a request was parked.", |queue| {
        queue.parkings
    }),
    counter("holds_abandoned", "Holds taken back by a reset.", |queue| {
        queue.abandoned
    }),
    counter("signals", "Interrupts.", |queue| queue.signals),
    counter("guest_mistakes", "What the guest did wrong.", |queue| {
        queue.guest_mistakes
    }),
    gauge(
        "requests_in_flight",
        "Requests between pop and used element.",
        |queue| queue.in_flight,
    ),
    gauge("holds_open", "Holds that are open.", |queue| queue.held),
    gauge("requests_parked", "Requests that wait.", |queue| {
        queue.parked
    }),
    // Prometheus cannot tell a queue that is idle from one that is not there.
    gauge("queue", "1 for each queue.", |_| 1),
];

const fn counter(name: &'static str, help: &'static str, of: fn(&QueueCounters) -> u64) -> Family {
    let kind = "counter";
    Family {
        name,
        kind,
        help,
        of,
    }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&QueueCounters) -> u64) -> Family {
    let kind = "gauge";
    Family {
        name,
        kind,
        help,
        of,
    }
}

/// Everything that was counted. `lost` is of events that the log's file did not take.
pub(super) fn text(counted: &Counted, lost: u64, machine: &dyn Operate) -> String {
    let mut text = String::new();
    let one = [
        (
            "up",
            "gauge",
            "1 while the vCPUs run, 0 while they stand still.",
            u64::from(machine.state() == RunState::Running),
        ),
        (
            "boots_total",
            "counter",
            "Times that the guest was started.",
            u64::from(machine.boots()),
        ),
        ("events_total", "counter", "Events.", counted.events),
        (
            "events_lost_total",
            "counter",
            "Events that the log's file did not take.",
            lost,
        ),
    ];
    for (name, kind, help, value) in one {
        head(&mut text, name, kind, help);
        line(&mut text, name, "", value);
    }
    for Family {
        name,
        kind,
        help,
        of,
    } in FAMILIES
    {
        let name = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        head(&mut text, &name, kind, help);
        for (labels, queue) in queues(counted) {
            line(&mut text, &name, &labels, of(queue));
        }
    }
    let histograms: [(_, _, OfQueue); 2] = [
        (
            "request_seconds",
            "From the pop to the used element.",
            |queue| &queue.latency,
        ),
        (
            "hold_seconds",
            "From the opening of a hold to its end.",
            |queue| &queue.hold_time,
        ),
    ];
    for (name, help, of) in histograms {
        head(&mut text, name, "histogram", help);
        for (labels, queue) in queues(counted) {
            histogram(&mut text, name, &labels, of(queue));
        }
    }
    text
}

fn queues(counted: &Counted) -> impl Iterator<Item = (String, &QueueCounters)> {
    counted.devices.iter().flat_map(|(name, device)| {
        device.queues.iter().map(move |(index, queue)| {
            (
                format!("device=\"{}\",queue=\"{index}\"", escaped(name)),
                queue,
            )
        })
    })
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    write(
        text,
        format_args!("# HELP pincushion_{name} {help}\n# TYPE pincushion_{name} {kind}\n"),
    );
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    if labels.is_empty() {
        return write(text, format_args!("pincushion_{name} {value}\n"));
    }
    write(
        text,
        format_args!("pincushion_{name}{{{labels}}} {value}\n"),
    );
}

fn histogram(text: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let mut sum = 0;
    for (bucket, count) in histogram.counts().iter().enumerate().take(BOUNDS) {
        sum += count;
        let Some(bound) = bound_ns(bucket) else { break };
        let le = seconds(bound);
        write(
            text,
            format_args!("pincushion_{name}_bucket{{{labels},le=\"{le}\"}} {sum}\n"),
        );
    }
    let count = histogram.count();
    write(
        text,
        format_args!("pincushion_{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n"),
    );
    let total = histogram.sum().as_secs_f64();
    write(
        text,
        format_args!("pincushion_{name}_sum{{{labels}}} {total}\n"),
    );
    write(
        text,
        format_args!("pincushion_{name}_count{{{labels}}} {count}\n"),
    );
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn write(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("a String takes everything");
}
