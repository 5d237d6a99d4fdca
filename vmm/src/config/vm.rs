//! The whole machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pincushion_devices::fault::Rule;
use pincushion_devices::toml_error;
use serde::{Deserialize, Serialize};

use super::balloon::BalloonConfig;
use super::blk::BlkConfig;
use super::net::NetConfig;
use super::pmem::PmemConfig;
use super::units;
use crate::affinity::{AffinityError, CpuList};
use crate::layout::MAX_VCPUS;
use crate::machine::{MAX_WORKERS, OnReset, Transport};

/// Least memory that any kernel boots with, in bytes.
pub const MIN_MEMORY: u64 = 16 << 20;

/// A machine, as a file spells it. Every key is also a flag of `pincushion run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmConfig {
    /// bzImage as a distribution ships it, or ELF vmlinux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    #[serde(default = "default_cmdline")]
    pub cmdline: String,
    /// Number of vCPUs, 1 to 16.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Guest memory in bytes.
    #[serde(default = "default_memory", with = "units::size")]
    pub memory: u64,
    /// Where the serial console goes: `stdio`, `off` or `file=PATH`.
    #[serde(default)]
    pub console: ConsoleTarget,
    /// Where a virtio console (hvc0) goes, as for `console`; absent or `off`: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_console: Option<ConsoleTarget>,
    /// What a reset by the guest does.
    #[serde(default)]
    pub on_reset: OnReset,
    /// How the guest finds its devices: `pci` or `mmio`.
    #[serde(default)]
    pub transport: Transport,
    /// Threads that serve the devices' queues; absent: as many as the disk with the most queues has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u8>,
    /// Host CPUs that the vCPUs run on, one for each, as in `0,2-4`; absent: anywhere.
    #[serde(default, skip_serializing_if = "CpuList::is_empty")]
    pub cpu_affinity: CpuList,
    /// Longest time that the whole run may take; then it is a hang. Absent: no limit.
    #[serde(
        default,
        with = "units::duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub limit: Option<Duration>,
    /// Fault plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PathBuf>,
    /// Rules of the fault plan, before those of `plan`: the same keys as there.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Rule>,
    /// Seed of the fault plan's random choices, instead of that of `plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_seed: Option<u64>,
    /// Where the event log goes; absent: none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<PathBuf>,
    /// Unix socket of the control API; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_sock: Option<PathBuf>,
    /// Disks, in the order in which the guest finds them.
    #[serde(default)]
    pub blk: Vec<BlkConfig>,
    /// Network cards, in the order in which the guest finds them.
    #[serde(default)]
    pub net: Vec<NetConfig>,
    /// A memory balloon; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonConfig>,
    /// Regions of persistent memory, in the order in which the guest finds them, behind the disks.
    #[serde(default)]
    pub pmem: Vec<PmemConfig>,
}

/// Where the guest's first serial port goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ConsoleTarget {
    /// The terminal, in raw mode; Ctrl-A x leaves.
    #[default]
    Stdio,
    /// A file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{flag} {}: cannot read it", path.display())]
    Read {
        /// The flag that named it.
        flag: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what the schema says. The text names file, line and nearest key.
    #[error("{0}")]
    Syntax(String),
    /// The kernel cannot be had.
    #[error("--kernel")]
    Kernel(#[from] pincushion_image::Error),
    /// A value that no machine can have. The text names key and limits.
    #[error("{0}")]
    Value(String),
}

impl Default for VmConfig {
    fn default() -> Self {
        Self {
            kernel: None,
            initrd: None,
            cmdline: default_cmdline(),
            cpus: default_cpus(),
            memory: default_memory(),
            console: ConsoleTarget::default(),
            virtio_console: None,
            on_reset: OnReset::default(),
            transport: Transport::default(),
            workers: None,
            cpu_affinity: CpuList::default(),
            limit: None,
            plan: None,
            faults: Vec::new(),
            fault_seed: None,
            events: None,
            api_sock: None,
            blk: Vec::new(),
            net: Vec::new(),
            balloon: None,
            pmem: Vec::new(),
        }
    }
}

impl VmConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is not what the schema says.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            flag: "--config",
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Reads a text; `path` is for messages.
    ///
    /// # Errors
    /// It is not what the schema says.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|error| ConfigError::Syntax(toml_error::describe(path, text, &error)))
    }

    /// Gives each disk its name and checks what can be checked before anything is opened.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn resolve(mut self) -> Result<Self, ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if self.kernel.is_none() {
            return wrong("no kernel: give --kernel PATH (a bzImage or an ELF vmlinux), or `kernel = ...` in the file".into());
        }
        self.check_machine()?;
        let blk = (0..).zip(&mut self.blk);
        let pmem = (0..).zip(&mut self.pmem);
        let blk = blk.map(|(index, one)| ("blk", index, &mut one.id));
        let ids = blk.chain(pmem.map(|(index, one)| ("pmem", index, &mut one.id)));
        let mut names = std::collections::BTreeSet::new();
        for (kind, index, id) in ids {
            let name = id.get_or_insert_with(|| format!("{kind}{index}")).clone();
            if name.is_empty()
                || name.len() > 20
                || !name.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return wrong(format!(
                    "--{kind} id={name}: a name has 1 to 20 visible ASCII characters"
                ));
            }
            if !names.insert(name.clone()) {
                return wrong(format!("--{kind} id={name}: two devices have this name"));
            }
        }
        for blk in &self.blk {
            if let Err(problem) = blk.check() {
                let name = blk.id.as_deref().unwrap_or_default();
                return wrong(format!("--blk id={name}: {problem}"));
            }
        }
        for (index, net) in self.net.iter_mut().enumerate() {
            let name = net.id.get_or_insert_with(|| format!("net{index}")).clone();
            if name.is_empty()
                || name.len() > 20
                || !name.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return wrong(format!(
                    "--net id={name}: a name has 1 to 20 visible ASCII characters"
                ));
            }
            if !names.insert(name.clone()) {
                return wrong(format!("--net id={name}: another device has this name"));
            }
            if let Err(problem) = net.check() {
                return wrong(format!("--net id={name}: {problem}"));
            }
        }
        if let Some(balloon) = &self.balloon {
            if let Some(problem) = balloon.problem(self.memory) {
                return wrong(problem);
            }
            if balloon.id.is_empty() || names.contains(&balloon.id) {
                return wrong(format!(
                    "--balloon id={}: give it a name that no disk has",
                    balloon.id
                ));
            }
        }
        Ok(self)
    }

    /// Checks what is not a device.
    fn check_machine(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if self.cpus == 0 || self.cpus > u32::from(MAX_VCPUS) {
            return wrong(format!(
                "--cpus {}: a machine has 1 to {MAX_VCPUS} vCPUs",
                self.cpus
            ));
        }
        if self.memory < MIN_MEMORY || !self.memory.is_multiple_of(4096) {
            return wrong(format!(
                "--memory {}: a machine has at least {} of memory, in whole pages of 4K",
                units::format_size(self.memory),
                units::format_size(MIN_MEMORY)
            ));
        }
        if self.virtio_console == Some(ConsoleTarget::Stdio) && self.console == ConsoleTarget::Stdio
        {
            return wrong("--virtio-console stdio: the serial console has the terminal; add --console off, or --console file=PATH".into());
        }
        if let Some(workers) = self.workers.filter(|n| *n == 0 || *n > MAX_WORKERS) {
            return wrong(format!(
                "--workers {workers}: a machine has 1 to {MAX_WORKERS} threads for its queues"
            ));
        }
        // Whether each host CPU is there is asked when the machine is made.
        if let Err(error @ AffinityError::Count { .. }) = self
            .cpu_affinity
            .check(u8::try_from(self.cpus).unwrap_or(u8::MAX))
        {
            return wrong(error.to_string());
        }
        Ok(())
    }
}

