//! `explain`: what a fault plan will do, in words, rule by rule.

use std::path::{Path, PathBuf};

use clap::Args;
use pincushion_devices::fault::{Outside, Plan, Rule};
use pincushion_vmm::exit_code;

use super::Failure;
use crate::scenario::{Scenario, catalogue, placeholders};
use crate::suite::{read_file, split_variant};

/// Options of `explain`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct ExplainArgs {
    /// A fault plan, a scenario file, or the name of a built-in scenario
    plan: Option<PathBuf>,
    /// A rule as `pincushion run --fault` takes it; before those of the plan; may be repeated
    #[arg(long = "fault", value_name = "KEY=VALUE,...", value_parser = Rule::from_flag)]
    faults: Vec<Rule>,
    /// Print the JSON schema of fault plans, for editors and programs that write plans
    #[arg(long)]
    schema: bool,
}

pub(super) fn explain(args: &ExplainArgs) -> Result<u8, Failure> {
    if args.schema {
        println!("{}", schema());
        return Ok(exit_code::OK);
    }
    let mut source = match &args.plan {
        Some(path) => read(path)?,
        None => Source::default(),
    };
    let flags = args.faults.iter().cloned();
    source.plan.rules = flags.chain(source.plan.rules).collect();
    // Rules that are fine alone may wait for each other.
    source.plan.check().map_err(Failure::usage)?;
    print!("{}", source.explain());
    Ok(exit_code::OK)
}

/// The text of `docs/fault-plan.schema.json`, without its last newline.
fn schema() -> String {
    serde_json::to_string_pretty(&Plan::schema()).expect("a schema has string keys only")
}

/// A plan and what else its file says.
#[derive(Debug, Default)]
pub(super) struct Source {
    plan: Plan,
    /// Of a scenario: the gates that its steps open.
    opened: Option<Vec<String>>,
    /// Texts that only a run can fill, and what stands for them here.
    unknown: Vec<String>,
}

impl Source {
    pub(super) fn explain(&self) -> String {
        let mut text = self.plan.explain(|gate| match &self.opened {
            None => Outside::Unknown,
            Some(opened) if opened.iter().any(|other| other == gate) => Outside::Opens,
            Some(_) => Outside::Never,
        });
        if !self.unknown.is_empty() {
            text.push_str(&format!(
                "Only a run knows {}; sectors 0 to 7 stand for them here.\n",
                self.unknown.join(", ")
            ));
        }
        text
    }
}

fn read(path: &Path) -> Result<Source, Failure> {
    if !path.exists()
        && let Some(name) = path.to_str()
        && let scenarios = catalogue::named(name).map_err(Failure::usage)?
        && !scenarios.is_empty()
    {
        return of_only(&scenarios);
    }
    let text = std::fs::read_to_string(split_variant(path).0).map_err(|error| {
        let problem = "is neither a file that can be read nor a built-in scenario (`pincushion test list` names them)";
        Failure::usage(anyhow::anyhow!("{}: {problem}: {error}", path.display()))
    })?;
    if is_scenario(&text) {
        let scenarios = read_file(path).map_err(Failure::usage)?;
        let scenarios: Vec<Scenario> = scenarios.into_iter().map(|(one, _)| one).collect();
        return of_only(&scenarios);
    }
    let plan = Plan::parse(&text, path).map_err(Failure::usage)?;
    Ok(Source {
        plan,
        ..Source::default()
    })
}

/// A scenario has keys that no plan has.
fn is_scenario(text: &str) -> bool {
    let table: Option<toml::Table> = toml::from_str(text).ok();
    let keys = ["summary", "step", "disk", "expect"];
    table.is_some_and(|table| keys.iter().any(|key| table.contains_key(*key)))
}

fn of_only(scenarios: &[Scenario]) -> Result<Source, Failure> {
    match scenarios {
        [scenario] => of_scenario(scenario),
        several => {
            let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
            Err(Failure::usage(anyhow::anyhow!(
                "these are several scenarios ({}): name one, of a file as FILE#VARIANT",
                names.join(", ")
            )))
        }
    }
}

