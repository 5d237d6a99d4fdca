//! The machine's thread: boots, waits for the end, boots again where the scenario asked for it. All it has to say are
//! events.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::trace::EventKind;
use pincushion_vmm::agent_port::AgentSender;
use pincushion_vmm::console::Console;
use pincushion_vmm::control::Operate;
use pincushion_vmm::machine::{
    Exit, HotPlug, Machine, MachineConfig, MachineError, Order, OrderError, Parts, Remote,
    RunState, StopHandle, VcpuReport, vcpus_text,
};
use pincushion_vmm::program::tell;
use pincushion_vmm::region::Region;
use pincushion_vmm::snapshot::{Check, Likeness, Snapshot};

use crate::guest;

/// A machine at work in a thread of its own.
pub(super) struct Booted {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    boot: Mutex<Option<Boot>>,
    reboot_allowed: AtomicBool,
    is_stopping: AtomicBool,
    /// What the log calls the end if the machine is stopped from here: how, and why.
    stopped_as: Mutex<Option<(&'static str, String)>>,
}

/// The present boot, whichever it is, for a control socket.
pub(super) struct Present(Arc<Shared>);

/// The ways into the present boot.
#[derive(Clone)]
struct Boot {
    agent: AgentSender,
    stop: StopHandle,
    remote: Remote,
    hot_plug: HotPlug,
}

/// What every boot is made of.
pub(super) struct Recipe {
    pub(super) config: MachineConfig,
    pub(super) devices: Vec<SharedDevice>,
    pub(super) regions: Vec<Region>,
    pub(super) context: Context,
    pub(super) limit: Duration,
    pub(super) console: std::fs::File,
    /// Where to go on from at first, instead of booting.
    pub(super) snapshot: Option<PathBuf>,
    /// Where to write the state of the vCPUs if the guest had to be stopped or broke down.
    pub(super) vcpus: PathBuf,
}

impl Booted {
    /// Starts the thread. It ends with the event [`EventKind::MachineEnded`], whatever happens.
    pub(super) fn start(recipe: Recipe) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("machine".into())
            .spawn(move || {
                let (how, detail) = live(&recipe, &of_thread);
                *of_thread.boot() = None;
                recipe.context.tracer().emit(|| EventKind::MachineEnded {
                    how: how.to_owned(),
                    detail,
                });
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Sends a line to the agent of the present boot. `false`: there is none.
    pub(super) fn send(&self, line: &[u8]) -> bool {
        let boot = self.shared.boot().clone();
        if let Some(boot) = &boot {
            boot.agent.send(line);
        }
        boot.is_some()
    }

    /// Plugs in the devices of a machine that was made for it. A machine that has ended needs none.
    pub(super) fn plug_in(&self) {
        if let Some(boot) = self.shared.boot().as_ref() {
            boot.hot_plug.plug_in();
        }
    }

    /// Writes a snapshot of the present boot. Returns its length in bytes.
    pub(super) fn snapshot(&self, path: &Path, note: &str) -> Result<u64, OrderError> {
        let boot = self.shared.boot().clone();
        let boot = boot.ok_or(OrderError::Ended)?;
        boot.remote.snapshot(path, note)
    }

    /// What a control socket controls.
    pub(super) fn present(&self) -> Present {
        Present(self.shared.clone())
    }

    /// The next reset makes the machine boot again; without this it ends.
    pub(super) fn allow_reboot(&self) {
        self.shared.reboot_allowed.store(true, Ordering::Release);
    }

    /// Ends the machine as [`Self::stop`] does; the log says `how` and `why`. One that has ended already keeps its own end.
    pub(super) fn stop_as(&mut self, how: &'static str, why: &str) {
        *self
            .shared
            .stopped_as
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some((how, why.to_owned()));
        self.stop();
    }

    /// Ends the machine, at once, and waits until it has ended.
    pub(super) fn stop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        if let Some(boot) = self.shared.boot().as_ref() {
            boot.stop.stop();
        }
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed by its own thread, and the log without an end says the rest.
            let _ = thread.join();
        }
    }
}

impl Present {
    fn remote(&self) -> Option<Remote> {
        self.0.boot().as_ref().map(|boot| boot.remote.clone())
    }
}

impl Operate for Present {
    fn state(&self) -> RunState {
        self.remote()
            .map_or(RunState::Ended, |remote| remote.state())
    }

