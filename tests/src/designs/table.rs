//! The table as data: rows are designs with their policies, and each cell says what runs have said.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::knowledge::{self, Facts};
use super::measured::{Measured, MostPins, Rounds};
use super::once::share_once;
use super::ratio::{Ratio, median};
use super::told::{Answers, Memmap, Tracking};
use crate::report::{Card, CellState, RunSummary};
use crate::verdict::Promise;

/// The whole page, as data; as JSON too.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// When and how it was made.
    pub about: About,
    /// The kernel that all costs are compared with.
    pub baseline: String,
    /// Columns: scenarios that tell designs apart.
    pub scenarios: Vec<ScenarioColumn>,
    /// Columns: what was measured, in the scenarios' own words.
    pub costs: Vec<String>,
    /// What each cost is for the baseline itself, also where it is no row.
    pub baseline_costs: Vec<Option<Cost>>,
    /// Designs with their policies, in the catalogue's order.
    pub rows: Vec<Row>,
    /// What is known of each design without running it.
    pub facts: Vec<Facts>,
    /// Designs that did not run.
    pub absent: Vec<Absent>,
    /// How rows differ, sentence by sentence.
    pub differences: Vec<String>,
    /// What it comes to, sentence by sentence.
    pub words: Vec<String>,
}

/// When and how it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct About {
    /// The line that was typed.
    pub command: String,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// Our commit when the page was made.
    pub commit: String,
    /// How many runs, and where guests ran.
    pub made: String,
    /// The commits, kernel packages and places that the runs' directories name.
    pub runs_by: Vec<String>,
    /// What the measured times are.
    pub times: Times,
}

/// What measured times are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Times {
    /// Those of hardware.
    #[default]
    Hardware,
    /// Instructions that were executed in an emulated machine.
    Instructions,
    /// Those of an emulated machine, with what else the host did in them.
    Emulated,
}

/// A scenario as a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScenarioColumn {
    /// Its name.
    pub scenario: String,
    /// Its number in the catalogue.
    pub number: Option<String>,
    /// Its file systems.
    pub file_systems: String,
    /// One sentence.
    pub summary: String,
    /// It asks for the tracking alone, so that one policy of each design will do.
    pub once: bool,
}

impl ScenarioColumn {
    /// `S01 xfs`, or its name.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.number {
            Some(number) => format!("{number} {}", self.file_systems).trim().to_owned(),
            None => self.scenario.clone(),
        }
    }
}

/// A design with a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `design:bias+bounce`.
    pub kernel: String,
    /// Its design.
    pub design: String,
    /// Its policy.
    pub policy: String,
    /// `uname -r`; empty where it never booted.
    pub release: String,
    /// O1, O2, O3 over all of its runs.
    pub promises: Vec<PromiseCell>,
    /// A cell per scenario; `None`: it did not run there.
    pub scenarios: Vec<Option<Cell>>,
    /// What its kernel told of itself.
    pub tracking: Option<Tracking>,
    /// What struct page and page_ext take there.
    pub memmap: Option<Memmap>,
    /// Its answers to "is this folio pinned?", compared with an exact count.
    pub answers: Option<Answers>,
    /// Whether a page with 1,100 sharers, and no pin, stayed in memory as a pinned one does.
    pub looked_pinned: Option<bool>,
    /// How many pins a page has taken.
    pub most_pins: Option<MostPins>,
    /// A cell per cost.
    pub costs: Vec<Option<Cost>>,
    /// What is odd about it: a guest that says it runs something else.
    pub odd: Option<String>,
}

/// What all scenarios say of one promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromiseCell {
    /// `O1`.
    pub promise: &'static str,
    /// Scenarios that broke it.
    pub broken: Vec<String>,
    /// Scenarios that put it to the test, and it held.
    pub kept: Vec<String>,
    /// Scenarios that are about it and could say nothing.
    pub unclear: Vec<String>,
}

impl PromiseCell {
    /// Whether it was put to the test, and held each time.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.broken.is_empty() && self.unclear.is_empty() && !self.kept.is_empty()
    }
}

