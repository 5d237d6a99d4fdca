//! The words of the machine's users: what it is made of, a command for it, and how that ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::host_memory;

/// What time is in the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The host's.
    #[default]
    Host,
    /// A nanosecond is one instruction that was executed there, and waiting for a timer takes no time at all: times compare how much was
    /// executed, and what else the host does is not in them. For one CPU; some slower.
    Instructions,
}

/// What the machine is made of.
#[derive(Clone, Debug)]
pub struct NestedConfig {
    /// Memory in MiB. Files that are put there live in it too.
    pub memory_mib: u32,
    /// Emulated CPUs; each can use one of the host's. With more than one, kernels that rewrite their own code are now and then lost.
    pub vcpus: u32,
    /// The kernel, as an ELF `vmlinux` with a PVH note.
    pub kernel: PathBuf,
    /// The initramfs: the agent as `/init`, and the modules of KVM.
    pub initrd: PathBuf,
    /// How long it may take until the agent answers.
    pub boot_limit: Duration,
    /// What time is in there.
    pub clock: Clock,
    /// Where the console goes; its last lines are kept for messages in any case.
    pub log: Option<PathBuf>,
}

/// A quarter of the host's memory, 3 GiB at least and 6 GiB at most: a suite runs two such machines, and keeps snapshots in them.
#[must_use]
pub(super) fn default_memory_mib() -> u32 {
    let quarter = host_memory::total().map_or(0, |bytes| bytes / (4 << 20));
    quarter.clamp(3072, 6144) as u32
}

impl NestedConfig {
    /// A quarter of the host's memory, 3 to 6 GiB; one CPU, two minutes to boot, no log.
    #[must_use]
    pub fn new(kernel: PathBuf, initrd: PathBuf) -> Self {
        Self {
            memory_mib: default_memory_mib(),
            vcpus: 1,
            kernel,
            initrd,
            boot_limit: Duration::from_secs(120),
            clock: Clock::default(),
            log: None,
        }
    }
}

/// A command for the machine. Its standard input is empty.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The program, looked for in the machine's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Added to the agent's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory, made if it is missing; `None`: the root.
    pub cwd: Option<PathBuf>,
    /// After this time on the host's clock it is asked to end (SIGTERM), and a little later killed with all its processes.
    pub limit: Option<Duration>,
}

impl Command {
    /// A command without any extras.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    pub(super) fn name(&self) -> String {
        self.argv.first().cloned().unwrap_or_default()
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// By its limit: it was still there when the time was over.
    LimitReached,
}
