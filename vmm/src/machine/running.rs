//! A machine at work, and the one who waits for its end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use pincushion_devices::trace::EventKind;

use super::config::OnReset;
use super::error::MachineError;
use super::event::MachineEvent;
use super::exit::Exit;
use super::parts::{Booted, Core, Machine};
use super::remote::{Order, OrderError, Remote, RunState};
use crate::agent_port::AgentSender;
use crate::bus::Flow;
use crate::console::Input;
use crate::event_loop::{EventLoop, Interest, Source};
use crate::nested::one_cpu::OneCpu;
use crate::terminal::{RawTerminal, Typed, TypedInput};
use crate::vcpu::{VcpuThread, World};
use crate::vcpu_report::VcpuReport;
use crate::vm::Vm;

/// How long a kernel that began to panic may take to print its stack before the run ends.
const PANIC_GRACE: Duration = Duration::from_secs(10);
/// A vCPU that does not stand still after this is stuck in a device.
const STAND_LIMIT: Duration = Duration::from_secs(30);

/// Stops a machine from any thread. Clones stop the same machine.
#[derive(Debug, Clone)]
pub struct StopHandle(Sender<MachineEvent>);

impl StopHandle {
    pub(super) fn new(sender: Sender<MachineEvent>) -> Self {
        Self(sender)
    }

    /// Makes the machine's [`Running::wait`] return [`Exit::Stopped`]. Without effect on one that has ended.
    pub fn stop(&self) {
        // A closed channel means that the machine is gone.
        let _ = self.0.send(MachineEvent::Stop);
    }
}

/// A running machine. Dropping it stops it and resets its devices: what they hold is abandoned then, not before.
pub struct Running {
    // In the order in which they have to go: vCPUs, their VM, the device thread, then what all of them use.
    pub(super) vcpus: Vec<VcpuThread>,
    pub(super) vm: Option<Vm>,
    workers: Vec<EventLoop>,
    terminal: Option<RawTerminal>,
    pub(super) core: Core,
    events: Receiver<MachineEvent>,
    started: Instant,
    reboots: u32,
    panic: Option<(String, Instant)>,
    exit: Option<Exit>,
    last_seen: Vec<VcpuReport>,
    /// Where all vCPUs run, in a nested machine.
    one_cpu: Option<OneCpu>,
}

impl Running {
    pub(super) fn start(machine: Machine) -> Result<Self, MachineError> {
        let Machine {
            core,
            booted,
            events,
        } = machine;
        let terminal = match core.input {
            Input::Terminal => RawTerminal::enter()
                .map_err(MachineError::host("switch the terminal to raw mode"))?,
            Input::None => None,
        };
        let mut sources = spread(core.devices.sources(), core.config.workers);
        if core.input == Input::Terminal
            && let Some(first) = sources.first_mut()
        {
            first.push(keyboard(&core));
        }
        let start = |sources: Vec<Source>| {
            let panicked = core.sender.clone();
            let on_panic = move || {
                // A closed channel means that the machine is gone.
                let _ = panicked.send(MachineEvent::DevicesFailed);
            };
            EventLoop::spawn(sources, on_panic).map_err(MachineError::host("start a device thread"))
        };
        let workers = sources
            .into_iter()
            .map(start)
            .collect::<Result<_, MachineError>>()?;
        let mut running = Self {
            vcpus: Vec::new(),
            vm: None,
            workers,
            terminal,
            core,
            events,
            started: Instant::now(),
            reboots: 0,
            panic: None,
            exit: None,
            last_seen: Vec::new(),
            one_cpu: OneCpu::choose(),
        };
        running.run(booted)?;
        running.core.status.set(RunState::Running);
        Ok(running)
    }

    /// Waits until the run ends, at most until `limit` after its start; then it ends with [`Exit::Hang`].
    /// Once the run has ended, its exit is returned again.
    pub fn wait(&mut self, limit: Option<Duration>) -> Exit {
        loop {
            let patience = match limit {
                Some(limit) => limit.saturating_sub(self.started.elapsed()),
                None => Duration::from_secs(3600),
            };
            if let Some(exit) = self.wait_a_while(patience) {
                return exit;
            }
            if let Some(limit) = limit.filter(|limit| self.started.elapsed() >= *limit) {
                self.shut_down();
                let vcpus = self.last_seen.clone();
                return match self.panic.take() {
                    Some((message, _)) => self.ended(Exit::Panic { message }),
                    None => self.ended(Exit::Hang { limit, vcpus }),
                };
            }
        }
    }

