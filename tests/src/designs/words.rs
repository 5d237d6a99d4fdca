//! How rows differ, in words that are made of the table's cells, and say nothing where they say nothing.

use std::cmp::Reverse;

use super::conclusion::Conclusion;
use super::ratio::Ratio;
use super::table::{Cell, Cost, Row, Table};
use super::{BASELINE_DESIGN, CONTROL, ScenarioColumn};
use crate::report::CellState;

impl Table {
    /// What it comes to: our sentences as far as the cells bear them out, and how rows differ.
    pub fn put_into_words(&mut self) {
        let Conclusion { shown, missing } = self.conclusion();
        self.differences = self.differences();
        self.words = shown;
        if !missing.is_empty() {
            let missing = missing.join("; ");
            self.words.push(format!(
                "These runs do not show everything that could be said: {missing}."
            ));
        }
    }

    /// Sentence by sentence.
    fn differences(&self) -> Vec<String> {
        let mut words: Vec<String> = (0..3).filter_map(|index| self.promise(index)).collect();
        words.push(self.all_at_once());
        words.extend(self.policies());
        words.extend(self.designs());
        words.extend(self.false_positives());
        words.extend(self.dear());
        words.extend(self.one_boot_set());
        words.push(self.best());
        words
    }

    /// Who keeps a promise, and who breaks it how often.
    fn promise(&self, index: usize) -> Option<String> {
        let name = self.rows.first()?.promises.get(index)?.promise;
        let cells = || self.rows.iter().map(|row| (row, &row.promises[index]));
        let kept: Vec<String> = cells()
            .filter(|(_, cell)| cell.is_kept())
            .map(|(row, cell)| format!("{} (in {})", short(row), cell.kept.len()))
            .collect();
        let broken: Vec<String> = cells()
            .filter(|(_, cell)| !cell.broken.is_empty())
            .map(|(row, cell)| {
                let all = cell.broken.len() + cell.kept.len() + cell.unclear.len();
                format!("{} (in {} of {all})", short(row), cell.broken.len())
            })
            .collect();
        if kept.is_empty() && broken.is_empty() {
            return Some(format!("{name} was put to the test by no run."));
        }
        Some(format!(
            "{name} is kept in every scenario that put it to the test by {}, and broken by {}.",
            list(&kept),
            list(&broken)
        ))
    }

    fn all_at_once(&self) -> String {
        let kept: Vec<String> = self
            .rows
            .iter()
            .filter(|row| row.promises.iter().all(|cell| cell.is_kept()))
            .map(short)
            .collect();
        if kept.is_empty() {
            "No row keeps O1, O2 and O3 in every scenario that puts them to the test.".into()
        } else {
            format!(
                "O1, O2 and O3 are kept in every scenario that puts them to the test by {}.",
                list(&kept)
            )
        }
    }

    /// What a policy keeps that its design alone breaks.
    fn policies(&self) -> Vec<String> {
        let first = |row: &&Row| row.policy == self.first_policy();
        let bare = self.rows.iter().filter(first);
        let pairs = bare.flat_map(|bare| {
            let others = self.rows.iter();
            others
                .filter(|row| row.design == bare.design && row.policy != bare.policy)
                .map(move |row| (bare, row))
        });
        pairs
            .filter_map(|(bare, row)| self.gain(bare, row))
            .collect()
    }

    /// What a design keeps that upstream's breaks with the same policy.
    fn designs(&self) -> Vec<String> {
        let others = self.rows.iter().filter(|row| row.design != BASELINE_DESIGN);
        others
            .filter_map(|row| self.gain(self.upstream(row)?, row))
            .collect()
    }

