//! `list` and `check`: what scenarios say, without running any.

use std::path::PathBuf;

use clap::Args;
use pincushion_vmm::exit_code;
use pincushion_vmm::program::complain;

use super::Failure;
use crate::suite::{Selection, read_file, select};
use crate::verdict::Expectation;

/// Options of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only scenarios with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Print one JSON object per scenario
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: &ListArgs) -> Result<u8, Failure> {
    let selection = Selection {
        tags: args.tag.clone(),
        ..Selection::default()
    };
    let items = select(&selection).map_err(Failure::usage)?;
    let mut scenarios: Vec<_> = items.into_iter().map(|item| item.scenario).collect();
    scenarios.dedup_by(|next, kept| next.name == kept.name);
    for scenario in scenarios {
        if args.json {
            let line = serde_json::json!({
                "name": scenario.name,
                "number": scenario.number,
                "summary": scenario.summary,
                "tags": scenario.tags,
                "promises": scenario.promises,
                "aims-at": scenario.aims_at,
                "why": scenario.why,
                "kernels": scenario.kernels,
                "expect": scenario.expect,
            });
            println!("{line}");
            continue;
        }
        let expected: Vec<String> = scenario
            .expect
            .iter()
            .map(|(kernel, expectation)| format!("{kernel}: {}", describe(expectation)))
            .collect();
        println!("{:<32} {}", scenario.name, scenario.tags.join(" "));
        println!("    {}", scenario.summary);
        println!("    expected: {}", expected.join("; "));
    }
    Ok(exit_code::OK)
}

/// An expectation in a few words.
pub(super) fn describe(expectation: &Expectation) -> String {
    let verdict = crate::scenario::verdict_word(expectation.verdict);
    if expectation.oracles.is_empty() {
        verdict
    } else {
        format!("{verdict} of {}", expectation.oracles.join(", "))
    }
}

pub(super) fn check(files: &[PathBuf]) -> Result<u8, Failure> {
    let mut code = exit_code::OK;
    for file in files {
        match read_file(file) {
            Ok(scenarios) => {
                for (scenario, file) in scenarios {
                    println!(
                        "{}: ok, with {}, {} and {}",
                        file.display(),
                        count(scenario.steps.len(), "step"),
                        count(scenario.rules.len(), "rule"),
                        count(scenario.disks.len(), "disk")
                    );
                }
            }
            Err(error) => {
                complain(format_args!("{}", crate::words(&error)));
                code = exit_code::BAD_ARGUMENTS;
            }
        }
    }
    Ok(code)
}

/// `1 rule`, `2 rules`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn an_expectation_is_told_in_a_few_words() {
        let with = |oracles: &[&str]| Expectation {
            verdict: Verdict::Finding,
            oracles: oracles.iter().map(|name| (*name).into()).collect(),
        };
        assert_eq!(describe(&with(&[])), "finding");
        assert_eq!(describe(&with(&["a", "b"])), "finding of a, b");
    }
}
