//! The verdict table for a terminal: plain text, columns as wide as their widest cell.

use super::summary::RunSummary;
use crate::verdict::Promise;

const HEADINGS: [&str; 9] = [
    "", "scenario", "kernel", "O1", "O2", "O3", "expected", "seen", "time",
];
/// This column is flush right.
const TIME: usize = 8;

/// A table of runs, then one line for the sum, and for each surprise its reason and how to run it again.
#[must_use]
pub fn terminal(runs: &[RunSummary]) -> String {
    let rows: Vec<[String; 9]> = runs.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = line(&HEADINGS.map(str::to_owned), &widths);
    for row in &rows {
        text += &line(row, &widths);
    }
    text + &surprises(runs)
}

/// One line for the sum, and for each surprise its reason and how to run it again.
#[must_use]
pub fn surprises(runs: &[RunSummary]) -> String {
    let surprises: Vec<&RunSummary> = runs.iter().filter(|run| !run.as_expected).collect();
    let mut text = format!(
        "\n{} of {} runs as expected\n",
        runs.len() - surprises.len(),
        runs.len()
    );
    for run in surprises {
        text += &format!(
            "\nsurprise: {} on {}\n  expected {}, seen {}: {}\n",
            run.scenario,
            run.kernel,
            run.expected(),
            run.seen(),
            run.judgement.reason,
        );
        // A run that could not even begin left none.
        if run.run_dir.is_dir() {
            text += &format!("  evidence: {}\n", run.run_dir.display());
        }
        text += &format!("  again:    {}\n", run.replay);
    }
    text
}

fn row(run: &RunSummary) -> [String; 9] {
    let promise = |promise| run.promise(promise).word().to_owned();
    [
        if run.as_expected { "ok" } else { "NO" }.to_owned(),
        run.scenario.clone(),
        run.kernel.clone(),
        promise(Promise::O1),
        promise(Promise::O2),
        promise(Promise::O3),
        run.expected(),
        run.seen(),
        run.time(),
    ]
}

fn line(cells: &[String; 9], widths: &[usize]) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width - cell.chars().count());
        text += &if column == TIME {
            format!("{padding}{cell}")
        } else {
            format!("{cell}{padding}  ")
        };
    }
    text.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::example;
    use crate::verdict::Verdict;

    #[test]
    fn columns_line_up_and_surprises_say_how_to_run_them_again() {
        let text = terminal(&[
            example(Verdict::Pass, true),
            example(Verdict::Finding, false),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        let time = lines[0].find("time").expect("a heading") + 4;
        assert!(
            lines[1..3]
                .iter()
                .all(|line| line.len() == time && line.ends_with("12.3 s")),
            "{text}"
        );
        assert!(
            lines[1].starts_with("ok") && lines[2].starts_with("NO"),
            "{text}"
        );
        assert!(text.contains("1 of 2 runs as expected"), "{text}");
        assert!(
            text.contains("again:    pincushion test replay runs/1"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_suite_has_a_table_too() {
        assert!(terminal(&[]).contains("0 of 0 runs"));
    }
}
