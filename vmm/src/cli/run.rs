//! `pincushion run`: boots a guest from a [`VmConfig`] and ends with the exit code that says how the guest ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use pincushion_devices::fault::Plan;
use pincushion_devices::trace::event::EventKind;

use super::kvm_limits::{KvmLimits, NESTED_ADVICE, NeedsMoreKvm};
use super::run_args::RunArgs;
use crate::assembly::{Assembly, AssemblyError};
use crate::causes::with_causes;
use crate::config::{ConfigError, ConsoleTarget, VmConfig};
use crate::console::Console;
use crate::control::{About, Controlled, Server, SocketError, observer::Observer};
use crate::exit_code;
use crate::machine::{Exit, Machine, MachineError, Parts, StopHandle};
use crate::program::complain;
use crate::signals::{OnSignal, leave};
use crate::snapshot::{Check, Likeness, Snapshot, SnapshotError};

/// Runs the guest to its end.
pub fn run(mut args: RunArgs) -> u8 {
    let open_gates = std::mem::take(&mut args.open_gates);
    let restore = args.restore.take();
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => {
            explain(&error);
            return code_of_config(&error);
        }
    };
    match boot(&config, &open_gates, restore.as_deref()) {
        Ok(code) => code,
        Err(error) => {
            explain(error.as_ref());
            exit_code_of(error.as_ref())
        }
    }
}

fn boot(
    config: &VmConfig,
    open_gates: &[String],
    restore: Option<&Path>,
) -> Result<u8, Box<dyn std::error::Error>> {
    let plan = plan(config)?;
    let snapshot = restore.map(|path| Snapshot::open(path, Check::Whole));
    let snapshot = snapshot.transpose()?;
    if config.api_sock.is_none() {
        warn_of_forgotten_gates(&plan, open_gates);
    }
    let assembly = Assembly::new(config, plan.clone())?;
    let observer = config.api_sock.as_ref().map(|_| observe(&assembly));
    for gate in open_gates {
        assembly.context.gates().open(gate);
    }
    let parts = Parts {
        devices: assembly.devices.clone(),
        regions: assembly.regions.clone(),
        console: typed_into(console(&config.console)?, config, &assembly),
        tracer: assembly.tracer.clone(),
        ..Parts::default()
    };
    let machine = match &snapshot {
        None => Machine::new(config.machine(), parts)?,
        Some(from) => {
            // Before its devices begin.
            assembly.tracer.emit(|| EventKind::BootBegan { boot: 1 });
            assembly.tracer.emit(|| EventKind::Restored {
                snapshot: from.path().display().to_string(),
            });
            Machine::restore(config.machine(), parts, from, Likeness::Same)?
        }
    };
    let limits = KvmLimits::probe();
    limits.check(&config.kernel.clone().unwrap_or_default())?;
    // Before the guest runs, so that nobody who sees it run finds no socket.
    let server = match (&config.api_sock, observer) {
        (Some(path), Some(observer)) => {
            let controlled = controlled(config, plan, &assembly, &machine, observer);
            Some(Server::start(path, controlled)?)
        }
        _ => None,
    };
    let signal = Arc::new(AtomicU8::new(0));
    let _on_signal = stop_on_signal(signal.clone(), machine.stop_handle())?;
    if snapshot.is_none() {
        assembly.tracer.emit(|| EventKind::BootBegan { boot: 1 });
    }
    let mut running = machine.start()?;
    let exit = running.wait(config.limit);
    let waiting = assembly.context.waiting();
    assembly.context.finish();
    drop(running);
    let (how, detail) = (exit.word().to_owned(), exit.to_string());
    assembly
        .tracer
        .emit(|| EventKind::MachineEnded { how, detail });
    // Who follows the events gets the last one.
    drop(server);
    report(&exit, &waiting);
    Ok(match (&exit, signal.load(Ordering::Relaxed)) {
        (Exit::Stopped, 0) => exit_code::OK,
        (Exit::Stopped, code) => code,
        (exit, _) if limits.may_explain(exit) => {
            complain(format_args!("pincushion: {NESTED_ADVICE}"));
            exit_code::NO_USABLE_KVM
        }
        (exit, _) => code(exit),
    })
}

/// Watches the machine for its control socket. The devices are there already, so they hash no more than without it.
fn observe(assembly: &Assembly) -> Observer {
    let observer = Observer::new();
    assembly.tracer.add_sink(Box::new(observer.clone()));
    observer
}

fn controlled(
    config: &VmConfig,
    plan: Plan,
    assembly: &Assembly,
    machine: &Machine,
    observer: Observer,
) -> Controlled {
    let kernel = config.kernel.as_ref();
    Controlled {
        context: assembly.context.clone(),
        plan,
        observer,
        machine: Arc::new(machine.remote()),
        devices: assembly.devices.clone(),
        about: About {
            vcpus: config.cpus,
            memory_bytes: config.memory,
            kernel: kernel.map_or_else(String::new, |path| path.display().to_string()),
        },
    }
}

