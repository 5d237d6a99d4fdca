//! What `pincushion top` shows: the machine in one line, its queues, the gates where somebody waits, what is held.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::show::frames;
use super::table::{bytes, duration_ns};
use crate::control::model::{self, State};

/// One look at a machine.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) machine: model::Machine,
    pub(super) metrics: model::Metrics,
    pub(super) holds: model::Holds,
    pub(super) gates: model::Gates,
}

/// Draws a screen. Rates are those between two looks, so the first screen has none. `scroll` is the first hold shown.
pub(super) fn draw(frame: &mut Frame<'_>, before: Option<&Seen>, now: &Seen, scroll: usize) {
    let queues: usize = now
        .metrics
        .devices
        .iter()
        .map(|device| device.queues.len())
        .sum();
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let [head, queue_area, gate_area, hold_area, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(lines(queues.min(16) + 2)),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(before, now)), head);
    frame.render_widget(queue_table(before, now), queue_area);
    frame.render_widget(Paragraph::new(gate_line(&now.gates)), gate_area);
    frame.render_widget(hold_table(&now.holds, scroll), hold_area);
    let keys = " q leaves   up/down/page scroll   (nothing here changes the machine: use `pincushion ctl`)";
    frame.render_widget(Paragraph::new(keys.dim()), foot);
}

fn headline(before: Option<&Seen>, now: &Seen) -> Vec<Line<'static>> {
    let machine = &now.machine;
    let state = match machine.state {
        State::Starting => " STARTING ".on_blue(),
        State::Running => " RUNNING ".black().on_green(),
        State::Paused => " PAUSED ".black().on_yellow(),
        State::Ended => " ENDED ".on_red(),
    };
    let up = duration_ns(machine.uptime_ms.saturating_mul(1_000_000));
    let plan = if machine.plan_armed {
        "armed"
    } else {
        "disarmed"
    };
    let rate = per_second(before, now, machine.events, |seen| seen.machine.events);
    let about = format!(
        "  up {up}   boot {}   {} vcpus   {}   {}",
        machine.boots,
        machine.vcpus,
        bytes(machine.memory_bytes),
        machine.kernel
    );
    let counts = format!(
        " held {}   parked {}   in flight {}   plan {plan}   events {}{}",
        machine.holds,
        machine.parked,
        machine.in_flight,
        machine.events,
        rate.map_or_else(String::new, |rate| format!(" ({rate}/s)"))
    );
    vec![
        Line::from(vec![state.bold(), Span::raw(about)]),
        Line::from(counts),
    ]
}

/// Growth of a counter in a second, between two looks.
fn per_second(
    before: Option<&Seen>,
    now: &Seen,
    value: u64,
    of: impl Fn(&Seen) -> u64,
) -> Option<u64> {
    let before = before?;
    let grown = value.saturating_sub(of(before));
    let ms = u64::try_from(now.at.duration_since(before.at).as_millis()).ok()?;
    (ms > 0).then(|| grown.saturating_mul(1000) / ms)
}

fn queue_table(before: Option<&Seen>, now: &Seen) -> Table<'static> {
    let mut rows = Vec::new();
    for device in &now.metrics.devices {
        for queue in &device.queues {
            let find = |seen: &Seen| {
                let device = seen
                    .metrics
                    .devices
                    .iter()
                    .find(|other| other.device == device.device);
                device
                    .and_then(|device| {
                        device
                            .queues
                            .iter()
                            .find(|other| other.queue == queue.queue)
                    })
                    .cloned()
            };
            let rate = |value: u64, of: fn(&model::QueueMetrics) -> u64| {
                per_second(before, now, value, |seen| find(seen).as_ref().map_or(0, of))
            };
            let count =
                |rate: Option<u64>| rate.map_or_else(|| "-".to_owned(), |rate| rate.to_string());
            let size = |rate: Option<u64>| {
                rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s", bytes(rate)))
            };
            let cells = [
                format!("{}:{}", device.device, queue.queue),
                count(rate(queue.used, |queue| queue.used)),
                size(rate(queue.bytes_from_device, |queue| {
                    queue.bytes_from_device
                })),
                size(rate(queue.bytes_to_device, |queue| queue.bytes_to_device)),
                queue.in_flight.to_string(),
                queue.held.to_string(),
                queue.parked.to_string(),
                queue.faults.to_string(),
                queue.failed.to_string(),
                duration_ns(queue.latency.p50_ns),
                duration_ns(queue.latency.p99_ns),
                duration_ns(queue.hold_time.max_ns),
            ];
            let style = match queue.parked {
                0 => Style::new(),
                _ => Style::new().yellow(),
            };
            rows.push(Row::new(right_aligned(cells)).style(style));
        }
    }
    let head = [
        "QUEUE",
        "REQ/S",
        "READ",
        "WRITTEN",
        "FLIGHT",
        "HELD",
        "PARKED",
        "FAULTS",
        "FAILED",
        "P50",
        "P99",
        "LONGEST HOLD",
    ];
    let widths = [20, 8, 11, 11, 7, 7, 7, 8, 7, 9, 9, 13].map(Constraint::Length);
    Table::new(rows, widths)
        .header(Row::new(right_aligned(head.map(str::to_owned))).style(Modifier::BOLD))
        .block(Block::new().borders(Borders::TOP).title(" queues "))
}