impl TryFrom<String> for ConsoleTarget {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for ConsoleTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stdio" => Ok(Self::Stdio),
            "off" => Ok(Self::Off),
            text => match text.strip_prefix("file=") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(format!(
                    "`{text}` is no console: write `stdio`, `off` or `file=PATH`"
                )),
            },
        }
    }
}

impl From<ConsoleTarget> for String {
    fn from(target: ConsoleTarget) -> Self {
        match target {
            ConsoleTarget::Stdio => "stdio".into(),
            ConsoleTarget::Off => "off".into(),
            ConsoleTarget::File(path) => format!("file={}", path.display()),
        }
    }
}

fn default_cmdline() -> String {
    "console=ttyS0 quiet".into()
}

fn default_cpus() -> u32 {
    1
}

fn default_memory() -> u64 {
    512 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VmConfig, String> {
        VmConfig::parse(Path::new("vm.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_has_the_words_of_the_flags() {
        let text = "kernel = 'k'\ncpus = 2\nmemory = '1G'\nconsole = 'file=c.log'\nlimit = '90s'\n\
                    [[blk]]\npath = 'd.img'\nfetch = 'early'\nbackend = 'uring'\n";
        let config = parse(text).unwrap().resolve().unwrap();
        assert_eq!(config.memory, 1 << 30);
        assert_eq!(config.blk[0].id.as_deref(), Some("blk0"));
        assert_eq!(config.console, ConsoleTarget::File("c.log".into()));
        let again = toml::to_string(&config).unwrap();
        assert_eq!(parse(&again).unwrap(), config);
    }

    #[test]
    fn a_wrong_key_is_refused_with_its_line_and_the_nearest() {
        let said = parse("kernel = 'k'\nmemroy = '1G'\n").unwrap_err();
        assert!(
            said.starts_with("vm.toml:2:1: unknown key `memroy`; did you mean `memory`?"),
            "{said}"
        );
        let said = parse("memory = '1X'\n").unwrap_err();
        assert!(
            said.starts_with("vm.toml:1:10: `1X` is not a size"),
            "{said}"
        );
    }

    #[test]
    fn impossible_machines_are_refused_by_name() {
        let refusal = |change: fn(&mut VmConfig)| {
            let mut config = VmConfig {
                kernel: Some("k".into()),
                ..VmConfig::default()
            };
            change(&mut config);
            config.resolve().unwrap_err().to_string()
        };
        assert!(refusal(|config| config.cpus = 0).contains("--cpus 0"));
        assert!(refusal(|config| config.cpus = 1000).contains("1 to 16"));
        assert!(refusal(|config| config.memory = 0).contains("--memory 0"));
        assert!(refusal(|config| config.memory = 1).contains("at least 16M"));
        assert!(
            refusal(|config| config.virtio_console = Some(ConsoleTarget::Stdio))
                .contains("--console off")
        );
        assert!(refusal(|config| config.kernel = None).contains("--kernel"));
        assert!(
            refusal(|config| {
                for _ in 0..2 {
                    config.blk.push(BlkConfig {
                        path: "d".into(),
                        id: Some("a".into()),
                        read_only: false,
                        direct: false,
                        backend: super::super::DiskBackend::default(),
                        fetch: pincushion_devices::trace::event::Fetch::Late,
                        queues: 1,
                    });
                }
            })
            .contains("two devices")
        );
    }
}
