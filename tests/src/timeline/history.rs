//! What is known of a run up to an event.

use std::collections::{BTreeMap, HashMap};

use pincushion_devices::trace::event::{Event, GuestRange, Operation, RequestId};

use super::fact::Fact;
use super::request::{Index, Request, Span, Stamp};
use super::step::Step;

/// A device of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// `virtio-blk`.
    pub kind: String,
    /// Where its bytes are guest memory, if they are.
    pub region: Option<GuestRange>,
    /// Its resets, each with the count of holds that it abandoned.
    pub resets: Vec<(Stamp, u64)>,
    /// The last event of one of its requests.
    pub last_event: u64,
}

/// One boot of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// 1, 2, ...
    pub number: u32,
    /// When it was started.
    pub began: Stamp,
    /// When the agent said hello, and the kernel's release.
    pub hello: Option<(Stamp, String)>,
    /// When and how the machine ended, with the detail.
    pub ended: Option<(Stamp, String, String)>,
}

/// A page of a file's page cache, as a fact said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOwner {
    /// The disk of its file system.
    pub device: String,
    /// The file.
    pub file: String,
    /// Number of the page in it.
    pub page: u64,
}

/// A device's write into memory and another request's read of the same bytes that were certainly under way at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The disk write: a device reads these bytes.
    pub write: Index,
    /// The disk read: a device writes these bytes.
    pub read: Index,
    /// When the second of the two holds opened.
    pub since: Stamp,
    /// Frames in which they share bytes, with their owner at that moment.
    pub frames: Vec<(u64, Option<PageOwner>)>,
}

/// Everything that is known of a run.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// All requests in the order of their fetch.
    pub requests: Vec<Request>,
    /// Devices by name.
    pub devices: BTreeMap<String, Device>,
    /// The guest's steps in the order in which they were first heard of.
    pub steps: Vec<Step>,
    /// Gates that were opened.
    pub gates: Vec<(Stamp, String)>,
    /// Facts, in order.
    pub facts: Vec<(Stamp, Fact)>,
    /// Facts that could not be understood: when, key, why.
    pub malformed: Vec<(Stamp, String, String)>,
    /// The guest's console.
    pub console: Vec<(Stamp, String)>,
    /// Its boots.
    pub boots: Vec<Boot>,
    /// Pairs of requests of which both certainly held the same bytes at once, in opposite directions.
    pub overlaps: Vec<Overlap>,
    /// Frames that two such requests shared without sharing a byte.
    pub neighbours: u64,
    /// Touches of a request whose hold was closed before.
    pub stray_touches: Vec<(Index, Span)>,
    /// Events that contradict what was before them: places in the order.
    pub anomalies: Vec<u64>,
    /// What the guest did against the specification.
    pub guest_mistakes: u64,
    /// The last event.
    pub last: Option<Stamp>,
    pub(super) owners: HashMap<u64, PageOwner>,
    pub(super) by_id: HashMap<RequestId, Index>,
    pub(super) by_step: HashMap<u32, usize>,
    /// Requests that hold a frame now.
    pub(super) held: HashMap<u64, Vec<Index>>,
}

impl std::ops::Index<Index> for Timeline {
    type Output = Request;

    fn index(&self, index: Index) -> &Request {
        &self.requests[index.0]
    }
}

impl Timeline {
    /// All that a log says.
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut timeline = Self::default();
        for event in events {
            timeline.feed(event);
        }
        timeline
    }

    /// Takes the next event. Never fails: what contradicts the past is noted in [`Timeline::anomalies`].
    pub fn feed(&mut self, event: &Event) {
        let at = Stamp {
            seq: event.seq.0,
            time_ns: event.time_ns,
        };
        self.last = Some(at);
        let consistent = self.feed_request(at, &event.kind);
        if !consistent {
            self.anomalies.push(at.seq);
        }
        self.feed_machine(at, &event.kind);
    }

    /// The request of this name in the present boot.
    #[must_use]
    pub fn find(&self, id: &RequestId) -> Option<Index> {
        self.by_id.get(id).copied()
    }

    /// Positions of all requests, in order.
    pub fn indices(&self) -> impl Iterator<Item = Index> + use<> {
        (0..self.requests.len()).map(Index)
    }

    /// The step of this number.
    #[must_use]
    pub fn step(&self, id: u32) -> Option<&Step> {
        self.by_step.get(&id).map(|&position| &self.steps[position])
    }

    /// The file that a frame belongs to now.
    #[must_use]
    pub fn owner(&self, frame: u64) -> Option<&PageOwner> {
        self.owners.get(&frame)
    }

    /// Requests that hold a frame now.
    #[must_use]
    pub fn holders(&self, frame: u64) -> &[Index] {
        self.held.get(&frame).map_or(&[], Vec::as_slice)
    }

    /// Whether any request holds any frame now, but for buffers that wait for the outside world: a network card has such all the
    /// time.
    #[must_use]
    pub fn anything_held(&self) -> bool {
        let waits = |index: &Index| self[*index].operation == Operation::Receive;
        !self.held.values().flatten().all(waits)
    }

    /// How the last boot ended.
    #[must_use]
    pub fn end(&self) -> Option<&(Stamp, String, String)> {
        self.boots.last().and_then(|boot| boot.ended.as_ref())
    }

    /// Whether the scenario said that the machine shall end like this. A reset it may also just have asked the guest for; a panic
    /// that nobody called expected is told, whoever made it.
    #[must_use]
    pub fn stop_was_asked(&self, how: &str) -> bool {
        let said = self
            .facts
            .iter()
            .any(|(_, fact)| matches!(fact, Fact::ExpectedStop(stop) if stop.how == how));
        said || (how == "reset" && self.steps.iter().any(|step| step.op == "reboot"))
    }
}
