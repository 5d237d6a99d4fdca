//! One CPU of the nested machine for all vCPUs of a guest.
//!
//! A kernel rewrites its own code while it runs (static keys, ftrace): a breakpoint goes in, the other CPUs are told, the breakpoint
//! comes out. QEMU emulates each CPU of the nested machine in a thread of its own. If one thread translates such an
//! instruction in the moment in which another stores to it, the translation keeps the breakpoint for ever, and the guest dies of it
//! later, most often before its first word: `Oops: int3` in `sched_clock_cpu` was seen, and a guest that waits for ever for
//! a CPU that died so. Two vCPUs that share one CPU of the nested machine cannot do that to each other. Guests that run at the same
//! time still have a CPU each.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPU on which all vCPUs of a guest are to run. While it lives, other guests prefer others.
#[derive(Debug)]
pub(crate) struct OneCpu {
    number: usize,
    claim: Option<File>,
}

impl OneCpu {
    /// Chooses one; `None` outside of a nested machine, where vCPUs run where they like.
    pub(crate) fn choose() -> Option<Self> {
        if !super::is_inside() {
            return None;
        }
        let allowed = sched_getaffinity(None).ok()?;
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| allowed.is_set(*cpu))
            .collect();
        let seed = std::process::id() as usize;
        choose_of(&cpus, &std::env::temp_dir(), seed)
    }

    /// Its number, for [`keep_to`].
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // A child that another thread has forked has the descriptor, and so the lock, until it calls exec.
        if let Some(claim) = &self.claim {
            let _ = flock(claim, FlockOperation::Unlock);
        }
    }
}

/// The first of `cpus` that nobody has claimed in `dir`; where all are claimed, the one that `seed` says.
fn choose_of(cpus: &[usize], dir: &Path, seed: usize) -> Option<OneCpu> {
    let claim = |cpu: &usize| {
        let file = File::create(dir.join(format!("pincushion-vcpus-on-{cpu}"))).ok()?;
        // However this process ends, the lock goes with the descriptor.
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(OneCpu {
            number: *cpu,
            claim: Some(file),
        })
    };
    cpus.iter().find_map(claim).or_else(|| {
        let number = *cpus.get(seed.checked_rem(cpus.len())?)?;
        Some(OneCpu {
            number,
            claim: None,
        })
    })
}

/// From now on this thread runs on that CPU only.
pub(crate) fn keep_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!("cannot keep a vCPU to CPU {cpu}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_at_the_same_time_have_a_cpu_each_and_share_when_there_are_more_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let choose = || choose_of(&[3, 5], dir.path(), 7).unwrap();
        let (first, second) = (choose(), choose());
        assert_eq!((first.number(), second.number()), (3, 5));
        assert_eq!(choose().number(), 5, "7 modulo 2 is the second");
        let in_a_child = first.claim.as_ref().unwrap().try_clone().unwrap();
        drop(first);
        assert_eq!(choose().number(), 3, "a guest that ended leaves its CPU");
        drop(in_a_child);
    }

    #[test]
    fn without_a_cpu_there_is_nothing_to_choose() {
        assert!(choose_of(&[], &std::env::temp_dir(), 7).is_none());
    }

    #[test]
    fn a_thread_keeps_to_its_cpu() {
        let allowed = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU)
            .find(|cpu| allowed.is_set(*cpu))
            .unwrap();
        let kept = std::thread::spawn(move || {
            keep_to(cpu);
            sched_getaffinity(None).unwrap()
        });
        let kept = kept.join().unwrap();
        assert!(kept.is_set(cpu) && kept.count() == 1);
    }
}
