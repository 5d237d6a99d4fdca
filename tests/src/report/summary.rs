//! What a suite remembers of each run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::verdict::{Certainty, Expectation, Judgement, Promise, Verdict};

/// One run in a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Name of the scenario.
    pub scenario: String,
    /// The how manieth of its kind, from 1; [`crate::suite::WARM_UP`] for one that others were warmed up by.
    #[serde(default = "first")]
    pub repeat: u32,
    /// One sentence: what it does.
    pub summary: String,
    /// What it is about, for the report card.
    #[serde(default)]
    pub about: AboutScenario,
    /// The kernel as the scenario calls it (`debian-6.12`).
    pub kernel: String,
    /// The guest's `uname -r`; empty where it never booted.
    pub kernel_release: String,
    /// The evidence.
    pub run_dir: PathBuf,
    /// What it came to.
    pub judgement: Judgement,
    /// What was expected.
    pub expectation: Expectation,
    /// Whether the two agree.
    pub as_expected: bool,
    /// How long it took on the host's clock.
    pub seconds: f64,
    /// The line that runs it again.
    pub replay: String,
}

fn first() -> u32 {
    1
}

/// What a scenario says of itself that no run changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutScenario {
    /// Its permanent number in the catalogue.
    pub number: Option<String>,
    /// The promises that it examines.
    pub promises: Vec<Promise>,
    /// The file systems of its disks and regions, each once.
    pub file_systems: Vec<String>,
}

/// What a run says about a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromiseState {
    /// It was put to the test and held.
    Kept,
    /// A certain finding.
    Broken,
    /// The run did not put it to the test.
    NotTested,
}

impl PromiseState {
    /// `kept`, `broken`, `-`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::NotTested => "-",
        }
    }
}

impl RunSummary {
    /// What the run says about a promise. A promise counts as kept only where the oracles counted that it was put to the test.
    #[must_use]
    pub fn promise(&self, promise: Promise) -> PromiseState {
        let broken =
            self.judgement.findings.iter().any(|finding| {
                finding.promise == promise && finding.certainty == Certainty::Certain
            });
        if broken {
            return PromiseState::Broken;
        }
        let count = |name: &str| self.judgement.counts.get(name).copied().unwrap_or(0);
        let has_held = |promise: Promise| count(&format!("must-hold.held-{promise:?}")) > 0;
        // By a device's fault, or it would be broken: the kernel had nothing to keep there.
        let has_lost = {
            let mut findings = self.judgement.findings.iter();
            findings.any(|finding| finding.oracle == "lost-after-power-cut")
        };
        let tested = match promise {
            Promise::O1 => {
                count("writeback-of-held-page.dma-into-file-page") > 0
                    && count("writeback-of-held-page.write-back") > 0
                    || count("write-while-frozen.silent") > 0
                    || has_held(promise)
            }
            Promise::O2 => {
                count("lost-dma-data.kept") > 0
                    || count("lost-after-power-cut.promises") > 0 && !has_lost
                    || has_held(promise)
            }
            Promise::O3 => count("dax-block-reused-while-held.looked-twice") > 0,
            Promise::Freed => has_held(promise),
            Promise::Machine => false,
        };
        let judged = matches!(self.judgement.verdict, Verdict::Pass | Verdict::Finding);
        if tested && judged {
            PromiseState::Kept
        } else {
            PromiseState::NotTested
        }
    }

    /// What was expected, in words: `finding (writeback-of-held-page)`.
    #[must_use]
    pub fn expected(&self) -> String {
        with_oracles(
            self.expectation.verdict,
            self.expectation.oracles.iter().map(String::as_str),
        )
    }

    /// What was seen, in the same words.
    #[must_use]
    pub fn seen(&self) -> String {
        let certain = self
            .judgement
            .findings
            .iter()
            .filter(|finding| finding.certainty == Certainty::Certain);
        let mut oracles: Vec<&str> = certain.map(|finding| finding.oracle.as_str()).collect();
        oracles.sort_unstable();
        oracles.dedup();
        with_oracles(self.judgement.verdict, oracles.into_iter())
    }

