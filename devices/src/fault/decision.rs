//! What a rule wants for one request: every random choice is made, nothing is left but to do it.
//!
//! A decision at `fetched` may say what happens much later; the queue handler keeps [`Decision::damage`] until the
//! payload moves and [`Decision::at_completion`] until the used element is published.
//!
//! Whoever does it says so just before, by [`EventKind::FaultActed`](crate::trace::event::EventKind::FaultActed): what the guest does
//! about it has a greater number then, and no oracle takes it for the guest's doing. A late or rogue touch is told by that
//! event and `FaultTouchEnded` alone, never by `TouchBegan`: those belong to what a device may touch. A duplicate has one
//! `Used`.

use std::ops::Range;

use crate::trace::event::{Fetch, GuestRange, Planted, Status, Until};

use super::action::{
    Corrupt, Delay, HoldUntil, InterruptFault, Lines, RogueAt, Scribble, Short, Torn,
};
use super::draw::{self, Purpose, Subject};
use super::plan::Rule;

/// Bytes that a torn transfer may lose as one: what a CPU's cache writes back at once.
const LINE: u64 = 64;
/// Bytes of a sector.
const SECTOR: u64 = 512;
/// What `planted = "wrong-bytes"` does.
const WRONG: Corrupt = Corrupt {
    bits: 16,
    within: None,
};

/// What a rule wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Name of the rule.
    pub rule: String,
    /// Park it.
    pub hold: Option<Until>,
    /// Open this gate. [`super::Injector`]'s asker does that, before anything else.
    pub open_gate: Option<String>,
    /// Gather it with others before it is completed. Only at `executed`.
    pub reorder: Option<ReorderBy>,
    /// Fail it: instead of running it at `fetched`, or after it ran. With [`Self::damage`] it runs, damaged, and the
    /// answer is this.
    pub fail: Option<Status>,
    /// Read the payload now or later.
    pub fetch: Option<Fetch>,
    /// Be wrong on purpose.
    pub planted: Option<Planted>,
    /// Move the payload wrongly. Only at `fetched`.
    pub damage: Option<Damage>,
    /// What to do when the used element is published.
    pub at_completion: Option<Box<AtCompletion>>,
    /// Now: raise so many configuration change interrupts.
    pub config_changes: u32,
    /// Now: set DEVICE_NEEDS_RESET.
    pub needs_reset: bool,
}

impl Decision {
    /// What a rule wants of the request that it was asked about.
    pub(super) fn of(rule: &Rule, subject: &Subject<'_>) -> Self {
        let touch = subject.key(Purpose::Touch);
        let delay = subject.key(Purpose::Delay);
        let at_completion = AtCompletion {
            duplicate: rule.duplicate,
            late_touch: rule.late_touch.as_ref().map(|late| Late {
                after: late.after.as_ref().map(|after| after.resolve(delay)),
                write: late.write,
                key: touch,
            }),
            rogue_touch: rule.rogue_touch.map(|rogue| Rogue {
                at: rogue.at,
                bytes: rogue.bytes,
                write: rogue.write,
                key: touch,
            }),
            interrupt: rule.interrupt,
        };
        Self {
            rule: subject.rule.to_owned(),
            hold: rule.hold.as_ref().map(|hold| hold.resolve(delay)),
            open_gate: rule.open_gate.clone(),
            reorder: rule.reorder.map(|reorder| ReorderBy {
                window: reorder.window,
                key: subject.key(Purpose::Reorder),
            }),
            fail: rule.fail,
            fetch: rule.fetch,
            planted: rule.planted,
            damage: rule.damages().then(|| {
                let is_planted = rule.planted == Some(Planted::WrongBytes);
                Damage {
                    short: rule.short,
                    torn: rule.torn.clone(),
                    corrupt: rule.corrupt.or(is_planted.then_some(WRONG)),
                    is_planted,
                    key: subject.key(Purpose::Damage),
                }
            }),
            at_completion: (at_completion != AtCompletion::default())
                .then(|| Box::new(at_completion)),
            config_changes: rule.config_changes.unwrap_or(0),
            needs_reset: rule.needs_reset,
        }
    }
}

