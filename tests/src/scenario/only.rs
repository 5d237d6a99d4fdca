//! Steps and rules of some variants alone: `only = ["xfs"]`.

use super::model::Scenario;
use super::variant::Variant;

/// Leaves out what is for other variants than this one.
///
/// # Errors
/// A name that no variant has, in words.
pub(super) fn choose(
    scenario: &mut Scenario,
    variants: &[Variant],
    variant: Option<&str>,
) -> Result<(), String> {
    let mut unknown = None;
    let mut is_ours = |only: Vec<String>| {
        let strange = |name: &&String| !variants.iter().any(|variant| variant.name == **name);
        if let Some(name) = only.iter().find(strange) {
            unknown.get_or_insert_with(|| name.clone());
        }
        only.is_empty() || only.iter().any(|name| variant == Some(name.as_str()))
    };
    scenario
        .steps
        .retain_mut(|step| is_ours(std::mem::take(&mut step.only)));
    scenario.rules.retain_mut(|rule| {
        let only = rule.as_table_mut().and_then(|rule| rule.remove("only"));
        let names = only.and_then(|only| only.try_into::<Vec<String>>().ok());
        is_ours(names.unwrap_or_default())
    });
    match unknown {
        Some(name) => Err(format!(
            "only = [{name:?}]: there is no variant of this name"
        )),
        None => Ok(()),
    }
}
