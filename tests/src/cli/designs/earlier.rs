//! Runs of earlier reports: taken for what they said, and not done again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use pincushion_image::KernelSpec;

use super::chosen::kernel;
use crate::designs::Times;
use crate::report::RunSummary;
use crate::rundir::RunDir;
use crate::scenario::{Comparison, Scenario, catalogue, compare_on};
use crate::suite::{COUNTING, Item, NESTED};
use crate::verdict::Verdict;

/// The runs of earlier reports, their kernels named with design and policy. Of a scenario on a kernel, those of the last report that has it; but
/// of the baseline those that measure stay, for the others of their report are compared with them.
pub(in crate::cli) fn earlier(dirs: &[PathBuf], baseline: &str) -> anyhow::Result<Vec<RunSummary>> {
    let mut runs: Vec<RunSummary> = Vec::new();
    let known = Known::all();
    for dir in dirs {
        let path = dir.join("runs.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            anyhow!(
                "cannot read the runs of an earlier report, {}: {error}",
                path.display()
            )
        })?;
        let mut own = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let mut run: RunSummary = serde_json::from_str(text)
                .map_err(|error| anyhow!("line {line} of {} is no run: {error}", path.display()))?;
            run.kernel = named_in_full(&run.kernel);
            known.expect_as_now(&mut run);
            own.push(run);
        }
        let same =
            |a: &RunSummary, b: &RunSummary| a.scenario == b.scenario && a.kernel == b.kernel;
        let is_compared_with =
            |run: &RunSummary| run.kernel == baseline && known.measures(&run.scenario);
        runs.retain(|run| is_compared_with(run) || !own.iter().any(|own| same(own, run)));
        runs.append(&mut own);
    }
    Ok(runs)
}

/// The scenarios that come with the program, by name.
struct Known(BTreeMap<String, Scenario>);

impl Known {
    fn all() -> Self {
        let all = catalogue::all().unwrap_or_default().into_iter();
        let named = all.map(|listed| (listed.scenario.name.clone(), listed.scenario));
        Self(named.collect())
    }

    /// Compares a run with what its scenario expects now: that may have been learned from it.
    fn expect_as_now(&self, run: &mut RunSummary) {
        if let Some(scenario) = self.0.get(&run.scenario) {
            let compared = compare_on(scenario, &run.kernel, &run.judgement);
            run.as_expected = compared == Comparison::AsExpected;
        }
    }

    fn measures(&self, scenario: &str) -> bool {
        self.0.get(scenario).is_some_and(Scenario::measures)
    }
}

/// `design:bias` is `design:bias+none`.
fn named_in_full(name: &str) -> String {
    match name.parse() {
        Ok(KernelSpec::Design(choice)) if choice.flavour == "guest" => {
            kernel(&choice.design, &choice.policy)
        }
        _ => name.to_owned(),
    }
}

/// Those that no earlier report has: what measures, and the others.
pub(super) fn missing(items: Vec<Item>, earlier: &[RunSummary]) -> (Vec<Item>, Vec<Item>) {
    let count = |item: &Item| {
        let same =
            |run: &&RunSummary| run.scenario == item.scenario.name && run.kernel == item.kernel;
        earlier.iter().filter(same).count()
    };
    let rest = items
        .into_iter()
        .filter(|item| count(item) < item.repeat as usize);
    rest.partition(|item| item.scenario.measures())
}

