//! What the table comes to for who writes a patch, in sentences of ours: conclusion.toml. Each stands only where the cells bear it out.

use serde::Deserialize;

use super::ratio::Ratio;
use super::table::{Row, Table};
use super::words::plain;
use crate::report::CellState;

/// The file.
const TEXT: &str = include_str!("conclusion.toml");

/// The sentences that these runs show, and those that they do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conclusion {
    /// In order.
    pub(super) shown: Vec<String>,
    /// Why others are missing.
    pub(super) missing: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sentence: Vec<Sentence>,
}

/// A sentence with what it rests on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sentence {
    /// For `rests-on` of others, and for who is told that it is missing.
    name: String,
    /// With `{0}` for the first of `costs`.
    says: String,
    #[serde(default)]
    claims: Vec<Claim>,
    /// Designs that keep a page with 1,100 sharers, and no pin, in memory.
    #[serde(default)]
    sharers_stay: Vec<String>,
    /// Designs with which such a page is swapped out.
    #[serde(default)]
    sharers_go: Vec<String>,
    #[serde(default)]
    costs: Vec<CostOf>,
    /// Other sentences, before it, that must be shown.
    #[serde(default)]
    rests_on: Vec<String>,
}

/// Each row that ran, of these designs and policies, says this of each of these scenarios.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// `*`: all that ran.
    designs: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    /// `*`: all that ran.
    policy: String,
    scenarios: Vec<String>,
    are: Are,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Are {
    Kept,
    Broken,
    /// Ran to its end and broke nothing: for scenarios in which only a failure tests a promise.
    Unbroken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CostOf {
    /// `mapping+bounce`.
    row: String,
    measure: String,
}

impl Table {
    /// Goes through the file.
    #[must_use]
    pub(super) fn conclusion(&self) -> Conclusion {
        let mut conclusion = Conclusion::default();
        let mut stands: Vec<String> = Vec::new();
        for sentence in file().sentence {
            let rests = |name: &&String| !stands.contains(name);
            let said = match sentence.rests_on.iter().find(rests) {
                Some(name) => Err(format!("it rests on \u{201c}{name}\u{201d}")),
                None => self.say(&sentence),
            };
            match said {
                Ok(said) => {
                    conclusion.shown.push(said);
                    stands.push(sentence.name);
                }
                Err(why) => conclusion
                    .missing
                    .push(format!("\u{201c}{}\u{201d}: {why}", sentence.name)),
            }
        }
        conclusion
    }

    fn say(&self, sentence: &Sentence) -> Result<String, String> {
        for claim in &sentence.claims {
            self.bears_out(claim)?;
        }
        self.sharers(&sentence.sharers_stay, true)?;
        self.sharers(&sentence.sharers_go, false)?;
        let mut said = sentence.says.clone();
        for (index, cost) in sentence.costs.iter().enumerate() {
            said = said.replace(&format!("{{{index}}}"), &self.cost_of(cost)?);
        }
        Ok(said)
    }

    /// Whether a page with many sharers looks pinned to each of these designs, or not. Or which one was not seen to do so.
    fn sharers(&self, designs: &[String], looks_pinned: bool) -> Result<(), String> {
        let is_seen = |design: &&String| {
            let mut rows = self.rows.iter().filter(|row| row.design == **design);
            rows.any(|row| row.looked_pinned == Some(looks_pinned))
        };
        let does = if looks_pinned { "stay" } else { "go" };
        match designs.iter().find(|design| !is_seen(design)) {
            Some(design) => Err(format!(
                "a page with many sharers was not seen to {does} with {design}"
            )),
            None => Ok(()),
        }
    }

    /// Or which cell does not.
    fn bears_out(&self, claim: &Claim) -> Result<(), String> {
        let is_meant = |row: &&Row| {
            let named = claim
                .designs
                .iter()
                .any(|name| name == "*" || *name == row.design);
            let policy = claim.policy == "*" || claim.policy == row.policy;
            named && policy && !claim.except.contains(&row.design)
        };
        let rows: Vec<&Row> = self.rows.iter().filter(is_meant).collect();
        for design in claim.designs.iter().filter(|name| *name != "*") {
            if !rows.iter().any(|row| row.design == *design) {
                return Err(format!("{design}+{} did not run", claim.policy));
            }
        }
        if rows.is_empty() {
            return Err(format!("no design with {} ran", claim.policy));
        }
        for scenario in &claim.scenarios {
            let at = self
                .scenarios
                .iter()
                .position(|column| column.scenario == *scenario);
            let at = at.ok_or_else(|| format!("{scenario} did not run"))?;
            for row in &rows {
                let state = row.scenarios[at].as_ref().map(|cell| cell.state);
                says(state, claim.are)
                    .map_err(|cell| format!("{scenario} on {} is {cell}", plain(&row.kernel)))?;
            }
        }
        Ok(())
    }

    fn cost_of(&self, cost: &CostOf) -> Result<String, String> {
        let row = self.rows.iter().find(|row| plain(&row.kernel) == cost.row);
        let at = self.costs.iter().position(|name| *name == cost.measure);
        let ratio = row
            .zip(at)
            .and_then(|(row, at)| row.costs[at].as_ref()?.ratio);
        let said = ratio.map(
            |Ratio {
                 median, low, high, ..
             }| format!("{median:.2} ({low:.2} to {high:.2})"),
        );
        said.ok_or_else(|| {
            format!(
                "\u{201c}{}\u{201d} was not measured on {}",
                cost.measure, cost.row
            )
        })
    }
}

/// Or what the cell says instead.
fn says(state: Option<CellState>, are: Are) -> Result<(), &'static str> {
    match (state, are) {
        (Some(CellState::Kept), Are::Kept | Are::Unbroken)
        | (Some(CellState::Broken), Are::Broken)
        | (Some(CellState::NotTested | CellState::Ok), Are::Unbroken) => Ok(()),
        (Some(state), _) => Err(state.word()),
        (None, _) => Err("empty"),
    }
}

