//! Flags of `pincushion run`: the keys of [`VmConfig`], and a file that holds the rest.

use std::path::PathBuf;

use clap::Args;
use pincushion_devices::fault::Rule;

use crate::config::design::design_kernel;
use crate::config::{
    BalloonConfig, BlkConfig, ConfigError, ConsoleTarget, CpuList, NetConfig, OnReset, PmemConfig,
    Transport, VmConfig, key_values, units,
};

/// Options of `pincushion run`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Machine configuration in TOML with the same keys as these flags; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// bzImage as a distribution ships it, ELF vmlinux, or design:NAME[+POLICY] of a kernel that `pincushion image kernel build` has built
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// Kernel command line [default: "console=ttyS0 quiet"]
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Words behind the command line
    #[arg(long, value_name = "TEXT")]
    append: Option<String>,
    /// Number of vCPUs, 1 to 16 [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Guest memory, with K, M or G [default: 512M]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Serial console: stdio (raw; Ctrl-A x leaves), off, or file=PATH [default: stdio]
    #[arg(long, value_name = "WHERE")]
    console: Option<ConsoleTarget>,
    /// A virtio console (hvc0 in Linux), beside the serial one: stdio, off, or file=PATH [default: off]
    #[arg(long, value_name = "WHERE")]
    virtio_console: Option<ConsoleTarget>,
    /// When the guest resets itself: exit or reboot [default: exit]
    #[arg(long, value_name = "WHAT", value_parser = parse_on_reset)]
    on_reset: Option<OnReset>,
    /// How the guest finds its devices: pci (at most 248) or mmio (at most 15) [default: pci]
    #[arg(long, value_name = "HOW", value_parser = parse_transport)]
    transport: Option<Transport>,
    /// Threads that serve the devices' queues [default: as many as the disk with the most queues has]
    #[arg(long, value_name = "N")]
    workers: Option<u8>,
    /// Host CPUs that the vCPUs run on, one for each, as in 0,2-4 [default: anywhere]
    #[arg(long, value_name = "LIST")]
    cpu_affinity: Option<CpuList>,
    /// Longest time for the whole run, as in 90s; then it counts as a hang [default: none]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    limit: Option<std::time::Duration>,
    /// Fault plan in TOML (docs/fault-plan.md)
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// A rule of the fault plan, as in device=b,operation=read,hold.gate=g: the keys of [[rule]]; before the plan's; may be repeated
    #[arg(long = "fault", value_name = "KEY=VALUE,...", value_parser = Rule::from_flag)]
    faults: Vec<Rule>,
    /// Seed of the fault plan's random choices [default: the plan's, or 0]
    #[arg(long, value_name = "N")]
    fault_seed: Option<u64>,
    /// Write the event log to this new file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Listen for `pincushion ctl` and `pincushion top` at this Unix socket (docs/control.md)
    #[arg(long, value_name = "PATH")]
    api_sock: Option<PathBuf>,
    /// Open a gate of the plan from the start; may be repeated
    #[arg(long = "open-gate", value_name = "NAME")]
    pub open_gates: Vec<String>,
    /// Go on from this snapshot (`pincushion ctl SOCK snapshot FILE`) instead of booting; give the same flags that it was made with
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,
    /// A disk: path=FILE[,id=NAME][,read-only][,direct=on][,backend=auto|file|uring|memory][,fetch=early|late]
    /// [,queues=N]; may be repeated
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = parse_blk)]
    blk: Vec<BlkConfig>,
    /// A network card: tap=NAME, pcap=FILE[,record=FILE], loopback or pattern=SEED[,frames=N], then
    /// [,id=NAME][,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,rate=FRAMES/S][,fetch=early|late]; may be repeated
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = parse_net)]
    net: Vec<NetConfig>,
    /// A memory balloon: [target=SIZE][,reporting=on|off][,deflate-on-oom=on|off][,id=NAME], or `on`
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = parse_balloon)]
    balloon: Option<BalloonConfig>,
    /// Persistent memory: path=FILE[,size=SIZE][,id=NAME]; its size is a multiple of 2M, all of it is allocated at once; may be repeated
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = parse_pmem)]
    pmem: Vec<PmemConfig>,
}

