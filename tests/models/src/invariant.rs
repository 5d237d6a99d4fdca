//! What must hold in every schedule: the seven invariants, and two ways to fail that need no page to be wrong.

use std::fmt;

/// A property that each step, or the end of a run, is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1.
    StableBytes,
    /// I2.
    DirtyMeetsBlocks,
    /// I3.
    BytesOnMedia,
    /// I4.
    FreedIsNotWritten,
    /// I5.
    NoFalseNegative,
    /// I6.
    CountsAtRest,
    /// I7.
    ImageUnchanged,
    /// The design's own code says that this cannot be (`VM_BUG_ON`).
    OwnAssertion,
    /// Somebody waits for what never comes.
    NobodyStuck,
}

impl Invariant {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::StableBytes,
        Self::DirtyMeetsBlocks,
        Self::BytesOnMedia,
        Self::FreedIsNotWritten,
        Self::NoFalseNegative,
        Self::CountsAtRest,
        Self::ImageUnchanged,
        Self::OwnAssertion,
        Self::NobodyStuck,
    ];

    /// `I1` to `I7`, `BUG`, `STUCK`.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::StableBytes => "I1",
            Self::DirtyMeetsBlocks => "I2",
            Self::BytesOnMedia => "I3",
            Self::FreedIsNotWritten => "I4",
            Self::NoFalseNegative => "I5",
            Self::CountsAtRest => "I6",
            Self::ImageUnchanged => "I7",
            Self::OwnAssertion => "BUG",
            Self::NobodyStuck => "STUCK",
        }
    }

    /// Its name, as tests and tables say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StableBytes => "stable-bytes",
            Self::DirtyMeetsBlocks => "dirty-meets-blocks",
            Self::BytesOnMedia => "bytes-on-media",
            Self::FreedIsNotWritten => "freed-is-not-written",
            Self::NoFalseNegative => "no-false-negative",
            Self::CountsAtRest => "counts-at-rest",
            Self::ImageUnchanged => "image-unchanged",
            Self::OwnAssertion => "own-assertion",
            Self::NobodyStuck => "nobody-stuck",
        }
    }

    /// What it says.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::StableBytes => {
                "the bytes that write-back reads do not change unless it reads a copy"
            }
            Self::DirtyMeetsBlocks => {
                "a page is marked dirty only while its file system is ready to write it"
            }
            Self::BytesOnMedia => {
                "the last byte of the device is on the media after the last fsync"
            }
            Self::FreedIsNotWritten => "a page that was freed is not written",
            Self::NoFalseNegative => "a page that is held is never said to be not pinned",
            Self::CountsAtRest => {
                "all counts are what they were when all is over, and when the page is freed"
            }
            Self::ImageUnchanged => "a clone's bytes never change",
            Self::OwnAssertion => "no assertion of the design's own code fails",
            Self::NobodyStuck => "nobody waits for ever",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

/// An invariant that did not hold, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What happened, in a sentence.
    pub how: String,
}
