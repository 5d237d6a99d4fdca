//! The report card as a file for a repository or a mail: Markdown, with kernels, date and commit, and what broke in words.

use std::fmt::Write as _;

use super::card::{Card, CellState, Group, cell_text, lacking};
use super::html::About;
use super::summary::RunSummary;
use crate::verdict::{Certainty, Finding};

/// The whole file; `date` is that of its making, `YYYY-MM-DD`.
#[must_use]
pub fn card_markdown(runs: &[RunSummary], about: &About, date: &str) -> String {
    let card = Card::of(runs);
    // Writing to a String cannot fail.
    let mut text = format!(
        "# Report card: {}\n\nMade on {date} by commit `{}`:\n\n```text\n{}\n```\n\n{}.\n\n",
        card.kernels.join(", "),
        about.commit,
        about.command,
        about.made
    );
    for kernel in &card.kernels {
        let release = runs
            .iter()
            .find(|run| run.kernel == *kernel && !run.kernel_release.is_empty());
        let release = release.map_or("never booted", |run| &run.kernel_release);
        let _ = writeln!(text, "- `{kernel}` is {release}");
    }
    text += "\n`kept`: the promise was put to the test and held. `broken`: the kernel certainly broke it. \
        `-`: it ran, and says nothing of this promise there. \
        That each `kept` is not for nothing is shown by `pincushion test run --tag proof`: the same on a machine with a planted bug.\n";
    if runs.iter().any(|run| !run.as_expected) {
        text += "`!`: not what the scenario expects of that kernel.\n";
    }
    for group in &card.groups {
        table(&mut text, &card, group);
        notes(&mut text, &card, group, runs);
    }
    text
}

fn table(text: &mut String, card: &Card, group: &Group) {
    let _ = write!(
        text,
        "\n## {}: {}\n\n| | scenario | on |",
        group.name, group.what
    );
    for kernel in &card.kernels {
        let _ = write!(text, " {} |", plain(kernel));
    }
    *text += "\n| --- | --- | --- |";
    *text += &" --- |".repeat(card.kernels.len());
    *text += "\n";
    for row in &group.rows {
        let number = row.number.as_deref().unwrap_or_default();
        let _ = write!(
            text,
            "| {number} | {} | {} |",
            row.scenario, row.file_systems
        );
        for cell in &row.cells {
            let said = match cell {
                None => String::new(),
                Some(cell) if cell.state == CellState::Broken => {
                    format!("**{}**", cell_text(cell))
                }
                Some(cell) => cell_text(cell),
            };
            let _ = write!(text, " {said} |");
        }
        *text += "\n";
    }
}

/// A line for each cell that is broken, or not as expected: what happened there. Then why others are not applicable.
fn notes(text: &mut String, card: &Card, group: &Group, runs: &[RunSummary]) {
    let mut lines = Vec::new();
    for row in &group.rows {
        for (kernel, cell) in card.kernels.iter().zip(&row.cells) {
            let Some(cell) = cell else { continue };
            let run = &runs[cell.run];
            let is_of_group = |finding: &&Finding| {
                finding.certainty == Certainty::Certain && Some(finding.promise) == group.promise
            };
            let what = match run.judgement.findings.iter().find(is_of_group) {
                Some(finding) if cell.state == CellState::Broken => &finding.title,
                _ if !cell.as_expected => &run.judgement.reason,
                _ => continue,
            };
            lines.push(format!("- {} on {kernel}: {}\n", row.scenario, plain(what)));
        }
    }
    let lacks = group.rows.iter().flat_map(|row| lacking(card, row));
    lines.extend(lacks.map(|line| format!("- {}\n", plain(&line))));
    if !lines.is_empty() {
        *text += "\n";
        *text += &lines.concat();
    }
}

/// On one line, and nothing that ends a cell.
pub(crate) fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;
    use crate::verdict::Verdict;

    #[test]
    fn a_card_says_which_kernels_by_which_commit_and_what_broke() {
        let mut odd = example(Verdict::Hang, false);
        odd.scenario = "other".into();
        odd.judgement.reason = "a | b\nc".into();
        let mut lacks = [
            example(Verdict::NotApplicable, true),
            example(Verdict::NotApplicable, true),
        ];
        for (run, kernel) in std::iter::zip(&mut lacks, ["host", "debian:6.1"]) {
            run.scenario = "wide".into();
            run.kernel = kernel.into();
            run.judgement.reason = "needs | more".into();
        }
        let runs = [&[example(Verdict::Finding, true), odd][..], &lacks].concat();
        let about = About {
            command: "pincushion test run".into(),
            made: "2 runs".into(),
            commit: "abc".into(),
            ..About::default()
        };
        let text = card_markdown(&runs, &about, "2026-01-02");
        for part in [
            "Made on 2026-01-02 by commit `abc`",
            "\n- `debian-6.12` is ",
            "| dma-under-writeback |",
            " **broken** |",
            "\n- dma-under-writeback on debian-6.12: ",
            "other on debian-6.12: a \\| b c\n",
            "`!`: not what",
            " n/a | n/a |",
            "\n- n/a: wide on host, debian:6.1: needs \\| more\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
