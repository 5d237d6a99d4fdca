//! The answer to a request, as a log and a plan spell it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Status byte of a block request (virtio 1.2, 5.2.6). In a log and in a plan it is a word or, where the specification
/// has none, a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// VIRTIO_BLK_S_OK.
    Ok,
    /// VIRTIO_BLK_S_IOERR.
    Ioerr,
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupp,
    /// A number that the specification does not know, 3 to 255.
    Other(u8),
}

impl Status {
    /// What is written into guest memory.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Ioerr => 1,
            Self::Unsupp => 2,
            Self::Other(code) => code,
        }
    }

    /// The status of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Ioerr,
            2 => Self::Unsupp,
            other => Self::Other(other),
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ok => serializer.serialize_str("ok"),
            Self::Ioerr => serializer.serialize_str("ioerr"),
            Self::Unsupp => serializer.serialize_str("unsupp"),
            Self::Other(code) => serializer.serialize_u8(*code),
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Status {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Status".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Status byte of a block request: a word of the specification, or any number.",
            "oneOf": [
                { "enum": ["ok", "ioerr", "unsupp"] },
                { "type": "integer", "minimum": 0, "maximum": 255 }
            ]
        })
    }
}

struct StatusVisitor;

impl de::Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`ok`, `ioerr`, `unsupp` or a number from 0 to 255")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Status, E> {
        match word {
            "ok" => Ok(Status::Ok),
            "ioerr" => Ok(Status::Ioerr),
            "unsupp" => Ok(Status::Unsupp),
            _ => Err(E::unknown_variant(word, &["ok", "ioerr", "unsupp"])),
        }
    }

    fn visit_u64<E: de::Error>(self, code: u64) -> Result<Status, E> {
        let code = u8::try_from(code);
        let wrong = |_| E::invalid_value(de::Unexpected::Other("a greater number"), &self);
        code.map(Status::from_code).map_err(wrong)
    }

    fn visit_i64<E: de::Error>(self, code: i64) -> Result<Status, E> {
        let code = u8::try_from(code);
        let wrong = |_| E::invalid_value(de::Unexpected::Other("a number out of range"), &self);
        code.map(Status::from_code).map_err(wrong)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Ioerr => f.write_str("ioerr"),
            Self::Unsupp => f.write_str("unsupp"),
            Self::Other(code) => write!(f, "status {code}"),
        }
    }
}
