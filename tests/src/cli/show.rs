//! `show`: a scenario in words, from its file and from what the documents say of its oracles; or the file itself.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use pincushion_vmm::exit_code;

use super::Failure;
use super::explain;
use super::list::describe;
use crate::runner::title;
use crate::scenario::{Scenario, catalogue};
use crate::suite::{Selection, read_file, select};

/// Options of `show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A scenario, what its variants have in common, or a file
    name: String,
    /// Print the file, to begin a scenario of your own from
    #[arg(long)]
    file: bool,
}

pub(super) fn show(args: &ShowArgs) -> Result<u8, Failure> {
    let path = Path::new(&args.name);
    let text = match catalogue::text(&args.name) {
        Some(text) if args.file => Some(text.to_owned()),
        None if args.file && path.exists() => {
            Some(std::fs::read_to_string(path).map_err(Failure::usage)?)
        }
        _ => None,
    };
    if let Some(text) = text {
        print!("{text}");
        return Ok(exit_code::OK);
    }
    match &scenarios(&args.name)?[..] {
        [one] => print!("{}", in_words(one)?),
        several => print!("{}", at_a_glance(several)),
    }
    Ok(exit_code::OK)
}

/// Those of a name or a file, at least one.
fn scenarios(name: &str) -> Result<Vec<Scenario>, Failure> {
    let built_in = catalogue::named(name).map_err(Failure::usage)?;
    if !built_in.is_empty() {
        return Ok(built_in);
    }
    if name.ends_with(".toml") || name.contains(".toml#") {
        let of_file = read_file(Path::new(name)).map_err(Failure::usage)?;
        return Ok(of_file.into_iter().map(|(scenario, _)| scenario).collect());
    }
    // The selection knows how to say it, with the nearest name.
    let selection = Selection {
        names: vec![name.to_owned()],
        ..Selection::default()
    };
    let items = select(&selection).map_err(Failure::usage)?;
    Ok(items.into_iter().map(|item| item.scenario).collect())
}

/// A line for each variant.
fn at_a_glance(scenarios: &[Scenario]) -> String {
    let mut text = format!("{} scenarios in one file:\n", scenarios.len());
    for scenario in scenarios {
        text += &format!("\n{}\n    {}\n", scenario.name, scenario.summary);
        text += &format!("    expected: {}\n", expected(scenario).join("; "));
    }
    let first = &scenarios[0].name;
    text + &format!(
        "\n`pincushion test show {first}` says how one of them goes; `--file` prints the file.\n"
    )
}

/// All that the file says.
fn in_words(scenario: &Scenario) -> Result<String, Failure> {
    let mut text = format!("{}: {}\n", scenario.name, scenario.summary);
    let number = scenario
        .number
        .iter()
        .map(|number| format!("number {number}"));
    let tags = (!scenario.tags.is_empty()).then(|| format!("tags {}", scenario.tags.join(", ")));
    let promises = scenario
        .promises
        .iter()
        .map(|promise| format!("{promise:?}"));
    let promises: Vec<String> = promises.collect();
    let about = (!promises.is_empty()).then(|| format!("about {}", promises.join(" and ")));
    let facts: Vec<String> = number.chain(tags).chain(about).collect();
    if !facts.is_empty() {
        text += &format!("{}\n", facts.join("; "));
    }
    if !scenario.vm.cmdline.is_empty() {
        text += &format!("the kernel boots with {}\n", scenario.vm.cmdline);
    }
    text += &format!(
        "runs on {} unless --kernel names others\n",
        scenario.kernels.join(", ")
    );
    section(&mut text, "Step by step", numbered(&steps(scenario)));
    if !scenario.rules.is_empty() {
        let rules = explain::of_scenario(scenario)?.explain();
        section(&mut text, "What the devices do", indented(&rules));
    }
    let judged = oracles(scenario)
        .into_iter()
        .filter_map(|oracle| Some(format!("  {oracle}: {}\n", verifies(oracle)?)));
    section(
        &mut text,
        "What is judged, beside what is in every run",
        judged.collect(),
    );
    let aims = scenario.aims_at.iter().map(|aim| format!("  {aim}\n"));
    section(&mut text, "Kernel code that it aims at", aims.collect());
    let expected = expected(scenario)
        .into_iter()
        .map(|line| format!("  {line}\n"));
    section(&mut text, "Expected", expected.collect());
    let why = scenario.why.iter().map(|why| format!("  {why}\n"));
    section(&mut text, "Why", why.collect());
    Ok(text)
}

