//! What a suite has shown, in one sentence for people who read nothing else.

use super::summary::{PromiseState, RunSummary};
use crate::verdict::{Certainty, Finding, Promise};

/// The oracle whose finding has a sentence of its own.
const WRITEBACK: &str = "writeback-of-held-page";

/// Says which kernel broke what, and in which runs; `None` where no run has a certain finding of O1, O2 or O3.
#[must_use]
pub fn shown(runs: &[RunSummary]) -> Option<String> {
    let (first, finding) = runs.iter().find_map(|run| Some((run, broken(run)?)))?;
    let same_kernel = || runs.iter().filter(|run| run.kernel == first.kernel);
    let who = kernel(first);
    let promise = format!("{:?}", finding.promise);
    let mut names: Vec<&str> = Vec::new();
    for run in same_kernel() {
        let name = run.scenario.as_str();
        // A scenario that ran again and again is named once.
        if run.promise(finding.promise) == PromiseState::Broken && !names.contains(&name) {
            names.push(name);
        }
    }
    let what = if finding.oracle == WRITEBACK {
        "wrote a page back to one disk while another disk still owned it for DMA".to_owned()
    } else {
        format!("broke a promise: {}", finding.title)
    };
    let states = || same_kernel().map(|run| run.promise(Promise::O2));
    let kept = finding.promise == Promise::O1
        && states().any(|state| state == PromiseState::Kept)
        && states().all(|state| state != PromiseState::Broken);
    let kept = if kept {
        ", and lost none of the device's data (O2 kept)"
    } else {
        ""
    };
    Some(format!(
        "{who} {what} ({promise} broken: {}){kept}.",
        names.join(", ")
    ))
}

/// The first certain finding that breaks a promise of the kernel.
fn broken(run: &RunSummary) -> Option<&Finding> {
    run.judgement.findings.iter().find(|finding| {
        finding.certainty == Certainty::Certain && finding.promise != Promise::Machine
    })
}

/// `Debian's 6.12.117`.
fn kernel(run: &RunSummary) -> String {
    let release = match run.kernel_release.as_str() {
        "" => run.kernel.as_str(),
        release => release.split('+').next().unwrap_or(release),
    };
    if run.kernel.starts_with("debian") {
        format!("Debian's {release}")
    } else {
        format!("Kernel {release}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::example;
    use crate::verdict::Verdict;

    #[test]
    fn a_finding_is_told_with_its_kernel_and_its_runs() {
        let mut run = example(Verdict::Finding, true);
        run.kernel_release = "6.12.117+deb12-cloud-amd64".into();
        let mut control = example(Verdict::Pass, true);
        control
            .judgement
            .counts
            .insert("lost-dma-data.kept".into(), 1);
        assert_eq!(
            shown(&[control, run.clone(), run]).as_deref(),
            Some(
                "Debian's 6.12.117 wrote a page back to one disk while another disk still owned it for DMA \
                 (O1 broken: dma-under-writeback), and lost none of the device's data (O2 kept)."
            )
        );
    }

    #[test]
    fn runs_that_pass_show_nothing() {
        assert_eq!(shown(&[example(Verdict::Pass, true)]), None);
    }
}
