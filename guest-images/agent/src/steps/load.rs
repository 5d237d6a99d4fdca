//! A mixed file-system load that checks itself.
//!
//! Each thread has a directory and some files of its own and keeps in memory what each file must
//! hold. It promises to find a wrong byte that a read, a mapped load or an O_DIRECT read sees; it
//! does not look at metadata, and what the disk holds after a crash is for the host to judge.
//! Which operations come is a function of the seed; how many come in the time is not.

mod clone;
mod device;
mod file;
mod random;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pincushion_abi::Fault;
use pincushion_abi::step::FsLoad;

use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use clone::Clones;
use device::Device;
use file::LoadFile;
use random::Random;

/// Files per thread.
const FILES: usize = 6;
/// How many of a hundred operations are transfers of the device, if there is one.
const DIRECT_PERCENT: usize = 25;
/// Most threads.
const MAX_THREADS: u32 = 16;
/// How many wrong things a thread finds before it ends: a file system that is read-only by then has nothing more to say.
const MAX_WRONG: u64 = 100;

/// What a thread did.
#[derive(Debug, Default)]
pub struct Done {
    operations: u64,
    bytes_checked: u64,
    disk_full: u64,
    direct: u64,
    clones: Clones,
    /// How often something was wrong, and the first of it.
    wrong: u64,
    first_wrong: Option<Fault>,
}

impl Done {
    /// Notes what came of one more operation, which checked that many bytes. `false`: the file is of no use any more.
    fn note(&mut self, outcome: Result<u64, Trouble>) -> bool {
        let usable = outcome.is_ok();
        match outcome {
            Ok(checked) => self.bytes_checked += checked,
            Err(Trouble::DiskFull) => self.disk_full += 1,
            Err(Trouble::Wrong(fault)) => {
                self.wrong += 1;
                let number = self.operations;
                self.first_wrong
                    .get_or_insert_with(|| at_operation(fault, number));
            }
        }
        self.operations += 1;
        usable
    }

    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.bytes_checked += other.bytes_checked;
        self.disk_full += other.disk_full;
        self.direct += other.direct;
        self.clones.kept += other.clones.kept;
        self.clones.refused += other.clones.refused;
        self.wrong += other.wrong;
        self.first_wrong = self.first_wrong.take().or(other.first_wrong);
    }

    fn found(self) -> StepResult {
        match self.first_wrong {
            Some(first) => Err(Fault {
                name: format!("{}; {} wrong in all", first.name, self.wrong),
                ..first
            }),
            None => Ok(Found::nothing()
                .number("operations", self.operations)
                .number("bytes_checked", self.bytes_checked)
                .number("disk_full", self.disk_full)
                .number("direct", self.direct)
                .number("clones", self.clones.kept)
                .number("clones_refused", self.clones.refused)),
        }
    }
}

/// Why an operation did not end well.
#[derive(Debug)]
pub enum Trouble {
    /// A wrong byte, or a call that failed: what the load looks for.
    Wrong(Fault),
    /// ENOSPC, which is no fault: the file's content is open, so the file is given up.
    DiskFull,
}

/// Runs the load.
pub fn run(stamp: &mut Stamp<'_>, wanted: &FsLoad) -> StepResult {
    let FsLoad {
        dir,
        seconds,
        seed,
        threads,
        device,
        clones,
    } = wanted;
    if *clones && device.is_none() {
        return Err(sentence(
            "fs-load",
            "files are cloned while a device transfers: give `device` beside `clones`",
        ));
    }
    if *threads == 0 || *threads > MAX_THREADS {
        return Err(sentence(
            "fs-load",
            format!("{threads} threads: give 1 to {MAX_THREADS}"),
        ));
    }
    let parts = (0..*threads).map(|number| {
        let open = |path| {
            let mut device = Device::open(path, number, *threads)?;
            device.clones = clones.then(Clones::default);
            Ok::<_, Fault>(device)
        };
        device.as_deref().map(open).transpose()
    });
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let until = Instant::now() + Duration::from_secs((*seconds).min(24 * 3600));
    let stop = AtomicBool::new(false);
    let results: Vec<Result<Done, Fault>> = stamp.around(|| {
        thread::scope(|scope| {
            let started: Vec<_> = (0..*threads)
                .zip(parts)
                .map(|(number, device)| {
                    let own = Path::new(dir).join(format!("load-{number}"));
                    let random = Random::new(seed ^ u64::from(number) << 32);
                    let stop = &stop;
                    scope.spawn(move || one_thread(&own, random, device, until, stop))
                })
                .collect();
            started
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(sentence("fs-load", "a thread panicked")))
                })
                .collect()
        })
    });
    let mut total = Done::default();
    for done in results {
        total.add(done?);
    }
    total.found()
}

