//! virtio-mmio devices: a window, an interrupt line and kick eventfds for each.
//!
//! Windows and lines are given in the order of the devices, so the same configuration gives the same guest. A kick is
//! an ioeventfd at QueueNotify with the queue's index as its datum: no vCPU leaves the kernel for it.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use pincushion_devices::device::{Memory, SharedDevice};
use pincushion_devices::trace::Tracer;
use pincushion_devices::transport::{MmioTransport, QUEUE_NOTIFY};

use crate::boot::acpi::VirtioWindow;
use crate::bus::{Bus, BusDevice, Flow};
use crate::irq::{IrqLine, virtio_gsi};
use crate::layout::{VIRTIO_GSIS, VIRTIO_MMIO_BASE, VIRTIO_MMIO_WINDOW};
use crate::machine::MachineError;

/// One device behind virtio-mmio.
pub(crate) struct MmioSlot {
    pub(crate) device: SharedDevice,
    window: Arc<Window>,
    irq: IrqLine,
    base: u64,
}

/// Gives each device its window, its line and its registers.
pub(crate) fn new(
    devices: Vec<SharedDevice>,
    memory: &Memory,
    tracer: &Arc<Tracer>,
) -> Result<Vec<MmioSlot>, MachineError> {
    let count = devices.len();
    let slot = |(index, device): (usize, SharedDevice)| {
        let room = VIRTIO_GSIS.len();
        let gsi = virtio_gsi(index).ok_or(MachineError::TooManyDevices { count, room })?;
        let new_line = || {
            let irq = IrqLine::new(gsi)?;
            let event = irq.event().try_clone()?;
            Ok((irq, event))
        };
        let (irq, event) = new_line().map_err(MachineError::host("create an interrupt line"))?;
        let transport = MmioTransport::new(device.clone(), memory.clone(), event, tracer.clone())
            .map_err(MachineError::host("create a kick eventfd"))?;
        Ok(MmioSlot {
            device,
            window: Arc::new(Window(transport)),
            irq,
            base: VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_WINDOW,
        })
    };
    devices.into_iter().enumerate().map(slot).collect()
}

impl MmioSlot {
    /// The registers.
    pub(crate) fn transport(&self) -> &MmioTransport {
        &self.window.0
    }

    /// The window, as ACPI describes it.
    pub(crate) fn window(&self) -> VirtioWindow {
        VirtioWindow {
            base: u32::try_from(self.base).expect("windows are below 4 GiB"),
            gsi: self.irq.gsi(),
        }
    }

    /// Puts the window on the bus.
    pub(crate) fn add_to(&self, bus: &mut Bus) {
        bus.insert(self.base, VIRTIO_MMIO_WINDOW, self.window.clone())
            .expect("windows do not overlap");
    }

    /// Connects interrupt and kicks to a VM. Kicks left over from an earlier VM are forgotten.
    pub(crate) fn connect(&self, vm: &VmFd) -> Result<(), MachineError> {
        self.irq
            .connect(vm)
            .map_err(MachineError::kvm("connect a device's interrupt"))?;
        let notify = IoEventAddress::Mmio(self.base + QUEUE_NOTIFY);
        for (queue, kick) in (0u32..).zip(self.transport().kick_fds()) {
            // EAGAIN means that nothing was left over.
            let _ = kick.read();
            vm.register_ioevent(kick.as_ref(), &notify, queue)
                .map_err(MachineError::kvm("connect a device's kick"))?;
        }
        Ok(())
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
