//! What a rule does: plain data, as a plan spells it. [`super::decision`] is what becomes of it for one request.

use serde::{Deserialize, Serialize};

use crate::trace::event::Point;

use super::condition::{Share, Span};

/// How long a request is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HoldUntil {
    /// Until this gate is opened. An open gate holds nobody.
    Gate(String),
    /// Until another request that shares a frame reaches a point.
    SameFrame(SameFrame),
    /// For so many milliseconds on the host's clock.
    ForMs(u64),
    /// For a time on the host's clock that the seed draws for each request.
    For(Delay),
}

/// The awaited event of another request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SameFrame {
    /// Which point it must reach.
    pub point: Point,
    /// Only requests of this device; absent: any other request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A distribution of durations, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Delay {
    /// Every duration of the span is as likely.
    UniformUs(Span),
    /// Many short ones and a long tail, cut at `max`.
    ExponentialUs {
        /// The mean of the uncut distribution.
        mean: u64,
        /// No duration is longer.
        max: u64,
    },
    /// One of these; one that is listed twice is twice as likely.
    OneOfUs(Vec<u64>),
}

/// Completions wait for each other and then go on in an order that the seed draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reorder {
    /// So many are gathered before they are let go. 5 ms after the first of them they are let go anyway: a guest that
    /// waits for its last completion must not wait for ever.
    pub window: u16,
}

/// Only the first part of a payload moves, and the answer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Short {
    /// So many bytes.
    Bytes(u64),
    /// This share of the payload, rounded down to bytes.
    Share(Share),
}

/// Only pieces of a payload move, and the answer claims that all of it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Torn {
    /// The first so many bytes.
    Prefix(u64),
    /// These 512-byte sectors of the payload, counted from its start.
    Sectors(Vec<u64>),
    /// Some of its 64-byte lines.
    CacheLines(Lines),
}

/// Which 64-byte lines of a payload move, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Lines {
    /// Lines 0, 2, 4, ...
    Even,
    /// Lines 1, 3, 5, ...
    Odd,
    /// Each with probability one half, drawn by the seed.
    Random,
}

/// Bits of a payload flip on their way: in guest memory for what the device writes there, on the medium or the wire for
/// what it reads there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Corrupt {
    /// So many different bits, drawn by the seed.
    pub bits: u16,
    /// Only in these bytes of the payload (half-open); absent: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// What a device writes where it must not write any more, or never might.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Scribble {
    /// The bytes that it put there, or found there, before the guest got the used element.
    #[default]
    Same,
    /// Zeroes.
    Zeroes,
    /// Bytes that the seed draws.
    Noise,
}

/// The device writes the request's frames after its used element was published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LateTouch {
    /// When; absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<HoldUntil>,
    /// What.
    #[serde(default)]
    pub write: Scribble,
}

/// The device writes a frame that no request gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RogueTouch {
    /// Where.
    pub at: RogueAt,
    /// So many bytes, at most one frame.
    #[serde(default = "RogueTouch::default_len")]
    pub bytes: u64,
    /// What.
    #[serde(default)]
    pub write: Scribble,
}

impl RogueTouch {
    fn default_len() -> u64 {
        64
    }
}

/// Which frame a rogue touch hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RogueAt {
    /// From this guest physical address on.
    Address(u64),
    /// The frame after the last one of the request.
    NextFrame,
    /// A frame of guest memory that the seed draws and that no request holds.
    Random,
}

/// What happens to the interrupt of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InterruptFault {
    /// It is not raised. A later completion may still raise one.
    Drop,
    /// It is put off until so many completions wait for one, at most for 5 ms.
    Coalesce(u16),
    /// One more is raised before it, when the used ring has nothing new.
    Spurious,
}
