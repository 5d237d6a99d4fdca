//! The search: many schedules of one scene, what broke, and the same told with as few changes of the actor as the race needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shuttle::scheduler::{DfsScheduler, Scheduler};
use shuttle::{Config, Runner};

use crate::catalogue::Form;
use crate::cpu::Cpu;
use crate::director::{Director, Enough, InTurn, Replay};
use crate::invariant::{Invariant, Violation};
use crate::scene::Scene;
use crate::schedule::runs_of;
use crate::state::{Board, Mark, Row, State};

/// An actor's stack: it formats text.
const STACK_BYTES: usize = 0x1_0000;

/// How long to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Decides all choices.
    pub seed: u64,
    /// How many schedules at most.
    pub schedules: usize,
}

/// A schedule that breaks an invariant.
#[derive(Debug, Clone)]
pub struct Found {
    /// Ordinal of the schedule that broke it first, from 1.
    pub first_at: usize,
    /// What broke, in the schedule that is told.
    pub violation: Violation,
    /// Its steps.
    pub rows: Vec<Row>,
    /// The same as a list of actors, for [`replay`].
    pub schedule: Vec<u8>,
    /// How often another actor than before goes on.
    pub switches: usize,
}

/// What a search came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Schedules run.
    pub schedules: usize,
    /// What was found, by invariant.
    pub found: BTreeMap<Invariant, Found>,
    /// How many schedules reached what.
    pub reached: BTreeMap<Mark, usize>,
    /// No schedule is left that was not run.
    pub is_exhaustive: bool,
}

impl Outcome {
    /// What the scene had to reach and no schedule did.
    #[must_use]
    pub fn not_reached(&self, scene: &Scene) -> Vec<Mark> {
        scene
            .must_reach
            .iter()
            .copied()
            .filter(|mark| !self.reached.contains_key(mark))
            .collect()
    }

    fn note(&mut self, state: &State) {
        self.schedules += 1;
        for mark in &state.reached {
            *self.reached.entry(*mark).or_default() += 1;
        }
        let Some(violation) = &state.broken else {
            return;
        };
        let switches = state
            .rows
            .windows(2)
            .filter(|pair| pair[0].actor != pair[1].actor)
            .count();
        let found = self
            .found
            .entry(violation.invariant)
            .or_insert_with(|| Found {
                first_at: self.schedules,
                violation: violation.clone(),
                rows: Vec::new(),
                schedule: Vec::new(),
                switches: usize::MAX,
            });
        if (switches, state.rows.len()) < (found.switches, found.rows.len()) {
            found.violation = violation.clone();
            found.rows = state.rows.clone();
            found.schedule = state.schedule.clone();
            found.switches = switches;
        }
    }
}

/// What the closure of a search writes to and its scheduler reads.
#[derive(Debug, Clone)]
struct Search {
    outcome: Arc<Mutex<Outcome>>,
    /// Ends the search soon after it was found; without one all schedules are run.
    wanted: Option<Invariant>,
}

impl Search {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enough for Search {
    fn is_enough(&self) -> bool {
        let outcome = self.outcome();
        self.wanted
            .is_some_and(|wanted| outcome.found.contains_key(&wanted))
    }
}

/// Random and PCT schedules from a seed, until the wanted invariant is broken or the schedules are used up.
#[must_use]
pub fn search(
    form: &Form,
    scene: &Scene,
    settings: Settings,
    wanted: Option<Invariant>,
) -> Outcome {
    run(
        form,
        scene,
        InTurn::new(settings.seed, settings.schedules),
        wanted,
    )
}

/// All schedules of a scene, or the first of them up to a bound.
#[must_use]
pub fn exhaust(form: &Form, scene: &Scene, bound: usize, wanted: Option<Invariant>) -> Outcome {
    let mut outcome = run(form, scene, DfsScheduler::new(Some(bound), false), wanted);
    outcome.is_exhaustive = outcome.schedules < bound && outcome.found.is_empty();
    outcome
}

/// The same find with fewer changes of the actor, by trying whether one may go on for longer or begin earlier: what is left is what the
/// race needs.
#[must_use]
pub fn plainer(form: &Form, scene: &Scene, found: &Found) -> Found {
    let mut best = found.clone();
    loop {
        let runs = runs_of(&best.schedule);
        let better = (0..runs.len())
            .flat_map(|at| moved(&runs, at))
            .find_map(|schedule| {
                let outcome = replay(form, scene, &schedule);
                let mut other = outcome.found.get(&best.violation.invariant)?.clone();
                other.first_at = best.first_at;
                ((other.switches, other.rows.len()) < (best.switches, best.rows.len()))
                    .then_some(other)
            });
        match better {
            Some(better) => best = better,
            None => return best,
        }
    }
}

/// The schedule with one run left out, or taken to the next or the last run of the same actor.
fn moved(runs: &[(u8, usize)], at: usize) -> Vec<Vec<u8>> {
    let (actor, count) = runs[at];
    let without: Vec<(u8, usize)> = runs
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != at)
        .map(|(_, run)| *run)
        .collect();
    let same = |(index, run): (usize, &(u8, usize))| (run.0 == actor).then_some(index);
    let next = without.iter().enumerate().skip(at).find_map(same);
    let last = without.iter().enumerate().take(at).rev().find_map(same);
    let mut schedules = vec![steps_of(&without)];
    for joined in [next, last].into_iter().flatten() {
        let mut runs = without.clone();
        runs[joined].1 += count;
        schedules.push(steps_of(&runs));
    }
    schedules
}

fn steps_of(runs: &[(u8, usize)]) -> Vec<u8> {
    runs.iter()
        .flat_map(|(actor, count)| std::iter::repeat_n(*actor, *count))
        .collect()
}

/// Runs one schedule again.
#[must_use]
pub fn replay(form: &Form, scene: &Scene, schedule: &[u8]) -> Outcome {
    let steps = Vec::from(schedule).into_iter();
    run(
        form,
        scene,
        Replay {
            steps,
            is_done: false,
        },
        None,
    )
}

fn run(
    form: &Form,
    scene: &Scene,
    scheduler: impl Scheduler + 'static,
    wanted: Option<Invariant>,
) -> Outcome {
    let actors = scene.actors.clone();
    let board = Board::new(State::new(form.design(), actors.len()));
    let search = Search {
        outcome: Arc::default(),
        wanted,
    };
    let director = Director {
        inner: scheduler,
        board: board.clone(),
        is_enough: Box::new(search.clone()),
    };
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    let (form, noted) = (form.clone(), search.clone());
    Runner::new(director, config).run(move || {
        let design = form.design();
        board.reset(State::new(design.clone(), actors.len()));
        let threads: Vec<_> = actors
            .iter()
            .enumerate()
            .map(|(me, actor)| {
                let (act, design, cpu) = (
                    actor.act.clone(),
                    design.clone(),
                    Cpu::new(board.clone(), me),
                );
                shuttle::thread::spawn(move || {
                    act(&cpu, design.as_ref());
                    cpu.finished();
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .expect("actors do not panic: violations are noted, not thrown");
        }
        let mut state = board.lock();
        state.check_at_rest();
        noted.outcome().note(&state);
    });
    search.outcome().clone()
}
