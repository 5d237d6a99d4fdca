//! All of one run: the page, who holds what, who waits for what, and the record of each step.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cpu::Cpu;
use crate::design::Design;
use crate::invariant::{Invariant, Violation};
use crate::page::Page;

/// A lock of the kernel that the models know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// `folio_lock`.
    Folio,
    /// The page table's.
    PageTable,
    /// `invalidate_lock` of the file: faults take it, and who wants no new ones.
    Invalidate,
    /// What the design brings along: of the zone, the tree, the side table.
    Own,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folio => "folio",
            Self::PageTable => "page-table",
            Self::Invalidate => "invalidate",
            Self::Own => "design's",
        })
    }
}

/// Something that a scene has to reach in some schedule, or its silence would say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The design was asked while somebody held the page.
    AskedWhileHeld,
    /// Write-back took its bytes while somebody held the page.
    WrittenWhileHeld,
    /// Nobody held the page and the design said that it is pinned.
    FalsePositive,
    /// GUP-fast saw that the entry had changed, and let go again.
    BackedOff,
    /// The page left its file while somebody held it.
    TruncatedWhileHeld,
    /// A plain reference was dropped while somebody held the page.
    PutWhileHeld,
    /// A page table was filled or emptied while the design was asked.
    RemappedWhileAsked,
    /// Two held the page at once.
    HeldTwice,
    /// Migration looked at the page while somebody held it.
    MigrationWhileHeld,
    /// A clone waited for pins, or was made while somebody held the page.
    CloneWhileHeld,
    /// A device's interrupt came while the interrupted code held the design's lock.
    IrqUnderLock,
    /// A device's interrupt had to wait because the code on its CPU held the design's lock with interrupts off.
    IrqKeptOff,
    /// The checker of typed references named a wrong put.
    WrongPutReported,
}

impl Mark {
    /// As the tables say it.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::AskedWhileHeld => "asked while held",
            Self::WrittenWhileHeld => "written back while held",
            Self::FalsePositive => "false positive",
            Self::BackedOff => "GUP-fast backed off",
            Self::TruncatedWhileHeld => "truncated while held",
            Self::PutWhileHeld => "plain put while held",
            Self::RemappedWhileAsked => "remapped while asked",
            Self::HeldTwice => "held twice",
            Self::MigrationWhileHeld => "migration while held",
            Self::CloneWhileHeld => "clone while held",
            Self::IrqUnderLock => "interrupt under the design's lock",
            Self::IrqKeptOff => "interrupt kept off while the design's lock was held",
            Self::WrongPutReported => "wrong put reported",
        }
    }
}

/// A hold as it truly is, whatever the design thinks: from GUP's second look to the begin of the unpin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Counts up from 1.
    pub id: u32,
    /// Index of the actor.
    pub by: usize,
}

/// One line of the table: who did what, and what the page was like after.
#[derive(Debug, Clone)]
pub struct Row {
    /// Index of the actor; that of main for what happens when all is over.
    pub actor: usize,
    /// What was done.
    pub what: String,
    /// The page after it.
    pub page: Page,
    /// The design's own state after it.
    pub own: String,
    /// Who holds the page.
    pub held_by: Vec<usize>,
}

pub(crate) type Ready = Box<dyn Fn(&State) -> bool + Send>;
pub(crate) type Handler = Box<dyn FnOnce(&Cpu, &dyn Design) + Send>;

/// One run.
pub struct State {
    /// The page.
    pub page: Page,
    /// The newest byte that a device put into the page.
    pub last_device_byte: Option<u32>,
    /// What the scene reached.
    pub reached: BTreeSet<Mark>,
    /// The steps so far.
    pub rows: Vec<Row>,
    /// The first violation.
    pub broken: Option<Violation>,
    /// Which actor took each step, for a replay.
    pub schedule: Vec<u8>,
    pub(crate) design: Arc<dyn Design>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) next_hold: u32,
    pub(crate) irqs_handled: u32,
    pub(crate) questions: Vec<(usize, Vec<u32>)>,
    pub(crate) locks: Vec<(Lock, usize)>,
    pub(crate) actors: Vec<ActorState>,
}

/// What the scheduler has to know of an actor.
#[derive(Default)]
pub(crate) struct ActorState {
    pub started: bool,
    pub finished: bool,
    /// Why and for what it waits.
    pub waits: Option<(String, Ready)>,
    pub irq: Option<Handler>,
    pub irqs_off: u32,
    pub in_irq: bool,
}

