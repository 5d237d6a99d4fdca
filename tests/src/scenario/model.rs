//! A scenario as its file spells it. Plain data; what may not be combined is refused by `check.rs`.
//!
//! Texts may hold `${...}`: see `interpolate.rs`.

use std::collections::BTreeMap;

use pincushion_devices::trace::event::Fetch;
use pincushion_vmm::config::{CpuList, Transport};
use serde::{Deserialize, Serialize};

pub use super::awaited::{Await, Awaited};
pub use super::content::{Content, DiskFile};
use super::control_step::ControlStep;
use super::power_cut::PowerCut;
use crate::verdict::{Expectation, Promise};

pub use super::host_step::{BalloonAct, HostCheck, InjectStep, LinkStep};

/// A whole scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Its name: the file's name without `.toml`.
    pub name: String,
    /// One line: what happens and what it shows.
    pub summary: String,
    /// Its permanent number in the catalogue, for example `S11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// `demo`, `quick`, `control`, `selftest`, `soak`, ...
    #[serde(default)]
    pub tags: Vec<String>,
    /// The promises that it examines.
    #[serde(default)]
    pub promises: Vec<Promise>,
    /// Functions of the kernel that it is about: `mm/gup.c: try_grab_folio`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aims_at: Vec<String>,
    /// Why these come to what is expected, in whole sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Kernels that it applies to.
    #[serde(default = "newest_kernel")]
    pub kernels: Vec<String>,
    /// Kernels that it does not apply to, and why: there it is not run, whoever asks for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_for: BTreeMap<String, String>,
    /// The built-in scenario that this is, with other words and with these rules before its own; none once the file was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub based_on: Option<String>,
    /// Values of `${set.KEY}`; empty once the file was read.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub set: toml::Table,
    /// The scenarios that the file is, if more than one; empty once the file was read.
    #[serde(default, rename = "variant", skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<super::variant::Variant>,
    /// The machine.
    #[serde(default)]
    pub vm: Vm,
    /// What is expected, by kernel (`debian:6.12`) or `default`; at least one.
    #[serde(default)]
    pub expect: BTreeMap<String, Expectation>,
    /// Its disks, in the order in which the guest sees them.
    #[serde(default, rename = "disk")]
    pub disks: Vec<Disk>,
    /// Its network cards, in the order in which the guest sees them, each with an `id`.
    #[serde(default, rename = "net", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<pincushion_vmm::config::NetConfig>,
    /// A memory balloon of the name `balloon`; its module is not loaded by itself (`load-module` of `virtio_balloon`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// Its regions of persistent memory, in the order in which the guest sees them.
    #[serde(default, rename = "pmem", skip_serializing_if = "Vec::is_empty")]
    pub pmems: Vec<Pmem>,
    /// What is asked of power cuts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_cut: Option<PowerCut>,
    /// Rules of the fault plan, exactly as `pincushion_devices::fault::plan::Rule`, with `${...}`.
    #[serde(default, rename = "rule")]
    pub rules: Vec<toml::Value>,
    /// The choreography.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

