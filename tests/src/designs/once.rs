//! Scenarios that ask for the tracking alone run with one policy of a design, and say the same of its others.

use super::table::{Cell, PROMISES, Row, ScenarioColumn};

/// Where a scenario asks for the tracking alone, a design's other policies show what was seen with the one that ran.
pub(super) fn share_once(rows: &mut [Row], columns: &[ScenarioColumn]) {
    for at in 0..rows.len() {
        let design = rows[at].design.clone();
        let same: Vec<usize> = (0..rows.len())
            .filter(|other| rows[*other].design == design)
            .collect();
        let looked_pinned = same.iter().find_map(|other| rows[*other].looked_pinned);
        let most_pins = same.iter().find_map(|other| rows[*other].most_pins);
        rows[at].looked_pinned = rows[at].looked_pinned.or(looked_pinned);
        rows[at].most_pins = rows[at].most_pins.or(most_pins);
        for (index, _) in columns.iter().enumerate().filter(|(_, column)| column.once) {
            if rows[at].scenarios[index].is_some() {
                continue;
            }
            let seen = |other: &usize| {
                let cell = rows[*other].scenarios[index].clone()?;
                cell.seen_with.is_none().then(|| Cell {
                    seen_with: Some(rows[*other].policy.clone()),
                    ..cell
                })
            };
            let shown = same.iter().find_map(|other| Some((*other, seen(other)?)));
            if let Some((from, cell)) = shown {
                rows[at].scenarios[index] = Some(cell);
                share_promises(rows, from, at, &columns[index].scenario);
            }
        }
    }
}

/// What is shown of a scenario counts for its promises as well.
fn share_promises(rows: &mut [Row], from: usize, to: usize, scenario: &str) {
    for index in 0..PROMISES.len() {
        let said = rows[from].promises[index].clone();
        let own = &mut rows[to].promises[index];
        for (said, own) in [
            (said.broken, &mut own.broken),
            (said.kept, &mut own.kept),
            (said.unclear, &mut own.unclear),
        ] {
            own.extend(said.into_iter().filter(|name| name == scenario));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{column, table};
    use super::*;

    #[test]
    fn a_scenario_that_asks_no_policy_is_shown_for_all_of_them_and_says_with_which() {
        let mut rows = table().rows;
        let columns = [column("writeback-xfs", true)];
        rows[1].scenarios[0] = None;
        rows[1].promises[0].kept.clear();
        rows[1].looked_pinned = None;
        rows[0].looked_pinned = Some(true);
        share_once(&mut rows, &columns);
        let shown = rows[1].scenarios[0].as_ref().unwrap();
        assert_eq!(shown.seen_with.as_deref(), Some("none"));
        assert_eq!(rows[1].promises[0].broken, ["writeback-xfs"]);
        assert_eq!(rows[1].looked_pinned, Some(true));
        assert_eq!(rows[0].scenarios[0].as_ref().unwrap().seen_with, None);
    }
}