pub(super) fn of_scenario(scenario: &Scenario) -> Result<Source, Failure> {
    let mut unknown = Vec::new();
    let mut rules = Vec::new();
    for rule in &scenario.rules {
        let (filled, names) = placeholders(rule);
        unknown.extend(names.iter().map(|name| format!("${{{name}}}")));
        rules.push(filled.try_into::<Rule>().map_err(Failure::usage)?);
    }
    let steps = scenario.steps.iter();
    Ok(Source {
        plan: Plan { seed: 0, rules },
        opened: Some(steps.filter_map(|step| step.gate.clone()).collect()),
        unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_scenario_is_explained_with_its_gates() {
        let source = read(Path::new("dma-under-writeback")).unwrap();
        let said = source.explain();
        assert!(said.contains("a step opens it"), "{said}");
        let forgotten = read(Path::new("selftest-forgotten-gate")).unwrap();
        assert!(forgotten.explain().contains("Gate `read`: nobody opens it"));
    }

    #[test]
    fn every_built_in_scenario_can_be_explained() {
        for listed in catalogue::all().unwrap() {
            let scenario = listed.scenario;
            let source = of_scenario(&scenario).unwrap();
            assert!(!source.explain().is_empty(), "{}", scenario.name);
        }
    }

    const DOCUMENT: &str = include_str!("../../../docs/fault-plan.md");

    /// The plans that the document shows.
    fn documented() -> Vec<String> {
        let blocks = DOCUMENT.split("```toml\n").skip(1);
        let plans = blocks.map(|block| block.split("```").next().unwrap().to_owned());
        plans.collect()
    }

    #[test]
    fn the_schema_in_docs_is_the_one_of_the_types() {
        let kept = include_str!("../../../docs/fault-plan.schema.json");
        assert!(
            kept.trim_end() == schema(),
            "docs/fault-plan.schema.json is old: write it again with `pincushion test explain --schema > docs/fault-plan.schema.json`"
        );
    }

    #[test]
    fn the_documented_plans_are_valid_by_the_types_and_by_the_schema() {
        let validator = jsonschema::validator_for(&Plan::schema()).unwrap();
        let plans = documented();
        assert!(plans.len() > 5, "{} plans", plans.len());
        for text in plans {
            Plan::parse(&text, Path::new("fault-plan.md")).unwrap();
            let value: serde_json::Value = toml::from_str(&text).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{text}: {errors:?}");
        }
    }

    #[test]
    fn the_schema_refuses_what_the_types_refuse() {
        let validator = jsonschema::validator_for(&Plan::schema()).unwrap();
        for text in [
            "[[rule]]\ndevise = 'b'",
            "[[rule]]\nfail = 'eio'",
            "[[rule]]\nfail = 256",
            "[[rule]]\nprobability = 1.5",
            "[[rule]]\nhold = { gate = 3 }",
            "[[rule]]\ntorn = { prefix = 1, sectors = [1] }",
            "[[rule]]\ninterrupt = 'drop-it'",
            "[[rule]]\nany = [{ verify = true }]",
        ] {
            let value: serde_json::Value = toml::from_str(text).unwrap();
            assert!(!validator.is_valid(&value), "{text}");
            assert!(toml::from_str::<Plan>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_key_of_a_rule_is_documented() {
        let schema = Plan::schema();
        let keys = schema["$defs"]["Rule"]["properties"].as_object().unwrap();
        assert!(keys.len() > 25, "{keys:?}");
        for key in keys.keys() {
            assert!(DOCUMENT.contains(&format!("`{key} =")), "{key}");
        }
    }

    #[test]
    fn a_file_is_a_scenario_or_a_plan_by_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan.toml");
        std::fs::write(&plan, "[[rule]]\nhold = { gate = 'g' }\n").unwrap();
        let said = read(&plan).unwrap().explain();
        assert!(said.contains("somebody opens it from outside"), "{said}");
        let said = read(Path::new("no-such-plan")).unwrap_err().said;
        assert!(said.contains("no-such-plan: is neither"), "{said}");
    }
}
