//! `key=value,key=value` on the command line, read by the same schema as a table of the file.

use serde::de::DeserializeOwned;

/// Reads `path=disk.img,id=a,direct=on,read-only` as `T`.
///
/// A key alone means `true`; `on`/`off` and `true`/`false` are switches; a comma inside a value is written twice. Everything
/// else is a text, and the schema decides.
///
/// # Errors
/// A sentence that names the part that is wrong and the nearest known key. Whoever parses flags adds which flag it was.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut table = toml::Table::new();
    for part in split(text) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.trim().to_owned(), self::value(value)),
            None => (part.trim().to_owned(), toml::Value::Boolean(true)),
        };
        if key.is_empty() {
            return Err(format!(
                "`{text}` has an empty key; write key=value pairs with commas between them"
            ));
        }
        if table.insert(key.clone(), value).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    T::deserialize(toml::Value::Table(table))
        .map_err(|error| pincushion_devices::toml_error::explain(error.message()))
}

/// Splits at single commas; a double comma is one comma of the value.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        if c != ',' {
            parts[last].push(c);
        } else if chars.next_if_eq(&',').is_some() {
            parts[last].push(',');
        } else {
            parts.push(String::new());
        }
    }
    parts
}

fn value(text: &str) -> toml::Value {
    match text {
        "on" | "true" => toml::Value::Boolean(true),
        "off" | "false" => toml::Value::Boolean(false),
        text => toml::Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BlkConfig;

    #[test]
    fn a_comma_in_a_path_is_written_twice() {
        let blk: BlkConfig = parse("path=a,,b.img,id=a,direct=on,read-only").unwrap();
        assert_eq!(blk.path.to_str(), Some("a,b.img"));
        assert!(blk.direct && blk.read_only);
    }

    #[test]
    fn a_wrong_key_names_the_nearest() {
        let said = parse::<BlkConfig>("paht=x,id=a").unwrap_err();
        assert!(
            said.starts_with("unknown key `paht`; did you mean `path`?"),
            "{said}"
        );
        let said = parse::<BlkConfig>("id=a").unwrap_err();
        assert!(said.contains("missing field `path`"), "{said}");
        let said = parse::<BlkConfig>("path=x,path=y").unwrap_err();
        assert!(said.contains("`path` is given twice"), "{said}");
    }
}
