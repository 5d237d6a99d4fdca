//! One run from its order to its summary; and many of them, some at a time.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::child::ChildEnd;
use super::images::{GuestImage, Images, Wanted};
use super::outcome::{judged, not_applicable, says_nothing, setup_error};
use super::place::{ChildOrder, Place};
use super::programs::Programs;
use super::seats::{Seats, Taken, likeness, threads_for};
use super::selection::{Item, WARM_UP};
use super::stop::Stop;
use super::storage::unix_seconds;
use crate::report::{AboutScenario, RunSummary};
use crate::rundir::{RunDir, RunInfo, replay_line};
use crate::runner::look_and_tell;
use crate::scenario::model::KernelFormat;
use crate::scenario::{Comparison, compare_on, expected_for};
use crate::verdict::{Expectation, Judgement, Verdict};

/// How much longer than its scenario's limit a child may take: for making disks, and for looking at them.
const GRACE: Duration = Duration::from_secs(120);

/// Hears what happens. Called from several threads.
pub trait Progress: Sync {
    /// Something takes its time: a download, a boot of the nested machine.
    fn note(&self, text: &str);
    /// A line of a run.
    fn line(&self, item: &Item, line: &str);
    /// A run has begun.
    fn began(&self, item: &Item);
    /// A run has ended; `surprise` says what was not as expected.
    fn ended(&self, item: &Item, summary: &RunSummary, surprise: Option<&str>);
}

/// What all runs of a suite share.
pub struct Suite {
    programs: Programs,
    images: Images,
    place: Place,
    dir: PathBuf,
    commit: String,
    stop: Stop,
    seats: Seats,
    /// See [`Self::enough`].
    is_enough: AtomicBool,
    /// Names all random choices of all runs.
    pub seed: u64,
    /// Keeps disk images.
    pub keep: bool,
    /// After a run of which this is true no other begins.
    pub enough: Option<fn(&RunSummary) -> bool>,
    /// Boots every guest, instead of going on from a snapshot of one like it.
    pub fresh: bool,
}

/// One try of a run.
struct Attempt<'a> {
    /// Name of its directory.
    id: &'a str,
    /// The guest boots, also where there is a snapshot.
    fresh: bool,
    /// Where it runs.
    seat: &'a Taken<'a>,
}

impl Suite {
    /// A suite whose runs go to `dir`, so many guests at once, whoever asks for them.
    #[must_use]
    pub fn new(programs: Programs, place: Place, dir: PathBuf, guests_at_once: usize) -> Self {
        Self {
            programs,
            images: Images::default(),
            place,
            dir,
            commit: super::workspace_commit(),
            stop: Stop::default(),
            seats: Seats::new(guests_at_once),
            is_enough: AtomicBool::new(false),
            seed: 0,
            keep: false,
            enough: None,
            fresh: false,
        }
    }

