//! From what was found to the verdict of a run.
//!
//! The first line that is true decides (the table is in `docs/oracles.md`):
//!
//! | what | verdict |
//! | --- | --- |
//! | the agent never said hello in the first boot, or the machine failed | setup error |
//! | the kernel panicked | guest panic |
//! | the machine was stopped as hung | hang |
//! | a certain finding | finding |
//! | the kernel lacks what the scenario is about | not applicable |
//! | a possible finding, a failed step, a fact or an event that makes no sense, no end, an end that nobody asked for | inconclusive |
//! | none of these | pass |

use std::collections::BTreeMap;
use std::path::Path;

use pincushion_devices::trace::event::Event;

use super::bench::{Bench, Opinion};
use crate::timeline::{Fact, ReadError, Reader, Timeline};
use crate::verdict::{Certainty, Judgement, Verdict};

/// Why a run could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The event log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Judges the run in `run_dir` by its `events.jsonl`.
///
/// # Errors
/// A log that is missing or is no event log. A log that breaks off in its last line is judged.
pub fn judge(run_dir: &Path) -> Result<Judgement, JudgeError> {
    judge_log(&run_dir.join("events.jsonl")).map(|(judgement, _)| judgement)
}

/// Judges a log and gives its timeline too.
///
/// # Errors
/// As [`judge`].
pub fn judge_log(log: &Path) -> Result<(Judgement, Timeline), JudgeError> {
    let mut bench = Bench::default();
    for event in Reader::open(log)? {
        bench.feed(&event?);
    }
    Ok((bench.judge(), bench.into_timeline()))
}

/// Judges events in order.
pub fn judge_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Judgement {
    let mut bench = Bench::default();
    for event in events {
        bench.feed(event);
    }
    bench.judge()
}

impl Bench {
    /// What the run has come to.
    #[must_use]
    pub fn judge(&self) -> Judgement {
        let mut opinion = self.opinion();
        let (verdict, reason) = verdict(self.timeline(), &opinion);
        if verdict == Verdict::SetupError {
            // What a machine shows that was never set up is a hint for the one who repairs it, and no finding.
            for finding in &mut opinion.findings {
                finding.certainty = Certainty::Possible;
            }
        }
        let mut counts = opinion.counts;
        count_all(self.timeline(), &mut counts);
        Judgement {
            verdict,
            reason,
            findings: opinion.findings,
            counts,
        }
    }
}

fn verdict(timeline: &Timeline, opinion: &Opinion) -> (Verdict, String) {
    let (how, detail) = timeline
        .end()
        .map_or(("", ""), |(_, how, detail)| (how.as_str(), detail.as_str()));
    let because = |what: &str| {
        if detail.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {detail}")
        }
    };
    let panicked = opinion
        .findings
        .iter()
        .any(|finding| finding.title.starts_with("panic: "))
        || timeline.boots.iter().any(|boot| {
            boot.ended
                .as_ref()
                .is_some_and(|(_, how, _)| how == "panic")
        })
        || opinion.counts.contains_key("guest-splat.asked-for");
    if timeline
        .boots
        .first()
        .is_none_or(|boot| boot.hello.is_none())
    {
        return (
            Verdict::SetupError,
            because("the guest did not boot: its agent never reported"),
        );
    }
    if how == "failed" {
        return (Verdict::SetupError, because("the machine failed"));
    }
    if panicked {
        return (Verdict::GuestPanic, because("the guest's kernel panicked"));
    }
    if how == "hang" {
        return (
            Verdict::Hang,
            because("the guest did not come to its end within the limit"),
        );
    }
    let certain: Vec<&str> = opinion
        .findings
        .iter()
        .filter(|finding| finding.certainty == Certainty::Certain)
        .map(|finding| finding.title.as_str())
        .collect();
    if let Some(first) = certain.first() {
        let more = certain.len() - 1;
        let more = if more == 0 {
            String::new()
        } else {
            format!(", and {more} more")
        };
        return (Verdict::Finding, format!("{first}{more}"));
    }
    if let Some(needs) = what_is_lacking(timeline) {
        return (Verdict::NotApplicable, format!("needs {needs}"));
    }
    match doubt(timeline, opinion) {
        Some(doubt) => (Verdict::Inconclusive, doubt),
        None => (
            Verdict::Pass,
            "the scenario ran to its end and no oracle found anything".to_owned(),
        ),
    }
}

/// What the scenario is about and the kernel does not have.
fn what_is_lacking(timeline: &Timeline) -> Option<&str> {
    timeline.facts.iter().find_map(|(_, fact)| match fact {
        Fact::NotApplicable(lack) => Some(lack.needs.as_str()),
        _ => None,
    })
}

