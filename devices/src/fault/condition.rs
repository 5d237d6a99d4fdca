//! Which requests a rule concerns: plain data.
//!
//! A [`Condition`] is what `any`, `all` and `not` take; a rule has the same keys at its top level. All keys of one table
//! must hold together.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::trace::event::Operation;

use super::plan::Rule;

/// What a request must be like. An empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Condition {
    /// Name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Index of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u16>,
    /// Kind of request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// The request covers at least one of these sectors (512 bytes, half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sectors: Option<Span>,
    /// Count of requests that the queue fetched before (half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<Span>,
    /// Length of the request in bytes (half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Span>,
    /// Shares a frame with a request that this device holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_frame_with: Option<String>,
    /// Covers the frame of this guest physical address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// This gate has been opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_gate: Option<String>,
    /// A step of the guest's agent with this name is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Comes true for this share of the requests, drawn by the seed for each request and rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<Share>,
    /// At least one of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<Condition>,
    /// Each of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<Condition>,
    /// This does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Condition>>,
}

/// A half-open span `from <= x < to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// First.
    pub from: u64,
    /// One past the last.
    pub to: u64,
}

impl Span {
    /// Whether a value is in it.
    #[must_use]
    pub fn contains(self, value: u64) -> bool {
        self.from <= value && value < self.to
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }
}

/// A share between 0 and 1, kept in millionths so that a plan reads back as what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

/// [`Share`] of everything.
const WHOLE: u32 = 1_000_000;

impl Share {
    /// The nearest share of a number; `None` unless it is between 0 and 1.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be between 0 and 1000000"
        )]
        let millionths = |value: f64| (value * f64::from(WHOLE)).round() as u32;
        (0.0..=1.0)
            .contains(&value)
            .then(|| Self(millionths(value)))
    }

    /// In millionths.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// This share of a count, rounded down.
    #[must_use]
    pub fn of(self, count: u64) -> u64 {
        let part = u128::from(count) * u128::from(self.0) / u128::from(WHOLE);
        u64::try_from(part).expect("a share is at most the whole")
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / f64::from(WHOLE))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        let problem =
            || de::Error::custom(format!("{value} is no share; give a number from 0 to 1"));
        Self::new(value).ok_or_else(problem)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A share between 0 and 1, kept in millionths.",
            "type": "number",
            "minimum": 0,
            "maximum": 1
        })
    }
}

impl Rule {
    /// Its conditions.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let rule = self.clone();
        Condition {
            device: rule.device,
            queue: rule.queue,
            operation: rule.operation,
            sectors: rule.sectors,
            ordinals: rule.ordinals,
            size: rule.size,
            shares_frame_with: rule.shares_frame_with,
            frame: rule.frame,
            after_gate: rule.after_gate,
            mark: rule.mark,
            probability: rule.probability,
            any: rule.any,
            all: rule.all,
            not: rule.not,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_reads_back_and_takes_its_part() {
        for value in [0.0, 0.25, 0.1, 1.0] {
            let share = Share::new(value).unwrap();
            let text = serde_json::to_string(&share).unwrap();
            assert_eq!(
                serde_json::from_str::<Share>(&text).unwrap(),
                share,
                "{text}"
            );
        }
        assert_eq!(Share::new(0.25).unwrap().of(4096), 1024);
        assert_eq!(Share::new(1.0).unwrap().of(u64::MAX), u64::MAX);
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(Share::new(wrong), None, "{wrong}");
        }
    }
}