/// What one scenario says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The worst that it says of any promise.
    pub state: CellState,
    /// The promises that are broken.
    pub broken: Vec<&'static str>,
    /// Why, in words, of the run that is shown.
    pub why: String,
    /// How many runs there were.
    pub runs: usize,
    /// Whether each was as the scenario expects of this kernel.
    pub as_expected: bool,
    /// It ran with this policy of the design instead, and the policy is not asked there.
    pub seen_with: Option<String>,
}

/// How long something takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Nanoseconds of the guest's clock for one operation, the median of all rounds.
    pub ns: f64,
    /// To the baseline in the same boot sets.
    pub ratio: Option<Ratio>,
    /// Rounds in all, and boots.
    pub rounds: usize,
    /// Boots.
    pub boots: usize,
}

/// A design that did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// It.
    pub design: String,
    /// Why, with the line that helps.
    pub why: String,
}

/// What a table is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Design, policy and kernel, row by row.
    pub rows: &'a [(String, String, String)],
    /// The columns.
    pub columns: &'a [ScenarioColumn],
    /// All runs of these kernels, and of the baseline, in the order in which they ran; kernels are named as in `rows`.
    pub runs: &'a [RunSummary],
    /// What the log of each run says.
    pub measured: &'a [Measured],
    /// The kernel that costs are compared with.
    pub baseline: &'a str,
}

pub(super) const PROMISES: [(Promise, &str); 3] = [
    (Promise::O1, "O1"),
    (Promise::O2, "O2"),
    (Promise::O3, "O3"),
];

impl Table {
    /// Makes it, less its words.
    #[must_use]
    pub fn of(parts: &Parts<'_>, about: About, absent: Vec<Absent>) -> Self {
        let card = Card::of(parts.runs);
        let costs = cost_names(parts);
        let mut rows: Vec<Row> = parts
            .rows
            .iter()
            .map(|(design, policy, kernel)| Row {
                kernel: kernel.clone(),
                design: design.clone(),
                policy: policy.clone(),
                release: release(parts.runs, kernel),
                promises: PROMISES
                    .iter()
                    .map(|(promise, name)| promise_cell(&card, kernel, *promise, name))
                    .collect(),
                scenarios: parts
                    .columns
                    .iter()
                    .map(|column| scenario_cell(&card, kernel, &column.scenario))
                    .collect(),
                tracking: last(parts, kernel, |measured| measured.tracking.clone()),
                memmap: last(parts, kernel, |measured| measured.memmap),
                answers: last(parts, kernel, |measured| measured.answers),
                looked_pinned: last(parts, kernel, |measured| measured.looked_pinned),
                most_pins: last(parts, kernel, |measured| measured.most_pins),
                costs: costs.iter().map(|name| cost(parts, kernel, name)).collect(),
                odd: None,
            })
            .collect();
        for row in &mut rows {
            let told = row.tracking.as_ref();
            row.odd = told.and_then(|told| told.odd(&row.design, &row.policy));
        }
        share_once(&mut rows, parts.columns);
        let mut designs: Vec<&str> = rows.iter().map(|row| row.design.as_str()).collect();
        designs.dedup();
        Self {
            facts: designs.into_iter().filter_map(knowledge::of).collect(),
            about,
            baseline: parts.baseline.to_owned(),
            scenarios: parts.columns.to_vec(),
            baseline_costs: costs
                .iter()
                .map(|name| cost(parts, parts.baseline, name))
                .collect(),
            costs,
            rows,
            absent,
            differences: Vec::new(),
            words: Vec::new(),
        }
    }
}

fn release(runs: &[RunSummary], kernel: &str) -> String {
    let mut booted = runs
        .iter()
        .filter(|run| run.kernel == kernel && !run.kernel_release.is_empty());
    booted
        .next()
        .map_or(String::new(), |run| run.kernel_release.clone())
}

