//! What the table comes to, in plain words. Each sentence is made of the table's cells, and says nothing where they say nothing.

use super::ratio::Ratio;
use super::table::{Cell, Cost, Row, Table};
use super::{BASELINE_DESIGN, CONTROL, ScenarioColumn};
use crate::report::CellState;

impl Table {
    /// The sentences.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let mut words: Vec<String> = (0..3).filter_map(|index| self.promise(index)).collect();
        words.push(self.all_at_once());
        words.extend(self.policies());
        words.extend(self.designs());
        words.extend(self.false_positives());
        words.extend(self.dear());
        words.extend(self.one_boot_set());
        words.push(self.advice());
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
            "No row keeps O1, O2 and O3 all at once, each put to the test.".into()
        } else {
            format!("O1, O2 and O3 are kept all at once by {}.", list(&kept))
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

    fn one_boot_set(&self) -> Option<String> {
        // The baseline has one boot for each suite that the table is made of.
        let others = || self.rows.iter().filter(|row| row.kernel != self.baseline);
        let costs = || others().flat_map(|row| row.costs.iter().flatten());
        let is_one = costs().next().is_some() && costs().all(|cost| cost.boots == 1);
        is_one.then(|| {
            "Each was measured in one boot: what differs from boot to boot, and what the host did meanwhile, is not in the spread.".into()
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

    /// What an upstream patch should take.
    fn advice(&self) -> String {
        let Some(best) = self.best() else {
            return "What an upstream patch should take cannot be told: no scenario says kept or broken of any row.".into();
        };
        let broken = labels(&self.scenarios, best, CellState::Broken);
        let kept = labels(&self.scenarios, best, CellState::Kept);
        let mut said = format!(
            "Of what ran, {} keeps most: {} of {} scenarios",
            short(best),
            kept.len(),
            kept.len() + broken.len()
        );
        said += &if broken.is_empty() {
            ", and breaks none. ".to_owned()
        } else {
            format!(", and breaks {}. ", list(&broken))
        };
        said += &match self.upstream(best) {
            None => format!(
                "Whether that is its policy or its design cannot be told: {BASELINE_DESIGN}+{} did not run.",
                best.policy
            ),
            Some(same) if same.kernel == best.kernel && best.policy == self.first_policy() => {
                "That is upstream as it is.".to_owned()
            }
            Some(same) if same.kernel == best.kernel => format!(
                "So an upstream patch should take the policy `{}`; upstream's own count of pins is enough for what was tested.",
                best.policy
            ),
            Some(same) => self.take_both(same, best),
        };
        said
    }

    /// The best row has another design than upstream: what of it is the policy's work?
    fn take_both(&self, same: &Row, best: &Row) -> String {
        let more = self.changed(same, best, CellState::Broken, CellState::Kept);
        let mut said = if more.is_empty() {
            format!(
                "Where both ran, {} keeps the same, so a patch should take the policy `{}` and need not count pins in another way.",
                short(same),
                best.policy
            )
        } else {
            format!(
                "So an upstream patch should take the policy `{}`, and from `{}` what keeps {}, which {} breaks.",
                best.policy,
                best.design,
                list(&more),
                short(same)
            )
        };
        let dear = self.dear_of(best);
        let worst = dear.iter().max_by(|a, b| a.1.median.total_cmp(&b.1.median));
        said += &match worst {
            None if best.costs.iter().flatten().count() == 0 => {
                " What it costs was not measured.".to_owned()
            }
            None => " It costs nothing that the measures could tell from the baseline.".to_owned(),
            Some((name, ratio)) => format!(
                " Its dearest measure, as a ratio to the baseline, is \u{201c}{name}\u{201d}: {}.",
                times(ratio)
            ),
        };
        said
    }

    /// Most kept and least broken; then the cheapest.
    fn best(&self) -> Option<&Row> {
        let score = |row: &Row| {
            let count = |state| labels(&self.scenarios, row, state).len();
            let (kept, broken) = (count(CellState::Kept), count(CellState::Broken));
            (kept + broken > 0).then_some((kept, broken))
        };
        let cost = |row: &Row| {
            let ratios = row.costs.iter().flatten().filter_map(|cost| cost.ratio);
            ratios.map(|ratio| ratio.median).fold(0.0, f64::max)
        };
        let scored = self
            .rows
            .iter()
            .filter_map(|row| Some((score(row)?, cost(row), row)));
        let better = |a: &((usize, usize), f64, &Row), b: &((usize, usize), f64, &Row)| {
            let ((kept_a, broken_a), (kept_b, broken_b)) = (a.0, b.0);
            (kept_a.cmp(&kept_b))
                .then(broken_b.cmp(&broken_a))
                .then(b.1.total_cmp(&a.1))
        };
        scored.max_by(better).map(|(_, _, row)| row)
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

fn plain(kernel: &str) -> &str {
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

    #[test]
    fn the_policy_that_keeps_what_upstream_breaks_is_what_a_patch_should_take() {
        let words = table().in_words().join("\n");
        for said in [
            "O1 is kept in every scenario that put it to the test by bias+bounce (in 1), and broken by bias+none (in 1 of 1).",
            "O3 was put to the test by no run.",
            "No row keeps O1, O2 and O3 all at once",
            "bias+bounce, compared with bias+none, keeps S01 xfs.",
            "Slower than bias+none, beyond the middle halves of both: bias+bounce in 1 of 1 measures",
            "Each was measured in one boot",
            "most in \u{201c}fsync\u{201d}: 2.00 (2.00 to 2.00), quickest 2.00.",
            "should take the policy `bounce`; upstream's own count of pins is enough",
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
        let words = Table::of(&parts, About::default(), Vec::new()).in_words();
        let words = words.join("\n");
        for said in [
            "by bias+none (in 1), and broken by bias+bounce (in 1 of 1).",
            "keeps nothing that the other breaks, breaks S01 xfs that the other keeps.",
            "Nothing that was measured is slower",
            "That is upstream as it is.",
        ] {
            assert!(words.contains(said), "{said:?} is not in\n{words}");
        }
    }

    #[test]
    fn what_a_design_keeps_beyond_the_policy_is_told_with_its_cost() {
        let rows = [row("bias", "bounce"), row("mapping", "bounce")];
        let columns = [column("writeback-xfs", false), column("clone-xfs", false)];
        let runs = [
            run("design:bias+bounce", "writeback-xfs", Verdict::Pass),
            run("design:bias+bounce", "clone-xfs", Verdict::Finding),
            run("design:mapping+bounce", "writeback-xfs", Verdict::Pass),
            run("design:mapping+bounce", "clone-xfs", Verdict::Pass),
        ];
        let nothing = [const {
            Measured {
                costs: Vec::new(),
                tracking: None,
                looked_pinned: None,
                most_pins: None,
            }
        }; 4];
        let parts = parts_of(&rows, &columns, &runs, &nothing);
        let words = Table::of(&parts, About::default(), Vec::new()).in_words();
        let last = words.last().unwrap();
        assert!(
            last.contains("and from `mapping` what keeps S01 xfs, which bias+bounce breaks. What it costs was not measured."),
            "{last}"
        );
        let alone = [row("mapping", "bounce")];
        let parts = parts_of(&alone, &columns, &runs, &nothing);
        let words = Table::of(&parts, About::default(), Vec::new()).in_words();
        assert!(words.last().unwrap().contains("bias+bounce did not run"));
    }

    #[test]
    fn a_page_that_stays_with_the_control_too_is_no_false_positive() {
        let mut table = table();
        table.rows[0].looked_pinned = Some(true);
        let words = table.in_words().join("\n");
        assert!(words.contains("stays in memory with bias."), "{words}");
        table.rows[1].design = "none".into();
        table.rows[1].looked_pinned = Some(true);
        let words = table.in_words().join("\n");
        assert!(
            words.contains("bias and none, which here says little"),
            "{words}"
        );
    }

    #[test]
    fn no_runs_are_no_advice() {
        let parts = parts_of(&[], &[], &[], &[]);
        let words = Table::of(&parts, About::default(), Vec::new()).in_words();
        assert!(
            words.last().unwrap().contains("cannot be told"),
            "{words:?}"
        );
    }
}
