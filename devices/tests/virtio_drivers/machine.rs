//! A machine without a processor: a block device, its registers, and the thread that does the device's work.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pincushion_devices::backend::{
    Disk, DiskOptions, Engine, FileOptions, MemoryDisk, OpenError, open_disk,
};
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::console::{ConsoleConfig, ConsoleDevice, ConsoleInput, Output};
use pincushion_devices::context::Context;
use pincushion_devices::device::{Memory, SharedDevice};
use pincushion_devices::fault::Plan;
use pincushion_devices::mock::ByHand;
use pincushion_devices::net::{Mac, NetConfig, NetDevice, Port};
use pincushion_devices::trace::{EventKind, Recording, Tracer};
use pincushion_devices::transport::MmioTransport;
use pincushion_devices::transport::pci::{Message, PciInterrupts, PciTransport};
use tempfile::TempDir;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::Transport;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest::{GuestHal, Registers, new_guest};
use crate::pci::Function;

/// Size of every disk here, in bytes.
pub const SIZE: u64 = 8 << 20;

pub type Blk = VirtIOBlk<GuestHal, Registers>;
pub type Console<T> = VirtIOConsole<GuestHal, T>;

/// What is done with a console by a driver that knows its transport.
pub trait ConsoleTest {
    fn run<T: Transport>(self, console: &mut Console<T>);
}

/// Where the bytes of a test's disk are.
#[derive(Debug, Clone, Copy)]
pub enum Store {
    Memory,
    File { backend: Engine, direct: bool },
}

/// What the driver finds.
#[derive(Clone)]
enum Wires {
    Mmio(Arc<MmioTransport>),
    Pci(Arc<PciTransport>),
}

impl Wires {
    fn kicks(&self) -> &[Arc<EventFd>] {
        match self {
            Self::Mmio(transport) => transport.kick_fds(),
            Self::Pci(transport) => transport.kick_fds(),
        }
    }
}

/// The pin of a function as an edge of a line; the driver crate knows no vectors.
struct Pin(EventFd);

impl PciInterrupts for Pin {
    fn set_pin(&self, asserted: bool) {
        if asserted {
            self.0.write(1).unwrap();
        }
    }
    fn route(&self, _vector: u16, _message: Message) {}
    fn send(&self, _vector: u16) {}
}

/// Wires a device up.
type Wire = fn(SharedDevice, Memory, EventFd, Arc<Tracer>) -> Wires;

fn on_mmio(device: SharedDevice, memory: Memory, line: EventFd, tracer: Arc<Tracer>) -> Wires {
    Wires::Mmio(Arc::new(
        MmioTransport::new(device, memory, line, tracer).unwrap(),
    ))
}

fn on_pci(device: SharedDevice, memory: Memory, line: EventFd, tracer: Arc<Tracer>) -> Wires {
    let pin = Box::new(Pin(line));
    Wires::Pci(Arc::new(
        PciTransport::new(device, memory, pin, 1, tracer).unwrap(),
    ))
}

/// A device at work.
pub struct Machine {
    wires: Wires,
    pub line: EventFd,
    pub log: Recording,
    stop: EventFd,
    worker: Option<JoinHandle<()>>,
    _dir: Option<TempDir>,
}

