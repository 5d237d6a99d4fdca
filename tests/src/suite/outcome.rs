//! What the evidence of a run and the end of its process come to, and whether that says anything about the kernel.

use std::path::Path;

use super::child::ChildEnd;
use crate::oracle::{IMPOSSIBLE_FLAGS, judge};
use crate::verdict::{BROKE_DOWN, Certainty, Judgement, Verdict};

/// Counted beside [`BROKE_DOWN`] where the run's process was still there after its limit, as it is in a nested machine that stands still.
const STOOD_STILL: &str = "process.stood-still";

/// Why this judgement is about the nested machine or the course of the run, and not about the kernel; words for before its reason. A
/// panic, a pass, a hang after a device has held or failed anything, and a finding that nobody expected are never looked away from.
pub(super) fn says_nothing(judgement: &Judgement, expected: Verdict) -> Option<&'static str> {
    if count(judgement, IMPOSSIBLE_FLAGS) > 0 {
        return Some("a CPU showed flags that it cannot have had, its emulation failed: ");
    }
    let was_silent = judgement.verdict == Verdict::SetupError && count(judgement, "boots") > 0;
    // One with a possible finding says something, and a process of ours that broke down must be seen.
    let missed_its_point = judgement.verdict == Verdict::Inconclusive
        && judgement.findings.is_empty()
        && !judgement.broke_down();
    // An emulated CPU that was interrupted where no interrupt may come, and waits for a lock that it holds itself, has been seen twice, both
    // times in a guest that still loaded its drivers.
    let hung_before_its_point = judgement.verdict == Verdict::Hang
        && ["parked", "faults"].map(|what| count(judgement, what)) == [0, 0]
        && judgement
            .findings
            .iter()
            .all(|finding| finding.certainty == Certainty::Possible);
    if judgement.verdict == expected {
        // A finding that is expected says nothing of what did not come after it. A process of ours that crashed is another matter.
        let is_cut_short = expected == Verdict::Finding && count(judgement, STOOD_STILL) > 0;
        return is_cut_short.then_some("what was expected was seen, but ");
    }
    if hung_before_its_point {
        return Some("nothing had been held by then: ");
    }
    (was_silent || missed_its_point).then_some("")
}

fn count(judgement: &Judgement, what: &str) -> u64 {
    judgement.counts.get(what).copied().unwrap_or_default()
}

/// The judgement of the evidence, given how the child ended.
pub(super) fn judged(run_dir: &Path, end: &ChildEnd) -> Judgement {
    let judgement = match judge(run_dir) {
        Ok(judgement) => judgement,
        Err(error) => {
            let how = match end {
                ChildEnd::Done => String::new(),
                ChildEnd::Crashed(how) => {
                    format!("; the run's process ended by {how}, see child.log")
                }
                ChildEnd::LimitReached => "; the run's process did not end within its limit".into(),
                ChildEnd::NotStarted(why) => return setup_error(why.clone()),
                ChildEnd::Stopped => "; it was stopped".into(),
            };
            return setup_error(format!("{}{how}", crate::words(&error)));
        }
    };
    let doubt = match end {
        ChildEnd::Done => return judgement,
        ChildEnd::Crashed(how) => format!("the run's process ended by {how}, see child.log"),
        ChildEnd::LimitReached => "the run's process did not end within its limit".into(),
        ChildEnd::NotStarted(why) => why.clone(),
        ChildEnd::Stopped => "it was stopped".into(),
    };
    // What is certain stays certain; but a process that broke down cannot vouch for a pass.
    let verdict = match (judgement.verdict, end) {
        (Verdict::Pass | Verdict::Inconclusive, ChildEnd::LimitReached) => Verdict::Hang,
        (Verdict::Pass, _) => Verdict::Inconclusive,
        (verdict, _) => verdict,
    };
    let mut counts = judgement.counts;
    counts.insert(BROKE_DOWN.to_owned(), 1);
    if *end == ChildEnd::LimitReached {
        counts.insert(STOOD_STILL.to_owned(), 1);
    }
    Judgement {
        verdict,
        reason: format!("{doubt}; {}", judgement.reason),
        counts,
        ..judgement
    }
}

