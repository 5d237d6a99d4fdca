//! Variants: one file that is several scenarios, which differ in a few values.
//!
//! ```toml
//! name = "truncate"
//! set = { size = "32M" }            # for every variant that does not say otherwise
//! [[variant]]
//! name = "ext4"                     # the scenario `truncate-ext4`
//! set = { fs = "ext4" }
//! [[variant]]
//! name = "xfs"                      # the scenario `truncate-xfs`
//! set = { fs = "xfs", size = "64M" }
//! [[pmem]]
//! content = "${set.fs}"             # a text that is nothing else becomes the value, whatever its type
//! ```
//!
//! `${set.variant}` is the variant's own name. A step that includes a part may have a `set` of its own for that part, which goes before those above.
//!
//! `${set.KEY}` is replaced in the text of the file and of its parts, before either is understood as a scenario: so it may stand
//! wherever TOML has a text, and messages about what comes of it name the right line. Lines that are a comment are left alone.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use pincushion_devices::toml_error::{describe, nearest};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::load::LoadError;

const OPENING: &str = "${set.";

/// One scenario of a file that is several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Variant {
    /// What is added to the file's name, after a `-`.
    pub name: String,
    /// Its values of `${set.KEY}`.
    #[serde(default)]
    pub set: Table,
}

/// What a file says of its variants; the rest of it is read when their values stand in it.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    set: Table,
    #[serde(default, rename = "variant")]
    variants: Vec<Variant>,
}

/// The values that stand for `${set.KEY}` in one scenario.
pub(super) struct Settings {
    /// Name of the variant, if the file has any.
    pub(super) variant: Option<String>,
    values: Table,
    /// Keys that somebody gave a value, and those that somebody asked for, anywhere in the file and its parts.
    given: Keys,
    used: Keys,
}

type Keys = Rc<RefCell<BTreeSet<String>>>;

impl Settings {
    /// Those of each variant of a file; of the whole file where it has none.
    pub(super) fn of_file(text: &str, path: &Path) -> Result<Vec<Self>, LoadError> {
        let head: Head = toml::from_str(text)
            .map_err(|error| LoadError::Syntax(describe(path, text, &error)))?;
        let settings = |variant: Option<&Variant>| {
            let mut values = head.set.clone();
            values.extend(
                variant
                    .map(|variant| variant.set.clone())
                    .unwrap_or_default(),
            );
            let given = values.keys().cloned().collect();
            if let Some(variant) = variant {
                values.insert("variant".into(), Value::String(variant.name.clone()));
            }
            Self {
                variant: variant.map(|variant| variant.name.clone()),
                given: Rc::new(RefCell::new(given)),
                values,
                used: Keys::default(),
            }
        };
        if head.variants.is_empty() {
            return Ok(vec![settings(None)]);
        }
        let mut names = BTreeSet::new();
        for Variant { name, .. } in &head.variants {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if name.is_empty() || !name.chars().all(is_name) {
                let problem = format!("variant {name:?}: use letters, digits and `-`");
                return Err(refused(path, problem));
            }
            if !names.insert(name) {
                return Err(refused(path, format!("there are two variants `{name}`")));
            }
        }
        Ok(head
            .variants
            .iter()
            .map(|one| settings(Some(one)))
            .collect())
    }

    /// These, and before them what a step says that includes a part.
    pub(super) fn within(&self, include: &Table) -> Self {
        let mut values = self.values.clone();
        values.extend(include.clone());
        self.given.borrow_mut().extend(include.keys().cloned());
        Self {
            variant: self.variant.clone(),
            values,
            given: self.given.clone(),
            used: self.used.clone(),
        }
    }