    /// Waits until the run ends, at most for `patience`; `None` where it goes on. Reboots the guest where it asks for
    /// that and the configuration allows it.
    pub fn wait_a_while(&mut self, patience: Duration) -> Option<Exit> {
        let deadline = Instant::now().checked_add(patience);
        loop {
            if self.exit.is_some() {
                return self.exit.clone();
            }
            let mut left = deadline.map_or(patience, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if let Some((message, since)) = &self.panic {
                let grace = PANIC_GRACE.saturating_sub(since.elapsed());
                if grace.is_zero() {
                    let message = message.clone();
                    return Some(self.end(Exit::Panic { message }));
                }
                left = left.min(grace);
            }
            match self.events.recv_timeout(left) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout)
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) =>
                {
                    return self.exit.clone();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the machine holds a sender itself")
                }
            }
        }
    }

    /// Stops the machine at once.
    pub fn stop(&mut self) -> Exit {
        match &self.exit {
            Some(exit) => exit.clone(),
            None => self.end(Exit::Stopped),
        }
    }

    /// A way to stop the machine, for any thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(self.core.sender.clone())
    }

    /// A way to give orders to the machine, for any thread; they are carried out while somebody waits for it.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::new(self.core.sender.clone(), self.core.status.clone())
    }

    /// A way to send lines to the agent, for any thread.
    #[must_use]
    pub fn agent_sender(&self) -> AgentSender {
        AgentSender(self.core.com2.clone())
    }

    /// Where the vCPUs were when the run, or the boot before this one, ended; empty before any end. After a triple fault an AMD
    /// processor has forgotten its registers; the last exits are told all the same.
    #[must_use]
    pub fn last_seen(&self) -> &[VcpuReport] {
        &self.last_seen
    }

    /// How often the guest has booted again so far.
    #[must_use]
    pub fn reboots(&self) -> u32 {
        self.reboots
    }

    fn handle(&mut self, event: MachineEvent) {
        let exit = match event {
            MachineEvent::Asked {
                flow: Flow::Continue,
                ..
            } => return,
            MachineEvent::Asked {
                flow: Flow::PowerOff,
                ..
            } => Exit::PowerOff,
            MachineEvent::Asked {
                vcpu,
                flow: Flow::Reset,
            } => {
                log::info!("vcpu{vcpu}: reset the machine");
                if self.panic.is_none() && self.core.config.on_reset == OnReset::Reboot {
                    return self.reboot();
                }
                Exit::Reset
            }
            MachineEvent::Asked {
                flow: Flow::Panicked,
                ..
            }
            | MachineEvent::PanicEnded => Exit::Panic {
                message: String::new(),
            },
            MachineEvent::PanicBegan(message) => {
                self.panic.get_or_insert((message, Instant::now()));
                return;
            }
            MachineEvent::TripleFault { vcpu } => Exit::TripleFault { vcpu },
            MachineEvent::VcpuFailed { vcpu, reason } => Exit::KvmGaveUp { vcpu, reason },
            MachineEvent::VcpuPanicked { vcpu } => Exit::Failed {
                reason: format!("the thread of vcpu{vcpu} panicked"),
            },
            MachineEvent::DevicesFailed => Exit::Failed {
                reason: "the device thread panicked".to_owned(),
            },
            MachineEvent::Stop => Exit::Stopped,
            MachineEvent::Order { order, reply } => return self.carry_out(order, &reply),
            MachineEvent::Snapshot { path, note, reply } => {
                // A closed channel means that nobody wants to know any more.
                let _ = reply.send(self.snapshot(&path, note));
                return;
            }
        };
        // Whatever a panicking kernel does in the end, it has panicked.
        let exit = match (self.panic.take(), exit) {
            (
                Some((message, _)),
                Exit::Reset | Exit::PowerOff | Exit::Panic { .. } | Exit::TripleFault { .. },
            ) => Exit::Panic { message },
            (_, exit) => exit,
        };
        self.end(exit);
    }

    fn carry_out(&mut self, order: Order, reply: &super::remote::Reply) {
        log::info!("order: {order:?}");
        let outcome = match order {
            Order::Pause => self.pause(),
            Order::Resume => self.resume(),
            Order::Reset
                if self.panic.is_none() && self.core.config.on_reset == OnReset::Reboot =>
            {
                self.reboot();
                Ok(())
            }
            Order::Reset => {
                self.end(Exit::Reset);
                Ok(())
            }
            Order::PowerOff => {
                self.end(Exit::Stopped);
                Ok(())
            }
        };
        // A closed channel means that nobody wants to know any more.
        let _ = reply.send(outcome);
    }

    /// vCPUs first, so that no new work comes while the device thread ends its turn.
    pub(super) fn pause(&mut self) -> Result<(), OrderError> {
        let pause = self.core.pause.clone();
        pause.begin();
        let running = || self.vcpus.iter().filter(|vcpu| !vcpu.has_ended()).count();
        let nudge = || self.vcpus.iter().for_each(VcpuThread::nudge);
        let failed = if !pause.await_standing(running, nudge, STAND_LIMIT) {
            Some("a vCPU does not come back from a device; the machine runs on".to_owned())
        } else {
            let paused = self.workers.iter().try_for_each(EventLoop::pause);
            paused
                .err()
                .map(|error| format!("the device thread does not pause: {error}"))
        };
        if let Some(reason) = failed {
            pause.end();
            return Err(OrderError::Failed(reason));
        }
        self.core.status.set(RunState::Paused);
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), OrderError> {
        let resumed = self.workers.iter().try_for_each(EventLoop::resume);
        resumed.map_err(|error| {
            OrderError::Failed(format!("the device thread does not go on: {error}"))
        })?;
        self.core.pause.end();
        self.core.status.set(RunState::Running);
        Ok(())
    }

    fn run(&mut self, booted: Booted) -> Result<(), MachineError> {
        let Booted { vm, vcpus } = booted;
        self.vm = Some(vm);
        let world = World {
            cpu: self.one_cpu.as_ref().map(OneCpu::number),
            memory: self.core.memory.clone(),
            buses: self.core.buses.clone(),
            pause: self.core.pause.clone(),
            events: self.core.sender.clone(),
        };
        for (index, fd) in (0..).zip(vcpus) {
            // Who names host CPUs knows better.
            let named = self.core.config.cpu_affinity.of_vcpu(index);
            let mut world = world.clone();
            world.cpu = named.or(world.cpu);
            self.vcpus.push(VcpuThread::spawn(index, fd, world)?);
        }
        self.core.status.count_boot();
        Ok(())
    }

    fn reboot(&mut self) {
        self.stop_vcpus();
        self.vm = None;
        // What the old boot's vCPUs still had to say is void: a second one may have asked for the same reset.
        let said: Vec<_> = self.events.try_iter().collect();
        if said.iter().any(is_stop) {
            // Who gave an order hears that the machine has ended.
            self.end(Exit::Stopped);
            return;
        }
        let booted = self.core.reboot();
        self.reboots += 1;
        let boot = self.reboots + 1;
        log::info!("boot {boot} of the guest");
        self.core.tracer.emit(|| EventKind::BootBegan { boot });
        if let Err(error) = booted.and_then(|booted| self.run(booted)) {
            self.end(Exit::Failed {
                reason: format!("the guest could not boot again: {error}"),
            });
        }
        // Orders are for the machine, whichever boot it is in.
        let orders = said.into_iter().filter(|event| {
            matches!(
                event,
                MachineEvent::Order { .. } | MachineEvent::Snapshot { .. }
            )
        });
        for order in orders {
            // The receiver is this machine's own.
            let _ = self.core.sender.send(order);
        }
    }

    fn end(&mut self, exit: Exit) -> Exit {
        self.shut_down();
        self.ended(exit)
    }

    fn ended(&mut self, exit: Exit) -> Exit {
        log::info!("{exit}");
        for vcpu in &self.last_seen {
            log::debug!("{vcpu}\n{}", vcpu.details);
        }
        self.core.status.set(RunState::Ended);
        self.exit = Some(exit.clone());
        exit
    }

    /// Stops everything that runs. The devices stay as they are, so that their held requests can be looked at,
    /// until the machine is dropped.
    fn shut_down(&mut self) {
        self.stop_vcpus();
        self.vm = None;
        self.workers.clear();
        self.core.buses.ports.reset();
        self.terminal = None;
    }

    fn stop_vcpus(&mut self) {
        for vcpu in &self.vcpus {
            vcpu.request_stop();
        }
        self.last_seen = self.vcpus.drain(..).map(VcpuThread::stop).collect();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.shut_down();
        }
        self.core.devices.reset();
    }
}