impl HoldUntil {
    /// With the duration drawn.
    fn resolve(&self, key: u64) -> Until {
        match self {
            Self::Gate(gate) => Until::Gate(gate.clone()),
            Self::SameFrame(same) => Until::SameFrame {
                point: same.point,
                device: same.device.clone(),
            },
            Self::ForMs(ms) => Until::Duration {
                ns: ms.saturating_mul(1_000_000),
            },
            Self::For(delay) => Until::Duration {
                ns: delay.draw_us(key).saturating_mul(1_000),
            },
        }
    }
}

impl Delay {
    /// One duration in microseconds.
    fn draw_us(&self, key: u64) -> u64 {
        match self {
            Self::UniformUs(span) => {
                let width = span.to.saturating_sub(span.from);
                span.from.saturating_add(draw::below(key, 0, width))
            }
            Self::ExponentialUs { mean, max } => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a draw needs no more than 52 bits"
                )]
                let (unit, mean) = (draw::below(key, 0, 1 << 52) as f64, *mean as f64);
                // 1 - unit is in (0, 1], so that the logarithm is finite.
                let drawn = -mean * (1.0 - unit / (1_u64 << 52) as f64).ln();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "not negative, and a cast from float saturates"
                )]
                let drawn = drawn as u64;
                drawn.min(*max)
            }
            Self::OneOfUs(values) => {
                let index = draw::below(key, 0, values.len() as u64);
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                values.get(index).copied().unwrap_or(0)
            }
        }
    }
}

/// How a gathered completion is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReorderBy {
    /// How many are gathered.
    pub window: u16,
    /// They go on in the order of their keys.
    pub key: u64,
}

/// What happens at and after the publication of the used element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AtCompletion {
    /// Publish the used element twice.
    pub duplicate: bool,
    /// Write the request's frames when the guest owns them again.
    pub late_touch: Option<Late>,
    /// Write a frame that nobody gave.
    pub rogue_touch: Option<Rogue>,
    /// What happens to the interrupt.
    pub interrupt: Option<InterruptFault>,
}

impl AtCompletion {
    /// Adds what a later decision wants; where both want something, the later one has its way.
    pub fn merge(&mut self, later: Self) {
        self.duplicate |= later.duplicate;
        self.late_touch = later.late_touch.or(self.late_touch.take());
        self.rogue_touch = later.rogue_touch.or(self.rogue_touch);
        self.interrupt = later.interrupt.or(self.interrupt);
    }
}

/// A write after the used element was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// When; `None`: at once.
    pub after: Option<Until>,
    /// What.
    pub write: Scribble,
    /// Draws the noise.
    pub key: u64,
}

/// A write to a frame that nobody gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rogue {
    /// Where.
    pub at: RogueAt,
    /// Length in bytes.
    pub bytes: u64,
    /// What.
    pub write: Scribble,
    /// Draws the frame and the noise.
    pub key: u64,
}

impl Scribble {
    /// The bytes to write where `there` is what was found.
    #[must_use]
    pub fn bytes(self, there: Vec<u8>, key: u64) -> Vec<u8> {
        match self {
            Self::Same => there,
            Self::Zeroes => vec![0; there.len()],
            Self::Noise => {
                let words = (0..).flat_map(|index| draw::number(key, index).to_le_bytes());
                words.take(there.len()).collect()
            }
        }
    }
}

impl Rogue {
    /// Where it hits: `own` is what the request was given, `memory` the pieces of guest memory in ascending order, `held`
    /// whether a request holds a frame of this number. `None`: there is no such frame.
    #[must_use]
    pub fn target(
        &self,
        own: &[GuestRange],
        memory: &[GuestRange],
        held: impl Fn(u64) -> bool,
    ) -> Option<GuestRange> {
        use crate::trace::event::FRAME_SIZE;
        let len = self.bytes.min(FRAME_SIZE);
        let inside = |addr: u64| {
            let whole = memory.iter().any(|piece| {
                let end = addr.checked_add(len);
                addr >= piece.addr && end.is_some_and(|end| end <= piece.addr + piece.len)
            });
            whole.then_some(GuestRange { addr, len })
        };
        match self.at {
            RogueAt::Address(addr) => inside(addr),
            RogueAt::NextFrame => {
                let last = own.last()?;
                let end = last.addr.checked_add(last.len)?;
                inside(end.checked_next_multiple_of(FRAME_SIZE)?)
            }
            RogueAt::Random => {
                let frames = |piece: &GuestRange| piece.len / FRAME_SIZE;
                let all: u64 = memory.iter().map(frames).sum();
                // Nearly all frames are free, so a few tries do; a machine whose every frame is held is no machine.
                (0..64).find_map(|attempt| {
                    let mut nth = draw::below(self.key, attempt, all);
                    let piece = memory.iter().find(|piece| {
                        let here = nth < frames(piece);
                        nth -= if here { 0 } else { frames(piece) };
                        here
                    })?;
                    let frame = piece.addr / FRAME_SIZE + nth;
                    (!held(frame))
                        .then_some(frame * FRAME_SIZE)
                        .and_then(inside)
                })
            }
        }
    }
}

