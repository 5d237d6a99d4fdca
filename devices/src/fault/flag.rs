//! A rule as a flag spells it: `device=b,operation=read,hold.gate=g`.
//!
//! It is the same schema as a `[[rule]]` of a file. A dot leads into a table, as in TOML; `A..B` is a span; a key alone means
//! `true`; a value is what TOML makes of it, and else a text. A comma ends a value unless it stands within brackets, braces or
//! quotes.

use crate::toml_error::explain;

use super::plan::{Plan, Rule};

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// A sentence that names what is wrong and the nearest known key. Whoever parses flags adds which flag it was.
    pub fn from_flag(text: &str) -> Result<Self, String> {
        let mut lines = String::new();
        for part in split(text)? {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key.trim(), self::value(value.trim())),
                None => (part.trim(), "true".to_owned()),
            };
            if key.is_empty() {
                return Err(format!(
                    "`{text}` has an empty key; write key=value pairs with commas between them, as in device=b,hold.gate=g"
                ));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !key.chars().all(plain) {
                return Err(format!(
                    "`{key}` is no key; write key=value pairs with commas between them"
                ));
            }
            lines.push_str(&format!("{key} = {value}\n"));
        }
        let rule: Self = toml::from_str(&lines).map_err(|error| explain(error.message()))?;
        let plan = Plan {
            seed: 0,
            rules: vec![rule],
        };
        plan.check().map_err(|error| error.to_string())?;
        let mut rules = plan.rules;
        Ok(rules.remove(0))
    }
}

/// Splits at commas that are not within brackets, braces or quotes.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_i32;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, ',') if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        let last = parts.len() - 1;
        parts[last].push(c);
    }
    if depth != 0 || quote.is_some() {
        return Err(format!(
            "`{text}` has a bracket or a quote that is not closed"
        ));
    }
    Ok(parts)
}

/// A value in TOML's spelling.
fn value(text: &str) -> String {
    if let Some((from, to)) = text.split_once("..")
        && let (Ok(from), Ok(to)) = (from.parse::<u64>(), to.parse::<u64>())
    {
        return format!("{{ from = {from}, to = {to} }}");
    }
    let is_toml = toml::from_str::<toml::Table>(&format!("x = {text}")).is_ok();
    // A text that TOML reads as more than one value is no value.
    if is_toml && !text.contains('\n') {
        text.to_owned()
    } else {
        toml::Value::String(text.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_flag_is_the_rule_that_a_file_spells() {
        let pairs = [
            (
                "device=b,operation=read,hold.gate=g,times=1",
                "device = 'b'\noperation = 'read'\nhold = { gate = 'g' }\ntimes = 1",
            ),
            (
                "name=tear it,sectors=0..8,torn.sectors=[0,2],fail=7",
                "name = 'tear it'\nsectors = { from = 0, to = 8 }\ntorn = { sectors = [0, 2] }\nfail = 7",
            ),
            (
                "frame=0x5000,probability=0.5,duplicate,interrupt=drop",
                "frame = 0x5000\nprobability = 0.5\nduplicate = true\ninterrupt = 'drop'",
            ),
            (
                "any=[{operation='read'},{queue=1}],hold.same-frame.point=executed,hold.same-frame.device=a",
                "any = [{ operation = 'read' }, { queue = 1 }]\nhold = { same-frame = { point = 'executed', device = 'a' } }",
            ),
            (
                "late-touch.after.gate=g,late-touch.write=noise",
                "late-touch = { after = { gate = 'g' }, write = 'noise' }",
            ),
        ];
        for (flag, file) in pairs {
            let plan = Plan::parse(&format!("[[rule]]\n{file}\n"), Path::new("p.toml")).unwrap();
            assert_eq!(Rule::from_flag(flag).unwrap(), plan.rules[0], "{flag}");
        }
    }

    #[test]
    fn a_wrong_flag_says_what_is_wrong() {
        for (flag, words) in [
            (
                "devise=b,verify",
                "unknown key `devise`; did you mean `device`?",
            ),
            ("device=b", "has no action"),
            ("device=b,,verify", "has an empty key"),
            ("torn.sectors=[0,verify", "not closed"),
            ("device=b,device=c,verify", "duplicate key"),
            ("de vice=b,verify", "`de vice` is no key"),
            (
                "hold.gates=g",
                "unknown value `gates`; did you mean `gate`?",
            ),
            ("verify\nfail=1", "is no key"),
        ] {
            let said = Rule::from_flag(flag).unwrap_err();
            assert!(said.contains(words), "{flag}: {said}");
        }
    }
}
