//! Names in a scenario that are no keys of its schema: kernels, oracles, facts. One that is misspelt would not fail, but fall back to
//! `default`, or be heard by nobody.

use std::str::FromStr as _;

use pincushion_devices::toml_error::nearest;
use pincushion_image::KernelSpec;

use super::model::Scenario;
use crate::timeline::FACT_KEYS;

/// Any design, to see whether the rest of a name with `*` is one.
const A_DESIGN: &str = "bias";

/// A name that is not known.
pub(super) struct Unknown {
    /// As the file has it.
    pub name: String,
    /// Where it stands, what is wrong, and the way out.
    pub problem: String,
}

/// Refuses the first name that is not known. A fact may have a key of its own, for people, but none that is nearly an oracle's.
pub(super) fn check(scenario: &Scenario) -> Result<(), Unknown> {
    for name in &scenario.kernels {
        known_kernel("kernels", name, name)?;
    }
    for name in scenario.expect.keys().filter(|name| *name != "default") {
        known_kernels("expect", name)?;
    }
    for name in scenario.not_for.keys() {
        known_kernels("not-for", name)?;
    }
    let oracles: Vec<&str> = crate::oracle::all()
        .iter()
        .map(|oracle| oracle.name())
        .collect();
    let mut wanted = scenario
        .expect
        .values()
        .flat_map(|expected| &expected.oracles);
    if let Some(name) = wanted.find(|name| !oracles.contains(&name.as_str())) {
        let guess = match nearest(name, oracles.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", oracles.join(", ")),
        };
        return unknown(
            name,
            format!("oracles has {name:?}, and no oracle is called so; {guess}"),
        );
    }
    let keys = scenario
        .steps
        .iter()
        .filter_map(|step| Some(&step.fact.as_ref()?.key));
    for key in keys.filter(|key| !FACT_KEYS.contains(&key.as_str())) {
        if let Some(near) = nearest(key, FACT_KEYS.iter().copied()) {
            return unknown(
                key,
                format!("fact `{key}`: no oracle reads it; did you mean `{near}`?"),
            );
        }
    }
    Ok(())
}

/// A name in a table by kernel, which may mean several.
fn known_kernels(table: &str, name: &str) -> Result<(), Unknown> {
    if name == "design" {
        return Ok(());
    }
    known_kernel(table, name, &name.replacen('*', A_DESIGN, 1))
}

fn known_kernel(table: &str, name: &str, one_of_it: &str) -> Result<(), Unknown> {
    let Err(error) = KernelSpec::from_str(one_of_it) else {
        return Ok(());
    };
    // With a tree of one's own, the scenarios that come with the program may name designs that it has not.
    if KernelSpec::is_of_this_program(one_of_it) {
        return Ok(());
    }
    unknown(name, format!("{table} has {name:?}: {error}"))
}

fn unknown(name: &str, problem: String) -> Result<(), Unknown> {
    Err(Unknown {
        name: name.to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn refusal(rest: &str) -> Option<String> {
        let text =
            format!("name = 'x'\nsummary = 'y'\nexpect.default = {{ verdict = 'pass' }}\n{rest}\n");
        let read = crate::scenario::parse(&text, Path::new("x.toml"));
        read.err().map(|error| error.to_string())
    }

    #[test]
    fn a_misspelt_kernel_oracle_or_fact_is_refused_with_its_line() {
        for (rest, told) in [
            (
                "kernels = ['design:nonsense']",
                "x.toml:4: kernels has \"design:nonsense\": there is no design `nonsense`",
            ),
            (
                "kernels = ['design:bias+bonce']",
                "no policy `bonce`; did you mean `bounce`?",
            ),
            (
                "expect.'design:*+bonce' = { verdict = 'pass' }",
                "x.toml:4: expect has \"design:*+bonce\": there is no policy `bonce`",
            ),
            (
                "expect.'desing:bias' = { verdict = 'pass' }",
                "`desing:bias` names no kernel",
            ),
            (
                "\nnot-for = { 'design:bias-debgu' = 'why' }",
                "x.toml:5: not-for has \"design:bias-debgu\"",
            ),
            (
                "expect.host = { verdict = 'finding', oracles = ['must-hld'] }",
                "x.toml:4: oracles has \"must-hld\", and no oracle is called so; did you mean `must-hold`?",
            ),
            (
                "[[step]]\nfact = { key = 'must-hld', value = 1 }",
                "x.toml:5: fact `must-hld`: no oracle reads it; did you mean `must-hold`?",
            ),
        ] {
            let said = refusal(rest).unwrap_or_default();
            assert!(said.contains(told), "{rest}: {said}");
        }
    }

    #[test]
    fn what_means_several_kernels_and_a_fact_for_people_are_known() {
        for rest in [
            "kernels = ['debian:6.1', 'host', 'a/vmlinux', 'design:flag+ext+skip-debug']",
            "expect.'design:*+bounce' = { verdict = 'pass' }\nexpect.design = { verdict = 'pass' }\nexpect.'debian:6' = { verdict = 'pass' }",
            "[[step]]\nfact = { key = 'weather', value = 'fine' }",
        ] {
            assert_eq!(refusal(rest), None, "{rest}");
        }
    }
}
