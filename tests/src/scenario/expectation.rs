//! What a scenario expects of a kernel, compared with what was seen.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Scenario;
use crate::verdict::{Certainty, Expectation, Judgement, Verdict};

/// The comparison of a run with its expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Just what was expected.
    AsExpected,
    /// Something else; says what.
    Surprise(String),
}

/// What a kernel of our own designs (`design:bias+bounce`) is taken for where a scenario does not name it: what it is built from.
const DESIGNS_ARE: &str = "debian:6.12";

/// The design that counts nothing: no policy ever meets a page that it says is pinned.
const COUNTS_NOTHING: &str = "design:none+";

/// The expectation for a kernel: the longest key that is the kernel or a prefix of its version, then the longest with a `*`; for a kernel
/// of our own designs then that of Debian's 6.12; else `default`.
///
/// `debian:6.12` is meant for `debian:6.12.117+deb12` too, and not for `debian:6.1`; `design:bias` for `design:bias+bounce` too,
/// `design` for all of them, and `design:*+bounce` for each design with this policy but `none`, which counts nothing to apply it to.
#[must_use]
pub fn expected_for<'a>(
    expect: &'a BTreeMap<String, Expectation>,
    kernel: &str,
) -> Option<&'a Expectation> {
    named_in(expect, kernel).or_else(|| expect.get("default"))
}

/// What a table by kernel says of this one.
fn named_in<'a, T>(table: &'a BTreeMap<String, T>, kernel: &str) -> Option<&'a T> {
    names_of(kernel).find_map(|kernel| {
        let fitting = table.iter().filter(|(name, _)| is_meant(name, kernel));
        fitting
            .max_by_key(|(name, _)| (!name.contains('*'), name.len()))
            .map(|(_, value)| value)
    })
}

/// A kernel's own name, and the one that it goes by where that is not known.
fn names_of(kernel: &str) -> impl Iterator<Item = &str> {
    let other = kernel.starts_with("design:").then_some(DESIGNS_ARE);
    std::iter::once(kernel).chain(other)
}

/// Whether a kernel's name in a scenario means this kernel.
fn is_meant(name: &str, kernel: &str) -> bool {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '+', '-', ':']);
    let Some((before, after)) = name.split_once('*') else {
        return kernel.strip_prefix(name).is_some_and(ends);
    };
    if kernel.starts_with(COUNTS_NOTHING) {
        return false;
    }
    // Names of designs may have a `+` in them.
    let Some(rest) = kernel.strip_prefix(before) else {
        return false;
    };
    let mut places = rest.match_indices(after);
    places.any(|(at, _)| at > 0 && ends(&rest[at + after.len()..]))
}

impl Scenario {
    /// Why it does not apply to this kernel, if its file says so.
    #[must_use]
    pub fn why_not_for(&self, kernel: &str) -> Option<&str> {
        named_in(&self.not_for, kernel).map(String::as_str)
    }
}

/// Compares what was seen on a kernel with what the scenario expects of it. A kernel that the scenario does not name, neither by `kernels`
/// nor by `expect`, may lack what the scenario is about; one that it names may not, or a probe that has broken would go unseen.
#[must_use]
pub fn compare_on(scenario: &Scenario, kernel: &str, seen: &Judgement) -> Comparison {
    let Some(expected) = expected_for(&scenario.expect, kernel) else {
        return Comparison::Surprise("the scenario expects nothing of this kernel".into());
    };
    let named = scenario.kernels.iter().chain(scenario.expect.keys());
    let is_named = |kernel| named.clone().any(|name| is_meant(name, kernel));
    let may_lack = || scenario.why_not_for(kernel).is_some() || !names_of(kernel).any(is_named);
    if seen.verdict == Verdict::NotApplicable && may_lack() {
        return Comparison::AsExpected;
    }
    compare(expected, seen)
}

