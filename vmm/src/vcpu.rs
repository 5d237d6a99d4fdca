//! One thread per vCPU: runs the guest, hands its port and memory accesses to the buses, reports what ends the run.
//!
//! Promises: a vCPU whose write asked for power-off or reset never runs another instruction; [`VcpuThread::stop`]
//! ends the thread also when the guest spins or sleeps in `hlt`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use pincushion_devices::device::Memory;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::bus::{Bus, Flow};
use crate::machine::MachineError;
use crate::machine::event::MachineEvent;
use crate::machine::pause::Pause;
use crate::nested::one_cpu::keep_to;
use crate::snapshot::{SavedVcpu, SnapshotError};
use crate::vcpu_report::{self, Exits, LastExit, VcpuReport};

/// How often a thread that did not notice its stop flag is woken again. A signal that comes between the look at the flag
/// and KVM_RUN is lost, so one is not enough.
const KICK_AGAIN: Duration = Duration::from_millis(2);
/// A vCPU that has not stopped after this is stuck in a device.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The buses of a machine.
#[derive(Default)]
pub(crate) struct Buses {
    pub(crate) ports: Bus,
    pub(crate) mmio: Bus,
}

/// What all vCPUs of a machine have in common.
#[derive(Clone)]
pub(crate) struct World {
    /// The only CPU of the host on which they may run, where there is such a rule.
    pub(crate) cpu: Option<usize>,
    /// For their reports only.
    pub(crate) memory: Memory,
    pub(crate) buses: Arc<Buses>,
    pub(crate) pause: Arc<Pause>,
    pub(crate) events: Sender<MachineEvent>,
}

/// What a vCPU that stands is asked for: its state, of which these are the model-specific registers.
struct SaveCall {
    msrs: Arc<[u32]>,
    reply: Sender<Result<SavedVcpu, SnapshotError>>,
}

