//! Steps and rules of some variants alone: `only = ["xfs"]`; of all but some: `only = ["!control"]`.

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
        let (mut named, mut left_out) = (Vec::new(), Vec::new());
        for name in &only {
            match name.strip_prefix('!') {
                Some(name) => left_out.push(name),
                None => named.push(name.as_str()),
            }
        }
        let strange = |name: &&&str| !variants.iter().any(|variant| variant.name == ***name);
        if let Some(name) = named.iter().chain(&left_out).find(strange) {
            unknown.get_or_insert_with(|| (*name).to_owned());
        }
        let is_among = |names: &[&str]| variant.is_some_and(|variant| names.contains(&variant));
        (named.is_empty() || is_among(&named)) && !is_among(&left_out)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::parse_all;

    /// How many steps and rules of these each variant has.
    fn kept(steps: &str) -> Result<Vec<(usize, usize)>, String> {
        let text = format!(
            "name = 'x'\nsummary = 's'\n[expect.default]\nverdict = 'pass'\n\
             [[variant]]\nname = 'ext4'\n[[variant]]\nname = 'xfs'\n[[variant]]\nname = 'control'\n\
             [[disk]]\nid = 'a'\nsize = '16M'\ncontent = 'ext4'\n{steps}"
        );
        let all = parse_all(&text, Path::new("x.toml")).map_err(|error| error.to_string())?;
        let counts = all
            .iter()
            .map(|(_, one)| (one.steps.len(), one.rules.len()));
        Ok(counts.collect())
    }

    #[test]
    fn a_step_is_for_the_named_variants_or_for_all_but_those() {
        let step = |only: &str| format!("[[step]]\nonly = {only}\nguest = {{ op = 'sync' }}\n");
        let some = |only: &str| kept(&(step(only) + "[[step]]\nguest = { op = 'sync' }\n"));
        let (with, without) = ((2, 0), (1, 0));
        assert_eq!(some("['xfs']").unwrap(), [without, with, without]);
        assert_eq!(some("['!control']").unwrap(), [with, with, without]);
        assert_eq!(some("['!xfs', '!ext4']").unwrap(), [without, without, with]);
        let rule = "[[rule]]\nonly = ['!control']\ndevice = 'a'\nhold = { gate = 'g' }\n";
        let all = kept(&format!("{rule}[[step]]\ngate = 'g'\n")).unwrap();
        assert_eq!(all, [(1, 1), (1, 1), (1, 0)]);
        for unknown in ["['contrl']", "['!contrl']"] {
            let said = some(unknown).unwrap_err();
            assert!(said.contains("no variant of this name"), "{said}");
        }
    }
}
