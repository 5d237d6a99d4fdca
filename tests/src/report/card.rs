//! The report card: a row per scenario, grouped by promise and file system, and a column per kernel.
//!
//! It decides nothing: a cell is what the runs of one scenario on one kernel said about one promise (`RunSummary::promise`), together
//! where there were several. The worst of them is shown, and how many of them said so.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::summary::{PromiseState, RunSummary};
use crate::verdict::{Promise, Verdict};

/// All runs of a suite at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// The columns, in the order in which they first ran.
    pub kernels: Vec<String>,
    /// The rows, promise by promise.
    pub groups: Vec<Group>,
}

/// The scenarios that are about one promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// `O1`, `O2`, `O3`, `freed`, or `other` for what is about no promise of the kernel's.
    pub name: &'static str,
    /// The promise itself.
    #[serde(skip)]
    pub promise: Option<Promise>,
    /// The promise, in words.
    pub what: &'static str,
    /// By file system, then in the order in which they ran.
    pub rows: Vec<Row>,
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name.
    pub scenario: String,
    /// Its number in the catalogue, if it has one.
    pub number: Option<String>,
    /// The file systems that it uses, `ext4, xfs`; empty for none.
    pub file_systems: String,
    /// A cell per kernel; `None`: it did not run there.
    pub cells: Vec<Option<Cell>>,
}

/// What one scenario said on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// What it says.
    pub state: CellState,
    /// How many runs said so.
    pub said_so: usize,
    /// How many runs there were.
    pub runs: usize,
    /// Whether every one of them was as expected.
    pub as_expected: bool,
    /// Why, in words, of the run that is shown.
    pub why: String,
    /// Which of the suite's runs is shown: an index into the list that the card was made of.
    pub run: usize,
}

/// The words of a cell, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellState {
    /// The kernel lacks what the scenario needs.
    NotApplicable,
    /// It ran to its end and says nothing of this promise.
    NotTested,
    /// For scenarios about no promise: as expected.
    Ok,
    /// The promise was put to the test and held.
    Kept,
    /// Nothing can be said: a hang, a setup error, an uncertain overlap.
    Inconclusive,
    /// The kernel certainly broke the promise.
    Broken,
}

impl CellState {
    /// As a person reads it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotApplicable => "n/a",
            Self::NotTested => "-",
            Self::Ok => "ok",
            Self::Kept => "kept",
            Self::Inconclusive => "inconclusive",
            Self::Broken => "broken",
        }
    }
}

const GROUPS: [(Option<Promise>, &str, &str); 5] = [
    (
        Some(Promise::O1),
        "O1",
        "no write-back of a page that a device is still writing",
    ),
    (
        Some(Promise::O2),
        "O2",
        "no crash and no lost data when a clean page is dirtied",
    ),
    (
        Some(Promise::O3),
        "O3",
        "no DAX block reused while a device holds it",
    ),
    (
        Some(Promise::Freed),
        "freed",
        "no page free while a device holds it",
    ),
    (None, "other", "the machine, its devices, and self-tests"),
];

impl Card {
    /// The card of these runs.
    #[must_use]
    pub fn of(runs: &[RunSummary]) -> Self {
        let kernels = crate::each_once(runs.iter().map(|run| &run.kernel));
        let kernels: Vec<String> = kernels.into_iter().cloned().collect();
        let groups = GROUPS.into_iter().map(|(promise, name, what)| Group {
            name,
            promise,
            what,
            rows: rows(runs, promise, &kernels),
        });
        let groups = groups.filter(|group| !group.rows.is_empty()).collect();
        Self { kernels, groups }
    }

    /// Whether it is of use beside a list of those runs: some scenario ran more than once.
    #[must_use]
    pub fn says_more_than(&self, runs: &[RunSummary]) -> bool {
        let mut scenarios: Vec<&str> = runs.iter().map(|run| run.scenario.as_str()).collect();
        scenarios.sort_unstable();
        scenarios.dedup();
        scenarios.len() < runs.len()
    }
}

/// Whether a run belongs to the group of a promise: it says that it is about it, or it has something to say about it.
fn belongs(run: &RunSummary, promise: Option<Promise>) -> bool {
    let is_about = |promise| {
        run.about.promises.contains(&promise) || run.promise(promise) != PromiseState::NotTested
    };
    match promise {
        Some(promise) => is_about(promise),
        None => !GROUPS.iter().filter_map(|group| group.0).any(is_about),
    }
}