/// How a payload is moved wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Only the first part, and the answer says so.
    pub short: Option<Short>,
    /// Only pieces, and the answer claims all.
    pub torn: Option<Torn>,
    /// With flipped bits.
    pub corrupt: Option<Corrupt>,
    /// A self-test planted it: it is told as that, and an oracle has to find it.
    pub is_planted: bool,
    /// Draws lines and bits.
    pub key: u64,
}

impl Damage {
    /// The parts of a payload of `len` bytes that move, in ascending order; neither empty nor touching each other.
    #[must_use]
    pub fn arrives(&self, len: u64) -> Vec<Range<u64>> {
        let end = self.reported(len);
        let mut pieces: Vec<Range<u64>> = Vec::new();
        let mut add = |piece: Range<u64>| {
            let piece = piece.start.min(end)..piece.end.min(end);
            match pieces.last_mut() {
                Some(last) if last.end == piece.start => last.end = piece.end,
                _ if piece.is_empty() => {}
                _ => pieces.push(piece),
            }
        };
        match &self.torn {
            None => add(0..end),
            Some(Torn::Prefix(bytes)) => add(0..*bytes),
            Some(Torn::Sectors(sectors)) => {
                let mut sectors = sectors.clone();
                sectors.sort_unstable();
                sectors.dedup();
                for sector in sectors {
                    let start = sector.saturating_mul(SECTOR);
                    add(start..start.saturating_add(SECTOR));
                }
            }
            Some(Torn::CacheLines(lines)) => {
                let moves = |line: u64| match lines {
                    Lines::Even => line.is_multiple_of(2),
                    Lines::Odd => !line.is_multiple_of(2),
                    Lines::Random => draw::number(self.key, line) & 1 == 0,
                };
                for line in (0..end.div_ceil(LINE)).filter(|line| moves(*line)) {
                    add(line * LINE..(line + 1) * LINE);
                }
            }
        }
        pieces
    }

    /// How many of `len` bytes the answer claims to have moved.
    #[must_use]
    pub fn reported(&self, len: u64) -> u64 {
        match self.short {
            None => len,
            Some(Short::Bytes(bytes)) => bytes.min(len),
            Some(Short::Share(share)) => share.of(len),
        }
    }

