//! The life of one request, as the log tells it.

use pincushion_devices::trace::event::{
    Direction, Fault, GuestRange, HoldEnd, HoldId, Moment, Operation, PageHash, Planted, Point,
    ReleaseCause, RequestId, Status, Until,
};

/// When something happened: its place in the order, and the host's clock for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Place in the order of all events.
    pub seq: u64,
    /// Nanoseconds since the log was opened.
    pub time_ns: u64,
}

/// From one event to another; open while `ended` is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first event.
    pub began: Stamp,
    /// Its last.
    pub ended: Option<Stamp>,
}

impl Span {
    /// A span that has begun.
    #[must_use]
    pub fn open(began: Stamp) -> Self {
        Self { began, ended: None }
    }

    /// Place of its end, or after everything.
    #[must_use]
    pub fn end_seq(self) -> u64 {
        self.ended.map_or(u64::MAX, |stamp| stamp.seq)
    }

    /// Whether the two certainly had a moment in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.began.seq < other.end_seq() && other.began.seq < self.end_seq()
    }

    /// Whether a part of it lies between two places in the order.
    #[must_use]
    pub fn meets(self, from: u64, to: u64) -> bool {
        self.began.seq < to && from < self.end_seq()
    }
}

/// Position of a request in [`super::Timeline::requests`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub(super) usize);

/// The time in which the device owned the request's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its number.
    pub id: HoldId,
    /// Who writes: `FromDevice` is a device that writes guest memory.
    pub direction: Direction,
    /// Which bytes.
    pub ranges: Vec<GuestRange>,
    /// From when to when, under-approximated.
    pub span: Span,
    /// How it ended.
    pub how: Option<HoldEnd>,
}

/// One wait of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// Where on its way.
    pub point: Point,
    /// For what.
    pub until: Until,
    /// From when to when.
    pub span: Span,
    /// What let it go.
    pub by: Option<ReleaseCause>,
}

/// Hashes of the payload at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// When it was logged.
    pub at: Stamp,
    /// Which moment of the request.
    pub moment: Moment,
    /// One per frame.
    pub pages: Vec<PageHash>,
}

/// A rule of the plan that acted on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// When.
    pub at: Stamp,
    /// The rule's name.
    pub rule: String,
    /// Where on the request's way.
    pub point: Point,
    /// What it did, in the plan's words.
    pub action: String,
}

/// Something that the device did wrong because the plan wanted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misdeed {
    /// What.
    pub fault: Fault,
    /// When; only a late or rogue touch has an end.
    pub span: Span,
}

impl Misdeed {
    /// Whether it is a touch that has not ended.
    #[must_use]
    pub fn touches_now(&self) -> bool {
        let touches = matches!(
            self.fault,
            Fault::LateTouch { .. } | Fault::RogueTouch { .. }
        );
        touches && self.span.ended.is_none()
    }
}

/// How the operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// When.
    pub at: Stamp,
    /// What the guest will be told.
    pub status: Status,
    /// The host's errno behind an IOERR.
    pub host_error: Option<String>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name in the log; unique in one boot.
    pub id: RequestId,
    /// Which boot of the guest, from 1.
    pub boot: u32,
    /// What it asks for.
    pub operation: Operation,
    /// First sector (512 bytes).
    pub sector: u64,
    /// Payload in bytes.
    pub bytes: u64,
    /// Where its payload lies.
    pub ranges: Vec<GuestRange>,
    /// When it was popped.
    pub fetched: Stamp,
    /// When the device owned its frames; a flush holds none.
    pub hold: Option<Hold>,
    /// Its waits, in order.
    pub parks: Vec<Park>,
    /// When the device touched the payload.
    pub touches: Vec<Span>,
    /// Its payload's hashes, in order.
    pub hashes: Vec<Hashed>,
    /// What the plan did to it.
    pub applied: Vec<Applied>,
    /// What a self-test planted in it.
    pub planted: Vec<(Stamp, Planted)>,
    /// What the device did wrong because the plan wanted it, in order.
    pub faults: Vec<Misdeed>,
    /// How the operation ended.
    pub executed: Option<Executed>,
    /// When the used element became visible, and the status in it.
    pub used: Option<(Stamp, Status)>,
}

impl Request {
    /// Direction of its hold.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        self.hold.as_ref().map(|hold| hold.direction)
    }

    /// Whether it waits now.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.parks
            .last()
            .is_some_and(|park| park.span.ended.is_none())
    }

    /// Whether the device owns its frames now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.span.ended.is_none())
    }

    /// Whether the plan made it fail.
    #[must_use]
    pub fn was_failed_by_plan(&self) -> bool {
        self.applied
            .iter()
            .flat_map(|applied| applied.action.split(", "))
            .any(|action| action.starts_with("fail"))
    }

    /// Whether the operation ended well, and the guest, if it was told, was told so.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.executed
            .as_ref()
            .is_some_and(|executed| executed.status == Status::Ok)
            && self.used.is_none_or(|(_, status)| status == Status::Ok)
    }

    /// The payload's hashes that differ between two moments of its life: the two moments, and the ranges that changed.
    /// What the plan made of it on its way to the disk is no change of memory.
    #[must_use]
    pub fn changed_payload(&self) -> Option<(&Hashed, &Hashed, Vec<GuestRange>)> {
        let spoiled = self.was_spoiled();
        let of_memory = |hashed: &&Hashed| !(spoiled && hashed.moment == Moment::Transfer);
        let hashes: Vec<&Hashed> = self.hashes.iter().filter(of_memory).collect();
        hashes.windows(2).find_map(|pair| {
            let &[before, after] = pair else { return None };
            // Both lists follow the request's ranges, in order.
            let pages = before.pages.iter().zip(&after.pages);
            let changed: Vec<GuestRange> = pages
                .filter(|(old, new)| old.range == new.range && old.hash != new.hash)
                .map(|(old, _)| old.range)
                .collect();
            (!changed.is_empty()).then_some((before, after, changed))
        })
    }

    /// One phrase for a person: `write a #4 (sector 2048, 4096 bytes)`.
    #[must_use]
    pub fn name(&self) -> String {
        let what = match self.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Flush => "flush",
            Operation::Discard => "discard",
            Operation::WriteZeroes => "write-zeroes",
            Operation::GetId => "get-id",
            Operation::Transmit => "transmit",
            Operation::Receive => "receive buffer",
            Operation::Control => "command",
            Operation::Inflate => "inflate",
            Operation::Deflate => "deflate",
            Operation::Statistics => "statistics",
            Operation::ReportFree => "report-free",
            Operation::Unknown => "unknown request",
        };
        let id = short(&self.id);
        if self.bytes == 0 {
            return format!("{what} {id}");
        }
        match self.operation {
            Operation::Inflate | Operation::Deflate | Operation::ReportFree => {
                format!("{what} {id} ({} bytes)", self.bytes)
            }
            _ => format!("{what} {id} (sector {}, {} bytes)", self.sector, self.bytes),
        }
    }
}

/// A request's name for people: `b #0`. The queue is left out where it is the first, which most devices have alone.
#[must_use]
pub fn short(id: &RequestId) -> String {
    if id.queue == 0 {
        format!("{} #{}", id.device, id.ordinal)
    } else {
        format!("{}:{} #{}", id.device, id.queue, id.ordinal)
    }
}