fn rows(runs: &[RunSummary], promise: Option<Promise>, kernels: &[String]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // A scenario is in a group on all kernels or on none: a kernel that could not be judged has a cell too.
    let names = runs.iter().filter(|run| belongs(run, promise));
    for member in names {
        if rows.iter().any(|row| row.scenario == member.scenario) {
            continue;
        }
        let cells = kernels.iter().map(|kernel| {
            let own = runs.iter().enumerate();
            let own: Vec<_> = own
                .filter(|(_, run)| run.scenario == member.scenario && run.kernel == *kernel)
                .collect();
            cell(&own, promise)
        });
        rows.push(Row {
            scenario: member.scenario.clone(),
            number: member.about.number.clone(),
            file_systems: member.about.file_systems.join(", "),
            cells: cells.collect(),
        });
    }
    rows.sort_by(|a, b| a.file_systems.cmp(&b.file_systems));
    rows
}

fn cell(runs: &[(usize, &RunSummary)], promise: Option<Promise>) -> Option<Cell> {
    let states: Vec<CellState> = runs.iter().map(|(_, run)| state(run, promise)).collect();
    let worst = *states.iter().max()?;
    // Of those that say the same, one that was not expected is the one to look at.
    let shown = std::iter::zip(runs, &states).filter(|(_, state)| **state == worst);
    let (index, run) = shown
        .map(|(run, _)| *run)
        .min_by_key(|run| run.1.as_expected)?;
    Some(Cell {
        state: worst,
        said_so: states.iter().filter(|state| **state == worst).count(),
        runs: runs.len(),
        as_expected: runs.iter().all(|(_, run)| run.as_expected),
        why: run.judgement.reason.clone(),
        run: index,
    })
}

fn state(run: &RunSummary, promise: Option<Promise>) -> CellState {
    let about = promise.map_or(PromiseState::NotTested, |promise| run.promise(promise));
    match (about, run.judgement.verdict) {
        (PromiseState::Broken, _) => CellState::Broken,
        (PromiseState::Kept, _) => CellState::Kept,
        (PromiseState::NotTested, Verdict::NotApplicable) => CellState::NotApplicable,
        (PromiseState::NotTested, _) if promise.is_none() && run.as_expected => CellState::Ok,
        (PromiseState::NotTested, Verdict::Pass | Verdict::Finding) if promise.is_some() => {
            CellState::NotTested
        }
        (PromiseState::NotTested, _) => CellState::Inconclusive,
    }
}

/// The card for a terminal: plain text.
#[must_use]
pub fn card_text(card: &Card) -> String {
    let labels = card.groups.iter().flat_map(|group| &group.rows).map(label);
    let first = labels.map(|label| label.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut is_marked = false;
    text += &format!("{:first$}", "");
    for kernel in &card.kernels {
        text += &format!("  {kernel:WIDTH$}");
    }
    for group in &card.groups {
        text = text.trim_end().to_owned() + &format!("\n{}: {}\n", group.name, group.what);
        for row in &group.rows {
            text += &format!("{:first$}", label(row));
            for cell in &row.cells {
                let said = cell.as_ref().map_or(String::new(), cell_text);
                is_marked |= said.ends_with('!');
                text += &format!("  {said:WIDTH$}");
            }
            text = text.trim_end().to_owned() + "\n";
        }
    }
    if is_marked {
        text += "! not as expected\n";
    }
    let rows = card.groups.iter().flat_map(|group| &group.rows);
    let lacks: Vec<String> = rows.flat_map(|row| lacking(card, row)).collect();
    // A scenario may be in several groups.
    let lacks: BTreeSet<&String> = lacks.iter().collect();
    lacks
        .into_iter()
        .fold(text, |text, line| text + line + "\n")
}

/// What a scenario says nothing for, or what kernels lack for it: a line for each reason.
pub(super) fn lacking(card: &Card, row: &Row) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kernel, cell) in card.kernels.iter().zip(&row.cells) {
        if let Some(cell) = cell
            && cell.state == CellState::NotApplicable
        {
            by_reason.entry(&cell.why).or_default().push(kernel);
        }
    }
    let lines = by_reason.into_iter();
    lines
        .map(|(why, kernels)| format!("n/a: {} on {}: {why}", row.scenario, kernels.join(", ")))
        .collect()
}

