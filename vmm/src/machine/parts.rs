//! Puts a machine together: memory, files, buses, devices, VM.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use kvm_ioctls::{Kvm, VcpuFd};
use pincushion_devices::console::ConsoleInput;
use pincushion_devices::device::{Memory, SharedDevice};
use pincushion_devices::trace::Tracer;

use super::config::MachineConfig;
use super::error::MachineError;
use super::event::MachineEvent;
use super::pause::Pause;
use super::remote::{Remote, Status};
use super::running::{Running, StopHandle};
use crate::agent_port::{AgentHandler, AgentPort, AgentSender};
use crate::boot::entry::Initrd;
use crate::boot::{acpi, entry, initrd, kernel};
use crate::console::{Console, ConsoleOutput, Input};
use crate::device_manager::{DeviceManager, HotPlug};
use crate::irq::IrqLine;
use crate::layout::{
    ACPI_PM_PORT, COM1_GSI, COM1_PORT, COM2_GSI, COM2_PORT, I8042_PORT, PVPANIC_PORT,
};
use crate::memory;
use crate::platform::i8042::I8042;
use crate::platform::power::AcpiPm;
use crate::platform::pvpanic::Pvpanic;
use crate::platform::uart::{Output, SharedOutput, Uart};
use crate::region::{self, Region};
use crate::vcpu::Buses;
use crate::vm::Vm;

/// What a machine has beside its configuration.
#[derive(Default)]
pub struct Parts {
    /// The virtio devices, in the order in which the guest finds them. At most 15 by virtio-mmio, 248 by PCI.
    pub devices: Vec<SharedDevice>,
    /// Files that are guest memory above RAM. Reset and reboot leave them as they are.
    pub regions: Vec<Region>,
    /// The first serial port.
    pub console: Console,
    /// Who hears the scenario agent; without it the agent's ports do not exist.
    pub agent: Option<AgentHandler>,
    /// The event log, which hears of what the guest's drivers do wrong and of each boot after the first. The default
    /// one is heard by nobody.
    pub tracer: Arc<Tracer>,
}

/// A machine about to run.
pub struct Machine {
    pub(super) core: Core,
    pub(super) booted: Booted,
    pub(super) events: Receiver<MachineEvent>,
}

/// What lives as long as the machine, across reboots.
pub(super) struct Core {
    pub(super) config: MachineConfig,
    pub(super) kvm: Kvm,
    /// RAM: what the kernel's memory map has, and what a reboot clears.
    pub(super) ram: Memory,
    /// RAM and regions: what devices reach.
    pub(super) memory: Memory,
    /// The regions in it.
    pub(super) regions: Vec<Region>,
    pub(super) buses: Arc<Buses>,
    pub(super) devices: DeviceManager,
    pub(super) com1: Arc<Uart>,
    pub(super) com2: Arc<Uart>,
    pub(super) pm: Arc<AcpiPm>,
    pub(super) agent: Option<Arc<AgentPort>>,
    pub(super) input: Input,
    pub(super) typed_into: Option<ConsoleInput>,
    pub(super) sender: Sender<MachineEvent>,
    pub(super) tracer: Arc<Tracer>,
    pub(super) pause: Arc<Pause>,
    pub(super) status: Arc<Status>,
}

/// What lives from one boot to the next.
pub(super) struct Booted {
    pub(super) vm: Vm,
    pub(super) vcpus: Vec<VcpuFd>,
}

impl Machine {
    /// Makes the machine: reads kernel and initrd into memory, creates the VM, connects the devices.
    ///
    /// # Errors
    /// [`MachineError`]. What the user can get wrong (sizes, files) is refused before KVM is opened.
    pub fn new(config: MachineConfig, parts: Parts) -> Result<Self, MachineError> {
        config.check()?;
        let ram: Memory = Arc::new(memory::create(config.memory_bytes)?);
        let loaded = load_files(&config, &ram)?;
        let (core, events) = Core::new(config, parts, ram)?;
        let booted = core.boot(&loaded)?;
        Ok(Self {
            core,
            booted,
            events,
        })
    }

    /// Starts the vCPUs and the device thread.
    ///
    /// # Errors
    /// Where the host refuses a thread or a descriptor.
    pub fn start(self) -> Result<Running, MachineError> {
        Running::start(self)
    }

    /// A way to send lines to the agent, for any thread.
    #[must_use]
    pub fn agent_sender(&self) -> AgentSender {
        AgentSender(self.core.com2.clone())
    }

    /// A way to stop the machine, for any thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(self.core.sender.clone())
    }

    /// A way to plug in the devices of a machine with [`MachineConfig::hot_plug`], for any thread.
    #[must_use]
    pub fn hot_plug(&self) -> HotPlug {
        self.core.devices.hot_plug()
    }

    /// A way to give orders to the machine, for any thread; they are carried out once it was started and somebody waits
    /// for it.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::new(self.core.sender.clone(), self.core.status.clone())
    }
}

