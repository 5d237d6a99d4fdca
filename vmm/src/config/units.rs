//! Sizes and durations as people write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Parses `512M`, `1G`, `64KiB` or a plain number of bytes. Units are powers of 1024.
///
/// # Errors
/// A sentence that names the units.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => {
            return Err(format!(
                "`{text}` is not a size: write a whole number and a unit of K, M, G or T, as in `512M`"
            ));
        }
    };
    let number: u64 = number.parse().map_err(|_| {
        format!("`{text}` is not a size: it has to begin with a whole number, as in `512M`")
    })?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is more than 64 bits can count"))
}

/// Writes a size with the greatest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Parses `90s`, `500ms`, `2m` or `1h`.
///
/// # Errors
/// A sentence that names the units.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || {
        format!(
            "`{text}` is not a duration: write a whole number and a unit of ms, s, m or h, as in `90s`"
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

/// Serde by [`parse_size`]: `#[serde(with = "units::size")]`.
pub mod size {
    use super::{Deserialize, Deserializer, Serializer, format_size, parse_size};

    /// Reads a text or a whole number of bytes.
    ///
    /// # Errors
    /// What [`parse_size`] says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a size is a text such as \"512M\" or a whole number of bytes"
        )]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(bytes),
            Written::Text(text) => parse_size(&text).map_err(serde::de::Error::custom),
        }
    }

    /// Writes the shortest text.
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_size(*bytes))
    }
}

/// Serde by [`parse_size`] for an optional size.
pub mod optional_size {
    use super::{Deserialize, Deserializer, Serializer, format_size};

    /// Reads a text or a whole number of bytes.
    ///
    /// # Errors
    /// What [`super::parse_size`] says.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        struct Size(#[serde(with = "super::size")] u64);
        Ok(Option::<Size>::deserialize(deserializer)?.map(|Size(bytes)| bytes))
    }

    /// Writes the shortest text.
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&format_size(*bytes)),
            None => serializer.serialize_none(),
        }
    }
}

/// Serde by [`parse_duration`] for an optional duration.
pub mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse_duration};

    /// Reads a text.
    ///
    /// # Errors
    /// What [`parse_duration`] says.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| parse_duration(&text).map_err(serde::de::Error::custom))
            .transpose()
    }

    /// Writes milliseconds.
    ///
    /// # Errors
    /// What the serializer says.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_some(&format!("{}ms", duration.as_millis())),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1"), Ok(1));
        for wrong in ["", "G", "1.5G", "1X", "-1", "99999999999999999999"] {
            let said = parse_size(wrong).unwrap_err();
            assert!(said.contains(wrong) && said.contains("512M"), "{said}");
        }
        assert!(parse_size("99999999999T").unwrap_err().contains("64 bits"));
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for bytes in [0, 1, 512, 1024, 1536, 1 << 30, 3 << 20] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_duration("90").unwrap_err().contains("90s"));
    }
}
