//! What had to stay so, and did not: a clone's bytes, an anonymous page behind a swap file, what a program has read into its own memory.
//!
//! Verifies each `looked` fact against the `must-hold` fact of its id: a step of the guest ended well (the clone was made, the read was
//! complete), and a later step of the guest, begun after that, found a value that is not the one that the scenario names. Both steps are
//! read from the events, so a scenario cannot claim what the guest has not said. Where the first step itself compared bytes, it must have
//! found them equal: what was never so was not changed.
//!
//! Does not verify that the scenario is right about what must hold, nor who broke it: all that the scenario itself does in between must leave
//! it alone. A step that failed or told no such value, a second step in another boot, and any fault of the plan that spoils the named disks
//! or guest memory make it void: counted only.

use pincushion_abi::{Outcome, Value};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Looked, MustHold as Declared, Stamp, Step, Timeline};
use crate::verdict::{Certainty, Finding};

const NAME: &str = "must-hold";

/// The oracle.
pub(super) struct MustHold;

impl Oracle for MustHold {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for (at, fact) in &timeline.facts {
            let Fact::Looked(looked) = fact else { continue };
            let declared = timeline
                .facts
                .iter()
                .rev()
                .find_map(|(told, fact)| match fact {
                    Fact::MustHold(declared) if declared.id == looked.id && told < at => {
                        Some(declared)
                    }
                    _ => None,
                });
            let seen = declared.and_then(|declared| {
                let (since, look, found) = seen(timeline, declared, looked)?;
                Some((declared, since, look, found))
            });
            match seen {
                None => opinion.count("must-hold.void", 1),
                Some((declared, _, _, found)) if is_wanted(&found, &looked.wanted) => {
                    opinion.count(&format!("must-hold.held-{:?}", declared.promise), 1);
                }
                Some((declared, since, look, found)) => {
                    findings.push(finding(declared, looked, (since, look), &found, *at));
                }
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

/// Both steps and what the second one found, if they say something for certain.
fn seen<'a>(
    timeline: &'a Timeline,
    declared: &Declared,
    looked: &Looked,
) -> Option<(&'a Step, &'a Step, serde_json::Value)> {
    let since = timeline
        .step(declared.since_step)
        .filter(|step| step.succeeded())?;
    let look = timeline.step(looked.step)?;
    let (established, began, ended) = (since.ended?, look.began?, look.ended?);
    let was_never_so = value(since, "equal") == Some(serde_json::Value::Bool(false));
    let boots = timeline.boots.iter();
    let other_boot = boots
        .clone()
        .any(|boot| established < boot.began && boot.began < began);
    let spoiled = boots
        .clone()
        .any(|boot| timeline.memory_was_spoiled(boot.number, ended.seq))
        || declared
            .devices
            .iter()
            .any(|device| timeline.disk_was_spoiled(device, ended));
    if established >= began || was_never_so || other_boot || spoiled {
        return None;
    }
    Some((since, look, value(look, &looked.value)?))
}

/// Whether what was found is what was wanted, or one of several.
fn is_wanted(found: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    found == wanted
        || wanted
            .as_array()
            .is_some_and(|several| several.contains(found))
}

/// What a step found out under a name; `frames.0` is the first of `frames`, `errno` the name of its error, or `none`.
fn value(step: &Step, name: &str) -> Option<serde_json::Value> {
    let (_, outcome) = step.outcome.as_ref()?;
    let values = match (outcome, name) {
        (Outcome::Failed(fault), "errno") => return Some(fault.name.clone().into()),
        (Outcome::Ok(_), "errno") => return Some("none".into()),
        (Outcome::Failed(_), _) => return None,
        (Outcome::Ok(values), _) => values,
    };
    let (name, index) = match name.rsplit_once('.') {
        Some((name, index)) => (name, Some(index.parse::<usize>().ok()?)),
        None => (name, None),
    };
    let value = match (values.get(name)?, index) {
        (Value::Numbers(numbers), Some(index)) => Value::Number(*numbers.get(index)?),
        (Value::Texts(texts), Some(index)) => Value::Text(texts.get(index)?.clone()),
        (value, None) => value.clone(),
        (_, Some(_)) => return None,
    };
    serde_json::to_value(value).ok()
}

fn finding(
    declared: &Declared,
    looked: &Looked,
    (since, look): (&Step, &Step),
    found: &serde_json::Value,
    at: Stamp,
) -> Finding {
    let detail = match (value(look, "expected"), value(look, "found")) {
        (Some(expected), Some(found)) => {
            let place = value(look, "first_difference").unwrap_or_default();
            format!(" (byte {place} is {found}, not {expected})")
        }
        _ => String::new(),
    };
    let mut evidence: Vec<u64> = [since.began, since.ended, look.began, look.ended, Some(at)]
        .into_iter()
        .flatten()
        .map(|stamp| stamp.seq)
        .collect();
    evidence.sort_unstable();
    Finding {
        oracle: NAME.to_owned(),
        title: format!("does not hold: {}", declared.what),
        promise: declared.promise,
        certainty: Certainty::Certain,
        text: format!(
            "\"{}\" had to hold since step {} ({}) ended well. Step {} ({}) found {} = {found} and not {}{detail}.",
            declared.what, since.id, since.name, look.id, look.name, looked.value, looked.wanted
        ),
        evidence,
        frames: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, Operation};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};
    use crate::verdict::Promise;

