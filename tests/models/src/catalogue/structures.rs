//! Designs that keep pins in a structure beside the page. But for the tree, no running form of them was ever posted.

use super::{DRAWN, Form, KARA, OURS, Of, common_and, common_scenes, words};
use crate::actors::writeback::Policy;
use crate::designs::dynamic::{self, Dynamic};
use crate::designs::page_aux::{self, Aux};
use crate::designs::proxy::{self, Proxy};
use crate::designs::tree::{self, Tree};
use crate::invariant::Invariant;
use crate::scene::{self, Scene};
use crate::state::Mark;

pub(super) fn tree() -> Vec<Form> {
    let of = Of("tree");
    vec![
        of.broken(
            words(
                "lock-in-irq",
                KARA,
                "the unpin in an interrupt takes the lock that the interrupted write-back holds",
            ),
            Invariant::NobodyStuck,
            scene::interrupt(Policy::Bounce),
            || Tree::new(tree::Form::LockInIrq),
        ),
        of.repaired(
            words(
                "deferred",
                KARA,
                "in an interrupt the unpin is left to a worker; GUP-fast is lost",
            ),
            tree_scenes(&[Mark::IrqUnderLock, Mark::AskedWhileHeld]),
            || Tree::new(tree::Form::Deferred),
        ),
        of.repaired(
            words(
                "irqs-off",
                OURS,
                "the lock is taken with interrupts off, so that none can come into it; GUP-fast is lost",
            ),
            tree_scenes(&[Mark::IrqKeptOff, Mark::AskedWhileHeld]),
            || Tree::new(tree::Form::IrqsOff),
        ),
    ]
}

/// The common scenes, and what has to happen in that of the interrupt.
fn tree_scenes(interrupt_reaches: &[Mark]) -> Vec<Scene> {
    let interrupt = scene::interrupt(Policy::Bounce).reaching(interrupt_reaches);
    common_and(vec![scene::cloning(Policy::Bounce)])
        .into_iter()
        .filter(|scene| scene.name != "interrupt")
        .chain([interrupt])
        // Without GUP-fast nobody backs off.
        .map(|scene| scene.without(Mark::BackedOff))
        .collect()
}

pub(super) fn aux() -> Vec<Form> {
    let of = Of("aux");
    vec![
        of.broken(
            words(
                "stored",
                DRAWN,
                "page->private is the file system's: a second structure, or its detaching, takes the count away",
            ),
            Invariant::NoFalseNegative,
            scene::two_pins(Policy::Bounce),
            || Aux::new(page_aux::Form::Stored),
        ),
        of.repaired(
            words(
                "installed",
                DRAWN,
                "installed once by cmpxchg, kept until the page is freed",
            ),
            common_scenes(),
            || Aux::new(page_aux::Form::Installed),
        ),
    ]
}

pub(super) fn proxy() -> Vec<Form> {
    let of = Of("proxy");
    vec![
        of.broken(
            words(
                "stored",
                DRAWN,
                "two make a proxy each: the second hides the first, and its pin",
            ),
            Invariant::NoFalseNegative,
            scene::two_pins(Policy::Bounce),
            || Proxy::new(proxy::Form::Stored),
        ),
        of.repaired(
            words("exchanged", DRAWN, "cmpxchg decides whose proxy it is"),
            common_scenes(),
            || Proxy::new(proxy::Form::Exchanged),
        ),
    ]
}

pub(super) fn dynamic() -> Vec<Form> {
    let of = Of("dynamic");
    vec![
        of.broken(
            words(
                "plain",
                DRAWN,
                "a pin is counted in a structure that its last user has just freed",
            ),
            Invariant::NoFalseNegative,
            scene::two_pins(Policy::Bounce),
            || Dynamic::new(dynamic::Form::Plain),
        ),
        of.repaired(
            words(
                "inc-not-zero",
                DRAWN,
                "a count of zero is not added to; the next looks again",
            ),
            common_scenes(),
            || Dynamic::new(dynamic::Form::IncNotZero),
        ),
    ]
}
