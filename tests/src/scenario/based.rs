//! A scenario that is another one with more rules: `based-on = "fork-while-read-held"`.
//!
//! So a *kept* verdict is proved: the same machine and the same steps, with a device that is wrong on purpose, and the verdict
//! has to be another. `proof.toml` has them all.

use pincushion_devices::toml_error::nearest;

use super::catalogue;
use super::model::{Scenario, Vm};

/// Makes `scenario` what its base is, but for its words, its rules (before the base's) and what it expects.
///
/// # Errors
/// There is no such base, it is itself based on another, or the file says what only the base may say; in words.
pub(super) fn on(base: &str, scenario: &mut Scenario) -> Result<(), String> {
    let said = [
        ("vm", scenario.vm != Vm::default()),
        ("disk", !scenario.disks.is_empty()),
        ("net", !scenario.nets.is_empty()),
        ("pmem", !scenario.pmems.is_empty()),
        ("balloon", scenario.balloon.is_some()),
        ("power-cut", scenario.power_cut.is_some()),
        ("step", !scenario.steps.is_empty()),
    ];
    if let Some((key, _)) = said.iter().find(|(_, said)| *said) {
        return Err(format!(
            "it is based on `{base}` and has `{key}` from there; leave it out, or leave out `based-on`"
        ));
    }
    let base = find(base)?;
    scenario.rules.extend(base.rules);
    scenario.not_for.extend(base.not_for);
    if scenario.aims_at.is_empty() {
        scenario.aims_at = base.aims_at;
    }
    scenario.vm = base.vm;
    scenario.disks = base.disks;
    scenario.nets = base.nets;
    scenario.pmems = base.pmems;
    scenario.balloon = base.balloon;
    scenario.power_cut = base.power_cut;
    scenario.steps = base.steps;
    Ok(())
}

fn find(base: &str) -> Result<Scenario, String> {
    let files = || catalogue::files().filter(|(_, text)| !is_based(text));
    // Only what may be the file's: parsing the others could come back here.
    let candidates = files().filter(|(file, _)| base.starts_with(file));
    let mut all = candidates.flat_map(|(file, _)| catalogue::named(file).unwrap_or_default());
    all.find(|scenario| scenario.name == base).ok_or_else(|| {
        let near = nearest(base, files().map(|(file, _)| file));
        let guess = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        format!("based-on = {base:?}: there is no built-in scenario of this name that has steps of its own{guess}")
    })
}

fn is_based(text: &str) -> bool {
    let table: Option<toml::Table> = toml::from_str(text).ok();
    table.is_some_and(|table| table.contains_key("based-on"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::parse;
    use super::*;

    fn load(rest: &str) -> Result<Scenario, String> {
        let text = format!(
            "name = 'x'\nsummary = 'y'\n{rest}\n[expect.default]\nverdict = 'finding'\noracles = ['must-hold']\n"
        );
        parse(&text, Path::new("x.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn its_rules_come_first_and_the_rest_is_the_bases() {
        let base = catalogue::named("clone-while-held-xfs").unwrap().remove(0);
        let rule = "[[rule]]\ndevice = 'b'\noperation = 'read'\nplanted = 'wrong-bytes'\n";
        let scenario = load(&format!("based-on = 'clone-while-held-xfs'\n{rule}")).unwrap();
        assert_eq!(scenario.name, "x");
        assert_eq!(scenario.steps, base.steps);
        assert_eq!(scenario.disks, base.disks);
        assert_eq!(scenario.rules.len(), base.rules.len() + 1);
        assert!(scenario.rules[0].get("planted").is_some());
        assert_eq!(scenario.expect.len(), 1);
        // What a run's directory keeps is the whole.
        let kept = toml::to_string(&scenario).unwrap();
        assert_eq!(parse(&kept, Path::new("x.toml")).unwrap(), scenario);
    }

    #[test]
    fn a_base_that_is_not_there_and_a_key_that_is_the_bases_are_refused() {
        let said = load("based-on = 'clone-while-hold'").unwrap_err();
        assert!(said.contains("did you mean `clone-while-held`?"), "{said}");
        let said = load("based-on = 'proof-truncate-while-held'").unwrap_err();
        assert!(said.contains("steps of its own"), "{said}");
        let said = load("based-on = 'truncate-while-held'\n[[step]]\ngate = 'g'").unwrap_err();
        assert!(said.contains("has `step` from there"), "{said}");
    }
}
