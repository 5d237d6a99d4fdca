//! Event logs: what anybody wrote is refused or judged, and the judge never panics.
//!
//! Bytes that begin as JSON are a log. Any others are a recipe for one: lines of real runs (`lines.jsonl`) in any order, each with
//! some of its numbers changed, because bytes alone hardly ever are a long story.
//!
//! Verifies: evidence is ascending and names events of the log; the verdict is *finding* only where a finding is certain, and *pass*
//! only where none is. Does not verify that a verdict is right: the oracles' own timelines do.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use pincushion_devices::trace::EventKind;
use pincushion_fuzz::Input;
use pincushion_test::oracle::judge_events;
use pincushion_test::timeline::{ReadError, Reader};
use pincushion_test::verdict::{Certainty, Judgement, Verdict};
use serde_json::{Value, json};

const LINES: &str = include_str!("lines.jsonl");
/// What changed numbers become: mostly few, so that events meet.
const SCALES: [u64; 4] = [1, 1, 512, 4096];
/// Longest request of a log that is judged here, in bytes.
const MOST: u64 = 1 << 24;

pub fn target(bytes: &[u8]) {
    if bytes.first() == Some(&b'{') {
        return judge(bytes);
    }
    judge(cook(&mut Input::new(bytes)).as_bytes());
}

fn judge(log: &[u8]) {
    let events: Result<Vec<_>, ReadError> = Reader::new(log).collect();
    let events = match events {
        Ok(events) => events,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // A log with requests of gigabytes takes its time, which is no bug.
    let is_long =
        |kind: &EventKind| matches!(kind, EventKind::Fetched { bytes, .. } if *bytes > MOST);
    if events.iter().any(|event| is_long(&event.kind)) {
        return;
    }
    let numbers: BTreeSet<u64> = events.iter().map(|event| event.seq.0).collect();
    let Judgement {
        verdict, findings, ..
    } = judge_events(&events);
    for finding in &findings {
        let evidence = &finding.evidence;
        assert!(evidence.is_sorted(), "evidence ascends: {finding:?}");
        let known = evidence.iter().all(|seq| numbers.contains(seq));
        assert!(known, "evidence is in the log: {finding:?}");
        assert!(!finding.title.is_empty() && !finding.text.is_empty());
    }
    let certain = findings
        .iter()
        .any(|finding| finding.certainty == Certainty::Certain);
    match verdict {
        Verdict::Pass => assert!(!certain, "a pass with a certain finding: {findings:?}"),
        Verdict::Finding => assert!(certain, "a finding that is not certain"),
        _ => {}
    }
}

fn templates() -> &'static [Value] {
    static TEMPLATES: OnceLock<Vec<Value>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let template = |line| {
            let mut event: Value = serde_json::from_str(line).expect("lines.jsonl is JSON");
            // What an agent says is JSON within JSON.
            if let Some(Value::String(text)) = event.get("text") {
                event["text"] = serde_json::from_str(text).expect("an agent's JSON");
            }
            event
        };
        LINES.lines().map(template).collect()
    })
}

fn cook(input: &mut Input<'_>) -> String {
    let mut log = r#"{"seq":1,"time_ns":0,"event":"log-opened","version":1}"#.to_owned();
    let mut seq = 1;
    while !input.is_empty() {
        seq += 1;
        let mut event = input.pick(templates()).clone();
        let changes = input.byte();
        if changes & 0x80 != 0 {
            swap_devices(&mut event);
        }
        for _ in 0..changes % 4 {
            let mut numbers = Vec::new();
            collect(&mut event, &mut numbers);
            if !numbers.is_empty() {
                let place = usize::from(input.byte()) % numbers.len();
                *numbers[place] = json!(u64::from(input.byte()) * input.pick(&SCALES));
            }
        }
        if let Some(text) = event.get_mut("text") {
            *text = Value::String(text.to_string());
        }
        event["seq"] = json!(seq);
        event["time_ns"] = json!(seq * 1000);
        log.push('\n');
        log.push_str(&event.to_string());
    }
    log.push('\n');
    log
}

fn swap_devices(value: &mut Value) {
    match value {
        Value::String(text) if text == "a" => *text = "b".into(),
        Value::String(text) if text == "b" => *text = "a".into(),
        Value::Array(items) => items.iter_mut().for_each(swap_devices),
        Value::Object(fields) => fields.values_mut().for_each(swap_devices),
        _ => {}
    }
}

fn collect<'a>(value: &'a mut Value, numbers: &mut Vec<&'a mut Value>) {
    match value {
        Value::Number(_) => numbers.push(value),
        Value::Array(items) => items.iter_mut().for_each(|item| collect(item, numbers)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| collect(field, numbers)),
        _ => {}
    }
}
