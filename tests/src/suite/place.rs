//! Where guests run: on this host, or in one nested machine for the whole suite.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pincushion_vmm::doctor::{KvmAbility, probe};
use pincushion_vmm::nested::{
    Command, Ended, NestedConfig, NestedError, NestedMachine, boot_files, ensure_qemu, find_qemu,
};
use rustix::process::Signal;

use super::child::{self, ChildEnd, Lines};
use super::programs::Programs;
use super::stop::Stop;

/// What the user chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PlaceChoice {
    /// The host where its KVM can run Linux, else the nested machine.
    #[default]
    Auto,
    /// The host.
    Host,
    /// The nested machine.
    Nested,
}

/// Where guests run.
pub enum Place {
    /// Here.
    Host,
    /// In a machine inside this one.
    Nested(Nested),
}

/// What a child needs, wherever it runs.
pub(super) struct ChildOrder<'a> {
    /// Names the run; unique in the suite.
    pub(super) id: &'a str,
    pub(super) run_dir: &'a Path,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    pub(super) limit: Duration,
    /// Keeps the disks' images in the run directory.
    pub(super) keep: bool,
    pub(super) stop: &'a Stop,
}

/// The nested machine, booted when it is first needed, and again after it has died.
pub struct Nested {
    machine: Mutex<Option<Arc<NestedMachine>>>,
    log: PathBuf,
}

/// Why no guest can run here at all; `None`: one can.
#[must_use]
pub fn missing_for_guests() -> Option<String> {
    let ability = probe();
    if ability.runs_stock_kernels() || find_qemu().is_ok() || rustix::process::getuid().is_root() {
        return None;
    }
    let why = match ability {
        KvmAbility::Full => return None,
        KvmAbility::PayloadsOnly { fails_at, .. } => format!("KVM here fails at {fails_at}"),
        KvmAbility::None { reason } => reason,
    };
    let nested = find_qemu()
        .err()
        .map_or(String::new(), |error| format!("; {error}"));
    Some(format!("no guest can run here: {why}{nested}"))
}

impl Place {
    /// Chooses. `log` is where the nested machine's console goes.
    #[must_use]
    pub fn choose(choice: PlaceChoice, log: PathBuf, progress: &dyn Fn(&str)) -> Self {
        let nested = |log| {
            Self::Nested(Nested {
                machine: Mutex::new(None),
                log,
            })
        };
        match choice {
            PlaceChoice::Host => Self::Host,
            PlaceChoice::Nested => nested(log),
            PlaceChoice::Auto => match probe() {
                KvmAbility::Full => Self::Host,
                KvmAbility::PayloadsOnly { fails_at, .. } => {
                    progress(&format!(
                        "this host's KVM fails at {fails_at}: guests run in the nested machine"
                    ));
                    nested(log)
                }
                KvmAbility::None { reason } => {
                    progress(&format!("{reason}: guests run in the nested machine"));
                    nested(log)
                }
            },
        }
    }

    /// As `run.toml` says it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Nested(_) => "nested",
        }
    }

    /// Runs the child of one run to its end. Its run directory is on this host afterwards.
    pub(super) fn run(
        &self,
        order: &ChildOrder<'_>,
        programs: &Programs,
        progress: &dyn Fn(&str),
        each_line: &mut dyn FnMut(&str),
    ) -> ChildEnd {
        let end = match self {
            Self::Host => run_here(order, programs, each_line),
            Self::Nested(nested) => nested.run(order, programs, progress, each_line),
        };
        // Whatever went wrong then came of the stop, as far as anybody can tell.
        match (end, order.stop.wished()) {
            (ChildEnd::Done, _) => ChildEnd::Done,
            (_, Some(_)) => ChildEnd::Stopped,
            (end, None) => end,
        }
    }
}

fn run_here(
    order: &ChildOrder<'_>,
    programs: &Programs,
    each_line: &mut dyn FnMut(&str),
) -> ChildEnd {
    let scratch = order.run_dir.join("disks");
    let mut command = process::Command::new(programs.test());
    command.args(arguments(
        order.run_dir,
        order.kernel,
        order.initrd,
        &scratch,
    ));
    command.args(["--parent", &process::id().to_string()]);
    let end = child::run(command, order.limit, order.stop, each_line);
    if !order.keep {
        // What is left there is in nobody's way.
        let _ = std::fs::remove_dir_all(&scratch);
    }
    end
}

