//! What a run came to: the words that oracles, runner and reports share.
//!
//! A run is one boot (or, after a reboot, several) of one scenario. A scenario says what it *expects*, so that a stock kernel that
//! is known to break a promise gives an expected finding, and a suite that sees just what it expects is green.

use serde::{Deserialize, Serialize};

/// The promise that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Promise {
    /// No write-back of a page that a device is still writing.
    O1,
    /// No crash, no lost data, when a page is dirtied after it was cleaned.
    O2,
    /// A DAX block is not reused while a device still holds it.
    O3,
    /// A frame that a device holds is not free.
    Freed,
    /// A device of ours, or the host, did not do what it must: nothing that the guest's kernel did.
    Machine,
}

/// How sure a finding is. Certain overlap is a failure, possible overlap is inconclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// It may have been so.
    Possible,
    /// It was so.
    Certain,
}

/// One thing that an oracle found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the oracle, for example `writeback-of-held-page`.
    pub oracle: String,
    /// The same words each time that the same thing happens, without addresses or numbers: the key for counting.
    pub title: String,
    /// Which promise was broken.
    pub promise: Promise,
    /// How sure.
    pub certainty: Certainty,
    /// What happened, in whole sentences with the requests and frames, for a person.
    pub text: String,
    /// Sequence numbers of the events that prove it, ascending.
    pub evidence: Vec<u64>,
    /// Guest frame numbers it is about.
    pub frames: Vec<u64>,
}

/// What a whole run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The scenario ran to its end and no oracle found anything certain.
    Pass,
    /// At least one certain finding.
    Finding,
    /// The scenario could not establish what it needed, or overlap was only possible.
    Inconclusive,
    /// The guest's kernel panicked.
    GuestPanic,
    /// The guest or a step did not end within its limit.
    Hang,
    /// The kernel lacks what the scenario is about; the reason says what. Never a finding, and no pass either.
    NotApplicable,
    /// The guest did not boot, or the host lacked something. Never a finding.
    SetupError,
}

/// Counted in a judgement where the run's own process did not end as it should.
pub const BROKE_DOWN: &str = "process.broke-down";

/// The judge's whole answer; `verdict.json` of a run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The sum.
    pub verdict: Verdict,
    /// One sentence: why this verdict.
    pub reason: String,
    /// All findings, certain ones first.
    pub findings: Vec<Finding>,
    /// What was only counted, by name (`unstable-payload.legal`, `holds`, ...).
    pub counts: std::collections::BTreeMap<String, u64>,
}

impl Judgement {
    /// Whether the run's own process did not end as it should, so that nobody knows what would have come after it.
    #[must_use]
    pub fn broke_down(&self) -> bool {
        self.counts.contains_key(BROKE_DOWN)
    }
}

/// What a scenario expects of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The verdict.
    pub verdict: Verdict,
    /// Oracles that must each have a certain finding, and no others may. Empty unless `verdict` is `finding` (or a panic
    /// or hang that an oracle names too).
    #[serde(default)]
    pub oracles: Vec<String>,
}
