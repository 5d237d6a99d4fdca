//! Who runs next, and where: a suite has as many seats as guests may run at once, and whoever waits gets the seat that suits it.
//!
//! A nested machine keeps snapshots of the guests that have booted in it, and cannot see those of another. So a seat, which is a machine
//! where guests run nested, takes first who is like a guest that it had before, then who is like nobody else's, and then anybody; and
//! among equals who has waited longest. No seat stays free while somebody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pincushion_vmm::machine::Transport;
use xxhash_rust::xxh3::xxh3_64;

use crate::scenario::Scenario;

/// So many are worth letting wait at once: among these a seat chooses.
const WAITING: usize = 64;

/// How many threads should ask for a seat where so many guests run at once. One alone keeps the order.
#[must_use]
pub fn threads_for(guests_at_once: usize) -> usize {
    if guests_at_once > 1 { WAITING } else { 1 }
}

/// The seats of a suite.
pub(super) struct Seats {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seats: Vec<Seat>,
    /// By age: what each one is like.
    waiting: BTreeMap<u64, Option<u64>>,
    /// Who may sit down, and where.
    called: BTreeMap<u64, usize>,
    last: u64,
}

#[derive(Default)]
struct Seat {
    is_taken: bool,
    /// What its guests were like.
    had: BTreeSet<u64>,
}

/// A seat, until it is dropped.
pub(super) struct Taken<'a> {
    seats: &'a Seats,
    number: usize,
    likeness: Option<u64>,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        let seats = Self {
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        seats.provide(count);
        seats
    }

    /// From now on there are so many, at least one. Nobody may be seated or waiting.
    pub(super) fn provide(&self, count: usize) {
        self.state().seats.resize_with(count.max(1), Seat::default);
    }

    /// Waits for a seat for a guest that is like this; `None`: like no other.
    pub(super) fn take(&self, likeness: Option<u64>) -> Taken<'_> {
        let mut state = self.state();
        state.last += 1;
        let ticket = state.last;
        state.waiting.insert(ticket, likeness);
        if state.call() {
            self.changed.notify_all();
        }
        loop {
            if let Some(number) = state.called.remove(&ticket) {
                return Taken {
                    seats: self,
                    number,
                    likeness,
                };
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives each free seat to the one that suits it best. `true`: somebody was called.
    fn call(&mut self) -> bool {
        let before = self.called.len();
        for number in 0..self.seats.len() {
            if self.seats[number].is_taken {
                continue;
            }
            let Some(ticket) = self.best_for(number) else {
                break;
            };
            let likeness = self.waiting.remove(&ticket).flatten();
            let seat = &mut self.seats[number];
            seat.is_taken = true;
            seat.had.extend(likeness);
            self.called.insert(ticket, number);
        }
        self.called.len() > before
    }

    fn best_for(&self, number: usize) -> Option<u64> {
        let had = |seat: &Seat, likeness| seat.had.contains(&likeness);
        let rank = |likeness: Option<u64>| match likeness {
            // With one seat there is nothing to choose, and the order is the user's.
            _ if self.seats.len() == 1 => 0,
            Some(likeness) if had(&self.seats[number], likeness) => 0,
            Some(likeness) if self.seats.iter().any(|seat| had(seat, likeness)) => 2,
            _ => 1,
        };
        let waiting = self.waiting.iter();
        waiting
            .min_by_key(|(ticket, likeness)| (rank(**likeness), **ticket))
            .map(|(ticket, _)| *ticket)
    }
}

impl Taken<'_> {
    /// Which, from 0.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Whether no other guest can run at the same time.
    pub(super) fn is_the_only_one(&self) -> bool {
        self.seats.state().seats.len() == 1
    }

    /// What its earlier guests left is gone: the machine is a new one.
    pub(super) fn renew(&self) {
        let mut state = self.seats.state();
        state.seats[self.number].had = self.likeness.into_iter().collect();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        state.seats[self.number].is_taken = false;
        if state.call() {
            self.seats.changed.notify_all();
        }
    }
}

