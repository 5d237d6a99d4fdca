//! The requests between pop and used element, in slots that are used again so that a request costs no allocation.
//!
//! ```text
//!          Fetch          Start           Execute            Complete
//!   Free ---------> Fetched -----> Running -----> Executed -----------> Free
//!                   |    ^                        |    ^  \
//!              Park |    | Release           Park |    |   \ Lose
//!                   v    |                        v    |    v
//!                 ParkedFetched             ParkedExecuted  Lost
//!
//!   Executed -- Gather --> Gathered -- Release --> Executed
//!
//!   any but Free -- Abandon --> Free        (device reset)
//! ```

use crate::fault::Ticket;
use crate::hold::Hold;
use crate::trace::event::{Direction, Fetch, GuestRange, Operation, Point, Status};

use super::misdeed::Misdeeds;

/// Where a request is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Fetched,
    ParkedFetched,
    Running,
    Executed,
    ParkedExecuted,
    Gathered,
    Lost,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Fetch,
    Park,
    Release,
    Start,
    Execute,
    Gather,
    Complete,
    Lose,
    Abandon,
}

impl State {
    /// The legal transitions; `None` for all others, which are our bugs.
    #[inline]
    fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Free, Step::Fetch) | (Self::ParkedFetched, Step::Release) => Some(Self::Fetched),
            (Self::Fetched, Step::Park) => Some(Self::ParkedFetched),
            (Self::Fetched, Step::Start) => Some(Self::Running),
            (Self::Running, Step::Execute)
            | (Self::ParkedExecuted | Self::Gathered, Step::Release) => Some(Self::Executed),
            (Self::Executed, Step::Gather) => Some(Self::Gathered),
            (Self::Executed, Step::Park) => Some(Self::ParkedExecuted),
            (Self::Executed, Step::Lose) => Some(Self::Lost),
            (Self::Executed, Step::Complete) => Some(Self::Free),
            (Self::Free, Step::Abandon) => None,
            (_, Step::Abandon) => Some(Self::Free),
            _ => None,
        }
    }

    /// Where it is parked, if it is.
    pub(super) fn parked_at(self) -> Option<Point> {
        match self {
            Self::ParkedFetched => Some(Point::Fetched),
            Self::ParkedExecuted => Some(Point::Executed),
            Self::Free
            | Self::Fetched
            | Self::Running
            | Self::Executed
            | Self::Gathered
            | Self::Lost => None,
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Slot<R> {
    state: State,
    pub(super) ticket: Ticket,
    pub(super) head: u16,
    pub(super) ordinal: u64,
    pub(super) operation: Operation,
    pub(super) sector: u64,
    pub(super) bytes: u64,
    pub(super) direction: Option<Direction>,
    pub(super) request: R,
    /// Its payload. The allocation stays with the slot.
    pub(super) ranges: Vec<GuestRange>,
    pub(super) hold: Option<Hold>,
    pub(super) fetch: Fetch,
    /// The copy of an early fetch, until it is handed to the backend.
    pub(super) copy: Option<Vec<u8>>,
    /// Hashes of that copy.
    pub(super) hashes: Vec<u64>,
    pub(super) stage: u32,
    /// Bytes of payload that the backend has moved.
    pub(super) moved: u64,
    /// Those that it is completed together with.
    pub(super) group: Option<u64>,
    pub(super) status: Status,
    /// Answer with this instead of running.
    pub(super) refused: Option<Status>,
    /// What a rule wants of it that no correct device does.
    pub(super) misdeeds: Option<Box<Misdeeds>>,
}

impl<R> Slot<R> {
    /// Goes one step.
    ///
    /// # Panics
    /// The step is not legal in this state: our bug.
    #[inline]
    pub(super) fn step(&mut self, step: Step) {
        let next = self.state.after(step);
        self.state =
            next.unwrap_or_else(|| panic!("a request in state {:?} cannot {step:?}", self.state));
    }

    pub(super) fn state(&self) -> State {
        self.state
    }
}

/// Marks a head that no slot has.
const NOBODY: u16 = u16::MAX;
/// Bits of a ticket that name the slot; the rest count how often it was used.
const SLOT_BITS: u32 = 16;

/// All requests of a queue that were popped and not yet given back.
#[derive(Debug)]
pub(super) struct InFlight<R> {
    slots: Vec<Slot<R>>,
    free: Vec<u16>,
    /// Slot of each head, or [`NOBODY`].
    heads: Vec<u16>,
}

impl<R: Clone + Default> InFlight<R> {
    /// For a queue of `size` descriptors, at most 32768.
    pub(super) fn new(size: u16) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            heads: vec![NOBODY; usize::from(size)],
        }
    }

    /// A slot for a popped head, in state `Fetched`; `None` if that head is in flight already. `head` is below the
    /// queue's size.
    #[inline]
    pub(super) fn insert(&mut self, head: u16) -> Option<u16> {
        let place = &mut self.heads[usize::from(head)];
        if *place != NOBODY {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u16::try_from(self.slots.len())
                .expect("one slot per head, and a queue has at most 32768");
            self.slots.push(empty(index));
            index
        });
        *place = index;
        let slot = &mut self.slots[usize::from(index)];
        slot.ticket.0 += 1 << SLOT_BITS;
        slot.head = head;
        slot.step(Step::Fetch);
        Some(index)
    }

    /// Gives a slot back, after the step that ended its request.
    #[inline]
    pub(super) fn remove(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        debug_assert_eq!(
            slot.state,
            State::Free,
            "a slot is given back when its request ended"
        );
        self.free.push(index);
        self.forget_head(index);
    }

    /// The driver may offer the head of this slot again.
    pub(super) fn forget_head(&mut self, index: u16) {
        let place = &mut self.heads[usize::from(self.slots[usize::from(index)].head)];
        if *place == index {
            *place = NOBODY;
        }
    }

    /// The slot that a ticket names, unless that stay is over.
    #[inline]
    pub(super) fn find(&self, ticket: Ticket) -> Option<u16> {
        let index = u16::try_from(ticket.0 & u64::from(u16::MAX)).ok()?;
        let slot = self.slots.get(usize::from(index))?;
        (slot.ticket == ticket && slot.state != State::Free).then_some(index)
    }

    #[inline]
    pub(super) fn slot(&mut self, index: u16) -> &mut Slot<R> {
        &mut self.slots[usize::from(index)]
    }

    /// Every request in flight, oldest first.
    pub(super) fn all(&self) -> Vec<u16> {
        let slots = (0..).zip(&self.slots);
        let busy = slots.filter(|(_, slot)| slot.state != State::Free);
        let mut busy: Vec<(u64, u16)> = busy.map(|(index, slot)| (slot.ordinal, index)).collect();
        busy.sort_unstable();
        busy.into_iter().map(|(_, index)| index).collect()
    }
}