fn section(text: &mut String, title: &str, body: String) {
    if !body.is_empty() {
        *text += &format!("\n{title}\n{body}");
    }
}

fn numbered(lines: &[String]) -> String {
    let lines = lines.iter().enumerate();
    lines
        .map(|(index, line)| format!("  {:2}. {line}\n", index + 1))
        .collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// What a reader of the progress sees: notes for the oracles are not among it.
fn steps(scenario: &Scenario) -> Vec<String> {
    let told = scenario
        .steps
        .iter()
        .filter(|step| step.fact.is_none() || step.say.is_some());
    told.map(title).collect()
}

/// Oracles that it is made for: those that it expects to find something, and those that its facts are for.
fn oracles(scenario: &Scenario) -> BTreeSet<&str> {
    let expected = scenario.expect.values();
    let mut oracles: BTreeSet<&str> = expected
        .flat_map(|one| one.oracles.iter().map(String::as_str))
        .collect();
    let facts = scenario.steps.iter().filter_map(|step| step.fact.as_ref());
    oracles.extend(facts.filter_map(|fact| {
        let (_, oracle) = READS.iter().find(|(key, _)| *key == fact.key)?;
        Some(*oracle)
    }));
    oracles
}

/// Which oracle reads a fact.
const READS: [(&str, &str); 7] = [
    ("file-page", "writeback-of-held-page"),
    ("stable-pages-required", "unstable-payload"),
    ("file-blocks", "dax-block-reused-while-held"),
    ("promised", "lost-dma-data"),
    ("pins", "pins-balanced"),
    ("must-hold", "must-hold"),
    ("frozen", "write-while-frozen"),
];

const ORACLES: &str = include_str!("../../../docs/oracles.md");

/// What an oracle verifies, as docs/oracles.md says it.
fn verifies(oracle: &str) -> Option<&'static str> {
    let begin = format!("| `{oracle}` |");
    let row = ORACLES.lines().find(|line| line.starts_with(&begin))?;
    row.split('|').nth(3).map(str::trim)
}

/// Kernel by kernel; `default` are all others.
fn expected(scenario: &Scenario) -> Vec<String> {
    let lines = scenario.expect.iter().map(|(kernel, expectation)| {
        let of = match kernel.as_str() {
            "default" if scenario.expect.len() == 1 => "every kernel",
            "default" => "any other kernel",
            kernel => kernel,
        };
        format!("{of}: {}", describe(expectation))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;

    #[test]
    fn every_oracle_is_told_in_words() {
        for oracle in oracle::all() {
            let said = verifies(oracle.name());
            assert!(
                said.is_some_and(|said| said.len() > 20),
                "{}",
                oracle.name()
            );
        }
        let known = oracle::all();
        for (key, reader) in READS {
            assert!(known.iter().any(|oracle| oracle.name() == reader), "{key}");
        }
    }

    #[test]
    fn a_scenario_is_told_with_steps_rules_oracles_and_expectation() {
        let scenario = &scenarios("clone-while-held-xfs").unwrap()[0];
        let said = in_words(scenario).unwrap();
        for part in [
            "number S03",
            "   1. mount disk a",
            "  1. hold the read of b",
            "must-hold: what a scenario declares",
            "fs/xfs",
            "any other kernel: finding of must-hold, writeback-of-held-page",
            "design:mapping+bounce: pass",
            "\nWhy\n",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("note:"), "{said}");
    }

    #[test]
    fn variants_are_told_at_a_glance() {
        let said = at_a_glance(&scenarios("clone-while-held").unwrap());
        assert!(said.contains("\nclone-while-held-btrfs\n"), "{said}");
        assert!(said.contains("debian:6.12: finding of"), "{said}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_neighbour() {
        let said = format!("{:?}", scenarios("clone-while-helt").unwrap_err());
        assert!(said.contains("clone-while-held"), "{said}");
    }

    #[test]
    fn every_built_in_scenario_can_be_told() {
        for listed in catalogue::all().unwrap() {
            assert!(in_words(&listed.scenario).unwrap().contains("Expected"));
        }
    }
}
