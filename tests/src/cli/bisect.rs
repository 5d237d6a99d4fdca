//! `run --only NAME --until broken`: one question to one kernel, whose answer is the exit code that `git bisect run` wants.
//!
//! Expectations do not matter here: a kernel that breaks a promise is bad, also where the scenario expects it.

use clap::ValueEnum;
use pincushion_vmm::exit_code;

use crate::report::RunSummary;
use crate::verdict::{Certainty, Promise, Verdict};

/// When to stop running the scenario again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    /// Once the kernel has certainly broken a promise.
    Broken,
}

/// What a run says to a bisection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Good,
    Bad,
    Unknown,
}

/// Whether no more runs are needed after this one.
pub(super) fn is_enough(run: &RunSummary) -> bool {
    answer(run) == Answer::Bad
}

/// One broken promise makes a kernel bad, and only runs that all passed make it good.
pub(super) fn code(runs: &[RunSummary]) -> u8 {
    let answers = || runs.iter().map(answer);
    if answers().any(|answer| answer == Answer::Bad) {
        exit_code::SURPRISE
    } else if !runs.is_empty() && answers().all(|answer| answer == Answer::Good) {
        exit_code::OK
    } else {
        exit_code::CANNOT_TELL
    }
}

fn answer(run: &RunSummary) -> Answer {
    let is_broken = run.judgement.findings.iter().any(|finding| {
        finding.certainty == Certainty::Certain && finding.promise != Promise::Machine
    });
    match run.judgement.verdict {
        _ if is_broken => Answer::Bad,
        Verdict::Pass => Answer::Good,
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_broken_promise_is_bad_also_where_it_was_expected() {
        let (kept, broken) = (
            example(Verdict::Pass, false),
            example(Verdict::Finding, true),
        );
        assert_eq!(code(&[kept.clone(), broken]), exit_code::SURPRISE);
        assert_eq!(code(&[kept.clone(), kept]), exit_code::OK);
    }

    #[test]
    fn a_kernel_that_could_not_be_judged_is_neither_good_nor_bad() {
        let kept = example(Verdict::Pass, true);
        for verdict in [Verdict::SetupError, Verdict::Inconclusive, Verdict::Hang] {
            let runs = [kept.clone(), example(verdict, true)];
            assert_eq!(code(&runs), exit_code::CANNOT_TELL, "{verdict:?}");
        }
        assert_eq!(code(&[]), exit_code::CANNOT_TELL, "stopped before any run");
    }

    #[test]
    fn a_bug_of_our_own_devices_is_not_the_kernels() {
        let mut run = example(Verdict::Finding, true);
        run.judgement.findings[0].promise = Promise::Machine;
        assert!(!is_enough(&run));
        assert_eq!(code(&[run]), exit_code::CANNOT_TELL);
    }
}
