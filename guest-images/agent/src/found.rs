//! What a step found out: the values of its report, built one by one.

use std::collections::BTreeMap;

use pincushion_abi::step::{MAX_TEXT, Pattern};
use pincushion_abi::{Fault, Value};
use xxhash_rust::xxh3::xxh3_64;

/// What a step gives back.
pub type StepResult = Result<Found, Fault>;

/// Values by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found(pub BTreeMap<String, Value>);

impl Found {
    /// Nothing to tell.
    pub fn nothing() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Adds a yes or no.
    pub fn flag(self, name: &str, value: bool) -> Self {
        self.with(name, Value::Bool(value))
    }

    /// Adds a number.
    pub fn number(self, name: &str, value: u64) -> Self {
        self.with(name, Value::Number(value))
    }

    /// Adds a count of bytes or items.
    pub fn count(self, name: &str, value: usize) -> Self {
        self.number(name, value as u64)
    }

    /// Adds numbers.
    pub fn numbers(self, name: &str, values: Vec<u64>) -> Self {
        self.with(name, Value::Numbers(values))
    }

    /// Adds texts.
    pub fn texts(self, name: &str, values: Vec<String>) -> Self {
        self.with(name, Value::Texts(values))
    }

    /// Adds a short text.
    pub fn text(self, name: &str, value: impl Into<String>) -> Self {
        self.with(name, Value::Text(value.into()))
    }

    /// Adds what may be long or not a text at all: cut at [`MAX_TEXT`] bytes, `truncated` set then.
    pub fn long_text(self, name: &str, bytes: &[u8]) -> Self {
        let kept = &bytes[..bytes.len().min(MAX_TEXT)];
        let found = self.text(name, String::from_utf8_lossy(kept));
        if kept.len() < bytes.len() {
            found.flag("truncated", true)
        } else {
            found
        }
    }

    /// Adds `hash`, `first` and `uniform` of bytes.
    pub fn content(self, bytes: &[u8]) -> Self {
        let found = self.hash(bytes);
        match bytes.first() {
            Some(&first) => {
                let uniform = Pattern::Byte(first).first_difference(bytes).is_none();
                found.number("first", first.into()).flag("uniform", uniform)
            }
            None => found,
        }
    }

    /// Adds `hash` of bytes.
    pub fn hash(self, bytes: &[u8]) -> Self {
        self.text("hash", format!("{:016x}", xxh3_64(bytes)))
    }

    /// Adds `hash`, `equal` and, where a byte is not the pattern's, where and how.
    pub fn compared(self, bytes: &[u8], pattern: Pattern) -> Self {
        let found = self.hash(bytes);
        let Some(position) = pattern.first_difference(bytes) else {
            return found.flag("equal", true);
        };
        let differs = |(at, byte): &(u64, &u8)| **byte != pattern.byte(*at);
        found
            .flag("equal", false)
            .count("first_difference", position)
            .number("expected", pattern.byte(position as u64).into())
            .number("found", bytes[position].into())
            .count("differences", (0u64..).zip(bytes).filter(differs).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_tells_where_and_how_much_differs() {
        let mut bytes = [0x41; 100];
        bytes[40] = 0;
        bytes[99] = 1;
        let found = Found::nothing().compared(&bytes, Pattern::Byte(0x41));
        assert_eq!(found.0["equal"], Value::Bool(false));
        assert_eq!(found.0["first_difference"], Value::Number(40));
        assert_eq!(
            (&found.0["expected"], &found.0["found"]),
            (&Value::Number(0x41), &Value::Number(0))
        );
        assert_eq!(found.0["differences"], Value::Number(2));
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let found = Found::nothing().long_text("text", &vec![b'x'; MAX_TEXT + 1]);
        assert_eq!(found.0["truncated"], Value::Bool(true));
        let found = Found::nothing().long_text("text", &vec![b'x'; MAX_TEXT]);
        assert!(!found.0.contains_key("truncated"));
    }

    #[test]
    fn the_hash_is_xxh3_in_sixteen_hex_digits() {
        // The published value of XXH3_64bits of an empty input.
        assert_eq!(
            Found::nothing().hash(b"").0["hash"],
            Value::Text("2d06800538d394c2".into())
        );
    }
}
