//! How rows differ, in words that are made of the table's cells, and say nothing where they say nothing.

mod gain;
mod rows;

use std::cmp::Reverse;

use self::gain::Gain;
use self::rows::named;
use super::conclusion::Conclusion;
use super::ratio::Ratio;
use super::table::{Cell, Cost, PromiseCell, Row, Table};
use super::told::Answers;
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
        words.extend(self.answers());
        words.extend(self.false_positives());
        words.extend(self.dear());
        words.extend(self.one_boot_set());
        words.push(self.best());
        words
    }

    /// Who keeps a promise, and who breaks it.
    fn promise(&self, index: usize) -> Option<String> {
        let name = self.rows.first()?.promises.get(index)?.promise;
        let rows_that = |says: fn(&PromiseCell) -> bool| -> Vec<&Row> {
            let rows = self.rows.iter();
            rows.filter(|row| says(&row.promises[index])).collect()
        };
        let kept = rows_that(PromiseCell::is_kept);
        let broken = rows_that(|cell| !cell.broken.is_empty());
        if kept.is_empty() && broken.is_empty() {
            return Some(format!("{name} was put to the test by no run."));
        }
        Some(format!(
            "{name} is kept in every scenario that put it to the test by {}, and broken by {}.",
            named(&kept, &self.rows),
            named(&broken, &self.rows)
        ))
    }

    fn all_at_once(&self) -> String {
        let kept: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| row.promises.iter().all(PromiseCell::is_kept))
            .collect();
        if kept.is_empty() {
            "No row keeps O1, O2 and O3 in every scenario that puts them to the test.".into()
        } else {
            format!(
                "O1, O2 and O3 are kept in every scenario that puts them to the test by {}.",
                named(&kept, &self.rows)
            )
        }
    }

    /// What a policy keeps that its design alone breaks, for each policy, and for all designs together of which the same is to be said.
    fn policies(&self) -> Vec<String> {
        let first = |row: &&Row| row.policy == self.first_policy();
        let pairs = self.rows.iter().filter(first).flat_map(|bare| {
            let others = self.rows.iter();
            others
                .filter(|row| row.design == bare.design && row.policy != bare.policy)
                .map(move |row| (bare, row))
        });
        self.gains(pairs, |from, to| {
            format!("With {} in place of {}", to.policy, from.policy)
        })
    }

    /// What designs keep that upstream's breaks with the same policy.
    fn designs(&self) -> Vec<String> {
        let others = self.rows.iter().filter(|row| row.design != BASELINE_DESIGN);
        let pairs = others.filter_map(|row| Some((self.upstream(row)?, row)));
        self.gains(pairs, |from, to| {
            format!("In place of {}, with {}", from.design, to.policy)
        })
    }

    /// What the second row of each pair keeps and breaks other than the first.
    fn gains<'a>(
        &self,
        pairs: impl Iterator<Item = (&'a Row, &'a Row)>,
        case: impl Fn(&Row, &Row) -> String,
    ) -> Vec<String> {
        let mut all: Vec<(Gain, Vec<String>)> = Vec::new();
        for (from, to) in pairs {
            let changed = |before, after| self.changed(from, to, before, after);
            let gain = Gain {
                case: case(from, to),
                kept: changed(CellState::Broken, CellState::Kept),
                lost: changed(CellState::Kept, CellState::Broken),
            };
            let as_before = changed(CellState::Broken, CellState::Broken).len()
                + changed(CellState::Kept, CellState::Kept).len();
            if gain.kept.len() + gain.lost.len() + as_before == 0 {
                continue;
            }
            match all.iter_mut().find(|(known, _)| *known == gain) {
                Some((_, designs)) => designs.push(to.design.clone()),
                None => all.push((gain, vec![to.design.clone()])),
            }
        }
        all.sort_by(|(one, _), (other, _)| one.case.cmp(&other.case));
        all.iter()
            .map(|(gain, designs)| gain.said_of(designs))
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

    /// Whose answers were wrong, where they were compared with an exact count.
    fn answers(&self) -> Option<String> {
        let all: Vec<(&Row, Answers)> = self
            .rows
            .iter()
            .filter_map(|row| Some((row, row.answers?)))
            .collect();
        let wrong = |count: fn(&Answers) -> (u64, u64)| -> Vec<String> {
            let counted = all.iter().map(|(row, answers)| (row, count(answers)));
            let wrong = counted.filter(|(_, (wrong, _))| *wrong > 0);
            wrong
                .map(|(row, (wrong, of))| format!("{} ({wrong} of {of})", short(row)))
                .collect()
        };
        let (no, yes) = (
            wrong(|answers| (answers.wrong_no, answers.no)),
            wrong(|answers| (answers.wrong_yes, answers.yes)),
        );
        let or_none = |names: &[String]| {
            if names.is_empty() {
                "no design".to_owned()
            } else {
                list(names)
            }
        };
        (!all.is_empty()).then(|| {
            format!(
                "Of {} designs, whose answers were compared with an exact count, a page that was pinned was said not to be by {}, and one that \
                 was not pinned was said to be by {}.",
                all.len(),
                or_none(&no),
                or_none(&yes)
            )
        })
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

    /// What is slower than the baseline, beyond the middle halves of both: designs with one policy, and policies with one design, since what
    /// each adds is the same with the others.
    fn dear(&self) -> Option<String> {
        let measured = |row: &Row| row.costs.iter().flatten().count();
        if self.rows.iter().all(|row| measured(row) == 0) {
            return None;
        }
        let policy = &self.rows.first()?.policy;
        let rows = self
            .rows
            .iter()
            .filter(|row| row.policy == *policy || row.design == BASELINE_DESIGN);
        let all: Vec<String> = rows
            .filter_map(|row| {
                let dear = self.dear_of(row);
                let most = dear
                    .iter()
                    .max_by(|a, b| a.1.median.total_cmp(&b.1.median))?;
                Some(format!(
                    "{} in {} of {} measures, most in \u{201c}{}\u{201d}: {:.2}",
                    short(row),
                    dear.len(),
                    measured(row),
                    most.0,
                    most.1.median
                ))
            })
            .collect();
        let baseline = plain(&self.baseline);
        Some(if all.is_empty() {
            format!(
                "Nothing that was measured is slower than with {baseline} beyond the middle halves of both."
            )
        } else {
            format!(
                "Slower than {baseline}, beyond the middle halves of both: {}.",
                all.join("; ")
            )
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
        let once: Vec<&Row> = others.filter(is_one).collect();
        (!once.is_empty()).then(|| {
            format!(
                "Measured in one boot: {}. What differs from boot to boot, and what the host did meanwhile, is not in their spread.",
                named(&once, &self.rows)
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
            "O1 is kept in every scenario that put it to the test by bias+bounce, and broken by bias+none.",
            "O3 was put to the test by no run.",
            "No row keeps O1, O2 and O3 in every scenario",
            "With bounce in place of none: bias keeps S01 xfs.",
            "beyond the middle halves of both: bias+bounce in 1 of 1 measures, most in \u{201c}fsync\u{201d}: 2.00.",
            "Measured in one boot: bias+bounce.",
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
            "by bias+none, and broken by bias+bounce.",
            "With bounce in place of none: bias breaks S01 xfs.",
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
    fn whose_answers_are_wrong_is_told_and_that_nobodys_are() {
        let mut table = table();
        assert!(!said(&table).contains("compared with an exact count"));
        let answers = Answers {
            no: 90,
            wrong_no: 0,
            yes: 8,
            wrong_yes: 2,
        };
        table.rows[1].answers = Some(answers);
        let words = said(&table);
        let told = "said not to be by no design, and one that was not pinned was said to be by bias+bounce (2 of 8).";
        assert!(words.contains(told), "{words}");
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