impl State {
    pub(crate) fn new(design: Arc<dyn Design>, actors: usize) -> Self {
        Self {
            page: Page::new(),
            last_device_byte: None,
            reached: BTreeSet::new(),
            rows: Vec::new(),
            broken: None,
            schedule: Vec::new(),
            design,
            holds: Vec::new(),
            next_hold: 1,
            irqs_handled: 0,
            questions: Vec::new(),
            locks: Vec::new(),
            // The last is main, which acts when all is over.
            actors: (0..=actors).map(|_| ActorState::default()).collect(),
        }
    }

    /// The first violation is kept; after it nothing is checked or recorded any more.
    pub fn violate(&mut self, invariant: Invariant, how: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(Violation {
                invariant,
                how: how.into(),
            });
        }
    }

    /// Notes that a point of interest was reached.
    pub fn mark(&mut self, mark: Mark) {
        self.reached.insert(mark);
    }

    /// Whether anybody holds the page, in truth.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Whether an interrupt was raised and handled to its end.
    #[must_use]
    pub fn has_irq_ended(&self) -> bool {
        self.irqs_handled > 0
    }

    /// Steps that others than this actor have taken.
    #[must_use]
    pub fn steps_of_others(&self, me: usize) -> usize {
        self.rows.iter().filter(|row| row.actor != me).count()
    }

    /// Drops references; the page that loses its last is freed.
    pub fn put_refs(&mut self, count: i64) {
        self.page.refs -= count;
        if self.page.refs <= 0 && !self.page.freed {
            self.page.freed = true;
        }
    }

    /// Whether the scheduler may choose the actor: it runs freely, or what it waits for has come, or an interrupt wants its CPU.
    pub(crate) fn can_run(&self, actor: usize) -> bool {
        let state = &self.actors[actor];
        if self.broken.is_some() {
            return true;
        }
        match &state.waits {
            None => true,
            Some((_, ready)) => {
                ready(self) || (state.irq.is_some() && state.irqs_off == 0 && !state.in_irq)
            }
        }
    }

    /// Says who is stuck, if nobody can go on and somebody should.
    pub(crate) fn check_progress(&mut self) {
        let living: Vec<usize> = (0..self.actors.len().saturating_sub(1))
            .filter(|actor| !self.actors[*actor].finished)
            .collect();
        if living.is_empty() || living.iter().any(|actor| self.can_run(*actor)) {
            return;
        }
        let waits: Vec<String> = living
            .iter()
            .filter_map(|actor| self.actors[*actor].waits.as_ref())
            .map(|(why, _)| why.clone())
            .collect();
        self.violate(
            Invariant::NobodyStuck,
            format!("nobody can go on; waited for: {}", waits.join("; ")),
        );
    }

    /// What is checked when all is over, after a last fsync.
    pub(crate) fn check_at_rest(&mut self) {
        let page = &self.page;
        let in_file = page.moved.unwrap_or(page.bytes);
        let has_file = page.in_file || page.moved.is_some();
        if has_file && page.dirty && page.prepared {
            let (was_shared, image) = (page.shared, page.image);
            self.page.media = in_file;
            if let Some(image) = image.filter(|image| was_shared && *image != in_file) {
                let how = format!(
                    "fsync writes {in_file} over the block that the clone shares; the clone held {image}"
                );
                self.violate(Invariant::ImageUnchanged, how);
            }
        }
        let page = self.page.clone();
        if let Some(last) = self
            .last_device_byte
            .filter(|last| has_file && page.media != *last)
        {
            let how = format!(
                "after the last fsync the media hold {}; the device had put {last}",
                page.media
            );
            self.violate(Invariant::BytesOnMedia, how);
        }
        if !page.freed && (page.refs != page.own_refs() || page.mapcount != page.real_mappings()) {
            let how = format!(
                "at rest refcount is {} and mapcount {}; file and page tables account for {} and {}",
                page.refs,
                page.mapcount,
                page.own_refs(),
                page.real_mappings()
            );
            self.violate(Invariant::CountsAtRest, how);
        }
        if let Some(left) = self.design.left_over() {
            self.violate(Invariant::CountsAtRest, format!("at rest {left}"));
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("page", &self.page)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

/// The state, shared by actors and scheduler. Only one of them runs at a time, so the lock is never waited for.
#[derive(Debug, Clone)]
pub struct Board(Arc<Mutex<State>>);

impl Board {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reset(&self, state: State) {
        *self.lock() = state;
    }
}