/// Why a run without a certain finding is no pass either.
fn doubt(timeline: &Timeline, opinion: &Opinion) -> Option<String> {
    let failed = timeline.facts.iter().find_map(|(_, fact)| match fact {
        Fact::StepFailed(failed) => Some(failed),
        _ => None,
    });
    if let Some(failed) = failed {
        let name = timeline
            .step(failed.step)
            .map_or("", |step| step.name.as_str());
        let mistakes = match timeline.guest_mistakes {
            0 => "",
            // Either the driver's, after which a device may stand still, or ours.
            _ => ", and a device complained of its driver (`guest-mistake` in the log)",
        };
        return Some(format!(
            "step {} ({name}) gave {} where {} was needed{mistakes}",
            failed.step, failed.got, failed.wanted
        ));
    }
    if let Some(finding) = opinion.findings.first() {
        return Some(format!("possible only: {}", finding.title));
    }
    if let Some((at, key, error)) = timeline.malformed.first() {
        return Some(format!(
            "the fact {key} at event {} makes no sense: {error}",
            at.seq
        ));
    }
    if let Some(seq) = timeline.anomalies.first() {
        return Some(format!("event {seq} contradicts those before it"));
    }
    if let Some(boot) = timeline.boots.iter().find(|boot| boot.hello.is_none()) {
        return Some(format!(
            "boot {} did not come up: its agent never reported",
            boot.number
        ));
    }
    match timeline.end() {
        None => Some("the log breaks off before the machine ended".to_owned()),
        Some((_, how, _)) if how == "reset" && !timeline.stop_was_asked(how) => {
            Some("the guest reset the machine and nobody had asked for it".to_owned())
        }
        Some(_) => None,
    }
}

