//! A small table for the tests of this module: two policies of one design, one of which keeps O1 and is twice as slow.

use super::measured::{Measured, Rounds};
use super::table::{About, Parts, ScenarioColumn, Table, Times};
use crate::report::{AboutScenario, RunSummary, example};
use crate::verdict::{Promise, Verdict};

pub(super) fn column(scenario: &str, once: bool) -> ScenarioColumn {
    ScenarioColumn {
        scenario: scenario.into(),
        number: Some("S01".into()),
        file_systems: "xfs".into(),
        summary: "s".into(),
        once,
    }
}

/// A run that broke O1 if it has a finding, and kept it if it passed.
pub(super) fn run(kernel: &str, scenario: &str, verdict: Verdict) -> RunSummary {
    let mut run = RunSummary {
        kernel: kernel.into(),
        scenario: scenario.into(),
        about: AboutScenario {
            number: Some("S01".into()),
            promises: vec![Promise::O1],
            file_systems: vec!["xfs".into()],
        },
        ..example(verdict, true)
    };
    for count in ["dma-into-file-page", "write-back"] {
        let name = format!("writeback-of-held-page.{count}");
        run.judgement.counts.insert(name, 1);
    }
    run
}

pub(super) fn row(design: &str, policy: &str) -> (String, String, String) {
    let kernel = format!("design:{design}+{policy}");
    (design.into(), policy.into(), kernel)
}

/// With `design:bias+none` to compare with.
pub(super) fn parts_of<'a>(
    rows: &'a [(String, String, String)],
    columns: &'a [ScenarioColumn],
    runs: &'a [RunSummary],
    measured: &'a [Measured],
) -> Parts<'a> {
    Parts {
        rows,
        columns,
        runs,
        measured,
        baseline: "design:bias+none",
    }
}

/// A log that has measured `fsync`.
pub(super) fn measured(ns: f64) -> Measured {
    Measured {
        costs: vec![(
            "fsync".into(),
            Rounds {
                ns: vec![ns; 5],
                loops: Vec::new(),
            },
        )],
        ..Measured::default()
    }
}

pub(super) fn table() -> Table {
    let rows = [row("bias", "none"), row("bias", "bounce")];
    let columns = [column("writeback-xfs", false)];
    let runs = [
        run("design:bias+none", "writeback-xfs", Verdict::Finding),
        run("design:bias+bounce", "writeback-xfs", Verdict::Pass),
    ];
    let logs = [measured(10.0), measured(20.0)];
    let about = About {
        command: "pincushion test designs".into(),
        date: "2026-01-02".into(),
        commit: "abc".into(),
        made: "2 runs".into(),
        times: Times::Emulated,
        ..About::default()
    };
    Table::of(&parts_of(&rows, &columns, &runs, &logs), about, Vec::new())
}
