//! What an actor acts through: each step is one scheduling point and then one atomic act, which is recorded.
//!
//! Locks, waiting and interrupts are data of the [`State`]: the scheduler passes over who cannot go on, so no schedule is spent on looking
//! again in vain, and a deadlock is seen at the step that closes it.

use std::borrow::Cow;

use crate::invariant::Invariant;
use crate::state::{Board, Handler, Hold, Lock, Mark, Row, State};

/// Most steps of a run; the longest scene takes about a hundred.
const MAX_STEPS: usize = 2000;

/// The CPU of one actor.
#[derive(Debug, Clone)]
pub struct Cpu {
    board: Board,
    me: usize,
}

impl Cpu {
    pub(crate) fn new(board: Board, me: usize) -> Self {
        Self { board, me }
    }

    /// Who acts.
    #[must_use]
    pub fn me(&self) -> usize {
        self.me
    }

    /// One step with a fixed text.
    pub fn step<T>(
        &self,
        what: impl Into<Cow<'static, str>>,
        act: impl FnOnce(&mut State) -> T,
    ) -> T {
        self.tell(|state| (act(state), what))
    }

    /// One step whose text says what came of it.
    pub fn tell<T, S: Into<Cow<'static, str>>>(&self, act: impl FnOnce(&mut State) -> (T, S)) -> T {
        self.schedule();
        self.take_interrupt();
        self.act(act)
    }

    /// Waits until it is so, then acts in the same step: a critical section of one access, or what a wake-up does.
    pub fn step_when<T>(
        &self,
        why: &str,
        ready: impl Fn(&State) -> bool + Send + Sync + 'static,
        what: impl Into<Cow<'static, str>>,
        act: impl FnOnce(&mut State) -> T,
    ) -> T {
        self.wait_for(why, ready);
        self.act(|state| (act(state), what))
    }

    /// Looks, as part of the step before.
    pub fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.board.lock())
    }

    /// Steps that others have taken.
    #[must_use]
    pub fn steps_of_others(&self) -> usize {
        self.peek(|state| state.steps_of_others(self.me))
    }

    /// Notes that a point of interest was reached.
    pub fn mark(&self, mark: Mark) {
        self.board.lock().mark(mark);
    }

    /// Notes that somebody held the page at this point.
    pub fn mark_if_held(&self, mark: Mark) {
        let mut state = self.board.lock();
        if state.is_held() {
            state.mark(mark);
        }
    }

    /// Takes a lock. Who has it already, in the code that this interrupt came into, waits for ever.
    pub fn lock(&self, lock: Lock) {
        {
            let mut state = self.board.lock();
            let me = self.me;
            if state.locks.contains(&(lock, me)) {
                let context = if state.actors[me].in_irq {
                    "the interrupt"
                } else {
                    "the actor"
                };
                let how = format!(
                    "{context} takes the {lock} lock that the interrupted code on this CPU holds: it waits for ever"
                );
                if state.broken.is_none() {
                    self.record(&mut state, format!("lock {lock}"));
                }
                state.violate(Invariant::NobodyStuck, how);
            }
        }
        let free = move |state: &State| !state.locks.iter().any(|(held, _)| *held == lock);
        self.step_when(
            &format!("the {lock} lock"),
            free,
            format!("lock {lock}"),
            |state| {
                state.locks.push((lock, self.me));
            },
        );
    }

    /// Gives a lock back.
    pub fn unlock(&self, lock: Lock) {
        self.step(format!("unlock {lock}"), |state| {
            state.locks.retain(|held| *held != (lock, self.me));
        });
    }

    /// Keeps interrupts off this CPU; no step of its own.
    pub fn irqs_off(&self) {
        self.board.lock().actors[self.me].irqs_off += 1;
    }

    /// The end of it.
    pub fn irqs_on(&self) {
        let mut state = self.board.lock();
        let actor = &mut state.actors[self.me];
        actor.irqs_off = actor.irqs_off.saturating_sub(1);
    }

    /// Acts under a lock with interrupts off, as between `spin_lock_irqsave` and `spin_unlock_irqrestore`.
    pub fn locked_irqsave<T>(&self, lock: Lock, act: impl FnOnce() -> T) -> T {
        self.irqs_off();
        self.lock(lock);
        let value = act();
        self.unlock(lock);
        self.irqs_on();
        value
    }

    /// Whether this is an interrupt handler.
    #[must_use]
    pub fn in_irq(&self) -> bool {
        self.board.lock().actors[self.me].in_irq
    }

    /// Whether the search has found something in this run: loops end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.board.lock().broken.is_some()
    }

    /// Raises an interrupt at another actor's CPU, or at this one if that has gone.
    pub fn raise_irq(&self, at: usize, handler: Handler) {
        self.step("raises its interrupt", |state| {
            let at = if state.actors[at].finished {
                self.me
            } else {
                at
            };
            state.actors[at].irq = Some(handler);
        });
    }

    /// GUP has got the page: from now on the page is held in truth. Part of the step before.
    #[must_use]
    pub fn begin_hold(&self) -> u32 {
        let mut state = self.board.lock();
        let id = state.next_hold;
        state.next_hold += 1;
        state.holds.push(Hold { id, by: self.me });
        if state.holds.len() > 1 {
            state.mark(Mark::HeldTwice);
        }
        self.touch_up(&mut state);
        id
    }

    /// The unpin begins: from now on the design may say what it likes.
    pub fn end_hold(&self, id: u32) {
        self.board.lock().holds.retain(|hold| hold.id != id);
    }

    /// Asks the design and checks the answer against the truth: who held the page from the first step of the question to the last is
    /// a pin that may not be overlooked.
    pub fn ask(&self, question: impl FnOnce() -> bool) -> bool {
        let me = self.me;
        {
            let mut state = self.board.lock();
            let held = state.holds.iter().map(|hold| hold.id).collect();
            state.questions.push((me, held));
        }
        let answer = question();
        let mut state = self.board.lock();
        let held = state
            .questions
            .iter()
            .position(|(who, _)| *who == me)
            .map(|at| state.questions.remove(at).1);
        let held = held.unwrap_or_default();
        let overlooked = state
            .holds
            .iter()
            .find(|hold| held.contains(&hold.id))
            .copied();
        if overlooked.is_some() {
            state.mark(Mark::AskedWhileHeld);
        }
        match overlooked {
            Some(hold) if !answer => {
                let how = format!(
                    "the design says not pinned while hold {} is open, as it was when it was asked",
                    hold.id
                );
                state.violate(Invariant::NoFalseNegative, how);
            }
            None if answer && held.is_empty() && !state.is_held() => {
                state.mark(Mark::FalsePositive)
            }
            _ => {}
        }
        answer
    }

    pub(crate) fn finished(&self) {
        // An interrupt that nobody took yet finds the CPU idle.
        self.take_interrupt();
        let mut state = self.board.lock();
        state.actors[self.me].finished = true;
        state.check_progress();
    }

    fn schedule(&self) {
        self.board.lock().actors[self.me].started = true;
        // The director takes no hint from it: to it this is a point where anybody may go on.
        shuttle::thread::yield_now();
    }

    fn wait_for(&self, why: &str, ready: impl Fn(&State) -> bool + Send + Sync + 'static) {
        let ready = std::sync::Arc::new(ready);
        loop {
            {
                let ready = ready.clone();
                let mut state = self.board.lock();
                state.actors[self.me].waits =
                    Some((why.to_owned(), Box::new(move |state| ready(state))));
                state.actors[self.me].started = true;
                state.check_progress();
            }
            self.schedule();
            self.board.lock().actors[self.me].waits = None;
            self.take_interrupt();
            let state = self.board.lock();
            if state.broken.is_some() || ready(&state) {
                return;
            }
        }
    }

    fn take_interrupt(&self) {
        let (handler, design) = {
            let mut state = self.board.lock();
            let own_lock_held = state.locks.contains(&(Lock::Own, self.me));
            let actor = &mut state.actors[self.me];
            if actor.irqs_off > 0 || actor.in_irq {
                if actor.irqs_off > 0 && actor.irq.is_some() && own_lock_held {
                    state.mark(Mark::IrqKeptOff);
                }
                return;
            }
            let Some(handler) = actor.irq.take() else {
                return;
            };
            actor.in_irq = true;
            if own_lock_held {
                state.mark(Mark::IrqUnderLock);
            }
            (handler, state.design.clone())
        };
        handler(self, design.as_ref());
        {
            let mut state = self.board.lock();
            state.actors[self.me].in_irq = false;
            state.irqs_handled += 1;
        }
        // The interrupted step is a scheduling point again.
        self.schedule();
    }

    /// The act of a step, after the scheduler has chosen this actor.
    fn act<T, S: Into<Cow<'static, str>>>(&self, act: impl FnOnce(&mut State) -> (T, S)) -> T {
        let mut state = self.board.lock();
        let (was_freed, was_broken) = (state.page.freed, state.broken.is_some());
        let (value, what) = act(&mut state);
        if state.page.freed && !was_freed {
            let left = state.design.left_over();
            if let Some(left) = left {
                state.violate(
                    Invariant::CountsAtRest,
                    format!("the page is freed while {left}"),
                );
            }
        }
        if !was_broken {
            self.record(&mut state, what.into().into_owned());
        }
        if state.rows.len() > MAX_STEPS {
            let how = format!("after {MAX_STEPS} steps they still go round");
            state.violate(Invariant::NobodyStuck, how);
        }
        state.check_progress();
        value
    }

    fn record(&self, state: &mut State, what: String) {
        let prefix = if state.actors[self.me].in_irq {
            "irq: "
        } else {
            ""
        };
        let row = Row {
            actor: self.me,
            what: format!("{prefix}{what}"),
            page: state.page.clone(),
            own: state.design.show(),
            held_by: state.holds.iter().map(|hold| hold.by).collect(),
        };
        state.rows.push(row);
    }

    /// A hold begins within the step before: its row says so.
    fn touch_up(&self, state: &mut State) {
        let held_by = state.holds.iter().map(|hold| hold.by).collect();
        if let Some(row) = state.rows.last_mut().filter(|row| row.actor == self.me) {
            row.held_by = held_by;
        }
    }
}