    /// The bits of a payload of `len` bytes that flip, ascending: bit `n` is bit `n % 8` of byte `n / 8`.
    #[must_use]
    pub fn flips(&self, len: u64) -> Vec<u64> {
        let Some(corrupt) = self.corrupt else {
            return Vec::new();
        };
        let (from, to) = corrupt
            .within
            .map_or((0, len), |span| (span.from, span.to.min(len)));
        let room = to.saturating_sub(from).saturating_mul(8);
        let wanted = u64::from(corrupt.bits).min(room);
        let mut bits = std::collections::BTreeSet::new();
        // A bit that was drawn before is drawn again: flipping twice would be no flip.
        let mut draws = (0..).map(|index| draw::below(!self.key, index, room));
        while (bits.len() as u64) < wanted {
            bits.extend(draws.next().map(|bit| from * 8 + bit));
        }
        bits.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::condition::{Share, Span};

    const WHOLE: Damage = Damage {
        short: None,
        torn: None,
        corrupt: None,
        is_planted: false,
        key: 5,
    };

    fn pieces(damage: &Damage, len: u64) -> Vec<[u64; 2]> {
        let pieces = damage.arrives(len).into_iter();
        pieces.map(|piece| [piece.start, piece.end]).collect()
    }

    #[test]
    fn a_torn_payload_arrives_in_the_pieces_that_the_plan_names() {
        let arrives = |torn| {
            let damage = Damage {
                torn: Some(torn),
                ..WHOLE
            };
            (pieces(&damage, 2048), damage.reported(2048))
        };
        assert_eq!(arrives(Torn::Prefix(700)), (vec![[0, 700]], 2048));
        assert_eq!(arrives(Torn::Prefix(9999)), (vec![[0, 2048]], 2048));
        assert_eq!(arrives(Torn::Prefix(0)), (vec![], 2048));
        assert_eq!(
            arrives(Torn::Sectors(vec![3, 0, 1, 77])),
            (vec![[0, 1024], [1536, 2048]], 2048)
        );
        let (even, _) = arrives(Torn::CacheLines(Lines::Even));
        assert_eq!((even.len(), even[1]), (16, [128, 192]));
        let (odd, _) = arrives(Torn::CacheLines(Lines::Odd));
        assert_eq!((odd.len(), odd[0]), (16, [64, 128]));
        let (random, _) = arrives(Torn::CacheLines(Lines::Random));
        let bytes: u64 = random.iter().map(|[from, to]| to - from).sum();
        assert!(
            (256..1800).contains(&bytes) && random.len() > 3,
            "{random:?}"
        );
    }

    #[test]
    fn a_short_transfer_moves_its_first_part_and_says_so() {
        let short = |short, len| {
            let damage = Damage {
                short: Some(short),
                ..WHOLE
            };
            (pieces(&damage, len), damage.reported(len))
        };
        assert_eq!(short(Short::Bytes(512), 4096), (vec![[0, 512]], 512));
        assert_eq!(short(Short::Bytes(9999), 4096), (vec![[0, 4096]], 4096));
        let half = Short::Share(Share::new(0.5).unwrap());
        assert_eq!(short(half, 4096), (vec![[0, 2048]], 2048));
    }

    #[test]
    fn as_many_different_bits_flip_as_the_plan_says_where_it_says() {
        let flips = |bits, within, len| {
            let corrupt = Some(Corrupt { bits, within });
            Damage { corrupt, ..WHOLE }.flips(len)
        };
        let many = flips(100, None, 4096);
        assert_eq!(many.len(), 100);
        assert!(many.windows(2).all(|pair| pair[0] < pair[1]) && many[99] < 4096 * 8);
        let within = Some(Span { from: 8, to: 9 });
        assert_eq!(flips(99, within, 512), (64..72).collect::<Vec<_>>());
        assert!(flips(3, within, 8).is_empty());
        assert!(WHOLE.flips(4096).is_empty());
    }

    #[test]
    fn a_rogue_touch_hits_no_frame_that_was_given() {
        let own = [GuestRange {
            addr: 0x5200,
            len: 512,
        }];
        let memory = [
            GuestRange {
                addr: 0,
                len: 0x8000,
            },
            GuestRange {
                addr: 0x10_0000,
                len: 0x8000,
            },
        ];
        let target = |at| {
            let rogue = Rogue {
                at,
                bytes: 64,
                write: Scribble::Same,
                key: 9,
            };
            rogue.target(&own, &memory, |frame| frame != 0x103)
        };
        let hit = |addr| Some(GuestRange { addr, len: 64 });
        assert_eq!(target(RogueAt::NextFrame), hit(0x6000));
        assert_eq!(target(RogueAt::Address(0x10_0040)), hit(0x10_0040));
        assert_eq!(target(RogueAt::Address(0x7fff)), None);
        assert_eq!(target(RogueAt::Random), hit(0x10_3000));
    }

    #[test]
    fn a_scribble_is_what_it_says() {
        let there = vec![1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(Scribble::Same.bytes(there.clone(), 1), there);
        assert_eq!(Scribble::Zeroes.bytes(there.clone(), 1), [0; 9]);
        let noise = Scribble::Noise.bytes(there.clone(), 1);
        assert!(noise.len() == 9 && noise != there);
    }
}
