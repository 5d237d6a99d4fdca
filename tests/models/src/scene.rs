//! Scenes: which actors meet on the page, and what they have to reach for a silence to say something.

use std::fmt;
use std::sync::Arc;

use crate::actors::clone::clone;
use crate::actors::drivers::{crowd, get_and_put, puts_twice, puts_wrongly};
use crate::actors::fork::{exit, fork};
use crate::actors::gup::{Unpin, direct_io, dma, pin_page, unpin};
use crate::actors::reclaim::{migrate, reclaim};
use crate::actors::truncate::truncate;
use crate::actors::writeback::{Asked, Policy, write_back};
use crate::cpu::Cpu;
use crate::design::Design;
use crate::state::{Mark, State};

/// What an actor does, once, from its begin to its end.
pub type Act = Arc<dyn Fn(&Cpu, &dyn Design) + Send + Sync>;

/// Somebody who acts, on a CPU of its own.
#[derive(Clone)]
pub struct Actor {
    /// The column of the table.
    pub name: &'static str,
    pub(crate) act: Act,
}

impl Actor {
    fn new(name: &'static str, act: impl Fn(&Cpu, &dyn Design) + Send + Sync + 'static) -> Self {
        Self {
            name,
            act: Arc::new(act),
        }
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Actors that meet.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// Who takes part.
    pub actors: Vec<Actor>,
    /// What some schedule has to reach.
    pub must_reach: Vec<Mark>,
}

impl Scene {
    fn new(name: &'static str, must_reach: &[Mark], actors: Vec<Actor>) -> Self {
        Self {
            name,
            actors,
            must_reach: must_reach.to_vec(),
        }
    }

    /// The same, but not asking for a mark that the design has no way to.
    #[must_use]
    pub fn without(mut self, mark: Mark) -> Self {
        self.must_reach.retain(|wanted| *wanted != mark);
        self
    }