/// Two scenarios with the same number can probably go on from one snapshot; `None`: this one boots. It is a guess, made before the guest
/// image is there; `runner/snapshots.rs` knows.
pub(super) fn likeness(scenario: &Scenario, kernel: &str) -> Option<u64> {
    let vm = &scenario.vm;
    if scenario.boots_by_itself() {
        return None;
    }
    // Those of a PCI bus are plugged into the guest that has booted.
    let devices = (vm.transport == Transport::Mmio).then(|| {
        (
            scenario
                .disks
                .iter()
                .map(|disk| disk.queues)
                .collect::<Vec<_>>(),
            scenario
                .nets
                .iter()
                .map(|net| net.queues)
                .collect::<Vec<_>>(),
            scenario.pmems.len(),
            scenario.balloon.is_some(),
            vm.virtio_console,
        )
    });
    let shape = (
        (kernel, vm.format, &vm.cmdline),
        (vm.cpus, &vm.memory, vm.transport),
        scenario.modules_to_load(kernel),
        devices,
    );
    Some(xxh3_64(format!("{shape:?}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Who is called next, where these wait and these seats have had guests like that.
    fn called(waiting: &[Option<u64>], seats: &[&[u64]], taken: &[usize]) -> Vec<(u64, usize)> {
        let seat = |(number, had): (usize, &&[u64])| Seat {
            is_taken: taken.contains(&number),
            had: had.iter().copied().collect(),
        };
        let mut state = State {
            seats: seats.iter().enumerate().map(seat).collect(),
            waiting: (1..).zip(waiting.iter().copied()).collect(),
            ..State::default()
        };
        let somebody = state.call();
        assert_eq!(somebody, !state.called.is_empty());
        assert!(!state.call(), "who waits on is not woken for nothing");
        state.called.into_iter().collect()
    }

    #[test]
    fn a_seat_takes_who_is_like_its_guests_then_who_is_new_then_anybody() {
        let two: &[&[u64]] = &[&[7], &[8]];
        assert_eq!(called(&[Some(8), Some(7)], two, &[]), [(1, 1), (2, 0)]);
        assert_eq!(called(&[Some(8), Some(9)], two, &[1]), [(2, 0)]);
        assert_eq!(called(&[Some(8), None, Some(9)], two, &[1]), [(2, 0)]);
        assert_eq!(called(&[Some(8), Some(8)], two, &[1]), [(1, 0)]);
        assert_eq!(called(&[Some(9), Some(7), Some(7)], two, &[1]), [(2, 0)]);
        assert!(called(&[Some(7)], two, &[0, 1]).is_empty());
    }

    #[test]
    fn one_seat_keeps_the_order() {
        assert_eq!(called(&[Some(8), Some(7)], &[&[7]], &[]), [(1, 0)]);
    }

    #[test]
    fn never_more_sit_than_there_are_seats_and_all_come_to_sit() {
        let seats = Seats::new(2);
        let (sitting, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for guest in 0..40 {
                let (seats, sitting, most) = (&seats, &sitting, &most);
                scope.spawn(move || {
                    let taken = seats.take((guest % 5 > 0).then_some(guest % 3));
                    assert!(taken.number() < 2);
                    let now = sitting.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::yield_now();
                    sitting.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        let most = most.into_inner();
        assert!((1..=2).contains(&most), "{most}");
        let taken = seats.take(Some(9));
        taken.renew();
        let had = seats.state().seats[taken.number()].had.clone();
        assert_eq!(had, [9].into());
    }

    #[test]
    fn alike_are_those_that_can_go_on_from_one_snapshot() {
        let read = |more: &str| {
            let text =
                format!("name = 'x'\nsummary = 'y'\n[expect.default]\nverdict = 'pass'\n{more}");
            crate::scenario::parse(&text, std::path::Path::new("x.toml")).unwrap()
        };
        let like = |more: &str| likeness(&read(more), "debian:6.12");
        let disk =
            |content: &str| format!("[[disk]]\nid = 'a'\nsize = '64M'\ncontent = '{content}'\n");
        assert!(like("").is_some());
        assert_eq!(
            like(&disk("zero")),
            like(&disk("zero").replace("64M", "8M"))
        );
        assert_ne!(like(&disk("zero")), like(&disk("xfs")));
        assert_eq!(like(""), like(&disk("zero")), "it is plugged in later");
        let by_mmio = "[vm]\ntransport = 'mmio'\n";
        assert_ne!(like(by_mmio), like(&format!("{by_mmio}{}", disk("zero"))));
        assert_ne!(like(""), like("[vm]\ncmdline = 'nosmap'\n"));
        assert_ne!(like(""), likeness(&read(""), "debian:6.1"));
        let on_ours = |more: &str| likeness(&read(more), "design:bias+wait");
        assert_eq!(on_ours(&disk("zero")), on_ours(&disk("xfs")));
        for boots in ["[vm]\nfresh = true\n", "[vm]\nprograms = ['fio']\n"] {
            assert_eq!(like(boots), None, "{boots}");
        }
    }
}
