//! Whether a guest step came out as the scenario needs.

use pincushion_abi::Outcome;
use toml::Value;

use super::interpolate::Values;
use super::model::Expect;

/// What was wanted and what came instead; `None` where the outcome is as wanted.
#[must_use]
pub fn unmet(expect: Option<&Expect>, outcome: &Outcome) -> Option<(String, String)> {
    let got = || describe(outcome);
    match (expect, outcome) {
        (Some(Expect::Any), _) | (None, Outcome::Ok(_)) => None,
        (None, Outcome::Failed(_)) => Some(("success".into(), got())),
        (Some(Expect::Errno(name)), Outcome::Failed(fault)) if fault.name == *name => None,
        (Some(Expect::Errno(name)), _) => Some((name.clone(), got())),
        (Some(Expect::Values(_)), Outcome::Failed(_)) => Some(("success".into(), got())),
        (Some(Expect::Values(wanted)), Outcome::Ok(found)) => {
            let mut values = Values::default();
            values.set_found("found", found);
            wanted.iter().find_map(|(key, value)| {
                let name = Value::String(format!("${{found.{key}}}"));
                match super::fill(&name, &values) {
                    Ok(found) if found == *value => None,
                    Ok(found) => Some((format!("{key} = {value}"), format!("{key} = {found}"))),
                    Err(_) => Some((format!("{key} = {value}"), format!("no value {key}"))),
                }
            })
        }
    }
}

/// An outcome in a few words.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(_) => "success".into(),
        Outcome::Failed(fault) => format!("{} ({})", fault.name, fault.call),
    }
}

/// Agents and facts know no fractions and no dates; `nan` is not even equal to itself.
pub(super) fn only_exact(what: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Float(_) | Value::Datetime(_) => Err(format!(
            "{what}: `{value}` equals nothing that a guest finds: use a whole number, a text, true or false"
        )),
        Value::Array(items) => items.iter().try_for_each(|item| only_exact(what, item)),
        Value::Table(fields) => fields
            .values()
            .try_for_each(|field| only_exact(what, field)),
        Value::String(_) | Value::Integer(_) | Value::Boolean(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pincushion_abi::{Fault, Value};

    use super::*;

    fn ok() -> Outcome {
        Outcome::Ok(BTreeMap::from([
            ("equal".into(), Value::Bool(true)),
            ("frames".into(), Value::Numbers(vec![7, 9])),
        ]))
    }

    fn failed() -> Outcome {
        Outcome::Failed(Fault {
            call: "fsync".into(),
            errno: 5,
            name: "EIO".into(),
        })
    }

    fn values(toml: &str) -> Expect {
        Expect::Values(toml.parse().unwrap())
    }

    #[test]
    fn without_a_wish_success_is_wanted() {
        assert_eq!(unmet(None, &ok()), None);
        assert_eq!(
            unmet(None, &failed()),
            Some(("success".into(), "EIO (fsync)".into()))
        );
    }

    #[test]
    fn an_errno_is_wanted_by_its_name() {
        let eio = Expect::Errno("EIO".into());
        assert_eq!(unmet(Some(&eio), &failed()), None);
        assert!(unmet(Some(&eio), &ok()).is_some());
        assert!(unmet(Some(&Expect::Errno("EROFS".into())), &failed()).is_some());
    }

    #[test]
    fn values_must_be_there_and_equal_and_others_do_not_matter() {
        assert_eq!(unmet(Some(&values("equal = true")), &ok()), None);
        assert_eq!(unmet(Some(&values("\"frames.1\" = 9")), &ok()), None);
        let different = unmet(Some(&values("equal = false")), &ok());
        assert_eq!(
            different,
            Some(("equal = false".into(), "equal = true".into()))
        );
        assert!(unmet(Some(&values("hash = 'x'")), &ok()).is_some());
        assert!(unmet(Some(&values("equal = true")), &failed()).is_some());
    }

    #[test]
    fn anything_goes_where_nothing_is_wanted() {
        assert_eq!(unmet(Some(&Expect::Any), &failed()), None);
    }
}