    /// The same, but asking for other marks: a design without a question is never asked.
    #[must_use]
    pub fn reaching(mut self, must_reach: &[Mark]) -> Self {
        self.must_reach = must_reach.to_vec();
        self
    }
}

fn dio(name: &'static str, first_byte: u32, how: Unpin) -> Actor {
    Actor::new(name, move |cpu, design| {
        direct_io(cpu, design, first_byte, how)
    })
}

fn flusher(policy: Policy, asked: Asked) -> Actor {
    Actor::new("flusher", move |cpu, design| {
        write_back(cpu, design, policy, asked)
    })
}

/// A direct read into the page, and write-back of it.
#[must_use]
pub fn write_back_of_a_held_page(policy: Policy, asked: Asked) -> Scene {
    let reach: &[Mark] = match policy {
        Policy::None => &[Mark::WrittenWhileHeld],
        Policy::Skip | Policy::Wait => &[Mark::AskedWhileHeld, Mark::BackedOff],
        Policy::Bounce | Policy::BounceAndClean => &[
            Mark::AskedWhileHeld,
            Mark::WrittenWhileHeld,
            Mark::BackedOff,
        ],
    };
    let name = match policy {
        Policy::None => "write-back",
        Policy::Skip => "write-back-skip",
        Policy::Wait => "write-back-wait",
        Policy::Bounce | Policy::BounceAndClean => "write-back-bounce",
    };
    Scene::new(
        name,
        reach,
        vec![dio("dio", 10, Unpin::Dirty), flusher(policy, asked)],
    )
}

/// The same by a user that does not mark the page dirty when it lets go.
#[must_use]
pub fn write_back_and_a_clean_unpin(policy: Policy) -> Scene {
    let actors = vec![
        dio("uring", 10, Unpin::AsItIs),
        flusher(policy, Asked::AfterMkclean),
    ];
    Scene::new("clean-unpin", &[Mark::AskedWhileHeld], actors)
}

/// Two users of the page and write-back.
#[must_use]
pub fn two_pins(policy: Policy) -> Scene {
    let actors = vec![
        dio("dio A", 10, Unpin::Dirty),
        dio("dio B", 20, Unpin::Dirty),
        flusher(policy, Asked::AfterMkclean),
    ];
    Scene::new("two-pins", &[Mark::HeldTwice, Mark::AskedWhileHeld], actors)
}

/// A plain reference that may be older than the pin, and write-back.
#[must_use]
pub fn plain_reference(policy: Policy) -> Scene {
    let actors = vec![
        Actor::new("reader", get_and_put),
        dio("dio", 10, Unpin::Dirty),
        flusher(policy, Asked::AfterMkclean),
    ];
    Scene::new(
        "plain-reference",
        &[Mark::PutWhileHeld, Mark::AskedWhileHeld],
        actors,
    )
}

/// 1,100 plain references, and write-back: what only seems pinned.
#[must_use]
pub fn many_references(policy: Policy) -> Scene {
    let actors = vec![
        Actor::new("1,100 programs", |cpu, _| crowd(cpu, 1100)),
        dio("dio", 10, Unpin::Dirty),
        flusher(policy, Asked::AfterMkclean),
    ];
    Scene::new("many-references", &[Mark::AskedWhileHeld], actors)
}

/// A child that comes and goes, and write-back.
#[must_use]
pub fn fork_and_exit(policy: Policy) -> Scene {
    let child = Actor::new("child", |cpu, _| {
        fork(cpu);
        exit(cpu);
    });
    let actors = vec![
        child,
        dio("dio", 10, Unpin::Dirty),
        flusher(policy, Asked::AfterMkclean),
    ];
    Scene::new(
        "fork",
        &[Mark::RemappedWhileAsked, Mark::AskedWhileHeld],
        actors,
    )
}

/// A program that reads asynchronously into a mapped page and calls fsync meanwhile, and a child that comes and goes. As few actors as
/// the question about two counters needs.
#[must_use]
pub fn fork_under_fsync(policy: Policy) -> Scene {
    let child = Actor::new("child", |cpu, _| {
        fork(cpu);
        exit(cpu);
    });
    let program = Actor::new("aio, fsync", move |cpu, design| {
        let Some(held) = pin_page(cpu, design) else {
            return;
        };
        write_back(cpu, design, policy, Asked::AfterMkclean);
        dma(cpu, design, 10);
        unpin(cpu, design, &held, Unpin::Dirty);
    });
    Scene::new(
        "fork-under-fsync",
        &[Mark::RemappedWhileAsked, Mark::AskedWhileHeld],
        vec![child, program],
    )
}

/// The file is truncated under the user.
#[must_use]
pub fn truncation() -> Scene {
    let actors = vec![
        dio("dio", 10, Unpin::Dirty),
        Actor::new("truncate", truncate),
    ];
    Scene::new("truncate", &[Mark::TruncatedWhileHeld], actors)
}

/// The page is cleaned and reclaimed under the user.
#[must_use]
pub fn reclaim_of_a_held_page(policy: Policy) -> Scene {
    let actors = vec![
        dio("dio", 10, Unpin::Dirty),
        Actor::new("reclaim", move |cpu, design| {
            write_back(cpu, design, policy, Asked::AfterMkclean);
            reclaim(cpu, design);
        }),
    ];
    Scene::new("reclaim", &[Mark::AskedWhileHeld], actors)
}

/// The page is moved to another frame under the user.
#[must_use]
pub fn migration() -> Scene {
    let actors = vec![dio("dio", 10, Unpin::Dirty), Actor::new("migrate", migrate)];
    Scene::new("migrate", &[Mark::MigrationWhileHeld], actors)
}

/// The file is cloned (or the file system frozen) under the user.
#[must_use]
pub fn cloning(policy: Policy) -> Scene {
    let cloner = Actor::new("clone", move |cpu, design| clone(cpu, design, policy));
    Scene::new(
        "clone",
        &[Mark::CloneWhileHeld],
        vec![dio("dio", 10, Unpin::Dirty), cloner],
    )
}

/// The device ends while write-back runs, and its interrupt comes to the CPU on which that runs; a worker does what the interrupt may not.
#[must_use]
pub fn interrupt(policy: Policy) -> Scene {
    const FLUSHER: usize = 1;
    let device = Actor::new("device", |cpu, design| {
        let Some(held) = pin_page(cpu, design) else {
            return;
        };
        dma(cpu, design, 10);
        dma(cpu, design, 11);
        cpu.raise_irq(
            FLUSHER,
            Box::new(move |cpu, design| {
                // The completion does not lock pages: who wants them dirty has dirtied them before, or leaves it to a worker.
                unpin(cpu, design, &held, Unpin::AsItIs);
            }),
        );
    });
    let worker = Actor::new("worker", |cpu, design| {
        let ended = |state: &State| state.has_irq_ended();
        cpu.step_when("the interrupt", ended, "worker: is woken", |_| {});
        if design.has_deferred() {
            design.run_deferred(cpu);
        }
    });
    Scene::new(
        "interrupt",
        &[Mark::IrqUnderLock, Mark::AskedWhileHeld],
        vec![device, flusher(policy, Asked::AfterMkclean), worker],
    )
}

/// A driver gives a plain reference back as a pin, while another holds one.
#[must_use]
pub fn wrong_put(policy: Policy) -> Scene {
    let actors = vec![
        Actor::new("driver", puts_wrongly),
        dio("dio", 10, Unpin::Dirty),
        flusher(policy, Asked::AfterMkclean),
    ];
    Scene::new("wrong-put", &[Mark::AskedWhileHeld], actors)
}

/// A driver gives its pin back twice, while another holds one and the file goes.
#[must_use]
pub fn double_put() -> Scene {
    let actors = vec![
        Actor::new("driver", puts_twice),
        dio("dio", 10, Unpin::Dirty),
        Actor::new("truncate", truncate),
    ];
    Scene::new(
        "double-put",
        &[Mark::TruncatedWhileHeld, Mark::HeldTwice],
        actors,
    )
}
