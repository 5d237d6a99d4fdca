//! The virtio devices of a machine, by one transport or the other.
//!
//! Every machine has a PCI bus with a host bridge; with virtio-mmio nothing else is on it.

use std::sync::Arc;

use kvm_ioctls::VmFd;
use pincushion_devices::device::{Memory, SharedDevice, SharedQueue};
use pincushion_devices::trace::Tracer;
use pincushion_devices::transport::{DeviceShape, SavedMmio, SavedPci, StateError, has_driver};
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use crate::boot::acpi::{Hardware, PciRoot};
use crate::event_loop::Source;
use crate::layout::{
    PCI_CONFIG_PORT, PCI_ECAM_BASE, PCI_ECAM_LEN, PCI_SLOTS, PCI_WINDOW_END, PCI_WINDOW_START,
};
use crate::lock::lock;
use crate::machine::{MachineError, Transport};
use crate::mmio_slots::{self, MmioSlot};
use crate::pci::{ConfigPorts, Ecam, MemoryWindow, PciBus};
use crate::vcpu::Buses;

/// All devices of a machine.
pub(crate) struct DeviceManager {
    slots: Vec<MmioSlot>,
    pci: Arc<PciBus>,
    ports: Arc<ConfigPorts>,
    /// Devices may come to the bus later.
    hot_plug: bool,
}

/// Plugs in the devices of a machine that has [`MachineConfig::hot_plug`].
///
/// [`MachineConfig::hot_plug`]: crate::machine::MachineConfig::hot_plug
#[derive(Clone)]
pub struct HotPlug(Arc<PciBus>);

impl HotPlug {
    /// From now on a guest finds all of them on the PCI bus, when it looks; nobody tells it to. Does nothing the second time.
    pub fn plug_in(&self) {
        self.0.plug_in();
    }
}

/// The devices' part of a snapshot, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedDevices {
    mmio: Vec<SavedMmio>,
    pci: Vec<SavedPci>,
    config_address: u32,
}

impl SavedDevices {
    /// Whether no driver has begun with any of them.
    pub(crate) fn are_untouched(&self) -> bool {
        let by_mmio = self.mmio.iter().map(|saved| saved.core.status);
        let by_pci = self.pci.iter().map(|saved| saved.core.status);
        !by_mmio.chain(by_pci).any(has_driver)
    }
}

impl DeviceManager {
    /// Gives each device its registers and its interrupts.
    pub(crate) fn new(
        (transport, hot_plug): (Transport, bool),
        devices: Vec<SharedDevice>,
        memory: &Memory,
        tracer: &Arc<Tracer>,
    ) -> Result<Self, MachineError> {
        let (by_mmio, by_pci) = match transport {
            Transport::Mmio => (devices, Vec::new()),
            Transport::Pci => (Vec::new(), devices),
        };
        let pci = Arc::new(PciBus::new(by_pci, !hot_plug, memory, tracer)?);
        Ok(Self {
            slots: mmio_slots::new(by_mmio, memory, tracer)?,
            ports: Arc::new(ConfigPorts::new(pci.clone())),
            pci,
            hot_plug: hot_plug && transport == Transport::Pci,
        })
    }

    /// By this, another thread plugs the devices in.
    pub(crate) fn hot_plug(&self) -> HotPlug {
        HotPlug(self.pci.clone())
    }

    /// What a guest can find out about each.
    pub(crate) fn shapes(&self) -> Vec<DeviceShape> {
        let by_mmio = self.slots.iter().map(|slot| slot.transport().shape());
        let functions = self.pci.plugged_in().iter();
        by_mmio
            .chain(functions.map(|function| function.transport.shape()))
            .collect()
    }

