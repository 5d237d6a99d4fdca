//! What all devices of a machine share: the event log, the ledger, who decides and who lets go, and the clock.
//!
//! Lock order, for the whole crate: a device; then the gates or the watches (never both); then an inbox; then the
//! tracer. Nobody calls a device while holding any of the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::clock::{Clock, HostClock};
use crate::fault::{Gates, Inbox, Injector, Marks, Message, Plan, PlanError, Waiting, Watches};
use crate::hold::Ledger;
use crate::trace::{EventKind, Tracer};

/// Shared by all devices of a machine; clones are the same context.
#[derive(Debug, Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tracer: Arc<Tracer>,
    ledger: Arc<Ledger>,
    gates: Arc<Gates>,
    watches: Watches,
    injector: Injector,
    clock: Arc<dyn Clock>,
    inboxes: Mutex<Vec<Weak<Inbox>>>,
    finished: AtomicBool,
}

impl Context {
    /// On the host's clock.
    ///
    /// # Errors
    /// The plan has a rule that cannot be meant.
    pub fn new(plan: Plan, tracer: Arc<Tracer>) -> Result<Self, PlanError> {
        Self::with_clock(plan, tracer, Arc::new(HostClock::new()))
    }

    /// On another clock.
    ///
    /// # Errors
    /// The plan has a rule that cannot be meant.
    pub fn with_clock(
        plan: Plan,
        tracer: Arc<Tracer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PlanError> {
        let ledger = Arc::new(Ledger::default());
        let gates = Arc::new(Gates::new(tracer.clone()));
        let shared = Shared {
            injector: Injector::new(plan, ledger.clone(), gates.clone())?,
            tracer,
            ledger,
            gates,
            watches: Watches::default(),
            clock,
            inboxes: Mutex::default(),
            finished: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// No plan, and nobody listens.
    #[must_use]
    pub fn quiet() -> Self {
        Self::new(Plan::default(), Arc::new(Tracer::new()))
            .expect("an empty plan has no wrong rule")
    }

    /// The event log.
    #[must_use]
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.shared.tracer
    }

    /// Which frames are held.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// The gates.
    #[must_use]
    pub fn gates(&self) -> &Gates {
        &self.shared.gates
    }

    /// Who decides.
    #[must_use]
    pub fn injector(&self) -> &Injector {
        &self.shared.injector
    }

    /// Which steps of the guest's agent are under way, for rules with `mark`.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        self.shared.injector.marks()
    }

    /// Replaces the plan of a running machine, and says so in the log.
    ///
    /// # Errors
    /// The new plan has a rule that cannot be meant; the old one stays.
    pub fn replace_plan(&self, plan: Plan) -> Result<(), PlanError> {
        let titles = plan.rules.iter().enumerate();
        let rules = titles.map(|(index, rule)| rule.title(index)).collect();
        let unmatched = self.shared.injector.replace(plan)?;
        self.tracer()
            .emit(|| EventKind::PlanReplaced { rules, unmatched });
        Ok(())
    }

    /// The clock that durations are measured on.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.shared.clock.as_ref()
    }

    /// All parked requests and what they wait for, by device in the order of parking.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        self.inboxes()
            .iter()
            .flat_map(|inbox| inbox.parked())
            .collect()
    }

    /// The end of the machine: lets go every parked request (their devices complete them when their thread next runs)
    /// and parks nothing from now on; reports the rules that never matched. A second call does nothing.
    pub fn finish(&self) {
        if self.shared.finished.swap(true, Ordering::AcqRel) {
            return;
        }
        for inbox in self.inboxes() {
            inbox.push(Message::Stop);
        }
        for rule in self.shared.injector.unmatched() {
            self.tracer().emit(|| EventKind::RuleUnmatched { rule });
        }
    }

    /// Whether [`Self::finish`] was called.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.finished.load(Ordering::Acquire)
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.shared.watches
    }

    pub(crate) fn register(&self, inbox: &Arc<Inbox>) {
        let mut inboxes = self
            .shared
            .inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inboxes.retain(|other| other.strong_count() > 0);
        inboxes.push(Arc::downgrade(inbox));
    }

    fn inboxes(&self) -> Vec<Arc<Inbox>> {
        let inboxes = self
            .shared
            .inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inboxes.iter().filter_map(Weak::upgrade).collect()
    }
}