pub(super) fn not_applicable(why: &str) -> Judgement {
    Judgement {
        verdict: Verdict::NotApplicable,
        ..setup_error(why.to_owned())
    }
}

pub(super) fn setup_error(reason: String) -> Judgement {
    Judgement {
        verdict: Verdict::SetupError,
        reason,
        findings: Vec::new(),
        counts: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn only_what_says_nothing_about_the_kernel_is_tried_again() {
        let judgement = |verdict, what: &str| Judgement {
            verdict,
            counts: [(what.to_owned(), 1)].into(),
            ..setup_error(String::new())
        };
        let tried_again = |verdict, what: &str, expected| {
            says_nothing(&judgement(verdict, what), expected).is_some()
        };
        let silent = (Verdict::SetupError, "boots");
        assert!(tried_again(silent.0, silent.1, Verdict::Pass));
        assert!(!tried_again(silent.0, silent.1, Verdict::SetupError));
        assert!(!tried_again(
            Verdict::SetupError,
            "facts.malformed",
            Verdict::Pass
        ));
        let flags = (Verdict::GuestPanic, IMPOSSIBLE_FLAGS);
        assert!(tried_again(flags.0, flags.1, Verdict::Finding));
        assert!(tried_again(Verdict::Inconclusive, "boots", Verdict::Pass));
        assert!(!tried_again(
            Verdict::Inconclusive,
            "boots",
            Verdict::Inconclusive
        ));
        assert!(!tried_again(
            Verdict::Inconclusive,
            BROKE_DOWN,
            Verdict::Pass
        ));
        let mut possible = judgement(Verdict::Inconclusive, "boots");
        possible.findings = example(Verdict::Finding, true).judgement.findings;
        assert_eq!(says_nothing(&possible, Verdict::Pass), None);
        assert!(tried_again(Verdict::Hang, "requests", Verdict::Finding));
        assert!(!tried_again(Verdict::Hang, "requests", Verdict::Hang));
        for what in ["parked", "faults"] {
            assert!(!tried_again(Verdict::Hang, what, Verdict::Finding));
        }
        let mut hang = judgement(Verdict::Hang, "requests");
        hang.findings = example(Verdict::Finding, true).judgement.findings;
        hang.findings[0].certainty = Certainty::Possible;
        assert!(says_nothing(&hang, Verdict::Finding).is_some());
        hang.findings[0].certainty = Certainty::Certain;
        assert_eq!(says_nothing(&hang, Verdict::Finding), None);
        assert!(tried_again(Verdict::Finding, STOOD_STILL, Verdict::Finding));
        assert!(!tried_again(Verdict::Finding, STOOD_STILL, Verdict::Pass));
        assert!(!tried_again(Verdict::Finding, BROKE_DOWN, Verdict::Finding));
        for verdict in [Verdict::GuestPanic, Verdict::Finding, Verdict::Pass] {
            for expected in [Verdict::Pass, Verdict::Finding] {
                assert!(!tried_again(verdict, "boots", expected), "{verdict:?}");
            }
        }
    }

    #[test]
    fn a_child_that_left_no_log_is_a_setup_error_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let judgement = judged(dir.path(), &ChildEnd::Crashed("signal 11".into()));
        assert_eq!(judgement.verdict, Verdict::SetupError);
        assert!(
            judgement.reason.contains("signal 11"),
            "{}",
            judgement.reason
        );
        let judgement = judged(dir.path(), &ChildEnd::NotStarted("no qemu".into()));
        assert_eq!(
            (judgement.verdict, judgement.reason.as_str()),
            (Verdict::SetupError, "no qemu")
        );
    }
}
