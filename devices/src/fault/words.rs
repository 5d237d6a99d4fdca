//! What a decision does, in words for the event log.

use crate::trace::event::{Fetch, Planted, Point, Until};

use super::action::{Corrupt, InterruptFault, Lines, RogueAt, Scribble, Short, Torn};
use super::decision::{AtCompletion, Damage, Decision};

impl Decision {
    /// What it does, in words.
    #[must_use]
    pub fn action(&self) -> String {
        let mut words = Vec::new();
        if let Some(fetch) = self.fetch {
            words.push(match fetch {
                Fetch::Early => "fetch early".to_owned(),
                Fetch::Late => "fetch late".to_owned(),
            });
        }
        words.extend(
            self.hold
                .as_ref()
                .map(|hold| format!("hold {}", until(hold))),
        );
        if let Some(gate) = &self.open_gate {
            words.push(format!("open gate {gate}"));
        }
        if let Some(reorder) = self.reorder {
            words.push(format!("reorder in a window of {}", reorder.window));
        }
        if let Some(damage) = &self.damage {
            words.extend(damage.words());
        }
        if let Some(status) = self.fail {
            words.push(format!("fail with {status}"));
        }
        if let Some(at_completion) = &self.at_completion {
            words.extend(at_completion.words());
        }
        if self.config_changes > 0 {
            let count = self.config_changes;
            words.push(format!("raise {count} configuration change interrupts"));
        }
        if self.needs_reset {
            words.push("ask for a reset".to_owned());
        }
        words.extend(self.planted.map(|planted| match planted {
            Planted::TouchAfterCompletion => "plant touch-after-completion".to_owned(),
            Planted::LyingFlush => "plant lying-flush".to_owned(),
            Planted::DroppedCompletion => "plant dropped-completion".to_owned(),
            Planted::HoldAfterCompletion => "plant hold-after-completion".to_owned(),
            Planted::EarlyCompletion => "plant early-completion".to_owned(),
            Planted::WrongBytes => "plant wrong-bytes".to_owned(),
        }));
        if words.is_empty() {
            words.push("verify".to_owned());
        }
        words.join(", ")
    }
}

impl Damage {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.short.map(Short::words));
        words.extend(self.torn.as_ref().map(Torn::words));
        words.extend(self.corrupt.map(Corrupt::words));
        words
    }
}

impl AtCompletion {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(late) = &self.late_touch {
            let when = late.after.as_ref().map(until);
            let when = when.as_deref().unwrap_or("at once");
            words.push(format!(
                "write its frames after its completion ({}), {when}",
                late.write.words()
            ));
        }
        if let Some(rogue) = &self.rogue_touch {
            words.push(format!(
                "write {} bytes {} ({})",
                rogue.bytes,
                rogue.at.words(),
                rogue.write.words()
            ));
        }
        if self.duplicate {
            words.push("complete twice".to_owned());
        }
        words.extend(self.interrupt.map(InterruptFault::words));
        words
    }
}

impl Short {
    pub(super) fn words(self) -> String {
        match self {
            Self::Bytes(bytes) => format!("move {bytes} bytes only and say so"),
            Self::Share(share) => {
                let percent = f64::from(share.millionths()) / 10_000.0;
                format!("move {percent} % only and say so")
            }
        }
    }
}

impl Torn {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Prefix(bytes) => format!("tear: only the first {bytes} bytes move"),
            Self::Sectors(sectors) => format!("tear: only its sectors {sectors:?} move"),
            Self::CacheLines(Lines::Even) => "tear: only its even 64-byte lines move".to_owned(),
            Self::CacheLines(Lines::Odd) => "tear: only its odd 64-byte lines move".to_owned(),
            Self::CacheLines(Lines::Random) => {
                "tear: about half of its 64-byte lines move".to_owned()
            }
        }
    }
}

impl Corrupt {
    pub(super) fn words(self) -> String {
        let bits = self.bits;
        match self.within {
            None => format!("flip {bits} bits"),
            Some(span) => format!("flip {bits} bits in bytes {} to {}", span.from, span.to),
        }
    }
}

impl InterruptFault {
    pub(super) fn words(self) -> String {
        match self {
            Self::Drop => "drop its interrupt".to_owned(),
            Self::Coalesce(count) => format!("put its interrupt off until {count} wait for one"),
            Self::Spurious => "raise an interrupt without a cause".to_owned(),
        }
    }
}

impl RogueAt {
    pub(super) fn words(self) -> String {
        match self {
            Self::Address(addr) => format!("at {addr:#x}, which nobody gave"),
            Self::NextFrame => "into the frame after its last one".to_owned(),
            Self::Random => "into a random frame that nobody gave".to_owned(),
        }
    }
}

impl Scribble {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Same => "the bytes that are there",
            Self::Zeroes => "zeroes",
            Self::Noise => "noise",
        }
    }
}

fn until(until: &Until) -> String {
    match until {
        Until::Gate(gate) => format!("until gate {gate}"),
        Until::SameFrame { point, device } => {
            let device = device.as_deref().unwrap_or("any");
            let point = word(*point);
            format!("until a request of {device} on the same frame is {point}")
        }
        Until::Duration { ns } if ns % 1_000_000 == 0 => format!("for {} ms", ns / 1_000_000),
        Until::Duration { ns } => format!("for {} us", ns / 1_000),
    }
}

fn word(point: Point) -> &'static str {
    match point {
        Point::Fetched => "fetched",
        Point::Executed => "executed",
        Point::Completed => "completed",
    }
}