/// A running vCPU.
pub(crate) struct VcpuThread {
    index: u8,
    calls: Sender<SaveCall>,
    stop: Arc<AtomicBool>,
    pause: Arc<Pause>,
    done: Receiver<VcpuReport>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuThread {
    /// Starts running `fd`.
    pub(crate) fn spawn(index: u8, fd: VcpuFd, world: World) -> Result<Self, MachineError> {
        let World {
            cpu,
            memory,
            buses,
            pause,
            events,
        } = world;
        extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        // The handler does nothing: that the signal interrupts KVM_RUN is all that is wanted.
        register_signal_handler(SIGRTMIN(), ignore).map_err(|error| MachineError::Host {
            attempt: "install a signal handler",
            source: error.into(),
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let (report, done) = channel();
        let (calls, to_answer) = channel();
        let mut vcpu = Vcpu {
            index,
            fd,
            calls: to_answer,
            memory,
            buses,
            stop: stop.clone(),
            exits: Exits::default(),
            pause: pause.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || {
                if let Some(cpu) = cpu {
                    keep_to(cpu);
                }
                let ran = catch_unwind(AssertUnwindSafe(|| vcpu.run()));
                let panicked = MachineEvent::VcpuPanicked { vcpu: index };
                if let Some(event) = ran.unwrap_or(Some(panicked)) {
                    // Closed channels mean that nobody is interested any more.
                    let _ = events.send(event);
                }
                let _ = report.send(vcpu.report());
            })
            .map_err(MachineError::host("start a vCPU thread"))?;
        Ok(Self {
            index,
            calls,
            stop,
            pause,
            done,
            thread: Some(thread),
        })
    }

    /// Asks the thread to stop, without waiting.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.pause.look_again();
        self.kick();
    }

    /// Makes the vCPU leave the guest for a moment, so that it looks whether it has to stop or to pause.
    pub(crate) fn nudge(&self) {
        self.kick();
    }

    /// The vCPU's state, while it stands.
    pub(crate) fn save(&self, msrs: &Arc<[u32]>) -> Result<SavedVcpu, SnapshotError> {
        let (reply, saved) = channel();
        let msrs = msrs.clone();
        // Without a receiver the reply is dropped, and the wait below ends at once.
        let _ = self.calls.send(SaveCall { msrs, reply });
        self.pause.look_again();
        let saved = saved.recv_timeout(STOP_LIMIT);
        saved.unwrap_or(Err(SnapshotError::Vcpu(self.index)))
    }

    /// Whether its thread has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the vCPU and waits for its thread.
    pub(crate) fn stop(mut self) -> VcpuReport {
        self.stop_and_join()
    }

    fn kick(&self) {
        if let Some(thread) = &self.thread {
            // ESRCH only: the thread has ended by itself.
            let _ = thread.kill(SIGRTMIN());
        }
    }

    fn stop_and_join(&mut self) -> VcpuReport {
        let nothing = VcpuReport {
            index: self.index,
            ..Default::default()
        };
        let begin = Instant::now();
        self.stop.store(true, Ordering::Release);
        self.pause.look_again();
        let report = loop {
            self.kick();
            match self.done.recv_timeout(KICK_AGAIN) {
                Ok(report) => break report,
                Err(RecvTimeoutError::Disconnected) => break nothing,
                Err(RecvTimeoutError::Timeout) if begin.elapsed() > STOP_LIMIT => {
                    log::error!(
                        "vcpu{}: did not stop within {STOP_LIMIT:?}: a device call does not return",
                        self.index
                    );
                    // The thread owns what it uses; it is left behind rather than waited for without end.
                    self.thread = None;
                    return nothing;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("vcpu{}: its thread panicked", self.index);
        }
        report
    }
}

impl Drop for VcpuThread {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop_and_join();
        }
    }
}

struct Vcpu {
    index: u8,
    fd: VcpuFd,
    calls: Receiver<SaveCall>,
    memory: Memory,
    buses: Arc<Buses>,
    stop: Arc<AtomicBool>,
    exits: Exits,
    pause: Arc<Pause>,
}

/// What came of KVM_RUN.
enum Step {
    /// An access of a device, done; KVM completes it next time.
    Exit,
    /// A signal, or nothing to do.
    Interrupted,
    /// The vCPU runs no more.
    End(MachineEvent),
}

impl Vcpu {
    /// Runs until told to stop (`None`) or until something ends the run.
    fn run(&mut self) -> Option<MachineEvent> {
        while !self.stop.load(Ordering::Acquire) {
            if self.pause.is_wanted() {
                if let Some(event) = self.complete_exit() {
                    return Some(event);
                }
                self.stand();
                continue;
            }
            match self.step() {
                Step::Exit | Step::Interrupted => {}
                Step::End(event) => return Some(event),
            }
        }
        None
    }

    /// KVM_RUN once, and what the exit asks for.
    fn step(&mut self) -> Step {
        let flow = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let first = data.first().copied().unwrap_or_default();
                self.exits.add(LastExit::Out(port, first));
                self.buses.ports.write(u64::from(port), data)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                self.exits.add(LastExit::In(port));
                self.buses.ports.read(u64::from(port), data);
                Flow::Continue
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.exits.add(LastExit::Read(address));
                self.buses.mmio.read(address, data);
                Flow::Continue
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.exits.add(LastExit::Write(address));
                self.buses.mmio.write(address, data)
            }
            Ok(VcpuExit::Intr) => {
                self.exits.add(LastExit::Signal);
                return Step::Interrupted;
            }
            Ok(VcpuExit::Shutdown) => {
                return Step::End(MachineEvent::TripleFault { vcpu: self.index });
            }
            Ok(VcpuExit::InternalError) => {
                let reason = "an instruction that it cannot emulate (see `pincushion doctor`)";
                return Step::End(self.failed(reason.to_owned()));
            }
            Ok(other) => {
                let reason = format!("{other:?}");
                return Step::End(self.failed(reason));
            }
            // EAGAIN: a vCPU that waits for its start-up interrupt was woken.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return Step::Interrupted;
            }
            Err(error) => return Step::End(self.failed(error.to_string())),
        };
        match flow {
            Flow::Continue => Step::Exit,
            flow => Step::End(MachineEvent::Asked {
                vcpu: self.index,
                flow,
            }),
        }
    }

    /// KVM completes an access of a device at the next KVM_RUN: without one, the registers are an instruction behind. One access may
    /// be several exits.
    fn complete_exit(&mut self) -> Option<MachineEvent> {
        self.fd.set_kvm_immediate_exit(1);
        let event = loop {
            match self.step() {
                Step::Exit => {}
                Step::Interrupted => break None,
                Step::End(event) => break Some(event),
            }
        };
        self.fd.set_kvm_immediate_exit(0);
        event
    }

    /// Stands still until the pause has ended.
    fn stand(&self) {
        // Tells the guest's watchdogs that it was stopped. EINVAL: it does not use KVM's clock.
        if let Err(error) = self.fd.kvmclock_ctrl() {
            log::debug!("vcpu{}: KVM_KVMCLOCK_CTRL: {error}", self.index);
        }
        self.pause.stand(&self.stop, || {
            for call in self.calls.try_iter() {
                // A closed channel means that the one who asked has given up.
                let _ = call.reply.send(SavedVcpu::save(&self.fd, &call.msrs));
            }
        });
    }

    fn failed(&mut self, what: String) -> MachineEvent {
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        let run = self.fd.get_kvm_run();
        let reason = format!(
            "KVM stopped the vCPU with {what} (exit reason {}) at rip {rip:#x}",
            run.exit_reason
        );
        MachineEvent::VcpuFailed {
            vcpu: self.index,
            reason,
        }
    }

    fn report(&self) -> VcpuReport {
        vcpu_report::report(self.index, &self.fd, &self.memory, &self.exits)
    }
}