    /// Upstream's design with the same policy.
    fn upstream(&self, row: &Row) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|other| other.design == BASELINE_DESIGN && other.policy == row.policy)
    }

    /// The policy of the baseline.
    fn first_policy(&self) -> &str {
        let name = self.baseline.rsplit('+').next();
        name.unwrap_or_default()
    }

    fn gain(&self, from: &Row, to: &Row) -> Option<String> {
        let kept = self.changed(from, to, CellState::Broken, CellState::Kept);
        let lost = self.changed(from, to, CellState::Kept, CellState::Broken);
        let both = self.changed(from, to, CellState::Broken, CellState::Broken);
        if kept.is_empty() && lost.is_empty() && both.is_empty() {
            return None;
        }
        let mut said = format!("{}, compared with {}, keeps ", short(to), short(from));
        said += &if kept.is_empty() {
            "nothing that the other breaks".to_owned()
        } else {
            list(&kept)
        };
        if !lost.is_empty() {
            said += &format!(", breaks {} that the other keeps", list(&lost));
        }
        if !both.is_empty() {
            said += &format!(", and leaves {} broken", list(&both));
        }
        Some(said + ".")
    }

    /// Scenarios that say this of one row and that of another.
    fn changed(&self, from: &Row, to: &Row, before: CellState, after: CellState) -> Vec<String> {
        let is = |cell: &Option<Cell>, state| cell.as_ref().is_some_and(|cell| cell.state == state);
        let columns = self.scenarios.iter().enumerate();
        columns
            .filter(|(index, _)| {
                is(&from.scenarios[*index], before) && is(&to.scenarios[*index], after)
            })
            .map(|(_, column)| column.label())
            .collect()
    }

    fn false_positives(&self) -> Option<String> {
        let with = |answer: bool| -> Vec<String> {
            let mut names: Vec<String> = Vec::new();
            for row in &self.rows {
                if row.looked_pinned == Some(answer) && !names.contains(&row.design) {
                    names.push(row.design.clone());
                }
            }
            names
        };
        let (stays, goes) = (with(true), with(false));
        let has_other_reasons = stays.iter().any(|design| design == CONTROL);
        (!stays.is_empty() || !goes.is_empty()).then(|| {
            let mut said = format!(
                "A page with 1,100 sharers and no pin is swapped out with {}, and stays in memory with {}",
                list(&goes),
                list(&stays)
            );
            if has_other_reasons {
                said += ", which here says little: it also stays with `none`, which takes nothing for pinned";
            }
            said + "."
        })
    }

    /// What is slower than the baseline, beyond the middle halves of both.
    fn dear(&self) -> Option<String> {
        let all: Vec<String> = self
            .rows
            .iter()
            .filter_map(|row| {
                let dear = self.dear_of(row);
                let (name, worst) = dear
                    .iter()
                    .max_by(|a, b| a.1.median.total_cmp(&b.1.median))?;
                Some(format!(
                    "{} in {} of {} measures, most in \u{201c}{name}\u{201d}: {}",
                    short(row),
                    dear.len(),
                    row.costs.iter().flatten().count(),
                    times(worst)
                ))
            })
            .collect();
        let measured = self
            .rows
            .iter()
            .any(|row| row.costs.iter().flatten().count() > 0);
        measured.then(|| {
            if all.is_empty() {
                format!(
                    "Nothing that was measured is slower than with {} beyond the middle halves of both.",
                    plain(&self.baseline)
                )
            } else {
                format!(
                    "Slower than {}, beyond the middle halves of both: {}.",
                    plain(&self.baseline),
                    all.join("; ")
                )
            }
        })
    }

    /// Where no spread from boot to boot can be in the numbers.
    fn one_boot_set(&self) -> Option<String> {
        // The baseline has one boot for each suite that the table is made of.
        let others = self.rows.iter().filter(|row| row.kernel != self.baseline);
        let is_one = |row: &&Row| {
            let mut costs = row.costs.iter().flatten().peekable();
            costs.peek().is_some() && costs.all(|cost| cost.boots == 1)
        };
        let once: Vec<String> = others.filter(is_one).map(short).collect();
        (!once.is_empty()).then(|| {
            format!(
                "Measured in one boot: {}. What differs from boot to boot, and what the host did meanwhile, is not in their spread.",
                list(&once)
            )
        })
    }

    /// The measures of a row that are surely slower than the baseline's, whose own spread is that of its own rounds.
    fn dear_of(&self, row: &Row) -> Vec<(String, Ratio)> {
        let mut dear = Vec::new();
        for (index, name) in self.costs.iter().enumerate() {
            let ratio = |costs: &[Option<Cost>]| costs[index].as_ref()?.ratio;
            let (Some(own), Some(base)) = (ratio(&row.costs), ratio(&self.baseline_costs)) else {
                continue;
            };
            if own.is_surely_above(&base) {
                dear.push((name.clone(), own));
            }
        }
        dear
    }

    /// Who keeps most, and breaks least of the rest.
    fn best(&self) -> String {
        let score = |row: &&Row| {
            let count = |state| labels(&self.scenarios, row, state).len();
            (count(CellState::Kept), Reverse(count(CellState::Broken)))
        };
        let told = |row: &&Row| score(row) != (0, Reverse(0));
        let Some(most) = self.rows.iter().filter(told).map(|row| score(&row)).max() else {
            return "Who keeps most cannot be told: no scenario says kept or broken of any row."
                .into();
        };
        let best: Vec<&Row> = self.rows.iter().filter(|row| score(row) == most).collect();
        let each = best.iter().map(|row| {
            let broken = labels(&self.scenarios, row, CellState::Broken);
            let broken = if broken.is_empty() {
                "nothing".to_owned()
            } else {
                list(&broken)
            };
            format!("{}, which breaks {broken}", short(row))
        });
        let (kept, Reverse(broken)) = most;
        format!(
            "Most is kept, {kept} of {} scenarios, by {}.",
            kept + broken,
            each.collect::<Vec<_>>().join(", and by ")
        )
    }
}

fn labels(columns: &[ScenarioColumn], row: &Row, state: CellState) -> Vec<String> {
    let cells = columns.iter().zip(&row.scenarios);
    cells
        .filter(|(_, cell)| cell.as_ref().is_some_and(|cell| cell.state == state))
        .map(|(column, _)| column.label())
        .collect()
}

/// `mapping+bounce`.
fn short(row: &Row) -> String {
    plain(&row.kernel).to_owned()
}