    /// By this, another thread stops the suite.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Does all items, `jobs` at a time: one after the other if it is one, else those after another that can go on from the same
    /// snapshot. The summaries are in the items' order; `None`: a stop came before that run had ended.
    pub fn run_all(
        &self,
        items: &[Item],
        jobs: usize,
        progress: &dyn Progress,
    ) -> Vec<Option<RunSummary>> {
        self.seats.provide(jobs);
        let next = AtomicUsize::new(0);
        let done = Mutex::new(vec![None; items.len()]);
        std::thread::scope(|scope| {
            for _ in 0..threads_for(jobs).min(items.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(index) else { return };
                        let summary = self.run(item, progress);
                        done.lock().expect("nobody panics with it")[index] = summary;
                    }
                });
            }
        });
        done.into_inner().expect("all threads have ended")
    }

    /// Does one item, as soon as there is a seat for it. `None`: a stop came before it had ended (its directory then holds what there
    /// was, without a verdict), or it was [`Self::enough`] already.
    pub fn run(&self, item: &Item, progress: &dyn Progress) -> Option<RunSummary> {
        let like = likeness(&item.scenario, &item.kernel).filter(|_| !self.fresh);
        let seat = self.seats.take(like);
        if self.stop.wished().is_some() || self.is_enough.load(Ordering::Relaxed) {
            return None;
        }
        progress.began(item);
        let began = Instant::now();
        let mut info = RunInfo {
            scenario: item.scenario.name.clone(),
            scenario_file: item.file.clone(),
            kernel: item.kernel.clone(),
            seed: self.seed,
            commit: self.commit.clone(),
            place: self.place.name(measures(item, &seat)).into(),
            repeat: item.repeat,
            began_unix_s: unix_seconds(),
            ..RunInfo::default()
        };
        let expectation = expected_for(&item.scenario.expect, &item.kernel).cloned();
        let expectation = expectation.unwrap_or(Expectation {
            verdict: Verdict::Pass,
            oracles: Vec::new(),
        });
        let expected = expectation.verdict;
        let (path, judgement) = match item.scenario.why_not_for(&item.kernel) {
            Some(why) => (self.dir.join(run_id(item)), not_applicable(why)),
            None => self.produce_patiently(item, &mut info, expected, &seat, progress)?,
        };
        let comparison = compare_on(&item.scenario, &item.kernel, &judgement);
        let summary = RunSummary {
            scenario: item.scenario.name.clone(),
            repeat: item.repeat,
            summary: item.scenario.summary.clone(),
            about: AboutScenario {
                number: item.scenario.number.clone(),
                promises: item.scenario.promises.clone(),
                file_systems: item.scenario.file_systems(),
            },
            kernel: item.kernel.clone(),
            kernel_release: info.kernel_release.clone(),
            run_dir: path,
            judgement,
            expectation,
            as_expected: comparison == Comparison::AsExpected,
            seconds: began.elapsed().as_secs_f64(),
            replay: replay_line(&info),
        };
        let surprise = match &comparison {
            Comparison::AsExpected => None,
            Comparison::Surprise(what) => Some(what.as_str()),
        };
        progress.ended(item, &summary, surprise);
        if self.enough.is_some_and(|enough| enough(&summary)) {
            self.is_enough.store(true, Ordering::Relaxed);
        }
        Some(summary)
    }

    /// The run, and once more in the nested machine, whose time is not a computer's, if the first try says nothing about the kernel. Nothing
    /// is hidden: the first try keeps its directory and is told, and the second one counts, whatever comes of it. `None`: stopped.
    fn produce_patiently(
        &self,
        item: &Item,
        info: &mut RunInfo,
        expected: Verdict,
        seat: &Taken<'_>,
        progress: &dyn Progress,
    ) -> Option<(PathBuf, Judgement)> {
        let id = run_id(item);
        let path = self.dir.join(&id);
        let first = Attempt {
            id: &id,
            fresh: self.fresh,
            seat,
        };
        let judgement = self.produce(item, &first, info, progress)?;
        let why = match says_nothing(&judgement, expected) {
            Some(why) if matches!(self.place, Place::Nested(_)) => why,
            _ => return Some((path, judgement)),
        };
        progress.note(&format!(
            "{id}: {why}{}; trying once more, the first try is in {}",
            judgement.reason,
            path.display()
        ));
        let again = Attempt {
            id: &format!("{id}-again"),
            // Whatever was wrong with a snapshot is not to be wrong again.
            fresh: true,
            seat,
        };
        let judgement = self.produce(item, &again, info, progress)?;
        Some((self.dir.join(again.id), judgement))
    }

    /// The run itself: evidence first, then the judgement from it. `None`: stopped.
    fn produce(
        &self,
        item: &Item,
        attempt: &Attempt<'_>,
        info: &mut RunInfo,
        progress: &dyn Progress,
    ) -> Option<Judgement> {
        let path = &self.dir.join(attempt.id);
        let note = |text: &str| progress.note(text);
        let wanted = Wanted::of(&item.scenario, &item.kernel);
        let image = self.images.get(wanted, &self.programs, &note);
        let image = match image {
            Ok(image) => image,
            Err(_) if self.stop.wished().is_some() => return None,
            Err(why) => {
                return Some(setup_error(format!(
                    "no guest image of {}: {why}",
                    item.kernel
                )));
            }
        };
        describe(info, &image);
        let kernel = match (item.scenario.vm.format, &image.bzimage) {
            (KernelFormat::Bzimage, Some(bzimage)) => bzimage,
            (KernelFormat::Bzimage, None) => {
                return Some(setup_error(format!(
                    "kernel {} has no bzImage",
                    item.kernel
                )));
            }
            (KernelFormat::Elf | KernelFormat::Garbage, _) => &image.vmlinux,
        };
        let dir = match RunDir::create(path, info, &item.scenario) {
            Ok(dir) => dir,
            Err(error) => return Some(setup_error(error.to_string())),
        };
        let snapshots = self.dir.join("snapshots");
        let order = ChildOrder {
            id: attempt.id,
            run_dir: path,
            kernel,
            initrd: &image.initrd,
            limit: Duration::from_secs(item.scenario.vm.limit_s) + GRACE,
            programs: &item.scenario.host_programs(),
            keep: self.keep,
            snapshots: (!attempt.fresh).then_some(snapshots.as_path()),
            measures: measures(item, attempt.seat),
            seat: attempt.seat,
            stop: &self.stop,
        };
        let mut log = std::fs::File::create(dir.file("child.log")).ok();
        let end = self.place.run(&order, &self.programs, &note, &mut |line| {
            if let Some(log) = &mut log {
                // The child's words are a convenience; the evidence is the event log.
                let _ = writeln!(log, "{line}");
            }
            progress.line(item, line);
        });
        if end == ChildEnd::Stopped {
            return None;
        }
        if end == ChildEnd::Done
            && let Err(error) = look_and_tell(&dir, &item.scenario, info.seed)
        {
            return Some(setup_error(format!(
                "cannot tell what power cuts may leave: {error}"
            )));
        }
        let judgement = judged(path, &end);
        if let Err(error) = dir.write_judgement(&judgement) {
            log::error!("{error}");
        }
        Some(judgement)
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        // They are of no use to anybody later. Mostly there are none on this host.
        let _ = std::fs::remove_dir_all(self.dir.join("snapshots"));
    }
}

