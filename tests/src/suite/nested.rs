//! The nested machines of a suite: each seat is one, which a run has to itself while it lasts.
//!
//! Each has one emulated CPU, because QEMU emulates several in as many threads, and a kernel that rewrites its own code (static keys,
//! ftrace) does not always survive that: a guest, or the nested machine itself, then executes a breakpoint that was taken back long
//! ago. Several machines of one CPU use the host's CPUs as well as one machine of several does.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use pincushion_image::host_program;
use pincushion_vmm::nested::{
    Clock, Command, Ended, NestedConfig, NestedError, NestedMachine, boot_files, ensure_qemu,
};
use rustix::process::Signal;
use xxhash_rust::xxh3::xxh3_64;

use super::child::{ChildEnd, Lines};
use super::place::{ChildOrder, arguments};
use super::programs::Programs;

/// So many guests' kernels and initial RAM disks stay in a machine, 70 MB each: a suite on a few kernels sends each once.
const GUESTS: usize = 4;

/// The machines, booted when they are first needed, and again after one has died.
pub struct Nested {
    /// Those that no run has at present, by seat.
    idle: Mutex<BTreeMap<usize, Furnished>>,
    /// Taken while something is installed or built that all machines need.
    preparing: Mutex<()>,
    booted: AtomicU32,
    log: PathBuf,
}

/// A machine and what it has.
struct Furnished {
    machine: NestedMachine,
    clock: Clock,
    /// Directories of guests' kernels in there; the one that was needed last is at the end.
    guests: VecDeque<PathBuf>,
}

impl Nested {
    /// No machine yet. `log` is where the first one's console goes; the others' go beside it.
    pub(super) fn new(log: PathBuf) -> Self {
        Self {
            idle: Mutex::default(),
            preparing: Mutex::default(),
            booted: AtomicU32::new(0),
            log,
        }
    }