fn file() -> File {
    toml::from_str(TEXT).expect("part of the program, and tested")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{column, measured, parts_of, row, run, table};
    use super::super::{About, TAG, TAG_ONCE};
    use super::*;
    use crate::scenario::catalogue;
    use crate::verdict::Verdict;

    fn claim(designs: &[&str], policy: &str, are: Are) -> Claim {
        Claim {
            designs: designs.iter().map(ToString::to_string).collect(),
            except: Vec::new(),
            policy: policy.into(),
            scenarios: vec!["writeback-xfs".into()],
            are,
        }
    }

    #[test]
    fn a_sentence_stands_where_each_cell_bears_it_out() {
        let table = table();
        let ask = |claim: &Claim| table.bears_out(claim);
        assert_eq!(ask(&claim(&["bias"], "bounce", Are::Kept)), Ok(()));
        assert_eq!(ask(&claim(&["*"], "none", Are::Broken)), Ok(()));
        let wrong = ask(&claim(&["*"], "*", Are::Kept)).unwrap_err();
        assert_eq!(wrong, "writeback-xfs on bias+none is broken");
        let absent = ask(&claim(&["bias", "tree"], "bounce", Are::Kept)).unwrap_err();
        assert_eq!(absent, "tree+bounce did not run");
        let other = Claim {
            scenarios: vec!["clone-xfs".into()],
            ..claim(&["bias"], "bounce", Are::Kept)
        };
        assert_eq!(ask(&other).unwrap_err(), "clone-xfs did not run");
        let nobody = Claim {
            except: vec!["bias".into()],
            ..claim(&["*"], "bounce", Are::Kept)
        };
        assert_eq!(ask(&nobody).unwrap_err(), "no design with bounce ran");
    }

    #[test]
    fn a_scenario_that_did_not_run_on_a_row_bears_nothing_out() {
        let rows = [row("bias", "bounce"), row("tree", "bounce")];
        let columns = [column("writeback-xfs", false)];
        let runs = [run("design:bias+bounce", "writeback-xfs", Verdict::Pass)];
        let logs = [measured(10.0)];
        let table = Table::of(
            &parts_of(&rows, &columns, &runs, &logs),
            About::default(),
            Vec::new(),
        );
        let said = table.bears_out(&claim(&["*"], "bounce", Are::Kept));
        assert_eq!(said.unwrap_err(), "writeback-xfs on tree+bounce is empty");
    }

    #[test]
    fn what_a_sentence_says_of_costs_is_the_cell() {
        let sentence = Sentence {
            name: "cost".into(),
            says: "It costs {0}.".into(),
            claims: Vec::new(),
            sharers_stay: Vec::new(),
            sharers_go: Vec::new(),
            costs: vec![CostOf {
                row: "bias+bounce".into(),
                measure: "fsync".into(),
            }],
            rests_on: Vec::new(),
        };
        let said = table().say(&sentence).unwrap();
        assert_eq!(said, "It costs 2.00 (2.00 to 2.00).");
        let shared = Sentence {
            sharers_stay: vec!["bias".into()],
            ..sentence
        };
        let mut with_sharers = table();
        let said = with_sharers.say(&shared).unwrap_err();
        assert_eq!(
            said,
            "a page with many sharers was not seen to stay with bias"
        );
        with_sharers.rows[1].looked_pinned = Some(true);
        assert!(with_sharers.say(&shared).is_ok());
        let gone = |table: &Table| table.sharers(&["bias".into()], false);
        assert_eq!(
            gone(&with_sharers).unwrap_err(),
            "a page with many sharers was not seen to go with bias"
        );
        with_sharers.rows[1].looked_pinned = Some(false);
        assert_eq!(gone(&with_sharers), Ok(()));
        let other = Sentence {
            costs: vec![CostOf {
                row: "bias+bounce".into(),
                measure: "clone".into(),
            }],
            sharers_stay: Vec::new(),
            ..shared
        };
        let said = table().say(&other).unwrap_err();
        assert_eq!(
            said,
            "\u{201c}clone\u{201d} was not measured on bias+bounce"
        );
    }

    #[test]
    fn what_ran_without_a_test_of_its_promise_is_unbroken_and_not_kept() {
        for (state, kept, unbroken) in [
            (CellState::Kept, true, true),
            (CellState::NotTested, false, true),
            (CellState::Ok, false, true),
            (CellState::Broken, false, false),
            (CellState::Inconclusive, false, false),
            (CellState::NotApplicable, false, false),
        ] {
            assert_eq!(says(Some(state), Are::Kept).is_ok(), kept, "{state:?}");
            assert_eq!(
                says(Some(state), Are::Unbroken).is_ok(),
                unbroken,
                "{state:?}"
            );
        }
        assert!(says(None, Are::Unbroken).is_err());
    }

    /// No run is there: nothing is claimed, and what is missing says why.
    #[test]
    fn runs_that_show_nothing_are_no_conclusion() {
        let table = Table::of(&parts_of(&[], &[], &[], &[]), About::default(), Vec::new());
        let conclusion = table.conclusion();
        assert_eq!(conclusion.shown, [""; 0]);
        assert_eq!(conclusion.missing.len(), file().sentence.len());
        let last = conclusion.missing.last().unwrap();
        assert!(last.contains("it rests on"), "{last}");
    }

    #[test]
    fn the_file_names_columns_that_there_are_and_rests_on_what_stands_before() {
        let all = catalogue::all().unwrap();
        let mut before: Vec<String> = Vec::new();
        for sentence in file().sentence {
            for name in &sentence.rests_on {
                assert!(before.contains(name), "{}: {name}", sentence.name);
            }
            assert!(
                !sentence.claims.is_empty() || !sentence.rests_on.is_empty(),
                "{} rests on nothing",
                sentence.name
            );
            for name in sentence.claims.iter().flat_map(|claim| &claim.scenarios) {
                let found = all.iter().find(|listed| listed.scenario.name == *name);
                let found = found.unwrap_or_else(|| panic!("there is no scenario {name}"));
                let is_column = |tag: &String| tag == TAG || tag == TAG_ONCE;
                assert!(
                    found.scenario.tags.iter().any(is_column),
                    "{name} is no column"
                );
            }
            for index in 0..sentence.costs.len() {
                assert!(
                    sentence.says.contains(&format!("{{{index}}}")),
                    "{}",
                    sentence.name
                );
            }
            before.push(sentence.name);
        }
    }
}