/// The first column is text, the others are numbers.
fn right_aligned<const N: usize>(cells: [String; N]) -> Vec<Cell<'static>> {
    let align = |(index, text): (usize, String)| {
        let line = Line::from(text);
        Cell::from(if index == 0 {
            line
        } else {
            line.right_aligned()
        })
    };
    cells.into_iter().enumerate().map(align).collect()
}

fn gate_line(gates: &model::Gates) -> Line<'static> {
    let mut spans = vec![Span::raw(" gates:").bold()];
    for gate in &gates.gates {
        spans.push(Span::raw("  "));
        spans.push(match (gate.open, gate.waiting) {
            (true, _) => format!("{} open", gate.name).green(),
            (false, 0) => format!("{} closed", gate.name).dim(),
            (false, waiting) => format!("{} {waiting} waiting", gate.name).yellow(),
        });
    }
    if gates.gates.is_empty() {
        spans.push(" none".dim());
    }
    Line::from(spans)
}

fn hold_table(page: &model::Holds, scroll: usize) -> Table<'static> {
    let row = |hold: &model::Hold| {
        let waits = hold.waits.as_ref().map(|wait| wait.what.clone());
        let doing = match (waits, hold.touching) {
            (Some(what), _) => what.yellow(),
            (None, true) => "touches".green(),
            (None, false) => "-".dim(),
        };
        Row::new([
            Cell::from(Line::from(duration_ns(hold.age_us.saturating_mul(1000))).right_aligned()),
            Cell::from(format!("{}:{}#{}", hold.device, hold.queue, hold.ordinal)),
            Cell::from(format!("{:>5}", hold.head)),
            Cell::from(hold.operation.clone()),
            Cell::from(Line::from(bytes(hold.bytes)).right_aligned()),
            Cell::from(hold.direction.clone()),
            Cell::from(frames(&hold.ranges)),
            Cell::from(doing),
        ])
    };
    let widths = [
        Constraint::Length(9),
        Constraint::Length(20),
        Constraint::Length(5),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(26),
        Constraint::Min(12),
    ];
    let head = [
        "      AGE",
        "REQUEST",
        " HEAD",
        "OPERATION",
        "      SIZE",
        "DIRECTION",
        "FRAMES",
        "WAITS FOR",
    ];
    let title = format!(" held: {} (the oldest first) ", page.total);
    Table::new(page.holds.iter().skip(scroll).map(row), widths)
        .header(Row::new(head).style(Modifier::BOLD))
        .block(Block::new().borders(Borders::TOP).title(title))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn seen(used: u64, at: Instant) -> Seen {
        let durations = json!({ "count": 1, "sum_ns": 5, "p50_ns": 1000, "p99_ns": 2000, "max_ns": 5_000_000, "buckets": [1] });
        let queue = json!({
            "queue": 0, "fetched": used, "used": used, "failed": 0, "bytes_to_device": 0,
            "bytes_from_device": used * 4096, "faults": 1, "parkings": 1, "abandoned": 0, "signals": 3,
            "guest_mistakes": 0, "in_flight": 1, "held": 1, "parked": 1, "latency": durations, "hold_time": durations,
        });
        let machine = json!({
            "state": "paused", "version": "1", "pid": 1, "uptime_ms": 5000, "boots": 1, "vcpus": 2,
            "memory_bytes": 1 << 30, "kernel": "vmlinuz", "holds": 1, "parked": 1, "in_flight": 1, "events": used,
            "plan_armed": true,
        });
        let hold = json!({
            "hold": 1, "device": "b", "queue": 0, "ordinal": 7, "head": 3, "operation": "read",
            "direction": "from-device", "sector": 8, "bytes": 4096, "age_us": 2_500_000, "touching": false,
            "ranges": [{ "address": 0x5000, "bytes": 4096, "first_frame": 5, "frames": 1 }],
            "waits": { "point": "fetched", "what": "gate go", "until": {}, "age_us": 1 },
        });
        let gate = json!({ "name": "go", "open": false, "waiting": 1, "in_plan": true });
        let metrics = json!({
            "devices": [{ "device": "b", "activations": 1, "resets": 0, "queues": [queue] }],
            "events": used, "events_evicted": 0, "events_lost": 0,
        });
        Seen {
            at,
            machine: serde_json::from_value(machine).unwrap(),
            metrics: serde_json::from_value(metrics).unwrap(),
            holds: serde_json::from_value(json!({ "total": 1, "holds": [hold] })).unwrap(),
            gates: serde_json::from_value(json!({ "gates": [gate] })).unwrap(),
        }
    }

    fn screen(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let start = Instant::now();
        let (before, now) = (
            seen(10, start),
            seen(510, start + std::time::Duration::from_secs(5)),
        );
        let drawn = terminal
            .draw(|frame| draw(frame, Some(&before), &now, 0))
            .unwrap();
        let cells = drawn.buffer.content.chunks(usize::from(width));
        cells
            .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn a_screen_shows_state_rates_gates_and_what_is_held() {
        let screen = screen(140, 24);
        for word in [
            "PAUSED",
            "b:0",
            "100",
            "go 1 waiting",
            "b:0#7",
            "from-device",
            "0x5",
            "gate go",
            "2.5 s",
        ] {
            assert!(screen.contains(word), "{word} is missing:\n{screen}");
        }
    }

    #[test]
    fn a_tiny_terminal_is_no_trouble() {
        for (width, height) in [(1, 1), (10, 3), (40, 6)] {
            screen(width, height);
        }
    }
}
