//! Reads a plan and refuses what cannot be meant, naming file, line and rule.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::toml_error::describe;
use crate::trace::event::Point;

use super::plan::{Plan, Rule};
use super::waits;

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
        problem: String,
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

    /// The first rule that cannot be meant, alone or together with the others.
    fn first_problem(&self) -> Option<(usize, String)> {
        let mut alone = self.rules.iter().map(Rule::problem).enumerate();
        let alone = alone.find_map(|(index, problem)| Some((index, problem?.to_owned())));
        alone.or_else(|| waits::cycle(&self.rules))
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

    /// Rules, and what is said of them.
    const WRONG: &[(&str, &str)] = &[
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
            "point = \"executed\"\ntorn = { prefix = 512 }",
            "damaged while it moves",
        ),
        (
            "point = \"fetched\"\nreorder = { window = 4 }",
            "only completions are reordered",
        ),
        (
            "reorder = { window = 4 }\nhold = { gate = \"g\" }",
            "gathered by `reorder`",
        ),
        ("reorder = { window = 1 }", "give it 2 or more"),
        (
            "verify = true\nsectors = { from = 8, to = 8 }",
            "a span is empty",
        ),
        (
            "verify = true\nsize = { from = 8, to = 8 }",
            "a span is empty",
        ),
        (
            "verify = true\nany = [{ ordinals = { from = 1, to = 0 } }]",
            "a span is empty",
        ),
        ("verify = true\nnot = {}", "an empty condition"),
        ("verify = true\nprobability = 0.0", "never comes true"),
        ("verify = true\nmark = \"\"", "needs the name of a step"),
        ("verify = true\ntimes = 0", "never acts"),
        (
            "short = { bytes = 1 }\ntorn = { prefix = 1 }",
            "short and torn contradict",
        ),
        ("corrupt = { bits = 0 }", "flips nothing"),
        ("hold = { for = { one-of-us = [] } }", "no duration"),
        (
            "rogue-touch = { at = \"random\", bytes = 4097 }",
            "1 to 4096 bytes",
        ),
        ("interrupt = { coalesce = 1 }", "give it 2 or more"),
        ("config-changes = 0", "give it 1 or more"),
        (
            "duplicate = true\nplanted = \"dropped-completion\"",
            "contradict each other",
        ),
        (
            "hold = { gate = \"g\" }\nafter-gate = \"g\"",
            "an open gate holds nobody",
        ),
        (
            "hold = { gate = \"g\" }\nopen-gate = \"g\"",
            "an open gate holds nobody",
        ),
        (
            "operation = \"flush\"\ntorn = { prefix = 1 }",
            "has no payload",
        ),
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
        (
            "operation = \"flush\"\nplanted = \"wrong-bytes\"",
            "has no payload",
        ),
        (
            "operation = \"read\"\nplanted = \"early-completion\"",
            "give the rule a hold there",
        ),
    ];

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

        for (rule, problem) in WRONG {
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
