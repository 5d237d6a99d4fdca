//! The virtio devices of a machine: a window, an interrupt line and kick eventfds for each.
//!
//! Windows and lines are given in the order of the devices, so the same configuration gives the same guest. A kick is
//! an ioeventfd at QueueNotify with the queue's index as its datum: no vCPU leaves the kernel for it.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use pincushion_devices::device::{Memory, SharedDevice, SharedQueue};
use pincushion_devices::trace::Tracer;
use pincushion_devices::transport::{MmioTransport, QUEUE_NOTIFY};
use vmm_sys_util::eventfd::EventFd;

use crate::boot::acpi::VirtioWindow;
use crate::bus::{Bus, BusDevice, Flow};
use crate::event_loop::Source;
use crate::irq::{IrqLine, virtio_gsi};
use crate::layout::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_WINDOW};
use crate::lock::lock;
use crate::machine::MachineError;

struct Slot {
    device: SharedDevice,
    window: Arc<Window>,
    irq: IrqLine,
    base: u64,
}

/// All devices of a machine.
pub(crate) struct DeviceManager {
    slots: Vec<Slot>,
}

impl DeviceManager {
    /// Gives each device its window, its line and its registers.
    pub(crate) fn new(
        devices: Vec<SharedDevice>,
        memory: &Memory,
        tracer: &Arc<Tracer>,
    ) -> Result<Self, MachineError> {
        let count = devices.len();
        let slots = devices.into_iter().enumerate().map(|(index, device)| {
            let gsi = virtio_gsi(index).ok_or(MachineError::TooManyDevices { count })?;
            let new_line = || {
                let irq = IrqLine::new(gsi)?;
                let event = irq.event().try_clone()?;
                Ok((irq, event))
            };
            let (irq, event) =
                new_line().map_err(MachineError::host("create an interrupt line"))?;
            let transport =
                MmioTransport::new(device.clone(), memory.clone(), event, tracer.clone())
                    .map_err(MachineError::host("create a kick eventfd"))?;
            let base = VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_WINDOW;
            Ok(Slot {
                device,
                window: Arc::new(Window(transport)),
                irq,
                base,
            })
        });
        Ok(Self {
            slots: slots.collect::<Result<_, MachineError>>()?,
        })
    }

    /// The windows, as ACPI describes them.
    pub(crate) fn windows(&self) -> Vec<VirtioWindow> {
        let window = |slot: &Slot| VirtioWindow {
            base: u32::try_from(slot.base).expect("windows are below 4 GiB"),
            gsi: slot.irq.gsi(),
        };
        self.slots.iter().map(window).collect()
    }

    /// Puts the windows on the bus.
    pub(crate) fn add_to(&self, bus: &mut Bus) {
        for slot in &self.slots {
            bus.insert(slot.base, VIRTIO_MMIO_WINDOW, slot.window.clone())
                .expect("windows do not overlap");
        }
    }

    /// Connects interrupts and kicks to a VM. Kicks left over from an earlier VM are forgotten.
    pub(crate) fn connect(&self, vm: &VmFd) -> Result<(), MachineError> {
        for slot in &self.slots {
            slot.irq
                .connect(vm)
                .map_err(MachineError::kvm("connect a device's interrupt"))?;
            let notify = IoEventAddress::Mmio(slot.base + QUEUE_NOTIFY);
            for (queue, kick) in (0u32..).zip(slot.window.0.kick_fds()) {
                // EAGAIN means that nothing was left over.
                let _ = kick.read();
                vm.register_ioevent(kick.as_ref(), &notify, queue)
                    .map_err(MachineError::kvm("connect a device's kick"))?;
            }
        }
        Ok(())
    }

    /// What the device thread waits for.
    pub(crate) fn sources(&self) -> Vec<Source> {
        let of_slot = |slot: &Slot| {
            let queues = lock(&slot.device).queues();
            let kicks = queues.clone().into_iter().zip(slot.window.0.kick_fds());
            let kick = |(queue, event): (SharedQueue, &Arc<EventFd>)| Source::Kick {
                queue,
                event: event.clone(),
            };
            let mut sources: Vec<_> = kicks.map(kick).collect();
            sources.extend(queues.into_iter().map(|queue| Source::Wake { queue }));
            sources
        };
        self.slots.iter().flat_map(of_slot).collect()
    }

    /// Resets every device: its queues stop and what it holds is abandoned.
    pub(crate) fn reset(&self) {
        for slot in &self.slots {
            slot.window.reset();
        }
    }
}

/// A device's registers on the bus.
struct Window(MmioTransport);

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        self.0.write(offset, data);
        Flow::Continue
    }

    fn reset(&self) {
        self.0.reset();
    }
}
