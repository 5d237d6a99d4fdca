//! What a reader of the progress, and of a message, sees of a step.

use toml::Value;

use crate::scenario::control_step::Asked;
use crate::scenario::model::{Await, Awaited, BalloonAct, HostCheck, Step};

/// What a reader of the progress sees.
pub(crate) fn title(step: &Step) -> String {
    if let Some(say) = &step.say {
        return say.clone();
    }
    let word = |table: &toml::Table| {
        table
            .get("op")
            .and_then(Value::as_str)
            .unwrap_or("step")
            .replace('-', " ")
    };
    if let Some(table) = &step.guest {
        return step
            .name
            .as_ref()
            .map_or_else(|| word(table), |name| format!("{} ({name})", word(table)));
    }
    if let Some(awaited) = &step.r#await {
        return format!("wait until {}", describe(awaited));
    }
    if let Some(gate) = &step.gate {
        return format!("open gate `{gate}`");
    }
    if let Some(link) = &step.link {
        let what = if link.up { "plug in" } else { "pull" };
        return format!("{what} the cable of `{}`", link.net);
    }
    if let Some(inject) = &step.inject {
        return format!("{} frames come in at `{}`", inject.count, inject.net);
    }
    if let Some(text) = &step.r#type {
        return format!("type {text:?}");
    }
    if let Some(name) = &step.join {
        return format!("wait for `{name}`");
    }
    if let Some(fact) = &step.fact {
        return format!("note: {}", fact.key);
    }
    if let Some(control) = &step.control {
        return match control.asked() {
            Ok(Asked::Request(method, address)) => {
                format!("ask the control socket: {method} {address}")
            }
            Ok(Asked::Screen) | Err(_) => "look at `pincushion top`".into(),
        };
    }
    match &step.balloon {
        Some(BalloonAct::Target(target)) => return format!("ask for a balloon of {target}"),
        Some(BalloonAct::Statistics(_)) => return "ask for the guest's statistics".into(),
        None => {}
    }
    if step.reboot {
        return "reboot".into();
    }
    match &step.host {
        Some(HostCheck::Said { texts }) => format!("the console has: {}", texts.join(" / ")),
        Some(_) => "look at what is left, from the host".into(),
        None => "power off".into(),
    }
}

/// What is awaited, to stand behind "until".
pub(super) fn describe(awaited: &Await) -> String {
    let spelled = |value: serde_json::Result<serde_json::Value>| {
        value
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let event = spelled(serde_json::to_value(awaited.event));
    if let Some(rule) = &awaited.rule {
        return format!("rule `{rule}` acted");
    }
    let operation = awaited.operation.map_or("request".into(), |operation| {
        spelled(serde_json::to_value(operation))
    });
    match (awaited.event, &awaited.device) {
        (Awaited::MachineEnded, _) => "the machine has ended".into(),
        (Awaited::HostMemory, _) => {
            let limit = |word: &str, limit: &Option<String>| {
                limit
                    .as_ref()
                    .map(|limit| format!(", {word} {limit}"))
                    .unwrap_or_default()
            };
            format!(
                "guest memory is given back{}{}",
                limit("above", &awaited.above),
                limit("below", &awaited.below)
            )
        }
        (Awaited::BalloonReached, _) => "the balloon has its size".into(),
        (Awaited::BalloonStatistics, _) => "the guest has told its statistics".into(),
        (Awaited::FaultTouchEnded, _) => "a device has written memory that is not its own".into(),
        (Awaited::HoldEnded, _) => "the request that was parked has let its frames go".into(),
        (Awaited::DeviceReset, Some(device)) => format!("disk {device} is reset"),
        (Awaited::DeviceReset, None) => "a disk is reset".into(),
        (Awaited::Freed, _) if awaited.bytes.is_some() => format!(
            "the guest has called {} of its memory free",
            awaited.bytes.as_deref().unwrap_or_default()
        ),
        (_, Some(device)) => format!("a {operation} of disk {device} is {event}"),
        (_, None) => format!("a {operation} is {event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(toml: &str) -> Step {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_step_has_a_title_in_words() {
        for (toml, expected) in [
            ("say = 'go'\ngate = 'g'", "go"),
            ("gate = 'read'", "open gate `read`"),
            ("guest = { op = 'drop-caches' }", "drop caches"),
            ("type = \"a\\n\"", "type \"a\\n\""),
            (
                "name = 'durable'\nguest = { op = 'fsync', file = 'f' }",
                "fsync (durable)",
            ),
            (
                "await = { event = 'parked', device = 'b', operation = 'read' }",
                "wait until a read of disk b is parked",
            ),
            (
                "await = { event = 'rule', rule = 'hold' }",
                "wait until rule `hold` acted",
            ),
            (
                "await = { event = 'machine-ended' }",
                "wait until the machine has ended",
            ),
        ] {
            assert_eq!(title(&step(toml)), expected);
        }
    }
}
