//! Orders to a running machine from any thread, carried out by the one who waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::event::MachineEvent;
use crate::lock::lock;

/// How long an order may take: a vCPU inside a device call is waited for.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long a snapshot may take: all of the guest's memory may have to be written.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(600);

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It was made and not started yet.
    Starting,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs stand still, and its devices take no new work.
    Paused,
    /// Its run is over.
    Ended,
}

/// What is wanted of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stand still. A paused machine stays paused.
    Pause,
    /// Go on. A running machine goes on.
    Resume,
    /// What a reset by the guest does: the run ends, or the machine boots again; then a paused one stays paused.
    Reset,
    /// The run ends with [`super::Exit::Stopped`], as if the power cord was pulled: the guest hears nothing.
    PowerOff,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Its run is over, or about to be.
    #[error("the machine has ended")]
    Ended,
    /// Nobody waits for the machine, or a device does not return.
    #[error("the machine did not answer within {0} s; the order may still be carried out")]
    NoAnswer(u64),
    /// The host refused something.
    #[error("{0}")]
    Failed(String),
}

/// Where an order's outcome goes.
pub(crate) type Reply = Sender<Result<(), OrderError>>;

/// Where the outcome of a snapshot goes: its length in bytes.
pub(crate) type SnapshotReply = Sender<Result<u64, OrderError>>;

/// Gives orders to one machine. Clones give them to the same.
#[derive(Debug, Clone)]
pub struct Remote {
    sender: Sender<MachineEvent>,
    status: Arc<Status>,
}

/// What a machine tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Status {
    state: AtomicU8,
    boots: AtomicU32,
    started: Mutex<Option<Instant>>,
}

impl Status {
    pub(crate) fn set(&self, state: RunState) {
        if state == RunState::Running {
            lock(&self.started).get_or_insert_with(Instant::now);
        }
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn count_boot(&self) {
        self.boots.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn state(&self) -> RunState {
        match self.state.load(Ordering::Acquire) {
            0 => RunState::Starting,
            1 => RunState::Running,
            2 => RunState::Paused,
            _ => RunState::Ended,
        }
    }
}

impl Remote {
    pub(super) fn new(sender: Sender<MachineEvent>, status: Arc<Status>) -> Self {
        Self { sender, status }
    }

    /// What the machine does now.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.status.state()
    }

    /// How often the guest has been started.
    #[must_use]
    pub fn boots(&self) -> u32 {
        self.status.boots.load(Ordering::Acquire)
    }

    /// Time since the first start, pauses included.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        lock(&self.status.started).map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Gives an order and waits until it was carried out.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn give(&self, order: Order) -> Result<(), OrderError> {
        if self.state() == RunState::Ended {
            return Err(OrderError::Ended);
        }
        let (reply, outcome) = channel();
        self.ask(MachineEvent::Order { order, reply }, &outcome, PATIENCE)
    }

    /// Writes a snapshot of the machine to `path`, in the place of whatever is there, and waits until it is whole. The machine is paused
    /// for that, and goes on afterwards unless it was paused before. `note` is for whoever restores it. Returns its length in bytes.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn snapshot(&self, path: &Path, note: &str) -> Result<u64, OrderError> {
        if self.state() == RunState::Ended {
            return Err(OrderError::Ended);
        }
        let (reply, outcome) = channel();
        let wanted = MachineEvent::Snapshot {
            path: path.to_owned(),
            note: note.to_owned(),
            reply,
        };
        self.ask(wanted, &outcome, SNAPSHOT_PATIENCE)
    }

    fn ask<T>(
        &self,
        event: MachineEvent,
        outcome: &Receiver<Result<T, OrderError>>,
        patience: Duration,
    ) -> Result<T, OrderError> {
        self.sender.send(event).map_err(|_| OrderError::Ended)?;
        match outcome.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(OrderError::NoAnswer(patience.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(OrderError::Ended),
        }
    }
}