impl RunArgs {
    /// File and flags together, checked.
    ///
    /// # Errors
    /// What the schema or the limits refuse.
    pub fn config(self) -> Result<VmConfig, ConfigError> {
        let mut config = match &self.config {
            Some(path) => VmConfig::load(path)?,
            None => VmConfig::default(),
        };
        fn set<T>(slot: &mut T, flag: Option<T>) {
            if let Some(value) = flag {
                *slot = value;
            }
        }
        set(&mut config.cmdline, self.cmdline);
        set(&mut config.cpus, self.cpus);
        set(&mut config.memory, self.memory);
        set(&mut config.console, self.console);
        set(&mut config.on_reset, self.on_reset);
        set(&mut config.transport, self.transport);
        config.virtio_console = self.virtio_console.or(config.virtio_console);
        set(&mut config.cpu_affinity, self.cpu_affinity);
        config.workers = self.workers.or(config.workers);
        config.kernel = self.kernel.or(config.kernel);
        config.initrd = self.initrd.or(config.initrd);
        let design = design_kernel(&config.kernel.clone().unwrap_or_default())?;
        let parameters = design.as_ref().map(|kernel| kernel.parameters.as_str());
        for words in parameters.into_iter().chain(self.append.as_deref()) {
            config.cmdline = format!("{} {words}", config.cmdline)
                .trim_start()
                .to_owned();
        }
        config.kernel = design.map(|kernel| kernel.path).or(config.kernel);
        config.limit = self.limit.or(config.limit);
        config.plan = self.plan.or(config.plan);
        config.events = self.events.or(config.events);
        config.api_sock = self.api_sock.or(config.api_sock);
        config.fault_seed = self.fault_seed.or(config.fault_seed);
        // The first rule that matches decides, so that a flag wins over the file.
        config.faults.splice(0..0, self.faults);
        config.blk.extend(self.blk);
        config.net.extend(self.net);
        config.balloon = self.balloon.or(config.balloon);
        config.pmem.extend(self.pmem);
        config.resolve()
    }
}

fn parse_blk(text: &str) -> Result<BlkConfig, String> {
    key_values::parse(text)
}

fn parse_net(text: &str) -> Result<NetConfig, String> {
    let net: NetConfig = key_values::parse(text)?;
    net.check().map(|()| net)
}

fn parse_balloon(text: &str) -> Result<BalloonConfig, String> {
    match text {
        "on" => Ok(BalloonConfig::default()),
        text => key_values::parse(text),
    }
}

fn parse_pmem(text: &str) -> Result<PmemConfig, String> {
    key_values::parse(text)
}

fn parse_on_reset(text: &str) -> Result<OnReset, String> {
    match text {
        "exit" => Ok(OnReset::Exit),
        "reboot" => Ok(OnReset::Reboot),
        _ => Err("write `exit` or `reboot`".into()),
    }
}

fn parse_transport(text: &str) -> Result<Transport, String> {
    match text {
        "mmio" => Ok(Transport::Mmio),
        "pci" => Ok(Transport::Pci),
        _ => Err("write `pci` or `mmio`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_behind_the_command_line_whoever_gave_it() {
        let with = |cmdline: Option<&str>| {
            let args = RunArgs {
                kernel: Some("k".into()),
                cmdline: cmdline.map(str::to_owned),
                append: Some("pin_tracking=bias".into()),
                ..RunArgs::default()
            };
            args.config().unwrap().cmdline
        };
        assert_eq!(with(Some("quiet")), "quiet pin_tracking=bias");
        assert_eq!(with(Some("")), "pin_tracking=bias");
        assert!(with(None).ends_with(" quiet pin_tracking=bias"));
    }

    #[test]
    fn a_flag_wins_over_the_file_and_disks_are_joined() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vm.toml");
        std::fs::write(
            &file,
            "kernel = 'k'\ncpus = 2\nmemory = '1G'\n[[blk]]\npath = 'a.img'\nid = 'a'\n",
        )
        .unwrap();
        let args = RunArgs {
            config: Some(file),
            cpus: Some(4),
            blk: vec![parse_blk("path=b.img,id=b").unwrap()],
            ..RunArgs::default()
        };
        let config = args.config().unwrap();
        assert_eq!((config.cpus, config.memory), (4, 1 << 30));
        let names: Vec<_> = config
            .blk
            .iter()
            .filter_map(|blk| blk.id.as_deref())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }
}