/// The first signal stops the guest, so that everything is put in order, and leaves its exit code in `code`; the second leaves
/// at once.
fn stop_on_signal(code: Arc<AtomicU8>, stop: StopHandle) -> std::io::Result<OnSignal> {
    OnSignal::new(move |signal| {
        let ends_with = 128 + u8::try_from(signal).unwrap_or(0);
        if code.swap(ends_with, Ordering::Relaxed) != 0 {
            leave(signal);
        }
        complain(format_args!(
            "pincushion: stopping the guest; once more leaves at once"
        ));
        stop.stop();
    })
}

/// The rules of the flags, then those of the file.
fn plan(config: &VmConfig) -> Result<Plan, Box<dyn std::error::Error>> {
    let mut plan = match &config.plan {
        Some(path) => Plan::parse(
            &std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?,
            path,
        )?,
        None => Plan::default(),
    };
    plan.rules.splice(0..0, config.faults.iter().cloned());
    plan.seed = config.fault_seed.unwrap_or(plan.seed);
    Ok(plan)
}

/// A request that waits at a gate that stays closed looks like a guest that hangs.
fn warn_of_forgotten_gates(plan: &Plan, open_gates: &[String]) {
    let opens = |gate: &str| open_gates.iter().any(|open| open == gate);
    for (gate, its) in plan.forgotten_gates(opens) {
        log::warn!(
            "gate `{gate}`: nobody opens it, so what rule `{}` holds is held until the machine ends; open it with --open-gate {gate}, \
             or by another rule's open-gate",
            its.holds.join("`, `")
        );
    }
}

fn explain(error: &dyn std::error::Error) {
    complain(format_args!("pincushion: {}", with_causes(error)));
}

fn unreadable(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Read {
        flag: "--plan",
        path: path.to_owned(),
        source,
    }
}

/// What is typed goes to the virtio console if that has the terminal.
fn typed_into(console: Console, config: &VmConfig, assembly: &Assembly) -> Console {
    match (&config.virtio_console, &assembly.console_input) {
        (Some(ConsoleTarget::Stdio), Some(input)) => console.typed_into(input.clone()),
        _ => console,
    }
}

fn console(target: &ConsoleTarget) -> Result<Console, crate::console::ConsoleError> {
    Ok(match target {
        ConsoleTarget::Stdio => Console::new().on_terminal(),
        ConsoleTarget::File(path) => Console::new().to_file(path)?,
        ConsoleTarget::Off => Console::new(),
    })
}

/// Says on stderr how the guest ended, unless it ended as everybody hopes.
fn report(exit: &Exit, waiting: &[pincushion_devices::fault::Waiting]) {
    if *exit != Exit::PowerOff {
        complain(format_args!("pincushion: {exit}"));
    }
    for waiting in waiting {
        complain(format_args!(
            "pincushion: request {} was still held at the end; it waited for {:?}",
            waiting.request, waiting.until
        ));
    }
}

fn code(exit: &Exit) -> u8 {
    match exit {
        Exit::PowerOff | Exit::Stopped => exit_code::OK,
        Exit::Reset => exit_code::GUEST_RESET,
        Exit::Panic { .. } | Exit::TripleFault { .. } => exit_code::GUEST_PANIC,
        Exit::Hang { .. } => exit_code::HANG,
        Exit::KvmGaveUp { .. } | Exit::Failed { .. } => exit_code::FAILED,
    }
}

/// A kernel that is known and has not been built is no bad argument.
fn code_of_config(error: &ConfigError) -> u8 {
    use pincushion_image::Error;
    use pincushion_image::kernel::KernelError;
    match error {
        ConfigError::Kernel(
            Error::Design(KernelError::Unknown { .. }) | Error::BadKernelSpec(_),
        ) => exit_code::BAD_ARGUMENTS,
        ConfigError::Kernel(_) => exit_code::SETUP_ERROR,
        ConfigError::Read { .. } | ConfigError::Syntax(_) | ConfigError::Value(_) => {
            exit_code::BAD_ARGUMENTS
        }
    }
}

fn exit_code_of(error: &(dyn std::error::Error + 'static)) -> u8 {
    if let Some(error) = error.downcast_ref::<MachineError>() {
        return match error {
            MachineError::NoKvm | MachineError::KvmPermission | MachineError::Kvm { .. } => {
                exit_code::NO_USABLE_KVM
            }
            _ => exit_code::SETUP_ERROR,
        };
    }
    if error.is::<SnapshotError>() {
        return exit_code::SETUP_ERROR;
    }
    if error.is::<NeedsMoreKvm>() {
        return exit_code::NO_USABLE_KVM;
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return code_of_config(error);
    }
    if error.is::<pincushion_devices::fault::PlanError>() {
        return exit_code::BAD_ARGUMENTS;
    }
    if error.is::<AssemblyError>()
        || error.is::<SocketError>()
        || error.is::<crate::console::ConsoleError>()
    {
        return exit_code::SETUP_ERROR;
    }
    exit_code::FAILED
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_end_has_its_own_exit_code() {
        let ends = [
            Exit::PowerOff,
            Exit::Reset,
            Exit::Panic {
                message: String::new(),
            },
            Exit::Hang {
                limit: Duration::from_secs(1),
                vcpus: Vec::new(),
            },
            Exit::Failed {
                reason: String::new(),
            },
        ];
        let codes: std::collections::BTreeSet<u8> = ends.iter().map(code).collect();
        assert_eq!(codes.len(), ends.len());
    }
}
