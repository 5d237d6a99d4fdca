//! `${...}` in scenario files.
//!
//! `${NAME.value}` is a value that the step `NAME` found out, `${NAME.value.0}` an element of a list, `${NAME.id}` the
//! step's number in the log. `${NAME.frame-numbers}` are its `frames` divided by 4096, as facts want them. `${disk.ID}`
//! is a disk's device node in the guest, `${bus.ID}` its name on the virtio bus, `${block.ID}` its name below
//! /sys/block, `${fs.ID}` the type of the file system on it, `${pmem.ID}` the device node of a pmem region, and
//! `${sectors.ID:PATH}` the sectors of a file that was on it before the guest began, and `${seed}` the run's seed. A text that is nothing but one
//! `${...}` becomes the value itself, whatever its type; inside a longer text it becomes text.

use std::collections::BTreeMap;

use pincushion_abi::Value as Found;
use toml::Value;

/// A name that has no value (yet).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`${{{0}}}` has no value here: no earlier step of that name, or it did not find that out")]
pub struct Missing(pub String);

/// Values by their dotted names.
#[derive(Debug, Clone, Default)]
pub struct Values(BTreeMap<String, Value>);

impl Values {
    /// What each run has from its beginning.
    #[must_use]
    pub fn of_run(seed: u64) -> Self {
        let mut values = Self::default();
        values.set("seed", to_toml(&Found::Number(seed)));
        values
    }

    /// Sets a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Takes over all that a step found out.
    pub fn set_found(&mut self, step: &str, found: &BTreeMap<String, Found>) {
        for (key, value) in found {
            self.set(format!("{step}.{key}"), to_toml(value));
            if let (Found::Numbers(frames), "frames") = (value, key.as_str()) {
                let numbers = frames.iter().map(|address| address / 4096).collect();
                self.set(
                    format!("{step}.frame-numbers"),
                    to_toml(&Found::Numbers(numbers)),
                );
            }
        }
    }

    fn get(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value.clone());
        }
        let (list, index) = name.rsplit_once('.')?;
        self.0
            .get(list)?
            .as_array()?
            .get(index.parse::<usize>().ok()?)
            .cloned()
    }
}

fn to_toml(value: &Found) -> Value {
    // TOML's integers end at 2^63 - 1; no address, count or size of a guest comes near.
    let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    match value {
        Found::Bool(value) => Value::Boolean(*value),
        Found::Number(value) => number(*value),
        Found::Text(value) => Value::String(value.clone()),
        Found::Numbers(values) => Value::Array(values.iter().copied().map(number).collect()),
        Found::Texts(values) => Value::Array(values.iter().cloned().map(Value::String).collect()),
    }
}

/// `value` with every `${...}` replaced.
///
/// # Errors
/// The first name that has no value.
pub fn fill(value: &Value, values: &Values) -> Result<Value, Missing> {
    replace(value, &|name| {
        values.get(name).ok_or_else(|| Missing(name.to_owned()))
    })
}

/// `value` with something of the likely type in each place, and the names that it asked for: for checking a file before
/// anything has run.
#[must_use]
pub fn placeholders(value: &Value) -> (Value, Vec<String>) {
    let names = std::cell::RefCell::new(Vec::new());
    let filled = replace(value, &|name| {
        names.borrow_mut().push(name.to_owned());
        Ok(placeholder(name))
    });
    (
        filled.expect("placeholders are never missing"),
        names.into_inner(),
    )
}

fn placeholder(name: &str) -> Value {
    let prefix = name.split('.').next().unwrap_or_default();
    let last = name.rsplit('.').next().unwrap_or_default();
    match (prefix, last) {
        ("disk" | "bus" | "block" | "net" | "pmem" | "fs", _) => Value::String(format!("/{name}")),
        ("sectors", _) => Value::Table(
            [("from", 0), ("to", 8)]
                .map(|(key, at)| (key.into(), Value::Integer(at)))
                .into_iter()
                .collect(),
        ),
        (_, "frames" | "frame-numbers") => Value::Array(vec![Value::Integer(4096)]),
        (_, "equal" | "uniform") => Value::Boolean(true),
        (_, "hash" | "text" | "path" | "interface" | "bus") => Value::String("0".into()),
        _ => Value::Integer(4096),
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Result<Value, Missing>;

fn replace(value: &Value, lookup: Lookup<'_>) -> Result<Value, Missing> {
    Ok(match value {
        Value::String(text) => replace_in_text(text, lookup)?,
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| replace(item, lookup))
                .collect::<Result<_, _>>()?,
        ),
        Value::Table(table) => {
            let fields = table
                .iter()
                .map(|(key, value)| Ok((key.clone(), replace(value, lookup)?)));
            Value::Table(fields.collect::<Result<_, _>>()?)
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
            value.clone()
        }
    })
}

fn replace_in_text(text: &str, lookup: Lookup<'_>) -> Result<Value, Missing> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            break;
        };
        let value = lookup(name)?;
        if before.is_empty() && behind.is_empty() && filled.is_empty() {
            return Ok(value);
        }
        filled.push_str(before);
        match value {
            Value::String(text) => filled.push_str(&text),
            other => filled.push_str(&other.to_string()),
        }
        rest = behind;
    }
    filled.push_str(rest);
    Ok(Value::String(filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let mut values = Values::default();
        values.set("disk.a", "/dev/vda");
        let found = BTreeMap::from([
            ("frames".to_owned(), Found::Numbers(vec![0x3000, 0x5000])),
            ("equal".to_owned(), Found::Bool(false)),
        ]);
        values.set_found("page", &found);
        values
    }

    fn filled(toml: &str) -> Result<toml::Table, Missing> {
        let table: toml::Table = toml.parse().unwrap();
        fill(&Value::Table(table), &values()).map(|value| value.as_table().unwrap().clone())
    }

    #[test]
    fn a_lone_name_keeps_its_type_and_one_inside_a_text_becomes_text() {
        let table = filled(
            "a = '${page.frames.1}'\nb = 'at ${page.frames.0} of ${disk.a}'\n\
             c = ['${page.equal}']\nd = '${page.frame-numbers}'",
        )
        .unwrap();
        assert_eq!(table["a"], Value::Integer(0x5000));
        assert_eq!(table["b"], Value::String("at 12288 of /dev/vda".into()));
        assert_eq!(table["c"][0], Value::Boolean(false));
        assert_eq!(
            table["d"],
            Value::Array(vec![Value::Integer(3), Value::Integer(5)])
        );
    }

    #[test]
    fn a_name_without_value_is_refused_by_name() {
        for name in ["pages.frames", "page.frames.2", "page.frames.x", ""] {
            assert_eq!(
                filled(&format!("a = '${{{name}}}'")).unwrap_err(),
                Missing(name.into())
            );
        }
    }

    #[test]
    fn an_unclosed_bracket_is_plain_text() {
        assert_eq!(
            filled("a = 'x ${page'").unwrap()["a"],
            Value::String("x ${page".into())
        );
    }

    #[test]
    fn placeholders_name_all_that_was_asked_for() {
        let table: toml::Table = "sectors = '${sectors.a:/data}'\nx = { y = 'to ${disk.a}' }"
            .parse()
            .unwrap();
        let (filled, names) = placeholders(&Value::Table(table));
        assert_eq!(names, ["sectors.a:/data", "disk.a"]);
        assert_eq!(filled["sectors"]["to"], Value::Integer(8));
    }
}