/// Opens a store of zeros; `Err` says why the host has none.
fn open(store: Store, read_only: bool) -> Result<(Box<dyn Disk>, Option<TempDir>), OpenError> {
    let Store::File { backend, direct } = store else {
        let disk = MemoryDisk::new(SIZE);
        let disk = if read_only { disk.read_only() } else { disk };
        return Ok((Box::new(disk), None));
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let file = FileOptions {
        path,
        read_only,
        direct,
    };
    Ok((
        open_disk(&DiskOptions {
            engine: backend,
            file,
        })?,
        Some(dir),
    ))
}

impl Machine {
    /// A machine with one disk, or nothing with a printed reason where the host lacks what the store needs.
    pub fn new(store: Store, read_only: bool) -> Option<Self> {
        Self::with(store, read_only, on_mmio)
    }

    /// The same on a PCI bus.
    pub fn on_pci(store: Store, read_only: bool) -> Option<Self> {
        Self::with(store, read_only, on_pci)
    }

    /// A machine with a console that writes to `output`, on a PCI bus or not, and the way to type into it.
    pub fn console(output: Output, is_pci: bool) -> (Self, ConsoleInput) {
        let (tracer, log) = Tracer::recording();
        let context = Context::new(Plan::default(), tracer.clone()).unwrap();
        let config = ConsoleConfig {
            size: Some((80, 25)),
            ..ConsoleConfig::new("c")
        };
        let console = ConsoleDevice::new(config, output, context).unwrap();
        let input = console.input();
        let device: SharedDevice = Arc::new(Mutex::new(console));
        let wire = if is_pci { on_pci } else { on_mmio };
        (Self::at_work(device, tracer, log, None, wire), input)
    }

    /// A machine with a network card, on a PCI bus or not.
    pub fn card(port: Box<dyn Port>, mac: Mac, is_pci: bool) -> Self {
        let (tracer, log) = Tracer::recording();
        let context = Context::new(Plan::default(), tracer.clone()).unwrap();
        let config = NetConfig {
            mac,
            ..NetConfig::new("n")
        };
        let card = NetDevice::new(config, port, context).unwrap();
        let device: SharedDevice = Arc::new(Mutex::new(card));
        let wire = if is_pci { on_pci } else { on_mmio };
        Self::at_work(device, tracer, log, None, wire)
    }

    /// The registers of a machine without a bus.
    pub fn registers(&self) -> Registers {
        match &self.wires {
            Wires::Mmio(transport) => Registers(transport.clone()),
            Wires::Pci(_) => panic!("the machine has a bus"),
        }
    }

    /// The function of a machine with a bus.
    pub fn function(&self) -> Function {
        match &self.wires {
            Wires::Pci(transport) => Function::find(transport.clone()),
            Wires::Mmio(_) => panic!("the machine has no bus"),
        }
    }

    fn with(store: Store, read_only: bool, wire: Wire) -> Option<Self> {
        let (disk, dir) = match open(store, read_only) {
            Ok(opened) => opened,
            Err(error @ (OpenError::NoUring { .. } | OpenError::NoDirectIo { .. })) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let (tracer, log) = Tracer::recording();
        let context = Context::new(Plan::default(), tracer.clone()).unwrap();
        let mut config = BlkConfig::new("a");
        config.serial = Some("pincushion-serial-20".into());
        let device: SharedDevice =
            Arc::new(Mutex::new(BlkDevice::new(config, disk, context).unwrap()));
        Some(Self::at_work(device, tracer, log, dir, wire))
    }

    fn at_work(
        device: SharedDevice,
        tracer: Arc<Tracer>,
        log: Recording,
        dir: Option<TempDir>,
        wire: Wire,
    ) -> Self {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let memory = new_guest();
        let wires = wire(device.clone(), memory, line.try_clone().unwrap(), tracer);
        let stop = EventFd::new(EFD_NONBLOCK).unwrap();
        let worker = {
            let (wires, stop) = (wires.clone(), stop.try_clone().unwrap());
            std::thread::spawn(move || work(&device, wires.kicks(), &stop))
        };
        Self {
            wires,
            line,
            log,
            stop,
            worker: Some(worker),
            _dir: dir,
        }
    }

    /// Lets the driver find the console, wherever it is, and gives it to `test`.
    pub fn drive_console(&self, test: impl ConsoleTest) {
        match &self.wires {
            Wires::Mmio(transport) => {
                let registers = Registers(transport.clone());
                test.run(&mut Console::new(registers).unwrap());
            }
            Wires::Pci(transport) => {
                let function = Function::find(transport.clone());
                test.run(&mut Console::new(function).unwrap());
            }
        }
    }

    /// Lets the driver find the device.
    pub fn drive(&self) -> Blk {
        match &self.wires {
            Wires::Mmio(transport) => Blk::new(Registers(transport.clone())).unwrap(),
            Wires::Pci(_) => panic!("the machine has a bus"),
        }
    }

    /// Lets the driver find the device on its bus.
    pub fn drive_on_pci(&self) -> VirtIOBlk<GuestHal, Function> {
        match &self.wires {
            Wires::Pci(transport) => VirtIOBlk::new(Function::find(transport.clone())).unwrap(),
            Wires::Mmio(_) => panic!("the machine has no bus"),
        }
    }

    pub fn guest_mistakes(&self) -> Vec<EventKind> {
        let events = self.log.events();
        let mistakes = events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::GuestMistake { .. }));
        mistakes.map(|event| event.kind.clone()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.write(1).unwrap();
        let joined = self.worker.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            joined
                .expect("it ran")
                .expect("the device thread did not panic");
        }
    }
}

/// What an event loop does for a device.
fn work(device: &SharedDevice, kicks: &[Arc<EventFd>], stop: &EventFd) {
    const WAKE: u64 = 1000;
    const STOP: u64 = 1001;
    let epoll = Epoll::new().unwrap();
    let watch = |fd, name| {
        let readable = EpollEvent::new(EventSet::IN, name);
        epoll.ctl(ControlOperation::Add, fd, readable).unwrap();
    };
    for (queue, kick) in (0..).zip(kicks) {
        watch(kick.as_raw_fd(), queue);
    }
    for queue in device.lock().unwrap().queues() {
        watch(queue.lock().unwrap().wake_fd(), WAKE);
    }
    watch(stop.as_raw_fd(), STOP);
    loop {
        let mut events = [EpollEvent::default(); 8];
        let count = match epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => panic!("{error}"),
        };
        for event in &events[..count] {
            match event.data() {
                STOP => return,
                WAKE => device.lock().unwrap().on_wake(),
                queue => {
                    let queue = u16::try_from(queue).unwrap();
                    let _ = kicks[usize::from(queue)].read();
                    device.lock().unwrap().on_kick(queue);
                }
            }
        }
    }
}
