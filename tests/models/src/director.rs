//! Who takes the next step: shuttle's schedulers, asked only where there is something to choose.
//!
//! Main goes first wherever it can, actors are brought to their first step in order, and who waits in vain is not offered. So a schedule
//! is a list of actors, one a step, and an exhaustive search meets each interleaving of steps once.

use std::mem::ManuallyDrop;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};

use crate::state::Board;

/// Offers a scheduler the actors that can go on.
#[derive(Debug)]
pub(crate) struct Director<S> {
    pub inner: S,
    pub board: Board,
    pub is_enough: Box<dyn Enough>,
}

/// Says when the search has what it wants.
pub(crate) trait Enough: std::fmt::Debug {
    fn is_enough(&self) -> bool;
}

impl<S: Scheduler> Scheduler for Director<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.is_enough.is_enough() {
            return None;
        }
        self.inner.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        let index = |task: &Task| usize::from(task.id());
        if let Some(main) = runnable.iter().find(|task| index(task) == 0) {
            return Some(main.id());
        }
        let mut state = self.board.lock();
        let actor = |task: &Task| index(task) - 1;
        let fresh = runnable
            .iter()
            .filter(|task| !state.actors[actor(task)].started)
            .min_by_key(|task| index(task));
        if let Some(fresh) = fresh {
            return Some(fresh.id());
        }
        let able: Vec<&Task> = runnable
            .iter()
            .copied()
            .filter(|task| state.can_run(actor(task)))
            .collect();
        let offered = if able.is_empty() { runnable } else { &able };
        let chosen = self.inner.next_task(offered, current, false)?;
        let chosen_actor =
            u8::try_from(usize::from(chosen) - 1).expect("a scene has a handful of actors");
        state.schedule.push(chosen_actor);
        Some(chosen)
    }

    fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
}

/// Random and PCT (few, well placed changes of the actor) in turn: one finds what is everywhere, the other what needs one long sleep.
#[derive(Debug)]
pub(crate) struct InTurn {
    /// Never dropped: it would print its seed as that of a failure if a search ends early. It owns no memory.
    random: ManuallyDrop<RandomScheduler>,
    pct: PctScheduler,
    is_pct: bool,
}

/// Changes of the actor that PCT places in a schedule, and one.
const PCT_DEPTH: usize = 4;

impl InTurn {
    pub(crate) fn new(seed: u64, schedules: usize) -> Self {
        Self {
            random: ManuallyDrop::new(RandomScheduler::new_from_seed(seed, schedules.div_ceil(2))),
            pct: PctScheduler::new_from_seed(seed, PCT_DEPTH, schedules / 2),
            is_pct: true,
        }
    }
}

impl Scheduler for InTurn {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.is_pct = !self.is_pct;
        if self.is_pct {
            self.pct.new_execution()
        } else {
            self.random.new_execution()
        }
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        if self.is_pct {
            self.pct.next_task(runnable, current, is_yielding)
        } else {
            self.random.next_task(runnable, current, is_yielding)
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.random.next_u64()
    }
}

/// One schedule, as recorded.
#[derive(Debug)]
pub(crate) struct Replay {
    pub steps: std::vec::IntoIter<u8>,
    pub is_done: bool,
}

impl Scheduler for Replay {
    fn new_execution(&mut self) -> Option<Schedule> {
        (!std::mem::replace(&mut self.is_done, true)).then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        _current: Option<TaskId>,
        _is_yielding: bool,
    ) -> Option<TaskId> {
        // A schedule that is too short, or of another model, goes on with the first who can.
        let wanted = self.steps.next().map(|actor| usize::from(actor) + 1);
        let found = runnable
            .iter()
            .find(|task| Some(usize::from(task.id())) == wanted);
        found.or(runnable.first()).map(|task| task.id())
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}