/// By which programs, on which kernels and where runs were made, each with their count; and what the times of those that measure are, or
/// would be.
pub(in crate::cli) fn made_by(runs: &[RunSummary]) -> (Vec<String>, Times) {
    let mut by: Vec<(String, usize)> = Vec::new();
    let mut times: Vec<(bool, Times)> = Vec::new();
    let (known, mut not_run) = (Known::all(), 0);
    for run in runs {
        let Ok(info) = RunDir::at(&run.run_dir).info() else {
            not_run += usize::from(run.judgement.verdict == Verdict::NotApplicable);
            continue;
        };
        let its = match info.place.as_str() {
            NESTED => Times::Emulated,
            COUNTING => Times::Instructions,
            _ => Times::Hardware,
        };
        times.push((known.measures(&run.scenario), its));
        let said = format!(
            "by commit `{}` on {} ({})",
            info.commit,
            info.kernel_package.as_deref().unwrap_or("a kernel"),
            info.place
        );
        match by.iter_mut().find(|(known, _)| *known == said) {
            Some((_, count)) => *count += 1,
            None => by.push((said, 1)),
        }
    }
    let by = by.into_iter();
    let mut lines: Vec<String> = by
        .map(|(said, count)| format!("{count} runs {said}"))
        .collect();
    if not_run > 0 {
        lines.push(format!(
            "{not_run} not applicable by the scenario's own word, and not run"
        ));
    }
    // What measures comes first here, and of that the worst.
    let times = times.into_iter().max().map(|(_, times)| times);
    (lines, times.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::chosen::Chosen;
    use super::super::chosen::tests::{args, run};
    use super::*;
    use crate::report;
    use crate::rundir::RunInfo;

    #[test]
    fn what_an_earlier_report_has_does_not_run_again_and_the_later_report_counts() {
        let chosen = Chosen::of(&args(&["--design", "bias", "--policy", "none"])).unwrap();
        let bias = "bias".to_owned();
        let items = chosen.items(&[&bias], 2).unwrap();
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut hang = run("pin-cost", "design:bias");
        hang.judgement.verdict = Verdict::Hang;
        for (dir, run) in dirs.iter().zip([hang, run("pin-cost", "design:bias+none")]) {
            let lines = report::json_lines(&[run]);
            std::fs::write(dir.path().join("runs.jsonl"), lines).unwrap();
        }
        let dirs = dirs.each_ref().map(|dir| dir.path().to_owned());
        let earlier = earlier(&dirs, "design:mapping+none").unwrap();
        assert_eq!(earlier.len(), 1);
        assert_eq!(earlier[0].judgement.verdict, Verdict::Pass);
        let with_baseline = super::earlier(&dirs, "design:bias+none").unwrap();
        assert_eq!(with_baseline.len(), 2, "each report has its own");
        // Both said that they were as expected, and a hang is not.
        let as_expected = with_baseline.iter().map(|run| run.as_expected);
        assert_eq!(as_expected.collect::<Vec<_>>(), [false, true]);
        let all = items.len();
        let (costs, scenarios) = missing(items, &earlier);
        assert_eq!(costs.len() + scenarios.len(), all - 1);
        let of_pin_cost = costs.iter().filter(|item| item.scenario.name == "pin-cost");
        assert_eq!(of_pin_cost.map(|item| item.repeat).collect::<Vec<_>>(), [2]);
        assert!(scenarios.iter().all(|item| !item.scenario.measures()));
    }

    #[test]
    fn times_are_what_they_are_in_the_runs_that_measure() {
        let dir = tempfile::tempdir().unwrap();
        let made = |scenario: &str, place: &str| {
            let run_dir = dir.path().join(scenario);
            let info = RunInfo {
                place: place.into(),
                ..RunInfo::default()
            };
            let known = catalogue::named(scenario).unwrap();
            RunDir::create(&run_dir, &info, &known[0]).unwrap();
            RunSummary {
                run_dir,
                ..run(scenario, "design:bias+none")
            }
        };
        let (cost, other) = (made("pin-cost", COUNTING), made("no-overlap", NESTED));
        let times = |runs: &[RunSummary]| made_by(runs).1;
        assert_eq!(times(&[cost.clone(), other.clone()]), Times::Instructions);
        assert_eq!(times(&[other]), Times::Emulated);
        assert_eq!(times(&[]), Times::Hardware);
        let mut lacks = run("no-overlap", "design:bias+bounce");
        lacks.judgement.verdict = Verdict::NotApplicable;
        let (lines, _) = made_by(&[cost.clone(), lacks]);
        let by = |words| lines.iter().filter(|line| line.starts_with(words)).count();
        assert_eq!(
            (by("1 runs by commit"), by("1 not applicable")),
            (1, 1),
            "{lines:?}"
        );
        let cost = RunSummary {
            run_dir: made("fsync-cost-while-held", NESTED).run_dir,
            ..cost
        };
        assert_eq!(times(&[cost]), Times::Emulated);
    }

    #[test]
    fn a_directory_without_runs_is_told_with_its_flag() {
        let dir = tempfile::tempdir().unwrap();
        let told = earlier(&[dir.path().to_owned()], "")
            .unwrap_err()
            .to_string();
        assert!(told.contains("an earlier report, "), "{told}");
        std::fs::write(dir.path().join("runs.jsonl"), "{}\n").unwrap();
        let told = earlier(&[dir.path().to_owned()], "")
            .unwrap_err()
            .to_string();
        assert!(told.contains("line 1 of "), "{told}");
    }
}