impl Scenario {
    /// The file systems of its disks and regions, each once; regions are mapped by DAX.
    #[must_use]
    pub fn file_systems(&self) -> Vec<String> {
        let disks = self.disks.iter().map(|disk| (disk.content, ""));
        let regions = self.pmems.iter().map(|region| (region.content, " dax"));
        let mut names: Vec<String> = disks
            .chain(regions)
            .filter_map(|(content, how)| Some(format!("{}{how}", content.file_system()?)))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The kernel's names of the file systems of its disks and regions, each once; their modules are called so, too.
    #[must_use]
    pub fn file_system_modules(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.contents().filter_map(Content::file_system).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Those of [`Self::file_system_modules`] that may have to be loaded in a guest with this kernel: ours have the file systems built in.
    #[must_use]
    pub fn modules_to_load(&self, kernel: &str) -> Vec<&'static str> {
        if kernel.starts_with("design:") {
            Vec::new()
        } else {
            self.file_system_modules()
        }
    }

    /// Whether it is about what something takes.
    #[must_use]
    pub fn measures(&self) -> bool {
        self.tags.iter().any(|tag| tag == crate::designs::TAG_COST)
    }

    /// Whether its guest boots in any case, and leaves no snapshot for others.
    #[must_use]
    pub fn boots_by_itself(&self) -> bool {
        let vm = &self.vm;
        vm.fresh
            || vm.initrd != Initrd::Agent
            // It would be as large as they are.
            || !vm.programs.is_empty()
            || vm.format == KernelFormat::Garbage
            || self.tags.iter().any(|tag| tag == "boot")
    }

    /// What is on its disks and regions at first.
    pub(super) fn contents(&self) -> impl Iterator<Item = Content> {
        let disks = self.disks.iter().map(|disk| disk.content);
        disks.chain(self.pmems.iter().map(|region| region.content))
    }
}

fn newest_kernel() -> Vec<String> {
    vec!["debian:6.12".into()]
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Vm {
    /// vCPUs, 1 to 16.
    pub cpus: u8,
    /// RAM, with K, M or G.
    pub memory: String,
    /// Added to the kernel command line.
    pub cmdline: String,
    /// Which of the kernel's files is booted.
    pub format: KernelFormat,
    /// The initial RAM disk.
    pub initrd: Initrd,
    /// Programs of the host that are in it with their libraries, for `exec`; what is missing on the host is installed for root.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// How the guest finds its devices: `pci` or `mmio`.
    pub transport: Transport,
    /// Threads that serve the devices' queues, 1 to 64.
    pub workers: u8,
    /// A CPU of the host for each vCPU, as `0,2-4`; empty: anywhere.
    pub cpu_affinity: CpuList,
    /// A virtio console of the name `hvc0`, as in the guest; which some kernels have as a module: `load-module` of `virtio_console`.
    pub virtio_console: bool,
    /// A control socket, for `control` steps.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub control: bool,
    /// Longest time of the whole run in seconds, on the host's clock.
    pub limit_s: u64,
    /// The guest boots by itself, also where there is a snapshot of one like it.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub fresh: bool,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            cpus: 2,
            memory: "512M".into(),
            cmdline: String::new(),
            format: KernelFormat::Elf,
            initrd: Initrd::Agent,
            programs: Vec::new(),
            transport: Transport::default(),
            workers: 1,
            cpu_affinity: CpuList::default(),
            virtio_console: false,
            control: false,
            limit_s: 420,
            fresh: false,
        }
    }
}

/// Which of a kernel's files is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelFormat {
    /// The unpacked `vmlinux`.
    Elf,
    /// The file as the distribution ships it.
    Bzimage,
    /// For a self-test: a file that is no kernel.
    Garbage,
}

/// What the guest gets as its initial RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initrd {
    /// Our agent as PID 1.
    Agent,
    /// The same, with the kernel's own selftests of pinned pages in `/selftests` (`pincushion image kernel selftests`).
    Selftests,
    /// For a self-test: none, so that the guest finds no root.
    None,
}

/// A virtio-blk disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// Its name in rules, events and `${disk.ID}`.
    pub id: String,
    /// Its size, with K, M or G; a multiple of 512 bytes.
    pub size: String,
    /// What is on it at first.
    pub content: Content,
    /// Files that an ext4 or xfs disk holds at first; on ext4 `${sectors.ID:PATH}` says where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<DiskFile>,
    /// When a write's payload is read, unless a rule says otherwise.
    #[serde(default)]
    pub fetch: Fetch,
    /// Whether writes are refused.
    #[serde(default)]
    pub read_only: bool,
    /// How the image is read and written.
    #[serde(default)]
    pub backend: Backend,
    /// Number of queues; more than one need the backend `file` or `uring`.
    #[serde(default = "one_queue")]
    pub queues: u16,
}

fn one_queue() -> u16 {
    1
}

/// The balloon's name in rules and events.
pub const BALLOON: &str = "balloon";

