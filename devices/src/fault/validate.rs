//! Reads a plan and refuses what cannot be meant, naming file, line and rule.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::toml_error::describe;
use crate::trace::event::{Operation, Planted, Point};

use super::action::HoldUntil;
use super::plan::{Plan, Rule};

/// Why a plan is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It is not TOML, or a key or value is unknown. Starts with `path:line:column`.
    #[error("{0}")]
    Syntax(String),
    /// A rule cannot be meant.
    #[error("{place}rule `{rule}`: {problem}")]
    Rule {
        /// `path:line: `, or empty for a plan that was not read from a file.
        place: String,
        /// Its name, or `rule N`.
        rule: String,
        /// What is wrong and the way out.
        problem: &'static str,
    },
}

impl Plan {
    /// Reads a plan. `path` is where `text` came from, for messages.
    ///
    /// # Errors
    /// The message names file and line, and the nearest known key where one is unknown.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)
            .map_err(|error| PlanError::Syntax(describe(path, text, &error)))?;
        match plan.first_problem() {
            None => Ok(plan),
            Some((index, problem)) => Err(PlanError::Rule {
                place: format!("{}:{}: ", path.display(), line_of_rule(text, index)),
                rule: plan.rules[index].title(index),
                problem,
            }),
        }
    }

    /// Checks a plan that was not read from a file.
    ///
    /// # Errors
    /// Names the rule.
    pub fn check(&self) -> Result<(), PlanError> {
        self.first_problem().map_or(Ok(()), |(index, problem)| {
            Err(PlanError::Rule {
                place: String::new(),
                rule: self.rules[index].title(index),
                problem,
            })
        })
    }

    fn first_problem(&self) -> Option<(usize, &'static str)> {
        let problems = self.rules.iter().map(Rule::problem).enumerate();
        problems
            .filter_map(|(index, problem)| Some((index, problem?)))
            .next()
    }
}

impl Rule {
    /// Its name in events and messages, given its index.
    #[must_use]
    pub fn title(&self, index: usize) -> String {
        let number = || format!("rule {}", index + 1);
        self.name.clone().unwrap_or_else(number)
    }

    /// The point where it is asked.
    #[must_use]
    pub fn asked_at(&self) -> Point {
        let own = match self.reorder {
            Some(_) => Point::Executed,
            None => Point::Fetched,
        };
        self.point.unwrap_or(own)
    }

    fn acts(&self) -> bool {
        let keys = [
            self.hold.is_some(),
            self.reorder.is_some(),
            self.fail.is_some(),
            self.fetch.is_some(),
            self.short.is_some(),
            self.torn.is_some(),
            self.corrupt.is_some(),
            self.late_touch.is_some(),
            self.rogue_touch.is_some(),
            self.interrupt.is_some(),
            self.config_changes.is_some(),
            self.duplicate,
            self.needs_reset,
            self.verify,
            self.planted.is_some(),
        ];
        keys.contains(&true)
    }