    fn report(script: &mut Script, step: u32, outcome: &serde_json::Value) {
        script.push(EventKind::StepEnded { step });
        let text =
            json!({"report": "done", "id": step, "outcome": outcome, "began_ns": 0, "ended_ns": 1});
        script.push(EventKind::AgentReport {
            text: text.to_string(),
        });
    }

    /// A clone is made (step 2), and somebody looks at it (step 3).
    fn story(made: &serde_json::Value, looked: &serde_json::Value) -> Script {
        let mut script = Script::booted();
        script.begin(2, "clone");
        report(&mut script, 2, made);
        script.fact(
            "must-hold",
            json!({"id": "c", "what": "the clone keeps its bytes", "since_step": 2, "promise": "O1", "devices": ["a"]}),
        );
        script.whole("a#0", Operation::Write, frame(7));
        script.begin(3, "read-verify");
        report(&mut script, 3, looked);
        script
    }

    fn look(script: &mut Script) {
        script.fact("looked", json!({"id": "c", "step": 3}));
    }

    #[test]
    fn a_clone_that_changed_is_caught_and_one_that_did_not_passes() {
        let different =
            json!({"ok": {"equal": false, "first_difference": 9, "expected": 65, "found": 66}});
        let mut script = story(&json!({"ok": {}}), &different);
        look(&mut script);
        let opinion = ask(MustHold, &script);
        let [finding] = &opinion.findings[..] else {
            panic!("one finding, got {opinion:?}")
        };
        assert_eq!(finding.promise, Promise::O1);
        assert!(
            finding.text.contains("byte 9 is 66, not 65"),
            "{}",
            finding.text
        );
        let mut script = story(
            &json!({"ok": {"equal": true}}),
            &json!({"ok": {"equal": true}}),
        );
        look(&mut script);
        let opinion = ask(MustHold, &script);
        assert!(opinion.findings.is_empty());
        assert_eq!(opinion.counts["must-hold.held-O1"], 1);
    }

    #[test]
    fn any_value_can_be_what_must_hold() {
        let mut script = story(&json!({"ok": {}}), &json!({"ok": {"soft_dirty": [1, 0]}}));
        for (index, wanted) in [(0, 1), (1, 1)] {
            let value = format!("soft_dirty.{index}");
            script.fact(
                "looked",
                json!({"id": "c", "step": 3, "value": value, "wanted": wanted}),
            );
        }
        let opinion = ask(MustHold, &script);
        assert_eq!(opinion.findings.len(), 1);
        assert_eq!(opinion.counts["must-hold.held-O1"], 1);
    }

    #[test]
    fn an_error_can_be_what_must_come_and_one_of_several_will_do() {
        let refused =
            json!({"failed": {"call": "io_uring_register", "errno": 14, "name": "EFAULT"}});
        for (outcome, findings) in [(refused, 0), (json!({"ok": {}}), 1)] {
            let mut script = story(&json!({"ok": {}}), &outcome);
            let wanted = json!(["EOPNOTSUPP", "EFAULT"]);
            script.fact(
                "looked",
                json!({"id": "c", "step": 3, "value": "errno", "wanted": wanted}),
            );
            assert_eq!(ask(MustHold, &script).findings.len(), findings);
        }
    }

    #[test]
    fn with_nothing_that_would_do_a_value_must_not_be_there_at_all() {
        for (value, findings) in [("signal", 1), ("status", 0)] {
            let ended = json!({"ok": {value: 11}});
            let mut script = story(&json!({"ok": {}}), &ended);
            script.fact(
                "looked",
                json!({"id": "c", "step": 3, "value": "signal", "wanted": []}),
            );
            assert_eq!(ask(MustHold, &script).findings.len(), findings);
        }
    }

    fn assert_void(script: &Script) {
        let opinion = ask(MustHold, script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["must-hold.void"], 1);
    }

    #[test]
    fn what_was_not_established_or_not_seen_is_not_judged() {
        let changed = json!({"ok": {"equal": false}});
        let failed = json!({"failed": {"call": "ioctl", "errno": 5, "name": "EIO"}});
        for (made, looked) in [
            (&failed, &changed),
            (&changed, &changed),
            (&json!({"ok": {}}), &failed),
            (&json!({"ok": {}}), &json!({"ok": {}})),
        ] {
            let mut script = story(made, looked);
            look(&mut script);
            assert_void(&script);
        }
    }

    #[test]
    fn a_fault_that_the_plan_asked_for_is_never_blamed_on_the_guest() {
        for fault in [
            Fault::Corrupt { bits: vec![1] },
            Fault::RogueTouch { range: frame(9) },
        ] {
            let mut script = story(&json!({"ok": {}}), &json!({"ok": {"equal": false}}));
            // Just before the look: a fault that acts on the write.
            let at = script.events.len() - 3;
            let later = script.events.split_off(at);
            script.fault("a#0", fault);
            for event in later {
                script.push(event.kind);
            }
            look(&mut script);
            assert_void(&script);
        }
    }

    #[test]
    fn another_boot_forgets_what_memory_held() {
        let mut script = Script::booted();
        script.begin(2, "store");
        report(&mut script, 2, &json!({"ok": {}}));
        script.fact(
            "must-hold",
            json!({"id": "c", "what": "w", "since_step": 2}),
        );
        script.stop("reset");
        script.boot(2);
        script.begin(3, "verify");
        report(&mut script, 3, &json!({"ok": {"equal": false}}));
        look(&mut script);
        assert_void(&script);
    }
}