pub(super) fn plain(kernel: &str) -> &str {
    kernel.strip_prefix("design:").unwrap_or(kernel)
}

/// `1.24 (1.20 to 1.31), quickest 1.22`.
pub(super) fn times(ratio: &Ratio) -> String {
    format!(
        "{:.2} ({:.2} to {:.2}), quickest {:.2}",
        ratio.median, ratio.low, ratio.high, ratio.quickest
    )
}

/// `nothing that ran`, `a`, `a and b`, `a, b and c`.
fn list(names: &[String]) -> String {
    match names {
        [] => "nothing that ran".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured::Measured;
    use super::super::table::About;
    use super::super::testing::{column, measured, parts_of, row, run, table};
    use super::*;
    use crate::verdict::Verdict;

    fn said(table: &Table) -> String {
        table.differences().join("\n")
    }

    #[test]
    fn what_a_policy_keeps_that_its_design_alone_breaks_is_told() {
        let words = said(&table());
        for said in [
            "O1 is kept in every scenario that put it to the test by bias+bounce (in 1), and broken by bias+none (in 1 of 1).",
            "O3 was put to the test by no run.",
            "No row keeps O1, O2 and O3 in every scenario",
            "bias+bounce, compared with bias+none, keeps S01 xfs.",
            "Slower than bias+none, beyond the middle halves of both: bias+bounce in 1 of 1 measures",
            "Measured in one boot: bias+bounce.",
            "most in \u{201c}fsync\u{201d}: 2.00 (2.00 to 2.00), quickest 2.00.",
            "Most is kept, 1 of 1 scenarios, by bias+bounce, which breaks nothing.",
        ] {
            assert!(words.contains(said), "{said:?} is not in\n{words}");
        }
    }

    /// The same words with the verdicts turned round: nothing of them is fixed.
    #[test]
    fn runs_that_say_the_opposite_get_the_opposite_words() {
        let rows = [row("bias", "none"), row("bias", "bounce")];
        let columns = [column("writeback-xfs", false)];
        let runs = [
            run("design:bias+none", "writeback-xfs", Verdict::Pass),
            run("design:bias+bounce", "writeback-xfs", Verdict::Finding),
        ];
        let logs = [measured(10.0), measured(10.0)];
        let parts = parts_of(&rows, &columns, &runs, &logs);
        let words = said(&Table::of(&parts, About::default(), Vec::new()));
        for said in [
            "by bias+none (in 1), and broken by bias+bounce (in 1 of 1).",
            "keeps nothing that the other breaks, breaks S01 xfs that the other keeps.",
            "Nothing that was measured is slower",
            "Most is kept, 1 of 1 scenarios, by bias+none, which breaks nothing.",
        ] {
            assert!(words.contains(said), "{said:?} is not in\n{words}");
        }
    }

    #[test]
    fn rows_that_keep_as_much_are_all_named_with_what_they_break() {
        let rows = ["bias", "mapping", "tree"].map(|design| row(design, "bounce"));
        let columns = [column("writeback-xfs", false), column("clone-xfs", false)];
        let runs = [
            run("design:bias+bounce", "writeback-xfs", Verdict::Finding),
            run("design:bias+bounce", "clone-xfs", Verdict::Finding),
            run("design:mapping+bounce", "writeback-xfs", Verdict::Pass),
            run("design:mapping+bounce", "clone-xfs", Verdict::Finding),
            run("design:tree+bounce", "writeback-xfs", Verdict::Pass),
            run("design:tree+bounce", "clone-xfs", Verdict::Finding),
        ];
        let nothing = [const {
            Measured {
                costs: Vec::new(),
                tracking: None,
                memmap: None,
                answers: None,
                looked_pinned: None,
                most_pins: None,
            }
        }; 6];
        let parts = parts_of(&rows, &columns, &runs, &nothing);
        let words = said(&Table::of(&parts, About::default(), Vec::new()));
        let best = "Most is kept, 1 of 2 scenarios, by mapping+bounce, which breaks S01 xfs, and by tree+bounce, which breaks S01 xfs.";
        assert!(words.contains(best), "{words}");
    }

    #[test]
    fn a_page_that_stays_with_the_control_too_is_no_false_positive() {
        let mut table = table();
        table.rows[0].looked_pinned = Some(true);
        let words = said(&table);
        assert!(words.contains("stays in memory with bias."), "{words}");
        table.rows[1].design = "none".into();
        table.rows[1].looked_pinned = Some(true);
        let words = said(&table);
        assert!(
            words.contains("bias and none, which here says little"),
            "{words}"
        );
    }

    #[test]
    fn no_runs_are_no_words_of_who_keeps_most() {
        let parts = parts_of(&[], &[], &[], &[]);
        let mut table = Table::of(&parts, About::default(), Vec::new());
        table.put_into_words();
        let last = table.differences.last().unwrap();
        assert!(last.contains("cannot be told"), "{last}");
        assert_eq!(table.words.len(), 1, "{:?}", table.words);
        assert!(
            table.words[0].contains("\u{201c}bounce\u{201d}: no design with bounce ran"),
            "{:?}",
            table.words
        );
    }
}