fn promise_cell(card: &Card, kernel: &str, promise: Promise, name: &'static str) -> PromiseCell {
    let mut cell = PromiseCell {
        promise: name,
        broken: Vec::new(),
        kept: Vec::new(),
        unclear: Vec::new(),
    };
    let column = card.kernels.iter().position(|known| known == kernel);
    let groups = card.groups.iter();
    let rows = groups.filter(|group| group.promise == Some(promise));
    for row in rows.flat_map(|group| &group.rows) {
        let said = column.and_then(|column| row.cells[column].as_ref());
        let list = match said.map(|cell| cell.state) {
            Some(CellState::Broken) => &mut cell.broken,
            Some(CellState::Kept) => &mut cell.kept,
            Some(CellState::Inconclusive) => &mut cell.unclear,
            Some(CellState::NotApplicable | CellState::NotTested | CellState::Ok) | None => {
                continue;
            }
        };
        list.push(row.scenario.clone());
    }
    cell
}

/// The worst of all promises that the scenario is about.
fn scenario_cell(card: &Card, kernel: &str, scenario: &str) -> Option<Cell> {
    let column = card.kernels.iter().position(|known| known == kernel)?;
    let mut worst: Option<Cell> = None;
    let mut broken = Vec::new();
    for group in &card.groups {
        let rows = group.rows.iter().filter(|row| row.scenario == scenario);
        for cell in rows.filter_map(|row| row.cells[column].as_ref()) {
            if cell.state == CellState::Broken {
                broken.push(group.name);
            }
            if worst.as_ref().is_none_or(|worst| worst.state < cell.state) {
                worst = Some(Cell {
                    state: cell.state,
                    broken: Vec::new(),
                    why: cell.why.clone(),
                    runs: cell.runs,
                    as_expected: cell.as_expected,
                    seen_with: None,
                });
            }
        }
    }
    worst.map(|cell| Cell { broken, ..cell })
}

/// What the last run of a kernel that says so says.
fn last<T>(parts: &Parts<'_>, kernel: &str, of: impl Fn(&Measured) -> Option<T>) -> Option<T> {
    let runs = parts.runs.iter().zip(parts.measured).rev();
    let mut own = runs.filter(|(run, _)| run.kernel == kernel);
    own.find_map(|(_, measured)| of(measured))
}