    /// Runs the child of one run to its end.
    pub(super) fn run(
        &self,
        order: &ChildOrder<'_>,
        programs: &Programs,
        progress: &dyn Fn(&str),
        each_line: &mut dyn FnMut(&str),
    ) -> ChildEnd {
        // Once more in a fresh machine if this one dies under the run.
        for is_last in [false, true] {
            let mut machine = match self.take(order, programs, progress) {
                Ok(machine) => machine,
                Err(error) => return ChildEnd::NotStarted(crate::words(&error)),
            };
            if order.stop.wished().is_some() {
                return ChildEnd::Stopped;
            }
            match run_inside(&mut machine, order, programs, each_line) {
                // One that counts instructions and stands still has been seen to do so for good.
                Ok(ChildEnd::LimitReached) if order.measures => return ChildEnd::LimitReached,
                Ok(end) => {
                    self.idle().insert(order.seat.number(), machine);
                    return end;
                }
                // Another machine cannot help a file of this host, say on a full disk.
                Err(error @ NestedError::HostFile { .. }) => {
                    return ChildEnd::NotStarted(crate::words(&error));
                }
                Err(error) if is_last || order.stop.wished().is_some() => {
                    return ChildEnd::NotStarted(crate::words(&error));
                }
                Err(error) => progress(&format!(
                    "the nested machine failed, booting another: {}",
                    crate::words(&error)
                )),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The machine of the order's seat; booted now if there is none, or one with another clock.
    fn take(
        &self,
        order: &ChildOrder<'_>,
        programs: &Programs,
        progress: &dyn Fn(&str),
    ) -> Result<Furnished, NestedError> {
        let (seat, clock) = (order.seat, clock_for(order));
        match self.idle().remove(&seat.number()) {
            Some(machine) if machine.clock == clock => return Ok(machine),
            Some(_) | None => {}
        }
        seat.renew();
        let (kernel, initrd) = {
            let _preparing = self
                .preparing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            ensure_qemu(progress)?;
            boot_files(&programs.nested_agent(), progress)?
        };
        let number = self.booted.fetch_add(1, Ordering::Relaxed) + 1;
        let config = NestedConfig {
            clock,
            log: Some(log_of(&self.log, number)),
            ..NestedConfig::new(kernel, initrd)
        };
        let machine = NestedMachine::boot(&config, progress).or_else(|error| {
            progress(&format!("{}; trying once more", crate::words(&error)));
            NestedMachine::boot(&config, progress)
        })?;
        Ok(Furnished {
            machine,
            clock,
            guests: VecDeque::new(),
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Furnished>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What time is in the machine of this run.
fn clock_for(order: &ChildOrder<'_>) -> Clock {
    if order.measures {
        Clock::Instructions
    } else {
        Clock::Host
    }
}

/// Where the console of machine `number` (from 1) goes: `NAME.log`, then `NAME-2.log` and so on.
fn log_of(first: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return first.to_owned();
    }
    let name = first.file_stem().unwrap_or_default().to_string_lossy();
    first.with_file_name(format!("{name}-{number}.log"))
}

impl Furnished {
    /// Has the guest's kernel and initial RAM disk in there. They stay for the next run, which mostly has the same.
    fn put_guest(&mut self, order: &ChildOrder<'_>) -> Result<[PathBuf; 2], NestedError> {
        let dir = guest_dir(order.kernel, order.initrd);
        for gone in make_way(&mut self.guests, &dir) {
            self.machine.remove(&gone)?;
        }
        let places = [dir.join("kernel"), dir.join("initrd")];
        for (file, place) in [order.kernel, order.initrd].into_iter().zip(&places) {
            self.machine.put_if_changed(file, place, 0o644)?;
        }
        Ok(places)
    }
}

/// Where a guest's files are in there.
fn guest_dir(kernel: &Path, initrd: &Path) -> PathBuf {
    let name = format!("{}\n{}", kernel.display(), initrd.display());
    Path::new("/guests").join(format!("{:016x}", xxh3_64(name.as_bytes())))
}

/// Puts `dir` at the end, and says which have to go for it.
fn make_way(guests: &mut VecDeque<PathBuf>, dir: &Path) -> Vec<PathBuf> {
    guests.retain(|other| other != dir);
    guests.push_back(dir.to_owned());
    let too_many = guests.len().saturating_sub(GUESTS);
    guests.drain(..too_many).collect()
}

fn run_inside(
    furnished: &mut Furnished,
    order: &ChildOrder<'_>,
    programs: &Programs,
    each_line: &mut dyn FnMut(&str),
) -> Result<ChildEnd, NestedError> {
    let [kernel, initrd] = furnished.put_guest(order)?;
    let machine = &furnished.machine;
    let inside = |root: &str| Path::new(root).join(order.id);
    let (run_dir, scratch) = (inside("/runs"), inside("/scratch"));
    let program = Path::new("/bin/pincushion-test");
    machine.put_if_changed(&programs.test(), program, 0o755)?;
    for name in order.programs {
        for file in host_program(name)? {
            machine.put_if_changed(&file.source, Path::new(&file.path), file.mode)?;
        }
    }
    for name in ["run.toml", "scenario.toml"] {
        machine.put(&order.run_dir.join(name), &run_dir.join(name), 0o644)?;
    }
    let words = arguments(&run_dir, &kernel, &initrd, &scratch);
    let words = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned());
    // Those in the machine's own memory, for all of its runs.
    let snapshots = order.snapshots.map(|_| ["--snapshots", "/snapshots"]);
    let snapshots = snapshots.into_iter().flatten().map(str::to_owned);
    let argv = std::iter::once(program.display().to_string())
        .chain(words)
        .chain(snapshots);
    let mut command = Command {
        limit: Some(order.limit),
        ..Command::new(argv)
    };
    command.env = ["RUST_LOG", "RUST_BACKTRACE"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
        .collect();
    // Both streams into one, line by line; a lock, since the two are borrowed at once.
    let both = std::cell::RefCell::new(each_line);
    let signaller = machine.signaller();
    let hear = |line: &str| {
        // A wish may have come in the moment before the command could hear it; it speaks soon after its start.
        if order.stop.wished().is_some() {
            signaller.signal_all(Signal::TERM.as_raw());
        }
        (both.borrow_mut())(line);
    };
    let (mut out, mut err) = (hear, hear);
    let for_wish = machine.signaller();
    let _under_way = order
        .stop
        .while_under_way(move |signal| for_wish.signal_all(signal.as_raw()));
    let ended = machine.run(
        &command,
        &mut Lines::new(&mut out),
        &mut Lines::new(&mut err),
    )?;
    machine.get(&run_dir, order.run_dir)?;
    if order.keep {
        machine.get(&scratch, &order.run_dir.join("disks"))?;
    }
    machine.remove(&run_dir)?;
    machine.remove(&scratch)?;
    Ok(match ended {
        Ended::Exited(0) => ChildEnd::Done,
        Ended::Exited(code) => ChildEnd::Crashed(format!("exit code {code}")),
        Ended::Killed(signal) => ChildEnd::Crashed(format!("signal {signal}")),
        Ended::LimitReached => ChildEnd::LimitReached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_a_console_log_of_its_own() {
        let first = Path::new("/runs/nested-console.log");
        assert_eq!(log_of(first, 1), first);
        assert_eq!(log_of(first, 2), Path::new("/runs/nested-console-2.log"));
    }

    #[test]
    fn the_kernels_that_were_needed_last_stay_in_a_machine() {
        let dir = |name: usize| PathBuf::from(name.to_string());
        let mut guests = VecDeque::new();
        for name in 0..GUESTS {
            assert!(make_way(&mut guests, &dir(name)).is_empty());
        }
        assert!(make_way(&mut guests, &dir(0)).is_empty(), "it is there");
        assert_eq!(make_way(&mut guests, &dir(GUESTS)), [dir(1)]);
        assert_eq!(guests.back(), Some(&dir(GUESTS)));
        let (one, other) = (Path::new("/a/vmlinux"), Path::new("/b/vmlinux"));
        assert_ne!(guest_dir(one, one), guest_dir(one, other));
        assert_ne!(guest_dir(one, one), guest_dir(other, one));
    }
}