/// Whether what a run takes is measured, which says something only of one that runs alone.
fn measures(item: &Item, seat: &Taken<'_>) -> bool {
    item.scenario.measures() && seat.is_the_only_one()
}

fn describe(info: &mut RunInfo, image: &GuestImage) {
    info.kernel_release.clone_from(&image.release);
    info.kernel_package.clone_from(&image.package);
    info.kernel_parameters.clone_from(&image.parameters);
    info.image_digest.clone_from(&image.digest);
}

/// Names a run in its suite, and its directory.
fn run_id(item: &Item) -> String {
    let kernel: String = item
        .kernel
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".+-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let kernel = kernel.trim_matches(['-', '.']);
    let repeat = match item.repeat {
        WARM_UP => "-warm-up".to_owned(),
        1 => String::new(),
        repeat => format!("-{repeat}"),
    };
    format!("{}@{kernel}{repeat}", item.scenario.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kernel: &str, repeat: u32) -> Item {
        let scenario = crate::scenario::catalogue::all()
            .unwrap()
            .remove(0)
            .scenario;
        Item {
            scenario,
            file: None,
            kernel: kernel.into(),
            repeat,
        }
    }

    #[test]
    fn a_run_is_named_by_scenario_kernel_and_count() {
        let name = item("x", 1).scenario.name;
        assert_eq!(
            run_id(&item("debian:6.12", 1)),
            format!("{name}@debian-6.12")
        );
        assert_eq!(
            run_id(&item("./my kernel/vmlinux", 3)),
            format!("{name}@my-kernel-vmlinux-3")
        );
    }
}