    /// `text` with every `${set.KEY}` replaced, on the line where it was.
    pub(super) fn fill(&self, text: &str, path: &Path) -> Result<String, LoadError> {
        let mut filled = String::with_capacity(text.len());
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if line.trim_start().starts_with('#') {
                filled.push_str(line);
                continue;
            }
            let line = self.fill_line(line).map_err(|problem| LoadError::Meaning {
                place: format!("{}:{}", path.display(), index + 1),
                problem,
            })?;
            filled.push_str(&line);
        }
        Ok(filled)
    }

    fn fill_line(&self, line: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(OPENING) {
            let Some((key, behind)) = after.split_once('}') else {
                break;
            };
            let value = self.value(key)?;
            filled.push_str(before);
            rest = behind;
            let quote = filled.chars().last().filter(|c| matches!(c, '"' | '\''));
            match (quote, value) {
                (Some(quote), value) if behind.starts_with(quote) => {
                    filled.pop();
                    filled.push_str(&value.to_string());
                    rest = &behind[1..];
                }
                (_, Value::String(text)) if is_plain(text) => filled.push_str(text),
                (_, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) => {
                    filled.push_str(&value.to_string())
                }
                _ => {
                    return Err(format!(
                        "`${{set.{key}}}` cannot be a part of a longer text: {value}"
                    ));
                }
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, key: &str) -> Result<&Value, String> {
        self.used.borrow_mut().insert(key.to_owned());
        self.values.get(key).ok_or_else(|| {
            let near = nearest(key, self.values.keys().map(String::as_str));
            let guess = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let of = self.variant.as_ref();
            let of = of.map_or(String::new(), |variant| format!(" of variant `{variant}`"));
            format!("`${{set.{key}}}` has no value: give it one in `set`{of}{guess}")
        })
    }
}

/// Refuses a value that no variant of the file uses: most likely its name is wrong.
pub(super) fn refuse_unused(all: &[Settings], path: &Path) -> Result<(), LoadError> {
    let used: BTreeSet<String> = all
        .iter()
        .flat_map(|one| one.used.borrow().clone())
        .collect();
    let mut given = all.iter().flat_map(|one| one.given.borrow().clone());
    match given.find(|key| !used.contains(key)) {
        None => Ok(()),
        Some(key) => Err(refused(
            path,
            format!("nothing uses `set.{key}`: write `${{set.{key}}}` where it belongs"),
        )),
    }
}

fn refused(path: &Path, problem: String) -> LoadError {
    LoadError::Meaning {
        place: path.display().to_string(),
        problem,
    }
}

/// Whether a text may stand inside another one, whatever its quotes.
fn is_plain(text: &str) -> bool {
    !text.contains(['"', '\'', '\\']) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "set = { size = '32M' }\n[[variant]]\nname = 'ext4'\nset = { fs = 'ext4', len = 1, more = [1, 'x'] }\n\
        [[variant]]\nname = 'xfs'\nset = { fs = 'xfs', len = 2, size = '64M', more = { a = 1 } }\n";

    fn filled(variant: usize, line: &str) -> Result<String, String> {
        let settings = Settings::of_file(FILE, Path::new("x.toml")).unwrap();
        let filled = settings[variant].fill(line, Path::new("x.toml"));
        filled.map_err(|error| error.to_string())
    }

    #[test]
    fn a_lone_name_becomes_the_value_and_one_in_a_text_its_words() {
        let line = "a = \"${set.len}\" b = '${set.more}' c = 'on ${set.fs}, ${set.size}' d = \"${set.fs}\"";
        assert_eq!(
            filled(0, line).unwrap(),
            "a = 1 b = [1, \"x\"] c = 'on ext4, 32M' d = \"ext4\""
        );
        assert_eq!(
            filled(1, line).unwrap(),
            "a = 2 b = { a = 1 } c = 'on xfs, 64M' d = \"xfs\""
        );
    }

    #[test]
    fn other_names_and_comments_are_left_alone() {
        let text = "# ${set.nothing}\na = '${disk.a}'\n";
        assert_eq!(filled(0, text).unwrap(), text);
    }

    #[test]
    fn a_name_without_value_is_refused_with_its_line_and_neighbour() {
        let said = filled(1, "a = 1\nb = '${set.fz}'\n").unwrap_err();
        assert_eq!(
            said,
            "x.toml:2: `${set.fz}` has no value: give it one in `set` of variant `xfs`; did you mean `fs`?"
        );
        assert!(
            filled(0, "b = 'x ${set.more}'")
                .unwrap_err()
                .contains("longer text")
        );
    }

    #[test]
    fn a_value_that_nothing_uses_is_refused() {
        let path = Path::new("x.toml");
        let all = Settings::of_file(FILE, path).unwrap();
        all[0]
            .fill("'${set.fs} ${set.size} ${set.len}'", path)
            .unwrap();
        assert!(
            refuse_unused(&all, path)
                .unwrap_err()
                .to_string()
                .contains("nothing uses `set.more`")
        );
        all[1].fill("a = '${set.more}'", path).unwrap();
        refuse_unused(&all, path).unwrap();
        let part = all[1].within(&"fs = 'btrfs'\nown = 1".parse().unwrap());
        assert_eq!(
            part.fill("'${set.fs} ${set.size}'", path).unwrap(),
            "'btrfs 64M'"
        );
        assert!(
            refuse_unused(&all, path)
                .unwrap_err()
                .to_string()
                .contains("nothing uses `set.own`")
        );
    }

    #[test]
    fn names_are_letters_and_given_once() {
        for (text, problem) in [
            ("[[variant]]\nname = 'a b'\n", "use letters"),
            (
                "[[variant]]\nname = 'a'\n[[variant]]\nname = 'a'\n",
                "two variants `a`",
            ),
            (
                "[[variant]]\nname = 'a'\nsett = {}\n",
                "unknown key `sett`; did you mean `set`?",
            ),
        ] {
            let said = Settings::of_file(text, Path::new("x.toml"))
                .err()
                .unwrap()
                .to_string();
            assert!(said.contains(problem), "{said}");
        }
    }
}
