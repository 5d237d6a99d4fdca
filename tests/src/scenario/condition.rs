//! Steps that depend on what the kernel did: `may-refuse` and `when`.
//!
//! A kernel may keep a promise in two ways: by doing what it was asked for, or by refusing. `may-refuse = "EBUSY"` takes that answer
//! for an outcome like success, which becomes the value `${NAME.refused}`; a step with `when = "NAME.refused"` or
//! `when = "!NAME.refused"` is there in the one case or the other.

use std::collections::BTreeSet;

use toml::Value;

use super::interpolate::Values;
use super::model::Step;

/// The value that a step with `may-refuse` gives, beside those that it finds out.
pub const REFUSED: &str = "refused";

/// A condition, as text: the name of a value that is true or false, perhaps negated.
fn parse(when: &str) -> (&str, bool) {
    when.strip_prefix('!')
        .map_or((when, true), |name| (name, false))
}

/// Whether a step is to be done.
///
/// # Errors
/// The value is not there, or it is neither true nor false; in words.
pub fn holds(when: Option<&str>, values: &Values) -> Result<bool, String> {
    let Some(when) = when else { return Ok(true) };
    let (name, wanted) = parse(when);
    let text = Value::String(format!("${{{name}}}"));
    match super::fill(&text, values) {
        Ok(Value::Boolean(value)) => Ok(value == wanted),
        Ok(other) => Err(format!("when = {when:?}: it is {other}, not true or false")),
        Err(missing) => Err(format!("when = {when:?}: {missing}")),
    }
}

/// What is wrong with a step's conditions; `named` are the earlier steps' names.
pub(super) fn check(step: &Step, named: Option<&BTreeSet<&str>>) -> Result<(), String> {
    if step.may_refuse.is_some() && (step.guest.is_none() || step.name.is_none()) {
        return Err("may-refuse goes only with guest and a name, for `when` to ask".into());
    }
    let Some(when) = &step.when else {
        return Ok(());
    };
    if step.host.is_some() {
        return Err("when: a look from the host comes after all steps, whatever they did".into());
    }
    let (name, _) = parse(when);
    match (name.split_once('.'), named) {
        (None, _) => Err(format!(
            "when = {when:?}: a value is NAME.KEY, for instance {name}.{REFUSED}"
        )),
        (Some((first, _)), Some(named)) if !named.contains(first) => Err(format!(
            "when = {when:?}: no earlier step is named `{first}`"
        )),
        _ => Ok(()),
    }
}

/// Gives the condition of an include to a step of its part.
///
/// # Errors
/// The step has one of its own.
pub(super) fn inherit(step: &mut Step, when: Option<&String>) -> Result<(), String> {
    let Some(when) = when else { return Ok(()) };
    if let Some(own) = &step.when {
        return Err(format!(
            "when = {when:?}: a step of the part has {own:?} already; say it at the steps of the part"
        ));
    }
    step.when = Some(when.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(refused: bool) -> Values {
        let mut values = Values::default();
        values.set("clone.refused", refused);
        values.set("clone.id", 3);
        values
    }

    #[test]
    fn a_step_is_there_if_its_value_is_as_it_says() {
        for refused in [false, true] {
            let values = values(refused);
            assert_eq!(holds(None, &values), Ok(true));
            assert_eq!(holds(Some("clone.refused"), &values), Ok(refused));
            assert_eq!(holds(Some("!clone.refused"), &values), Ok(!refused));
        }
        let wrong = |when| holds(Some(when), &values(true)).unwrap_err();
        assert!(wrong("clone.id").contains("not true or false"));
        assert!(wrong("other.refused").contains("no earlier step"));
    }

    #[test]
    fn a_condition_that_nothing_can_meet_is_refused() {
        let step = |text: &str| toml::from_str::<Step>(text).unwrap();
        let named = BTreeSet::from(["a"]);
        let said = |text: &str| check(&step(text), Some(&named)).unwrap_err();
        assert!(check(&step("gate = 'g'\nwhen = '!a.refused'"), Some(&named)).is_ok());
        assert!(said("gate = 'g'\nwhen = 'b.refused'").contains("no earlier step is named `b`"));
        assert!(said("gate = 'g'\nwhen = 'a'").contains("NAME.KEY"));
        let unnamed = "guest = { op = 'sync' }\nmay-refuse = 'EBUSY'";
        assert!(said(unnamed).contains("a name"));
        assert!(said("name = 'a'\ngate = 'g'\nmay-refuse = 'EBUSY'").contains("only with guest"));
        let look = "host = { fsck = { disk = 'a' } }\nwhen = 'a.refused'";
        assert!(said(look).contains("after all steps"));
    }

    #[test]
    fn the_steps_of_a_part_have_the_condition_of_its_include() {
        let mut plain = toml::from_str::<Step>("gate = 'g'").unwrap();
        let when = "a.refused".to_owned();
        inherit(&mut plain, None).unwrap();
        assert_eq!(plain.when, None);
        inherit(&mut plain, Some(&when)).unwrap();
        assert_eq!(plain.when.as_ref(), Some(&when));
        assert!(
            inherit(&mut plain, Some(&when))
                .unwrap_err()
                .contains("already")
        );
    }
}