fn one_thread(
    dir: &Path,
    mut random: Random,
    mut device: Option<Device>,
    until: Instant,
    stop: &AtomicBool,
) -> Result<Done, Fault> {
    let made = std::fs::create_dir_all(dir).map_err(|error| fault::io("mkdir", &error));
    made.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
    let mut files: [Option<LoadFile>; FILES] = [const { None }; FILES];
    let mut done = Done::default();
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let slot = random.below(FILES);
        let outcome = match (&mut device, &mut files[slot]) {
            (Some(device), Some(file)) if random.below(100) < DIRECT_PERCENT => {
                device.transfer(file, &mut random).map(|moved| {
                    done.direct += u64::from(moved);
                    0
                })
            }
            (_, file) => one_operation(dir, slot, file, &mut random),
        };
        // What a file holds after that is open, so the next one is another file.
        if !done.note(outcome)
            && let Err(fault) = give_up(&mut files[slot])
        {
            done.note(Err(Trouble::Wrong(fault)));
        }
        if done.wrong >= MAX_WRONG {
            stop.store(true, Ordering::Relaxed);
        }
    }
    for file in files.iter_mut().flatten() {
        done.note(file.check_from_disk());
    }
    done.clones = device.and_then(|device| device.clones).unwrap_or_default();
    Ok(done)
}

/// One operation on one file; gives the number of bytes that were checked.
fn one_operation(
    dir: &Path,
    slot: usize,
    file: &mut Option<LoadFile>,
    random: &mut Random,
) -> Result<u64, Trouble> {
    let Some(open) = file else {
        *file = Some(LoadFile::create(
            dir.join(format!("file-{slot}-{}", random.below(4))),
        )?);
        return Ok(0);
    };
    match random.below(100) {
        0..35 => open.write(random)?,
        35..50 => return open.check_by_read(),
        50..60 => open.store_mapped(random)?,
        60..68 => return open.check_mapped(),
        68..74 => open.resize(random)?,
        74..80 => open.sync(random)?,
        80..86 => return open.check_from_disk(),
        86..92 => return open.check_direct(),
        92..96 => open.rename(dir.join(format!("file-{slot}-{}", random.below(4))))?,
        _ => give_up(file).map_err(Trouble::Wrong)?,
    }
    Ok(0)
}

fn give_up(file: &mut Option<LoadFile>) -> Result<(), Fault> {
    match file.take() {
        Some(file) => file.unlink(),
        None => Ok(()),
    }
}

fn at_operation(fault: Fault, number: u64) -> Fault {
    Fault {
        name: format!("{} (operation {number} of its thread)", fault.name),
        ..fault
    }
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn no_threads_or_too_many_are_refused() {
        let bench = Bench::new();
        for threads in [0, 17] {
            let step = json!({"op": "fs-load", "dir": bench.path(""), "seconds": 0, "seed": 1, "threads": threads});
            assert!(bench.fails(step).name.contains("give 1 to 16"));
        }
    }

    #[test]
    fn clones_without_a_device_are_refused() {
        let bench = Bench::new();
        let step = json!({"op": "fs-load", "dir": bench.path(""), "seconds": 0, "seed": 1, "clones": true});
        assert!(
            bench
                .fails(step)
                .name
                .contains("give `device` beside `clones`")
        );
    }

    #[test]
    fn a_load_without_time_makes_its_directories_and_ends() {
        let bench = Bench::new();
        let found =
            bench.ok(json!({"op": "fs-load", "dir": bench.path("d"), "seconds": 0, "seed": 1}));
        assert_eq!(found["operations"], Value::Number(0));
        assert!(bench.has("d/load-0") && bench.has("d/load-1"));
    }
}