fn arguments(
    run_dir: &Path,
    kernel: &Path,
    initrd: &Path,
    scratch: &Path,
) -> Vec<std::ffi::OsString> {
    let flag = |name: &str, path: &Path| [name.into(), path.as_os_str().to_owned()];
    let flags = [
        flag("--run-dir", run_dir),
        flag("--kernel", kernel),
        flag("--initrd", initrd),
        flag("--scratch", scratch),
    ];
    std::iter::once("run-one".into())
        .chain(flags.into_iter().flatten())
        .collect()
}

impl Nested {
    fn run(
        &self,
        order: &ChildOrder<'_>,
        programs: &Programs,
        progress: &dyn Fn(&str),
        each_line: &mut dyn FnMut(&str),
    ) -> ChildEnd {
        // Once more in a fresh machine if this one dies under the run.
        for is_last in [false, true] {
            let machine = match self.machine(programs, progress) {
                Ok(machine) => machine,
                Err(error) => return ChildEnd::NotStarted(crate::words(&error)),
            };
            if order.stop.wished().is_some() {
                return ChildEnd::Stopped;
            }
            match run_inside(&machine, order, programs, each_line) {
                Ok(end) => return end,
                // Another machine cannot help a file of this host, say on a full disk.
                Err(error @ NestedError::HostFile { .. }) => {
                    return ChildEnd::NotStarted(crate::words(&error));
                }
                Err(error) if is_last || order.stop.wished().is_some() => {
                    return ChildEnd::NotStarted(crate::words(&error));
                }
                Err(error) => {
                    progress(&format!(
                        "the nested machine failed, booting another: {}",
                        crate::words(&error)
                    ));
                    self.forget(&machine);
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The machine, booted now if there is none. Who else needs it waits.
    fn machine(
        &self,
        programs: &Programs,
        progress: &dyn Fn(&str),
    ) -> Result<Arc<NestedMachine>, NestedError> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(machine) = machine.as_ref() {
            return Ok(machine.clone());
        }
        ensure_qemu(progress)?;
        let (kernel, initrd) = boot_files(&programs.nested_agent(), progress)?;
        let config = NestedConfig {
            log: Some(self.log.clone()),
            ..NestedConfig::new(kernel, initrd)
        };
        let booted = NestedMachine::boot(&config, progress).or_else(|error| {
            progress(&format!("{}; trying once more", crate::words(&error)));
            NestedMachine::boot(&config, progress)
        })?;
        let booted = Arc::new(booted);
        *machine = Some(booted.clone());
        Ok(booted)
    }

    /// Lets a dead machine go, unless somebody has replaced it already.
    fn forget(&self, dead: &Arc<NestedMachine>) {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if machine
            .as_ref()
            .is_some_and(|machine| Arc::ptr_eq(machine, dead))
        {
            *machine = None;
        }
    }
}

fn run_inside(
    machine: &NestedMachine,
    order: &ChildOrder<'_>,
    programs: &Programs,
    each_line: &mut dyn FnMut(&str),
) -> Result<ChildEnd, NestedError> {
    let inside = |root: &str| Path::new(root).join(order.id);
    let (run_dir, scratch) = (inside("/runs"), inside("/scratch"));
    let program = Path::new("/bin/pincushion-test");
    machine.put_if_changed(&programs.test(), program, 0o755)?;
    let (kernel, initrd) = (run_dir.join("kernel"), run_dir.join("initrd"));
    machine.put_if_changed(order.kernel, &kernel, 0o644)?;
    machine.put_if_changed(order.initrd, &initrd, 0o644)?;
    for name in ["run.toml", "scenario.toml"] {
        machine.put(&order.run_dir.join(name), &run_dir.join(name), 0o644)?;
    }
    let words = arguments(&run_dir, &kernel, &initrd, &scratch);
    let words = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned());
    let argv = std::iter::once(program.display().to_string()).chain(words);
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
    machine.remove(&kernel)?;
    machine.remove(&initrd)?;
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