/// Whether an event that a reboot overtakes ends the run all the same.
fn is_stop(event: &MachineEvent) -> bool {
    match event {
        MachineEvent::Stop => true,
        MachineEvent::Order { order, .. } => *order == Order::PowerOff,
        _ => false,
    }
}

/// The sources of each worker: the queues in turn.
fn spread(queues: Vec<[Source; 2]>, workers: u8) -> Vec<Vec<Source>> {
    let count = usize::from(workers).min(queues.len()).max(1);
    let mut spread: Vec<Vec<Source>> = (0..count).map(|_| Vec::new()).collect();
    for (index, sources) in queues.into_iter().enumerate() {
        spread[index % count].extend(sources);
    }
    spread
}

/// Standard input, for as long as it is open.
fn keyboard(core: &Core) -> Source {
    let (console, stop) = (core.com1.clone(), StopHandle::new(core.sender.clone()));
    let typed_into = core.typed_into.clone();
    let mut typed = TypedInput::default();
    let call = move || match typed.read() {
        Typed::Bytes(bytes) => {
            match &typed_into {
                // What a guest that does not listen has no room for is lost, as at a serial port.
                Some(console) => {
                    console.send(&bytes);
                }
                None => console.send(&bytes),
            }
            Interest::Keep
        }
        Typed::Leave => {
            stop.stop();
            Interest::Keep
        }
        Typed::End => Interest::Drop,
    };
    Source::Other {
        fd: libc::STDIN_FILENO,
        call: Box::new(call),
    }
}