    fn problem(&self) -> Option<&'static str> {
        let point = self.asked_at();
        let empty = |span: Option<super::Span>| span.is_some_and(|span| span.from >= span.to);
        if !self.acts() {
            return Some("has no action; give it hold, fail, fetch, planted or verify = true");
        }
        if empty(self.sectors) || empty(self.ordinals) {
            return Some(
                "a span is empty; `to` is one past the last and must be greater than `from`",
            );
        }
        if self.times == Some(0) {
            return Some("times = 0 never acts; leave it away to act always");
        }
        let at_fetched_only = self.short.is_some() || self.torn.is_some() || self.corrupt.is_some();
        if at_fetched_only && point != Point::Fetched {
            return Some(
                "a payload is damaged while it moves; choose short, torn and corrupt at point `fetched`",
            );
        }
        if self.reorder.is_some() && point != Point::Executed {
            return Some(
                "only completions are reordered; leave `point` away, or set it to `executed`",
            );
        }
        match point {
            Point::Completed if self.hold.is_some() => {
                return Some(
                    "cannot hold at `completed`: the frames are already given back; hold at `executed`",
                );
            }
            Point::Completed if self.fail.is_some() => {
                return Some(
                    "cannot fail at `completed`: the status is already written; fail at `executed`",
                );
            }
            Point::Executed | Point::Completed if self.fetch.is_some() => {
                return Some(
                    "a payload is fetched before it is executed; choose `fetch` at point `fetched`",
                );
            }
            Point::Executed | Point::Completed if self.planted == Some(Planted::LyingFlush) => {
                return Some(
                    "a flush has to lie before it is executed; plant it at point `fetched`",
                );
            }
            Point::Completed if self.planted == Some(Planted::HoldAfterCompletion) => {
                return Some(
                    "the hold is closed by then; plant it at point `fetched` or `executed`",
                );
            }
            Point::Fetched | Point::Executed | Point::Completed => {}
        }
        self.problem_with_operation()
    }

    fn problem_with_operation(&self) -> Option<&'static str> {
        let frameless = match self.operation {
            None
            | Some(
                Operation::Read
                | Operation::Write
                | Operation::GetId
                | Operation::Transmit
                | Operation::Receive
                | Operation::Inflate
                | Operation::Deflate
                | Operation::ReportFree,
            ) => false,
            Some(
                Operation::Flush
                | Operation::Discard
                | Operation::WriteZeroes
                | Operation::Control
                | Operation::Statistics
                | Operation::Unknown,
            ) => true,
        };
        let same_frame = matches!(self.hold, Some(HoldUntil::SameFrame(_)));
        if frameless && (same_frame || self.shares_frame_with.is_some() || self.frame.is_some()) {
            return Some(
                "this operation has no frames, so a condition or a hold on frames never comes true",
            );
        }
        if self.fetch.is_some()
            && self
                .operation
                .is_some_and(|operation| operation != Operation::Write)
        {
            return Some(
                "only a write's payload is fetched; `fetch` goes with operation = \"write\"",
            );
        }
        if self.planted == Some(Planted::LyingFlush)
            && self
                .operation
                .is_some_and(|operation| operation != Operation::Flush)
        {
            return Some("only a flush can be a lying flush; use operation = \"flush\"");
        }
        None
    }
}

/// Line of the `index`-th `[[rule]]`, from 1.
fn line_of_rule(text: &str, index: usize) -> usize {
    #[derive(Deserialize)]
    struct Rules {
        rule: Vec<toml::Spanned<IgnoredAny>>,
    }
    let start = toml::from_str::<Rules>(text).ok().and_then(|rules| {
        let spanned = rules.rule.get(index)?;
        Some(spanned.span().start)
    });
    text[..start.unwrap_or(0)].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Plan::parse(text, Path::new("p.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_unknown_key_names_file_line_and_neighbour() {
        let said = refused("seed = 1\n[[rule]]\ndevise = \"b\"\nverify = true\n");
        assert!(
            said.starts_with("p.toml:3:1: ") && said.contains("did you mean `device`"),
            "{said}"
        );
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_named_with_its_line() {
        let first = "[[rule]]\nverify = true\n\n";
        let said = refused(&format!(
            "{first}[[rule]]\nname = \"idle\"\ndevice = \"a\"\n"
        ));
        assert!(
            said.starts_with("p.toml:4: rule `idle`: has no action"),
            "{said}"
        );

        let cases = [
            (
                "point = \"completed\"\nhold = { gate = \"g\" }",
                "cannot hold at `completed`",
            ),
            (
                "point = \"completed\"\nfail = \"ioerr\"",
                "cannot fail at `completed`",
            ),
            (
                "point = \"executed\"\nfetch = \"early\"",
                "fetched before it is executed",
            ),
            (
                "point = \"executed\"\nplanted = \"lying-flush\"",
                "has to lie before",
            ),
            (
                "verify = true\nsectors = { from = 8, to = 8 }",
                "a span is empty",
            ),
            ("verify = true\ntimes = 0", "never acts"),
            (
                "operation = \"flush\"\nhold = { same-frame = { point = \"fetched\" } }",
                "has no frames",
            ),
            (
                "operation = \"read\"\nfetch = \"early\"",
                "only a write's payload",
            ),
            (
                "operation = \"read\"\nplanted = \"lying-flush\"",
                "only a flush",
            ),
        ];
        for (rule, problem) in cases {
            let said = refused(&format!("{first}[[rule]]\n{rule}\n"));
            assert!(
                said.starts_with("p.toml:4: rule `rule 2`: ") && said.contains(problem),
                "{said}"
            );
        }
    }

    #[test]
    fn a_plan_from_code_is_checked_too() {
        let plan = Plan {
            rules: vec![Rule::default()],
            ..Plan::default()
        };
        let said = plan.check().unwrap_err().to_string();
        assert!(said.starts_with("rule `rule 1`: has no action"), "{said}");
    }
}