/// Room for `inconclusive 20/20 !`, and for the name of a kernel.
const WIDTH: usize = 20;

fn label(row: &Row) -> String {
    let number = row.number.as_deref().unwrap_or_default();
    format!("  {number:4} {:10} {}", row.file_systems, row.scenario)
}

/// `kept`, `broken 3/20`, `inconclusive !`.
#[must_use]
pub fn cell_text(cell: &Cell) -> String {
    let mut text = cell.state.word().to_owned();
    if cell.runs > 1 {
        text += &format!(" {}/{}", cell.said_so, cell.runs);
    }
    if !cell.as_expected {
        text += " !";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::{AboutScenario, example};

    fn run(scenario: &str, kernel: &str, verdict: Verdict, as_expected: bool) -> RunSummary {
        RunSummary {
            scenario: scenario.into(),
            kernel: kernel.into(),
            about: AboutScenario {
                number: Some("S11".into()),
                promises: vec![Promise::O1],
                file_systems: vec!["ext4".into()],
            },
            ..example(verdict, as_expected)
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_said_and_is_never_red() {
        let mut lacks = run("a", "host", Verdict::NotApplicable, true);
        lacks.judgement.reason = "needs CONFIG_XFS_FS".into();
        lacks.judgement.findings.clear();
        let card = Card::of(&[lacks, run("b", "host", Verdict::Pass, true)]);
        let cell = card.groups[0].rows[0].cells[0].as_ref().unwrap();
        assert_eq!(cell.state, CellState::NotApplicable);
        let text = card_text(&card);
        assert!(
            text.contains("n/a: a on host: needs CONFIG_XFS_FS\n"),
            "{text}"
        );
        assert!(!text.contains("b on host"), "{text}");
    }

    #[test]
    fn a_scenario_has_a_row_for_its_promise_and_a_cell_per_kernel() {
        let card = Card::of(&[
            run("a", "debian:6.12", Verdict::Finding, true),
            run("a", "debian:6.1", Verdict::Hang, false),
            run("b", "debian:6.12", Verdict::Pass, true),
        ]);
        assert_eq!(card.kernels, ["debian:6.12", "debian:6.1"]);
        let names: Vec<_> = card.groups.iter().map(|group| group.name).collect();
        assert_eq!(names, ["O1"]);
        let states = |row: &Row| -> Vec<_> {
            let cells = row.cells.iter();
            cells
                .map(|cell| cell.as_ref().map(|cell| cell.state))
                .collect()
        };
        let rows = &card.groups[0].rows;
        assert_eq!(
            states(&rows[0]),
            [Some(CellState::Broken), Some(CellState::Inconclusive)]
        );
        assert_eq!(states(&rows[1]), [Some(CellState::NotTested), None]);
    }

    #[test]
    fn repetitions_share_a_cell_that_shows_the_worst_and_how_often() {
        let card = Card::of(&[
            run("a", "k", Verdict::Pass, true),
            run("a", "k", Verdict::Finding, false),
            run("a", "k", Verdict::Pass, true),
        ]);
        let cell = card.groups[0].rows[0].cells[0].as_ref().expect("it ran");
        assert_eq!(
            (cell.state, cell.said_so, cell.runs),
            (CellState::Broken, 1, 3)
        );
        assert_eq!(cell.run, 1, "the run to look at");
        let text = card_text(&card);
        assert!(text.contains("broken 1/3 !"), "{text}");
        assert!(text.ends_with("! not as expected\n"), "{text}");
    }

    #[test]
    fn what_is_about_no_promise_stands_apart() {
        let mut other = run("selftest", "k", Verdict::Hang, true);
        other.about.promises.clear();
        let card = Card::of(&[other]);
        assert_eq!(card.groups[0].name, "other");
        let cell = card.groups[0].rows[0].cells[0].as_ref().expect("it ran");
        assert_eq!(cell.state, CellState::Ok, "a hang was what it expected");
        assert!(!card_text(&card).contains('!'));
    }
}