    /// All of them, for a snapshot: no vCPU runs, and nobody serves the queues.
    ///
    /// # Errors
    /// The first device that cannot be saved now.
    pub(crate) fn save(&self) -> Result<SavedDevices, StateError> {
        let slots = self.slots.iter();
        let functions = self.pci.plugged_in().iter();
        Ok(SavedDevices {
            mmio: slots
                .map(|slot| slot.transport().save())
                .collect::<Result<_, _>>()?,
            pci: functions
                .map(|function| function.transport.save())
                .collect::<Result<_, _>>()?,
            config_address: self.ports.save(),
        })
    }

    /// All of them as they were saved, connected and as after a reset. Their number is right.
    ///
    /// # Errors
    /// The first device that the state does not fit; all have to be reset then.
    pub(crate) fn restore(&self, saved: &SavedDevices) -> Result<(), StateError> {
        self.ports.restore(saved.config_address);
        for (slot, saved) in self.slots.iter().zip(&saved.mmio) {
            slot.transport().restore(saved)?;
        }
        self.pci.restore(&saved.pci)
    }

    /// What ACPI describes of them.
    pub(crate) fn hardware(&self) -> Hardware {
        let high = self.pci.high_window();
        Hardware {
            windows: self.slots.iter().map(MmioSlot::window).collect(),
            pci: self.has_pci().then(|| PciRoot {
                slots: if self.hot_plug {
                    u8::try_from(PCI_SLOTS).expect("31 slots")
                } else {
                    self.pci.slots()
                },
                high_window: high.start..high.end,
            }),
        }
    }

    /// Puts registers and windows on the buses.
    pub(crate) fn add_to(&self, buses: &mut Buses) {
        let port = u64::from(PCI_CONFIG_PORT);
        buses
            .ports
            .insert(port, ConfigPorts::LEN, self.ports.clone())
            .expect("the layout gives each device its own ports");
        for slot in &self.slots {
            slot.add_to(&mut buses.mmio);
        }
        if !self.has_pci() {
            return;
        }
        let high = self.pci.high_window();
        let windows = [(PCI_WINDOW_START, PCI_WINDOW_END), (high.start, high.end)];
        for (start, end) in windows {
            let window = MemoryWindow::new(self.pci.clone(), start);
            buses
                .mmio
                .insert(start, end - start, Arc::new(window))
                .expect("the layout gives the windows their places");
        }
        buses
            .mmio
            .insert(
                PCI_ECAM_BASE,
                PCI_ECAM_LEN,
                Arc::new(Ecam(self.pci.clone())),
            )
            .expect("the layout gives ECAM its place");
    }

    /// Connects interrupts and kicks to a VM. Kicks left over from an earlier VM are forgotten.
    pub(crate) fn connect(&self, vm: &Arc<VmFd>) -> Result<(), MachineError> {
        self.pci.connect(vm);
        self.slots.iter().try_for_each(|slot| slot.connect(vm))
    }

    /// What the device threads wait for: of each queue its kick and its wake.
    pub(crate) fn sources(&self) -> Vec<[Source; 2]> {
        let by_mmio = self
            .slots
            .iter()
            .flat_map(|slot| sources_of(&slot.device, slot.transport().kick_fds()));
        let by_pci = self
            .pci
            .functions()
            .iter()
            .flat_map(|function| sources_of(&function.device, function.transport.kick_fds()));
        by_mmio.chain(by_pci).collect()
    }

    /// Resets every device: its queues stop and what it holds is abandoned.
    pub(crate) fn reset(&self) {
        for slot in &self.slots {
            slot.transport().reset();
        }
        self.pci.reset();
    }

    fn has_pci(&self) -> bool {
        self.hot_plug || !self.pci.functions().is_empty()
    }
}

fn sources_of(device: &SharedDevice, kicks: &[Arc<EventFd>]) -> Vec<[Source; 2]> {
    let of_queue = |(queue, event): (SharedQueue, &Arc<EventFd>)| {
        let kick = Source::Kick {
            queue: queue.clone(),
            event: event.clone(),
        };
        [kick, Source::Wake { queue }]
    };
    let queues = lock(device).queues();
    queues.into_iter().zip(kicks).map(of_queue).collect()
}
