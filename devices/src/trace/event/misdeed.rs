//! What a device does wrongly on purpose: because a rule wants it, or because a self-test planted it.

use serde::{Deserialize, Serialize};

use super::{GuestRange, Status};

/// A part of the machine did something that no rule and no correct device does, because a self-test planted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Planted {
    /// The device writes the request's frames again after it was completed.
    TouchAfterCompletion,
    /// A flush answers OK and does nothing.
    LyingFlush,
    /// The used element is never published.
    DroppedCompletion,
    /// The used element is published while the device goes on holding the frames, until it is reset.
    HoldAfterCompletion,
    /// The used element of a request that is held is published before its payload moves; it moves when the hold ends.
    EarlyCompletion,
    /// Some bits of the payload are not what they should be, and nothing says so.
    WrongBytes,
}

/// What a device did because a rule wanted it, and no correct device does. Never a guest's doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Its payload moved only up to this length, and the answer says so.
    Short {
        /// Bytes.
        bytes: u64,
    },
    /// Only these parts of its payload moved, and the answer claims all.
    Torn {
        /// Half-open byte spans of the payload.
        arrived: Vec<[u64; 2]>,
    },
    /// These bits of its payload flipped: bit `n` is bit `n % 8` of byte `n / 8`.
    Corrupt {
        /// Ascending.
        bits: Vec<u64>,
    },
    /// It is answered with a status that is not how its work ended.
    Status {
        /// How its work ended; absent: it was not run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worked: Option<Status>,
    },
    /// Its completion goes on as this many-th of those that were gathered, from 0.
    Reordered {
        /// Its place.
        place: u16,
        /// How many were gathered.
        of: u16,
    },
    /// Its used element is published once more.
    Duplicate,
    /// The device writes these ranges although the used element is published.
    LateTouch {
        /// Guest physical.
        ranges: Vec<GuestRange>,
    },
    /// The device writes a range that no request gave it.
    RogueTouch {
        /// Guest physical.
        range: GuestRange,
    },
    /// Its completion raises no interrupt.
    InterruptDropped,
    /// The interrupt of its completion is put off.
    InterruptCoalesced,
    /// An interrupt without a cause was raised.
    InterruptSpurious,
    /// Configuration change interrupts without a change were raised.
    ConfigChanges {
        /// How many.
        count: u32,
    },
    /// The device asked for a reset (DEVICE_NEEDS_RESET) and stopped.
    NeedsReset,
}
