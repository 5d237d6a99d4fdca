//! Where guests run: on this host, or in nested machines that the whole suite shares.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use pincushion_image::{ensure_host_programs, host_program, is_of_a_crate};
use pincushion_vmm::doctor::{KvmAbility, probe};
use pincushion_vmm::nested::find_qemu;

use super::child::{self, ChildEnd};
use super::images::missing_build;
use super::nested::Nested;
use super::programs::Programs;
use super::seats::Taken;
use super::stop::Stop;
use crate::scenario::Scenario;

/// What `run.toml` says of a run in a nested machine.
pub const NESTED: &str = "nested";
/// What it says where that machine's clock counted instructions.
pub const COUNTING: &str = "nested, counting instructions";

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
    /// In machines inside this one.
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
    /// Programs of the host that it calls.
    pub(super) programs: &'a [&'static str],
    /// Keeps the disks' images in the run directory.
    pub(super) keep: bool,
    /// Where snapshots of booted guests are kept, on this host; `None`: every guest boots.
    pub(super) snapshots: Option<&'a Path>,
    /// Times are what it is about, and it runs alone: a nested machine has the clock that the host's load is not in.
    pub(super) measures: bool,
    /// Which of the nested machines, where guests run in such.
    pub(super) seat: &'a Taken<'a>,
    pub(super) stop: &'a Stop,
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

/// Why this one scenario cannot run here on this kernel, though others can; `None`: it can.
#[must_use]
pub fn missing_for(scenario: &Scenario, kernel: &str) -> Option<String> {
    if let Some(why) = missing_build(scenario, kernel) {
        return Some(why);
    }
    let is_root = rustix::process::geteuid().is_root();
    if scenario.mounts_xfs() {
        if !is_root {
            return Some("an xfs image is mounted to replay its log, which needs root".into());
        }
        if !knows_xfs() {
            return Some("an xfs image is mounted to replay its log, and this host's kernel has no xfs (`modprobe xfs`)".into());
        }
    }
    if is_root {
        return None;
    }
    // What comes from a crate anybody may build.
    let in_guest = scenario.vm.programs.iter().map(String::as_str);
    let in_guest = in_guest.filter(|name| !is_of_a_crate(name));
    let mut programs = scenario.host_programs().into_iter().chain(in_guest);
    programs.find_map(|name| host_program(name).err().map(|error| crate::words(&error)))
}

fn knows_xfs() -> bool {
    let is_known = || {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.split_whitespace().any(|name| name == "xfs")
    };
    // Whether it did its work is asked of the kernel.
    is_known()
        || (Command::new("modprobe")
            .args(["-q", "xfs"])
            .status()
            .is_ok()
            && is_known())
}

impl Place {
    /// Chooses. `log` is where the console of the (first) nested machine goes.
    #[must_use]
    pub fn choose(choice: PlaceChoice, log: PathBuf, progress: &dyn Fn(&str)) -> Self {
        let nested = |log| Self::Nested(Nested::new(log));
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

    /// As `run.toml` says it of a run that measures, or does not.
    #[must_use]
    pub fn name(&self, measures: bool) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Nested(_) if measures => COUNTING,
            Self::Nested(_) => NESTED,
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
        if let Err(error) = ensure_host_programs(order.programs, progress) {
            return ChildEnd::NotStarted(crate::words(&error));
        }
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
    if let Some(dir) = order.snapshots {
        command.arg("--snapshots").arg(dir);
    }
    let end = child::run(command, order.limit, order.stop, each_line);
    if !order.keep {
        // What is left there is in nobody's way.
        let _ = std::fs::remove_dir_all(&scratch);
    }
    end
}

pub(super) fn arguments(
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