/// In the order in which they were first measured.
fn cost_names(parts: &Parts<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in parts.measured.iter().flat_map(|measured| &measured.costs) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The rounds of each boot of a kernel, with its boot set: the suite that it ran in, and the how manieth of its kernel it was there.
fn boots(parts: &Parts<'_>, kernel: &str, name: &str) -> Vec<((PathBuf, usize), Rounds)> {
    let mut boots: Vec<((PathBuf, usize), Rounds)> = Vec::new();
    for (run, measured) in parts.runs.iter().zip(parts.measured) {
        let found = measured.costs.iter().find(|(known, _)| known == name);
        let Some((_, rounds)) = found.filter(|_| run.kernel == kernel) else {
            continue;
        };
        let suite = run.run_dir.parent().unwrap_or(Path::new("")).to_owned();
        let before = boots.iter().filter(|((known, _), _)| *known == suite);
        let ordinal = before.count();
        boots.push(((suite, ordinal), rounds.clone()));
    }
    boots
}

fn cost(parts: &Parts<'_>, kernel: &str, name: &str) -> Option<Cost> {
    let own = boots(parts, kernel, name);
    let base = boots(parts, parts.baseline, name);
    let pairs = own.iter().filter_map(|(set, rounds)| {
        let (_, base) = base.iter().find(|(known, _)| known == set)?;
        Some((rounds, base))
    });
    let (compared, with): (Vec<&Rounds>, Vec<&Rounds>) = pairs.unzip();
    let has_loops = |rounds: &&Rounds| !rounds.loops.is_empty();
    let by_loops = compared.iter().chain(&with).all(has_loops);
    let rounds = |of: &[&Rounds]| -> Vec<Vec<f64>> {
        let one = |rounds: &&Rounds| if by_loops { &rounds.loops } else { &rounds.ns }.clone();
        of.iter().map(one).collect()
    };
    let all: Vec<&[f64]> = own.iter().map(|(_, rounds)| &rounds.ns[..]).collect();
    Some(Cost {
        ns: median(&all.concat())?,
        ratio: Ratio::of(&rounds(&compared), &rounds(&with)),
        rounds: all.iter().map(|rounds| rounds.len()).sum(),
        boots: all.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{column, measured, parts_of, row, run, table};
    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn a_row_says_what_its_own_runs_said() {
        let table = table();
        let bias = &table.rows[0];
        assert_eq!(bias.kernel, "design:bias+none");
        assert_eq!(bias.promises[0].broken, ["writeback-xfs"]);
        let cell = bias.scenarios[0].as_ref().unwrap();
        assert_eq!(
            (cell.state, &cell.broken[..]),
            (CellState::Broken, &["O1"][..])
        );
        let bounce = &table.rows[1];
        assert!(bounce.promises[0].is_kept());
        assert_eq!(bounce.scenarios[0].as_ref().unwrap().state, CellState::Kept);
        assert!(
            !bounce.promises[2].is_kept(),
            "what was not tested is not kept"
        );
    }

    #[test]
    fn costs_are_ratios_to_the_baseline_of_the_same_boot_set() {
        let table = table();
        assert_eq!(table.costs, ["fsync"]);
        let ratio = |row: usize| table.rows[row].costs[0].as_ref().unwrap().ratio.unwrap();
        assert!((ratio(0).median - 1.0).abs() < 1e-9);
        assert!((ratio(1).median - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_boot_is_compared_with_the_baseline_of_its_own_suite_and_else_with_nothing() {
        let rows = [row("bias", "bounce")];
        let in_suite = |suite: &str, kernel: &str| RunSummary {
            run_dir: Path::new(suite).join("run"),
            ..run(kernel, "writeback-xfs", Verdict::Pass)
        };
        let runs = [
            in_suite("slow", "design:bias+none"),
            in_suite("slow", "design:bias+bounce"),
            in_suite("quick", "design:bias+none"),
            in_suite("alone", "design:bias+bounce"),
        ];
        let logs = [100.0, 150.0, 10.0, 70.0].map(measured);
        let table = |runs: &[RunSummary], logs: &[Measured]| {
            Table::of(
                &parts_of(&rows, &[], runs, logs),
                About::default(),
                Vec::new(),
            )
        };
        let cost = |table: Table| table.rows[0].costs[0].clone().unwrap();
        let both = cost(table(&runs, &logs));
        assert_eq!((both.ratio.unwrap().median, both.boots), (1.5, 2));
        let alone = cost(table(&runs[2..], &logs[2..]));
        assert_eq!(alone.ratio, None);
    }

    #[test]
    fn a_host_that_was_slow_for_one_boot_falls_out_where_each_run_told_how_quick_it_was() {
        let rows = [row("bias", "bounce")];
        let kernels = ["design:bias+none", "design:bias+bounce"];
        let runs = kernels.map(|kernel| run(kernel, "writeback-xfs", Verdict::Pass));
        let ratio = |loops: [f64; 2]| {
            let mut logs = [10.0, 30.0].map(measured);
            for (log, one) in logs.iter_mut().zip(loops) {
                let rounds = &mut log.costs[0].1;
                rounds.loops = rounds.ns.iter().map(|ns| ns / one).collect();
            }
            let parts = parts_of(&rows, &[], &runs, &logs);
            let table = Table::of(&parts, About::default(), Vec::new());
            let cost = table.rows[0].costs[0].clone().unwrap();
            (cost.ns, cost.ratio.unwrap().median)
        };
        assert_eq!(ratio([2.0, 2.0]), (30.0, 3.0));
        // Twice as slow: of the three times, one and a half are the design's.
        assert_eq!(ratio([2.0, 4.0]), (30.0, 1.5));
    }

    #[test]
    fn a_design_that_has_not_run_has_an_empty_row_and_no_kept() {
        let rows = [("lru".into(), "none".into(), "design:lru+none".into())];
        let runs = [run("design:bias+none", "writeback-xfs", Verdict::Pass)];
        let table = Table::of(
            &parts_of(
                &rows,
                &[column("writeback-xfs", false)],
                &runs,
                &[Measured::default()],
            ),
            About::default(),
            Vec::new(),
        );
        assert_eq!(table.rows[0].scenarios, [None]);
        assert!(table.rows[0].promises.iter().all(|cell| !cell.is_kept()));
    }
}