/// Compares what was seen with what was expected.
fn compare(expected: &Expectation, seen: &Judgement) -> Comparison {
    if expected.verdict != seen.verdict {
        return Comparison::Surprise(format!(
            "expected {}, saw {}: {}",
            word(expected.verdict),
            word(seen.verdict),
            seen.reason
        ));
    }
    if seen.verdict == Verdict::Finding && seen.broke_down() {
        return Comparison::Surprise(format!("it was cut short: {}", seen.reason));
    }
    let found: BTreeSet<&str> = seen
        .findings
        .iter()
        .filter(|finding| finding.certainty == Certainty::Certain)
        .map(|finding| finding.oracle.as_str())
        .collect();
    let wanted: BTreeSet<&str> = expected.oracles.iter().map(String::as_str).collect();
    let list = |names: Vec<&&str>| {
        names
            .iter()
            .map(|name| **name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let missing: Vec<_> = wanted.difference(&found).collect();
    let extra: Vec<_> = found.difference(&wanted).collect();
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => Comparison::AsExpected,
        (false, true) => Comparison::Surprise(format!("no finding of {}", list(missing))),
        (true, false) => Comparison::Surprise(format!("unexpected finding of {}", list(extra))),
        (false, false) => Comparison::Surprise(format!(
            "no finding of {}, and one of {}",
            list(missing),
            list(extra)
        )),
    }
}

/// A verdict as files spell it.
pub(crate) fn word(verdict: Verdict) -> String {
    serde_json::to_value(verdict)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Finding, Promise};

    fn seen(verdict: Verdict, oracles: &[(&str, Certainty)]) -> Judgement {
        let finding = |(oracle, certainty): &(&str, Certainty)| Finding {
            oracle: (*oracle).into(),
            title: String::new(),
            promise: Promise::O1,
            certainty: *certainty,
            text: String::new(),
            evidence: vec![],
            frames: vec![],
        };
        Judgement {
            verdict,
            reason: "because".into(),
            findings: oracles.iter().map(finding).collect(),
            counts: BTreeMap::new(),
        }
    }

    fn expected(verdict: Verdict, oracles: &[&str]) -> Expectation {
        Expectation {
            verdict,
            oracles: oracles.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn a_surprise_in_either_direction_is_told() {
        let finding = expected(Verdict::Finding, &["x"]);
        let pass = expected(Verdict::Pass, &[]);
        let found = seen(Verdict::Finding, &[("x", Certainty::Certain)]);
        assert_eq!(compare(&finding, &found), Comparison::AsExpected);
        assert!(matches!(compare(&pass, &found), Comparison::Surprise(_)));
        assert!(matches!(
            compare(&finding, &seen(Verdict::Pass, &[])),
            Comparison::Surprise(_)
        ));
    }

    #[test]
    fn a_run_that_was_cut_short_is_not_as_expected_though_it_showed_what_it_should() {
        let finding = expected(Verdict::Finding, &["x"]);
        let mut found = seen(Verdict::Finding, &[("x", Certainty::Certain)]);
        found.counts.insert(crate::verdict::BROKE_DOWN.into(), 1);
        assert_eq!(
            compare(&finding, &found),
            Comparison::Surprise("it was cut short: because".into())
        );
    }

    #[test]
    fn the_oracles_must_be_just_those_and_possible_findings_do_not_count() {
        let finding = expected(Verdict::Finding, &["x"]);
        let both = seen(
            Verdict::Finding,
            &[("x", Certainty::Certain), ("y", Certainty::Certain)],
        );
        assert_eq!(
            compare(&finding, &both),
            Comparison::Surprise("unexpected finding of y".into())
        );
        let possible = seen(
            Verdict::Finding,
            &[("x", Certainty::Certain), ("y", Certainty::Possible)],
        );
        assert_eq!(compare(&finding, &possible), Comparison::AsExpected);
        let other = seen(Verdict::Finding, &[("y", Certainty::Certain)]);
        assert_eq!(
            compare(&finding, &other),
            Comparison::Surprise("no finding of x, and one of y".into())
        );
    }

    #[test]
    fn only_a_kernel_that_is_named_must_have_what_is_needed() {
        let text = "name = 'x'\nsummary = 'y'\nkernels = ['debian:6.1']\nexpect.default = { verdict = 'pass' }\n\
            expect.'debian:6.12' = { verdict = 'finding', oracles = ['must-hold'] }\nexpect.'debian:5.10' = { verdict = 'not-applicable' }\n";
        let scenario = crate::scenario::parse(text, std::path::Path::new("x.toml")).unwrap();
        let lacks = seen(Verdict::NotApplicable, &[]);
        let on = |kernel| compare_on(&scenario, kernel, &lacks);
        assert_eq!(on("host"), Comparison::AsExpected);
        assert_eq!(on("debian:5.10.200"), Comparison::AsExpected);
        for named in ["debian:6.12", "debian:6.1.192"] {
            assert!(matches!(on(named), Comparison::Surprise(_)), "{named}");
        }
        let passed = seen(Verdict::Pass, &[]);
        assert_eq!(
            compare_on(&scenario, "host", &passed),
            Comparison::AsExpected
        );
    }

    #[test]
    fn a_kernel_of_our_designs_is_taken_for_what_it_is_built_from_unless_it_is_named() {
        let text = "name = 'x'\nsummary = 'y'\nkernels = ['debian:6.12']\nexpect.default = { verdict = 'pass' }\n\
            expect.'debian:6.12' = { verdict = 'finding', oracles = ['must-hold'] }\nexpect.'design:bias+bounce' = { verdict = 'pass' }\n\
            expect.'design:field' = { verdict = 'hang' }\nnot-for = { 'design:tree' = 'why' }\n";
        let scenario = crate::scenario::parse(text, std::path::Path::new("x.toml")).unwrap();
        let verdict = |kernel| expected_for(&scenario.expect, kernel).unwrap().verdict;
        assert_eq!(verdict("design:bias"), Verdict::Finding);
        assert_eq!(verdict("design:bias+skip"), Verdict::Finding);
        assert_eq!(verdict("design:bias+bounce"), Verdict::Pass);
        assert_eq!(verdict("design:bias+bounce-debug"), Verdict::Pass);
        assert_eq!(verdict("design:field+bounce"), Verdict::Hang);
        // However short the design's name is, it says more than a `*`.
        let both = BTreeMap::from([
            ("design:*+bounce".to_owned(), 1),
            ("design:aux".to_owned(), 2),
        ]);
        assert_eq!(named_in(&both, "design:aux+bounce"), Some(&2));
        assert_eq!(named_in(&both, "design:tree+bounce"), Some(&1));
        assert_eq!(scenario.why_not_for("design:tree+skip"), Some("why"));
        assert_eq!(scenario.why_not_for("design:bias"), None);
        let all = BTreeMap::from([("design".to_owned(), ())]);
        assert!(
            named_in(&all, "design:bias+skip").is_some() && named_in(&all, "debian:6.12").is_none()
        );
        let policy = "design:*+bounce";
        for kernel in ["design:bias+bounce", "design:flag+ext+bounce-debug"] {
            assert!(is_meant(policy, kernel), "{kernel}");
        }
        let others = [
            "design:bias",
            "design:bias+bounces",
            "design:+bounce",
            "design:none+bounce",
            "x",
        ];
        for kernel in others {
            assert!(!is_meant(policy, kernel), "{kernel}");
        }
        // Debian's 6.12 is named, so it may lack nothing, and they neither, but for what the file says itself.
        let lacks = seen(Verdict::NotApplicable, &[]);
        assert_eq!(
            compare_on(&scenario, "design:tree+skip", &lacks),
            Comparison::AsExpected
        );
        assert!(matches!(
            compare_on(&scenario, "design:bias", &lacks),
            Comparison::Surprise(_)
        ));
    }

    #[test]
    fn the_nearest_kernel_gives_the_expectation() {
        let all = BTreeMap::from([
            ("default".to_owned(), expected(Verdict::Pass, &[])),
            ("debian:6.1".to_owned(), expected(Verdict::Hang, &[])),
            ("debian:6.12".to_owned(), expected(Verdict::Finding, &[])),
        ]);
        let verdict = |kernel: &str| expected_for(&all, kernel).unwrap().verdict;
        assert_eq!(verdict("debian:6.12.117+deb12"), Verdict::Finding);
        assert_eq!(verdict("debian:6.1.192"), Verdict::Hang);
        assert_eq!(verdict("host"), Verdict::Pass);
        assert_eq!(expected_for(&BTreeMap::new(), "host"), None);
    }
}