impl Core {
    /// Everything but the VM.
    pub(super) fn new(
        config: MachineConfig,
        parts: Parts,
        ram: Memory,
    ) -> Result<(Self, Receiver<MachineEvent>), MachineError> {
        config.cpu_affinity.check(config.vcpus)?;
        let memory = region::join(&ram, &parts.regions)?;
        let kvm = Kvm::new().map_err(MachineError::open_kvm)?;
        let (sender, events) = channel();
        let output = Arc::new(Mutex::new(ConsoleOutput::new(
            parts.console.sinks,
            sender.clone(),
        )));
        let com1 = serial_port("com1", COM1_GSI, output)?;
        let com2 = serial_port("com2", COM2_GSI, Arc::new(Mutex::new(Nowhere)))?;
        let devices = DeviceManager::new(
            (config.transport, config.hot_plug),
            parts.devices,
            &memory,
            &parts.tracer,
        )?;
        let pm = Arc::new(AcpiPm::new());
        let agent = parts.agent.map(|handler| Arc::new(AgentPort::new(handler)));
        let mut buses = Buses::default();
        add_platform(&mut buses, [&com1, &com2], &pm, agent.as_ref());
        devices.add_to(&mut buses);
        let core = Self {
            config,
            kvm,
            ram,
            memory,
            buses: Arc::new(buses),
            devices,
            com1,
            com2,
            pm,
            agent,
            regions: parts.regions,
            input: parts.console.input,
            typed_into: parts.console.typed_into,
            sender,
            tracer: parts.tracer,
            pause: Arc::default(),
            status: Arc::default(),
        };
        Ok((core, events))
    }

    /// Reads the files again and makes a new VM, after a reset. Memory is empty first.
    pub(super) fn reboot(&self) -> Result<Booted, MachineError> {
        self.buses.ports.reset();
        self.devices.reset();
        memory::clear(&self.ram)?;
        let loaded = load_files(&self.config, &self.ram)?;
        self.boot(&loaded)
    }

    /// A VM whose boot processor is about to enter the kernel that is in memory.
    fn boot(&self, loaded: &Loaded) -> Result<Booted, MachineError> {
        let tables = |memory: &Memory| {
            entry::write_gdt(memory)?;
            entry::write_boot_information(
                memory,
                &loaded.kernel,
                loaded.initrd,
                self.config.cmdline.as_bytes(),
            )?;
            acpi::write(memory, self.config.vcpus, &self.devices.hardware())
        };
        tables(&self.ram).map_err(MachineError::BootStructures)?;
        let vm = self.create_vm()?;
        self.connect(&vm)?;
        let vcpus = vm.create_vcpus(&self.kvm, self.config.vcpus, loaded.kernel.entry)?;
        Ok(Booted { vm, vcpus })
    }

    pub(super) fn create_vm(&self) -> Result<Vm, MachineError> {
        Vm::create(&self.kvm, self.memory.clone(), &self.regions)
    }

    /// Connects interrupts and kicks.
    pub(super) fn connect(&self, vm: &Vm) -> Result<(), MachineError> {
        for line in [self.com1.irq(), self.com2.irq()] {
            line.connect(vm.fd())
                .map_err(MachineError::kvm("connect a serial port's interrupt"))?;
        }
        self.devices.connect(vm.fd())
    }
}

struct Loaded {
    kernel: kernel::LoadedKernel,
    initrd: Initrd,
}

fn load_files(config: &MachineConfig, memory: &Memory) -> Result<Loaded, MachineError> {
    let kernel = kernel::load(&config.kernel, memory)?;
    let initrd = match &config.initrd {
        Some(path) => initrd::load(path, kernel.end, memory)?,
        None => Initrd::default(),
    };
    Ok(Loaded { kernel, initrd })
}

fn serial_port(
    name: &'static str,
    gsi: u32,
    output: SharedOutput,
) -> Result<Arc<Uart>, MachineError> {
    let irq = IrqLine::new(gsi).map_err(MachineError::host("create an interrupt line"))?;
    Ok(Arc::new(Uart::new(name, irq, output)))
}

/// What the guest writes to the second serial port: nothing that anybody wants. The agent has its own road out.
struct Nowhere;

impl Output for Nowhere {
    fn write(&mut self, _bytes: &[u8]) {}
}

fn add_platform(
    buses: &mut Buses,
    [com1, com2]: [&Arc<Uart>; 2],
    pm: &Arc<AcpiPm>,
    agent: Option<&Arc<AgentPort>>,
) {
    use pincushion_abi::port;
    let mut insert = |start: u16, len, device| {
        buses
            .ports
            .insert(u64::from(start), len, device)
            .expect("the layout gives each device its own ports");
    };
    insert(COM1_PORT, Uart::LEN, com1.clone());
    insert(COM2_PORT, Uart::LEN, com2.clone());
    insert(ACPI_PM_PORT, AcpiPm::LEN, pm.clone());
    insert(I8042_PORT, I8042::LEN, Arc::new(I8042));
    insert(PVPANIC_PORT, 1, Arc::new(Pvpanic));
    if let Some(agent) = agent {
        insert(port::BASE, u64::from(port::LEN), agent.clone());
    }
}