fn count_all(timeline: &Timeline, counts: &mut BTreeMap<String, u64>) {
    let requests = &timeline.requests;
    let mut count = |name: &str, number: usize| {
        counts.insert(name.to_owned(), number as u64);
    };
    count("requests", requests.len());
    count(
        "holds",
        requests
            .iter()
            .filter(|request| request.hold.is_some())
            .count(),
    );
    count(
        "parked",
        requests.iter().map(|request| request.parks.len()).sum(),
    );
    count(
        "faults",
        requests.iter().map(|request| request.applied.len()).sum(),
    );
    count("boots", timeline.boots.len());
    count("steps", timeline.steps.len());
    count("facts.malformed", timeline.malformed.len());
    count("log.anomalies", timeline.anomalies.len());
    count(
        "guest-mistakes",
        usize::try_from(timeline.guest_mistakes).unwrap_or(usize::MAX),
    );
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Operation};
    use serde_json::json;

    use super::*;
    use crate::timeline::script::{Script, frame};

    fn judged(build: impl FnOnce(&mut Script)) -> Judgement {
        let mut script = Script::booted();
        build(&mut script);
        judge_events(&script.events)
    }

    fn break_o1(script: &mut Script) {
        script.fact(
            "file-page",
            json!({"device": "a", "file": "f", "frames": [7]}),
        );
        script.fetch("b#0", Operation::Read, frame(7));
        script.fetch("a#0", Operation::Write, frame(7));
        script.finish("a#0");
        script.finish("b#0");
    }

    #[test]
    fn a_quiet_run_passes_and_says_what_it_counted() {
        let judgement = judged(|script| {
            script.whole("a#0", Operation::Write, frame(7));
            script.stop("power-off");
        });
        assert_eq!(judgement.verdict, Verdict::Pass, "{judgement:?}");
        assert_eq!(
            (judgement.counts["requests"], judgement.counts["holds"]),
            (1, 1)
        );
    }

    #[test]
    fn a_certain_finding_outweighs_a_failed_step() {
        let judgement = judged(|script| {
            break_o1(script);
            script.fact(
                "step-failed",
                json!({"step": 1, "wanted": "ok", "got": "EIO"}),
            );
            script.stop("power-off");
        });
        assert_eq!(judgement.verdict, Verdict::Finding, "{judgement:?}");
    }

    #[test]
    fn a_panic_and_a_hang_outweigh_findings_which_stay_in_the_list() {
        for (how, verdict) in [("panic", Verdict::GuestPanic), ("hang", Verdict::Hang)] {
            let judgement = judged(|script| {
                break_o1(script);
                script.stop(how);
            });
            assert_eq!(judgement.verdict, verdict);
            assert_eq!(judgement.findings[0].oracle, "writeback-of-held-page");
        }
    }

    #[test]
    fn a_panic_that_ends_in_a_reset_is_a_panic_also_when_it_was_asked_for() {
        for asked in [false, true] {
            let judgement = judged(|script| {
                if asked {
                    script.fact("expected-stop", json!({"how": "panic"}));
                }
                script.console("Kernel panic - not syncing: sysrq triggered crash");
                script.stop("reset");
            });
            assert_eq!(judgement.verdict, Verdict::GuestPanic);
            assert_eq!(judgement.findings.is_empty(), asked);
        }
    }

    #[test]
    fn a_guest_that_does_not_boot_is_a_setup_error_whatever_else_it_did() {
        let mut script = Script::booted();
        script.events.truncate(script.events.len() - 1);
        script.console("Kernel panic - not syncing: VFS: Unable to mount root fs");
        script.stop("panic");
        let judgement = judge_events(&script.events);
        assert_eq!(judgement.verdict, Verdict::SetupError);
        let hints = judgement.findings.iter();
        assert!(
            hints
                .clone()
                .all(|hint| hint.certainty == Certainty::Possible)
        );
        assert!(hints.count() > 0, "the panic is told as a hint");
        let failed = judged(|script| {
            script.stop("failed");
        });
        assert_eq!(failed.verdict, Verdict::SetupError);
    }

    #[test]
    fn doubt_makes_a_run_inconclusive_and_says_why() {
        type Story = fn(&mut Script);
        let stories: [(&str, Story); 7] = [
            ("gave EIO where ok was needed", |script| {
                script.fact(
                    "step-failed",
                    json!({"step": 1, "wanted": "ok", "got": "EIO"}),
                );
                script.stop("power-off");
            }),
            ("needed, and a device complained", |script| {
                script.push(EventKind::GuestMistake {
                    device: "a".into(),
                    queue: 0,
                    what: "a head was offered again while it is in flight".into(),
                    answer: "ignored".into(),
                });
                script.fact(
                    "step-failed",
                    json!({"step": 1, "wanted": "ok", "got": "EIO"}),
                );
                script.stop("power-off");
            }),
            ("possible only", |script| {
                script.fetch("b#0", Operation::Read, frame(7));
                script.fetch("a#0", Operation::Write, frame(7));
                script.finish("a#0");
                script.finish("b#0");
                script.stop("power-off");
            }),
            ("fact pins", |script| {
                script.fact("pins", json!({"acquired": "many"}));
                script.stop("power-off");
            }),
            ("contradicts", |script| {
                script.publish("a#9");
                script.stop("power-off");
            }),
            ("breaks off", |_| ()),
            ("nobody had asked", |script| {
                script.stop("reset");
            }),
        ];
        for (reason, story) in stories {
            let judgement = judged(story);
            assert_eq!(
                judgement.verdict,
                Verdict::Inconclusive,
                "{reason}: {judgement:?}"
            );
            assert!(
                judgement.reason.contains(reason),
                "{reason}: {}",
                judgement.reason
            );
        }
    }

    #[test]
    fn a_kernel_that_lacks_something_is_not_judged_for_it_but_for_what_it_broke() {
        let lacks = json!({"step": 1, "needs": "UFFDIO_MOVE"});
        let quiet = judged(|script| {
            script.fact("not-applicable", lacks.clone());
            script.stop("stopped");
        });
        assert_eq!(
            (quiet.verdict, quiet.reason.as_str()),
            (Verdict::NotApplicable, "needs UFFDIO_MOVE")
        );
        let broken = judged(|script| {
            break_o1(script);
            script.fact("not-applicable", lacks);
            script.stop("stopped");
        });
        assert_eq!(broken.verdict, Verdict::Finding);
    }

    #[test]
    fn a_reboot_that_was_asked_for_passes() {
        let judgement = judged(|script| {
            script.begin(1, "reboot");
            script.stop("reset");
            script.boot(2);
            script.stop("power-off");
        });
        assert_eq!(judgement.verdict, Verdict::Pass, "{judgement:?}");
    }

    #[test]
    fn a_second_boot_that_does_not_come_up_is_inconclusive() {
        let judgement = judged(|script| {
            script.begin(1, "reboot");
            script.stop("reset");
            script.push(EventKind::BootBegan { boot: 2 });
            script.stop("stopped");
        });
        assert_eq!(judgement.verdict, Verdict::Inconclusive, "{judgement:?}");
    }

    #[test]
    fn a_run_directory_without_a_log_is_an_error_that_names_it() {
        let error = judge(Path::new("/no/such/run")).expect_err("no log");
        assert!(
            error.to_string().contains("/no/such/run/events.jsonl"),
            "{error}"
        );
    }
}