    fn boots(&self) -> u32 {
        self.remote().map_or(0, |remote| remote.boots())
    }

    fn uptime(&self) -> Duration {
        self.remote()
            .map_or(Duration::ZERO, |remote| remote.uptime())
    }

    fn give(&self, order: Order) -> Result<(), OrderError> {
        self.remote().ok_or(OrderError::Ended)?.give(order)
    }

    fn snapshot(&self, path: &Path) -> Result<u64, OrderError> {
        let remote = self.remote().ok_or(OrderError::Ended)?;
        remote.snapshot(path, "")
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn boot(&self) -> std::sync::MutexGuard<'_, Option<Boot>> {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Boots until the machine ends for good. Gives the words of [`EventKind::MachineEnded`].
fn live(recipe: &Recipe, shared: &Shared) -> (&'static str, String) {
    let began = Instant::now();
    for boot in 1.. {
        // What the guest of the boot before had begun will never end.
        recipe.context.marks().restart();
        recipe
            .context
            .tracer()
            .emit(|| EventKind::BootBegan { boot });
        let (exit, vcpus) = match live_once(recipe, shared, began, boot == 1) {
            Ok(end) => end,
            Err(error) => return ("failed", crate::words(&error)),
        };
        if exit == Exit::Reset && shared.reboot_allowed.swap(false, Ordering::AcqRel) {
            continue;
        }
        let stopped_as = shared
            .stopped_as
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (how, detail) = match (stopped_as, &exit) {
            (Some((how, why)), Exit::Stopped) => (how, with_vcpus(&why, &vcpus)),
            (_, Exit::TripleFault { .. }) => (exit.word(), with_vcpus(&exit.to_string(), &vcpus)),
            _ => (exit.word(), exit.to_string()),
        };
        if !matches!(exit, Exit::PowerOff | Exit::Reset) {
            // Who looks for it finds the short form in the event log.
            let _ = std::fs::write(&recipe.vcpus, vcpus_text(&vcpus));
        }
        return (how, detail);
    }
    unreachable!("boots are not counted to an end")
}

/// `text`, and where the vCPUs were.
fn with_vcpus(text: &str, vcpus: &[VcpuReport]) -> String {
    let vcpus = vcpus.iter().map(|vcpu| format!("; {vcpu}"));
    std::iter::once(text.to_owned()).chain(vcpus).collect()
}

/// One boot: how it ended, and where its vCPUs were then.
fn live_once(
    recipe: &Recipe,
    shared: &Shared,
    began: Instant,
    is_first: bool,
) -> Result<(Exit, Vec<VcpuReport>), MachineError> {
    let config = MachineConfig {
        // After a reboot all devices are where they were.
        hot_plug: recipe.config.hot_plug && is_first,
        ..recipe.config.clone()
    };
    let snapshot = recipe.snapshot.as_deref().filter(|_| is_first);
    let (machine, restored) = match snapshot.map(|path| restore(recipe, path)) {
        Some(Ok((machine, from))) => (machine, Some(from)),
        Some(Err(error)) => {
            let why = crate::words(&error);
            // A parent that cannot hear does not matter to the run.
            let _ = tell(format!("not restored, the guest boots: {why}"));
            (Machine::new(config, parts(recipe)?)?, None)
        }
        None => (Machine::new(config, parts(recipe)?)?, None),
    };
    *shared.boot() = Some(Boot {
        agent: machine.agent_sender(),
        stop: machine.stop_handle(),
        remote: machine.remote(),
        hot_plug: machine.hot_plug(),
    });
    if let Some(from) = &restored {
        // Only now: who hears the agent's word sends it a step at once.
        say_hello_again(recipe, from);
    }
    let mut running = machine.start()?;
    if shared.is_stopping.load(Ordering::Acquire) {
        running.stop();
    }
    let left = recipe.limit.saturating_sub(began.elapsed());
    let exit = running.wait(Some(left));
    Ok((exit, running.last_seen().to_vec()))
}

/// A machine whose agent has said hello already, and what it goes on from.
fn restore(recipe: &Recipe, path: &Path) -> Result<(Machine, Snapshot), MachineError> {
    // This program wrote it, beside its place, in this very suite.
    let snapshot = Snapshot::open(path, Check::State)?;
    let config = recipe.config.clone();
    let machine = Machine::restore(config, parts(recipe)?, &snapshot, Likeness::BeforeDrivers)?;
    Ok((machine, snapshot))
}

/// The agent's word is said again, for a log that is whole by itself.
fn say_hello_again(recipe: &Recipe, from: &Snapshot) {
    let tracer = recipe.context.tracer();
    tracer.emit(|| EventKind::Restored {
        snapshot: from.path().display().to_string(),
    });
    tracer.emit(|| EventKind::AgentReport {
        text: from.note().to_owned(),
    });
}

fn parts(recipe: &Recipe) -> Result<Parts, MachineError> {
    let tracer = recipe.context.tracer().clone();
    let mut log = recipe
        .console
        .try_clone()
        .map_err(|source| MachineError::Host {
            attempt: "share the console's file",
            source,
        })?;
    let console = Console::new().to_lines(move |line| {
        use std::io::Write;
        // A full disk must not stop the guest; the event log complains about it too.
        let _ = writeln!(log, "{line}");
        tracer.emit(|| EventKind::Console {
            line: line.to_owned(),
        });
    });
    Ok(Parts {
        devices: recipe.devices.clone(),
        regions: recipe.regions.clone(),
        console,
        agent: Some(guest::to_events(recipe.context.clone())),
        tracer: recipe.context.tracer().clone(),
    })
}

/// The machine's configuration. `parameters` are the words that this kernel needs on its command line.
pub(super) fn config(
    vm: &crate::scenario::model::Vm,
    kernel: &Path,
    parameters: &str,
    initrd: &Path,
) -> MachineConfig {
    use crate::scenario::model::Initrd;
    let memory = pincushion_vmm::config::units::parse_size(&vm.memory)
        .expect("sizes were checked when the file was read");
    MachineConfig {
        initrd: (vm.initrd != Initrd::None).then(|| initrd.to_owned()),
        cmdline: cmdline(&[CMDLINE, &vm.cmdline, parameters]),
        vcpus: vm.cpus,
        transport: vm.transport,
        workers: vm.workers,
        cpu_affinity: vm.cpu_affinity.clone(),
        memory_bytes: memory,
        ..MachineConfig::new(kernel)
    }
}

/// The words, without those that are empty.
fn cmdline(words: &[&str]) -> String {
    let words = words.iter().copied().filter(|words| !words.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Warnings reach the console, the rest does not: each character costs VM exits. A panic resets at once, after it has printed. The
/// flusher comes once an hour, instead of each five seconds: a guest that is slow today must not meet a write-back that nobody asked for.
const CMDLINE: &str =
    "console=ttyS0 loglevel=5 panic=-1 sysctl.vm.dirty_writeback_centisecs=360000";

#[cfg(test)]
mod tests {
    use pincushion_devices::fault::Plan;
    use pincushion_devices::trace::Tracer;

    use super::*;

    #[test]
    fn the_words_of_scenario_and_kernel_come_behind_the_suites_own() {
        let mut vm = crate::scenario::model::Vm::default();
        let line =
            |vm: &_, parameters| config(vm, Path::new("k"), parameters, Path::new("i")).cmdline;
        assert_eq!(line(&vm, ""), CMDLINE);
        assert_eq!(
            line(&vm, "pin_tracking=bias"),
            format!("{CMDLINE} pin_tracking=bias")
        );
        vm.cmdline = "nosmp".into();
        assert_eq!(
            line(&vm, "pin_tracking=bias"),
            format!("{CMDLINE} nosmp pin_tracking=bias")
        );
    }

    #[test]
    fn a_kernel_that_is_none_is_an_end_and_not_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel");
        std::fs::write(&kernel, "no kernel").unwrap();
        let tracer = Arc::new(Tracer::new());
        let events = tracer.subscribe();
        let mut booted = Booted::start(Recipe {
            config: MachineConfig::new(kernel),
            devices: vec![],
            regions: vec![],
            context: Context::new(Plan::default(), tracer).unwrap(),
            limit: Duration::from_secs(9),
            console: tempfile::tempfile().unwrap(),
            snapshot: None,
            vcpus: dir.path().join("vcpus.txt"),
        })
        .unwrap();
        booted.stop();
        let ends: Vec<String> = events
            .try_iter()
            .filter_map(|event| match &event.kind {
                EventKind::MachineEnded { how, detail } => Some(format!("{how}: {detail}")),
                _ => None,
            })
            .collect();
        assert_eq!(ends.len(), 1);
        assert!(ends[0].starts_with("failed: "), "{ends:?}");
        assert!(!booted.send(b"x"));
    }
}