fn empty<R: Default>(index: u16) -> Slot<R> {
    Slot {
        state: State::Free,
        ticket: Ticket(u64::from(index)),
        head: 0,
        ordinal: 0,
        operation: Operation::Unknown,
        sector: 0,
        bytes: 0,
        direction: None,
        request: R::default(),
        ranges: Vec::new(),
        hold: None,
        fetch: Fetch::Late,
        copy: None,
        hashes: Vec::new(),
        stage: 0,
        moved: 0,
        group: None,
        status: Status::Ok,
        refused: None,
        misdeeds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_in_flight_once_and_its_old_ticket_is_void() {
        let mut table = InFlight::<()>::new(8);
        let index = table.insert(5).unwrap();
        assert_eq!(table.insert(5), None);
        let ticket = table.slot(index).ticket;
        assert_eq!(table.find(ticket), Some(index));

        for step in [Step::Start, Step::Execute, Step::Complete] {
            table.slot(index).step(step);
        }
        table.remove(index);
        assert_eq!(table.find(ticket), None);
        let again = table.insert(5).unwrap();
        assert_eq!(again, index, "slots are used again");
        assert_eq!(table.find(ticket), None, "a ticket is never used again");
    }

    #[test]
    fn a_head_that_was_forgotten_may_be_offered_again_and_stays_with_its_new_request() {
        let mut table = InFlight::<()>::new(8);
        let early = table.insert(5).unwrap();
        table.forget_head(early);
        let again = table.insert(5).unwrap();
        assert_ne!(early, again);
        table.slot(early).step(Step::Abandon);
        table.remove(early);
        assert_eq!(table.insert(5), None, "it is in flight for the other");
        assert_eq!(table.all(), [again]);
    }

    #[test]
    #[should_panic(expected = "cannot Complete")]
    fn a_parked_request_cannot_be_completed() {
        let mut table = InFlight::<()>::new(8);
        let index = table.insert(0).unwrap();
        table.slot(index).step(Step::Park);
        table.slot(index).step(Step::Complete);
    }
}