    /// `12.3 s`.
    #[must_use]
    pub fn time(&self) -> String {
        format!("{:.1} s", self.seconds)
    }
}

fn with_oracles<'a>(verdict: Verdict, oracles: impl Iterator<Item = &'a str>) -> String {
    let oracles: Vec<&str> = oracles.collect();
    if oracles.is_empty() {
        word(verdict).to_owned()
    } else {
        format!("{} ({})", word(verdict), oracles.join(", "))
    }
}

/// A verdict as people read it.
#[must_use]
pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Finding => "finding",
        Verdict::Inconclusive => "inconclusive",
        Verdict::GuestPanic => "guest panic",
        Verdict::Hang => "hang",
        Verdict::NotApplicable => "not applicable",
        Verdict::SetupError => "setup error",
    }
}

/// A run for the tests of this module's neighbours.
#[cfg(test)]
pub(crate) fn example(verdict: Verdict, as_expected: bool) -> RunSummary {
    use crate::verdict::Finding;
    let findings = (verdict == Verdict::Finding).then(|| Finding {
        oracle: "writeback-of-held-page".into(),
        title: "write-back of a page that a device is still writing".into(),
        promise: Promise::O1,
        certainty: Certainty::Certain,
        text: "Page 0 of <data> & more was under write-back.".into(),
        evidence: vec![2, 3],
        frames: vec![0x1234],
    });
    RunSummary {
        scenario: "dma-under-writeback".into(),
        repeat: 1,
        summary: "a read ends in a page under write-back".into(),
        about: AboutScenario::default(),
        kernel: "debian-6.12".into(),
        kernel_release: "6.12.117-cloud-amd64".into(),
        run_dir: PathBuf::from("runs/1"),
        judgement: Judgement {
            verdict,
            reason: "because".into(),
            findings: findings.into_iter().collect(),
            counts: std::collections::BTreeMap::new(),
        },
        expectation: Expectation {
            verdict: Verdict::Pass,
            oracles: Vec::new(),
        },
        as_expected,
        seconds: 12.345,
        replay: "pincushion test replay runs/1".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_only_where_it_was_tested() {
        let mut run = example(Verdict::Pass, true);
        assert_eq!(run.promise(Promise::O1), PromiseState::NotTested);
        for count in ["dma-into-file-page", "write-back"] {
            run.judgement
                .counts
                .insert(format!("writeback-of-held-page.{count}"), 1);
        }
        assert_eq!(run.promise(Promise::O1), PromiseState::Kept);
        run.judgement.verdict = Verdict::Hang;
        assert_eq!(run.promise(Promise::O1), PromiseState::NotTested);
        assert_eq!(
            example(Verdict::Finding, true).promise(Promise::O1),
            PromiseState::Broken
        );
    }

    #[test]
    fn bytes_that_a_lying_device_lost_were_not_kept_by_the_kernel() {
        let mut run = example(Verdict::Pass, true);
        let promises = "lost-after-power-cut.promises".to_owned();
        run.judgement.counts.insert(promises, 1);
        assert_eq!(run.promise(Promise::O2), PromiseState::Kept);
        run.judgement.findings = example(Verdict::Finding, true).judgement.findings;
        run.judgement.findings[0].oracle = "lost-after-power-cut".into();
        run.judgement.findings[0].promise = Promise::Machine;
        assert_eq!(run.promise(Promise::O2), PromiseState::NotTested);
    }

    #[test]
    fn what_was_seen_names_the_oracles() {
        assert_eq!(
            example(Verdict::Finding, true).seen(),
            "finding (writeback-of-held-page)"
        );
        assert_eq!(example(Verdict::Hang, true).seen(), "hang");
        assert_eq!(example(Verdict::Hang, true).time(), "12.3 s");
    }
}