/// The virtio console's name in rules and events.
pub const CONSOLE: &str = "hvc0";

/// A memory balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Balloon {
    /// Size at first, with K, M or G.
    pub target: String,
    /// Whether the guest may report free pages.
    pub reporting: bool,
    /// Whether the guest may take pages back when it is short of memory.
    pub deflate_on_oom: bool,
}

impl Default for Balloon {
    fn default() -> Self {
        Self {
            target: "0".into(),
            reporting: true,
            deflate_on_oom: true,
        }
    }
}

/// A virtio-pmem region: a file in guest memory, which fsdax maps into programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pmem {
    /// Its name in events, facts and `${pmem.ID}`.
    pub id: String,
    /// Its size, with M or G; a multiple of 2 MiB.
    pub size: String,
    /// What is in it at first.
    pub content: Content,
    /// Files that an ext4 or xfs region holds at first; on ext4 `${sectors.ID:PATH}` says where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<DiskFile>,
}

impl Pmem {
    /// Its image is made, checked and looked at as that of a disk.
    #[must_use]
    pub fn as_disk(&self) -> Disk {
        Disk {
            id: self.id.clone(),
            size: self.size.clone(),
            content: self.content,
            files: self.files.clone(),
            fetch: Fetch::default(),
            read_only: false,
            backend: Backend::default(),
            queues: 1,
        }
    }
}

/// How a disk image is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Positioned system calls.
    #[default]
    File,
    /// io_uring.
    Uring,
    /// Memory; the image gets what is flushed, and loses the rest, as by a power cut at the end.
    Volatile,
}

/// One step. Exactly one of `guest`, `await`, `gate`, `link`, `inject`, `type`, `join`, `reboot`, `power-off`, `fact`, `balloon`, `control`, `host`
/// and `include`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// What a reader of the progress sees; absent: made from the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub say: Option<String>,
    /// Gives the step's values a name: `${NAME.value}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In a file with variants: only these have the step; with `!` before each name, all but these. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// How long it may take in seconds; absent: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_s: Option<u64>,

    /// The agent does this: a table of `pincushion_abi::Step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<toml::Table>,
    /// For `guest`: the agent's thread. The scenario goes on at once; `join` waits for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// For `guest`: what must come of it; absent: that it succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// For `guest`: what a kernel lacks that refuses the call (ENOSYS, EOPNOTSUPP, ENOTTY, ENODEV, EINVAL): the run is then not applicable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// For `guest`: a kernel may refuse it with this errno, by name, as well as do it; then `${NAME.refused}` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_refuse: Option<String>,
    /// It is there only when this value is true, or with `!` before it false: `NAME.refused`, or another that a step found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// For `guest`: nobody waits for its answer (the machine ends before, or it may never come).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub abandon: bool,

    /// Waits until something happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#await: Option<Await>,
    /// Opens a gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// Plugs the cable of a network card in, or pulls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkStep>,
    /// Frames come in at a card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inject: Option<InjectStep>,
    /// The host types this into the virtio console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Waits for the answer of the `guest` step of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// The guest reboots, without sync, and the agent of its next boot answers.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub reboot: bool,
    /// The guest syncs and powers off. Implied at the end of the steps.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub power_off: bool,
    /// Writes a fact into the log (docs/oracles.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact: Option<Fact>,
    /// Asks the machine's control socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlStep>,
    /// The host asks something of the balloon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonAct>,
    /// Looks at a disk image; the machine has ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostCheck>,
    /// The steps of `parts/NAME.toml` stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
    /// For `include`: values of `${set.KEY}` in the part, before those of the file.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub set: toml::Table,
}

/// What must come of a guest step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Expect {
    /// It fails with this errno, by name.
    Errno(String),
    /// It succeeds and these values are so.
    Values(toml::Table),
    /// Whatever.
    Any,
}

/// A fact for the oracles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fact {
    /// Its key, for example `file-page`.
    pub key: String,
    /// Its value; `${...}` inside is replaced.
    pub value: toml::Value,
}
