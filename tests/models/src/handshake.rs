//! GUP-fast and write-back look at each other's word: which orders of memory accesses that needs, asked of loom.
//!
//! ```text
//! GUP-fast                      write-back
//! r0 = pte                      pte = read-only
//! refcount += 1024              (order?)
//! (order?)                      r2 = refcount
//! r1 = pte
//! ```
//!
//! Forbidden: GUP sees a writable entry twice (r0 and r1) and write-back sees no pin (r2). It is the shape called store buffering: both
//! sides need a full barrier. loom explores all executions of the C11 model, in which `smp_mb` is a fence of `SeqCst`; the kernel's own
//! model is asked by the files in `litmus/`, which have the same two threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Std};

use loom::sync::atomic::{AtomicU32, Ordering, fence};

/// `GUP_PIN_COUNTING_BIAS`.
const BIAS: u32 = 1024;

/// Which side has a barrier, and whether GUP looks twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// Its name, which the litmus file has as well.
    pub name: &'static str,
    /// Between the count and the second look.
    pub gup_barrier: bool,
    /// Between the page table and the count.
    pub write_back_barrier: bool,
    /// The second look itself.
    pub looks_again: bool,
    /// Whether the forbidden outcome is expected.
    pub expect_overlooked: bool,
}

/// All of them: the sound one first.
pub const HANDSHAKES: [Handshake; 4] = [
    Handshake {
        name: "both-barriers",
        gup_barrier: true,
        write_back_barrier: true,
        looks_again: true,
        expect_overlooked: false,
    },
    Handshake {
        name: "no-gup-barrier",
        gup_barrier: false,
        write_back_barrier: true,
        looks_again: true,
        expect_overlooked: true,
    },
    Handshake {
        name: "no-write-back-barrier",
        gup_barrier: true,
        write_back_barrier: false,
        looks_again: true,
        expect_overlooked: true,
    },
    Handshake {
        name: "no-second-look",
        gup_barrier: true,
        write_back_barrier: true,
        looks_again: false,
        expect_overlooked: true,
    },
];

/// What loom came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explored {
    /// Executions: all there are.
    pub executions: usize,
    /// In some of them a pin was got and overlooked.
    pub overlooked: bool,
    /// In some of them a pin was got and seen.
    pub seen: bool,
    /// In some of them GUP backed off.
    pub backed_off: bool,
}

#[derive(Debug, Default)]
struct Tally {
    executions: AtomicUsize,
    overlooked: AtomicBool,
    seen: AtomicBool,
    backed_off: AtomicBool,
}

/// Runs all executions.
#[must_use]
pub fn explore(handshake: Handshake) -> Explored {
    let tally = Arc::new(Tally::default());
    let noted = tally.clone();
    loom::model(move || {
        let pte = loom::sync::Arc::new(AtomicU32::new(1));
        let refs = loom::sync::Arc::new(AtomicU32::new(0));
        let gup = {
            let (pte, refs) = (pte.clone(), refs.clone());
            loom::thread::spawn(move || gup_fast(handshake, &pte, &refs))
        };
        pte.store(0, Ordering::Relaxed);
        if handshake.write_back_barrier {
            fence(Ordering::SeqCst);
        }
        let sees_pin = refs.load(Ordering::Relaxed) >= BIAS;
        let has_pin = gup.join().expect("the thread does not panic");
        noted.executions.fetch_add(1, Std::Relaxed);
        match (has_pin, sees_pin) {
            (Some(true), false) => noted.overlooked.store(true, Std::Relaxed),
            (Some(true), true) => noted.seen.store(true, Std::Relaxed),
            (Some(false), _) => noted.backed_off.store(true, Std::Relaxed),
            (None, _) => {}
        }
    });
    Explored {
        executions: tally.executions.load(Std::Relaxed),
        overlooked: tally.overlooked.load(Std::Relaxed),
        seen: tally.seen.load(Std::Relaxed),
        backed_off: tally.backed_off.load(Std::Relaxed),
    }
}

/// `None` if it did not try, else whether it has the page.
fn gup_fast(handshake: Handshake, pte: &AtomicU32, refs: &AtomicU32) -> Option<bool> {
    if pte.load(Ordering::Relaxed) == 0 {
        return None;
    }
    refs.fetch_add(BIAS, Ordering::Relaxed);
    if !handshake.looks_again {
        return Some(true);
    }
    if handshake.gup_barrier {
        fence(Ordering::SeqCst);
    }
    Some(pte.load(Ordering::Relaxed) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_overlooked_exactly_where_a_barrier_or_the_second_look_is_missing() {
        for handshake in HANDSHAKES {
            let explored = explore(handshake);
            assert_eq!(
                explored.overlooked, handshake.expect_overlooked,
                "{}: {explored:?}",
                handshake.name
            );
        }
    }

    #[test]
    fn the_sound_handshake_meets_both_a_seen_pin_and_a_back_off() {
        let explored = explore(HANDSHAKES[0]);
        assert!(explored.seen && explored.backed_off, "{explored:?}");
    }
}
