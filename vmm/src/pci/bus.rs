//! The functions of bus 0: by number, by address, and connected to a VM.
//!
//! Promises: whatever a guest writes into configuration space, an access of memory reaches the function whose BAR is
//! there, and never what is not PCI; the ioeventfds of a BAR are where the BAR is.
//!
//! Locks: `moving` serializes writes of configuration space; it comes before everything of a function. `placed` is held
//! for a look-up only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use pincushion_devices::device::{Memory, SharedDevice};
use pincushion_devices::trace::Tracer;
use pincushion_devices::transport::pci::{BAR_SIZE, PciTransport, notify_offset};
use pincushion_devices::transport::{SavedPci, StateError};

use super::intx::{IntxLines, intx_gsi};
use super::msi::{FunctionInterrupts, Routes};
use super::window::HighWindow;
use crate::layout::{MAX_PCI_FUNCTIONS, PCI_SLOTS, PCI_WINDOW_END, PCI_WINDOW_START};
use crate::lock::lock;
use crate::machine::MachineError;

/// One virtio device on the bus.
pub(crate) struct Function {
    pub(crate) device: SharedDevice,
    pub(crate) transport: PciTransport,
    slot: u8,
    function: u8,
    /// Where it is placed before a guest looks.
    home: u64,
}

/// Where a BAR is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    base: u64,
    index: usize,
}

/// Bus 0 and all that is on it.
pub(crate) struct PciBus {
    functions: Vec<Function>,
    /// Until then a guest finds no function.
    is_plugged_in: AtomicBool,
    high: HighWindow,
    routes: Arc<Routes>,
    lines: Arc<IntxLines>,
    vm: Mutex<Weak<VmFd>>,
    moving: Mutex<()>,
    placed: RwLock<Vec<Placed>>,
}

impl PciBus {
    /// A bus with a host bridge and `devices`, in the order of their slots; a guest sees these now, or after [`Self::plug_in`].
    pub(crate) fn new(
        devices: Vec<SharedDevice>,
        is_plugged_in: bool,
        memory: &Memory,
        tracer: &Arc<Tracer>,
    ) -> Result<Self, MachineError> {
        let count = devices.len();
        if count > MAX_PCI_FUNCTIONS {
            let room = MAX_PCI_FUNCTIONS;
            return Err(MachineError::TooManyDevices { count, room });
        }
        let (routes, lines) = (Arc::new(Routes::default()), Arc::new(IntxLines::default()));
        let function = |(index, device): (usize, SharedDevice)| {
            // Every slot is used before one gets a second function: a guest looks for those only behind the first.
            let slot = u8::try_from(1 + index % PCI_SLOTS).expect("31 slots");
            let function = u8::try_from(index / PCI_SLOTS).expect("8 functions");
            let pin = function % 4 + 1;
            let queues = lock(&device).queue_max_sizes().len();
            let interrupts = FunctionInterrupts::new(
                routes.clone(),
                lines.clone(),
                intx_gsi(slot, pin),
                PciTransport::vectors_for(queues),
            )
            .map_err(MachineError::host("create an interrupt's eventfd"))?;
            let transport = PciTransport::new(
                device.clone(),
                memory.clone(),
                Box::new(interrupts),
                pin,
                tracer.clone(),
            )
            .map_err(MachineError::host("create a kick eventfd"))?;
            if index + PCI_SLOTS < count {
                transport.set_multifunction();
            }
            Ok(Function {
                device,
                transport,
                slot,
                function,
                home: PCI_WINDOW_START + index as u64 * BAR_SIZE,
            })
        };
        let functions = devices.into_iter().enumerate().map(function);
        let bus = Self {
            functions: functions.collect::<Result<_, MachineError>>()?,
            is_plugged_in: is_plugged_in.into(),
            high: HighWindow::of_this_host(),
            routes,
            lines,
            vm: Mutex::default(),
            moving: Mutex::default(),
            placed: RwLock::default(),
        };
        bus.place_all();
        Ok(bus)
    }

    /// The functions, in the order of the devices.
    pub(crate) fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Those that a guest can see.
    pub(crate) fn plugged_in(&self) -> &[Function] {
        if self.is_plugged_in.load(Ordering::Acquire) {
            &self.functions
        } else {
            &[]
        }
    }

    /// From now on a guest that looks finds the functions, as after a reset.
    pub(crate) fn plug_in(&self) {
        self.is_plugged_in.store(true, Ordering::Release);
    }

    /// Slots with a device, now or later.
    pub(crate) fn slots(&self) -> u8 {
        u8::try_from(self.functions.len().min(PCI_SLOTS)).expect("31 slots")
    }

    /// The window above RAM.
    pub(crate) fn high_window(&self) -> HighWindow {
        self.high
    }

    /// Connects interrupts to a VM, whose guest finds the BARs where firmware would have placed them.
    pub(crate) fn connect(&self, vm: &Arc<VmFd>) {
        self.routes.connect(vm);
        self.lines.connect(vm);
        *lock(&self.vm) = Arc::downgrade(vm);
        for function in &self.functions {
            for kick in function.transport.kick_fds() {
                // EAGAIN means that no kick was left over from an earlier VM.
                let _ = kick.read();
            }
        }
    }

    /// Resets every function: queues stop, what they hold is abandoned, and the BARs are back in their places.
    pub(crate) fn reset(&self) {
        let _moving = lock(&self.moving);
        for (index, function) in self.functions.iter().enumerate() {
            function.transport.reset();
            self.follow(index);
        }
        self.place_all();
    }

    /// Each function as it was saved, on a bus that is connected and as after a reset.
    ///
    /// # Errors
    /// The first function that the state does not fit; the bus has to be reset then.
    pub(crate) fn restore(&self, saved: &[SavedPci]) -> Result<(), StateError> {
        let _moving = lock(&self.moving);
        for (index, (function, saved)) in self.plugged_in().iter().zip(saved).enumerate() {
            function.transport.restore(saved)?;
            self.follow(index);
        }
        Ok(())
    }

    fn place_all(&self) {
        for function in &self.functions {
            function.transport.place_bar(function.home);
        }
    }

    /// Reads configuration space of a function; `false` where there is none.
    pub(super) fn read_config(&self, slot: u8, function: u8, offset: u64, data: &mut [u8]) -> bool {
        match self.find(slot, function) {
            Some(index) => {
                self.functions[index].transport.read_config(offset, data);
                true
            }
            None => false,
        }
    }

    /// Writes configuration space of a function, if there is one.
    pub(super) fn write_config(&self, slot: u8, function: u8, offset: u64, data: &[u8]) {
        if let Some(index) = self.find(slot, function) {
            let _moving = lock(&self.moving);
            self.functions[index].transport.write_config(offset, data);
            self.follow(index);
        }
    }

    /// The function whose BAR holds `address`, and the offset in it.
    pub(super) fn at(&self, address: u64) -> Option<(&PciTransport, u64)> {
        let placed = self
            .placed
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let hit = placed
            .iter()
            .find(|placed| (placed.base..placed.base + BAR_SIZE).contains(&address))?;
        Some((&self.functions[hit.index].transport, address - hit.base))
    }

    fn find(&self, slot: u8, function: u8) -> Option<usize> {
        let is_it = |it: &Function| (it.slot, it.function) == (slot, function);
        self.plugged_in().iter().position(is_it)
    }

    /// After a write of configuration space: look-ups and ioeventfds go where the BAR is now.
    fn follow(&self, index: usize) {
        let transport = &self.functions[index].transport;
        let now = transport
            .decoded_bar()
            .filter(|base| self.is_in_a_window(*base));
        let mut placed = self
            .placed
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = placed.iter().position(|placed| placed.index == index);
        let before = before.map(|at| (at, placed[at].base));
        if before.map(|(_, base)| base) == now {
            return;
        }
        if let Some((at, _)) = before {
            placed.remove(at);
        }
        placed.extend(now.map(|base| Placed { base, index }));
        drop(placed);
        let Some(vm) = lock(&self.vm).upgrade() else {
            return;
        };
        if let Some((_, base)) = before {
            disconnect_kicks(&vm, transport, base);
        }
        if let Some(base) = now {
            log::debug!("{transport:?}: its BAR is at {base:#x}");
            connect_kicks(&vm, transport, base);
        }
    }

    fn is_in_a_window(&self, base: u64) -> bool {
        let end = base.saturating_add(BAR_SIZE);
        (PCI_WINDOW_START <= base && end <= PCI_WINDOW_END)
            || (self.high.start <= base && end <= self.high.end)
    }
}

fn connect_kicks(vm: &VmFd, transport: &PciTransport, base: u64) {
    for (queue, kick) in (0..).zip(transport.kick_fds()) {
        let address = IoEventAddress::Mmio(base + notify_offset(queue));
        // A guest that puts two BARs at one place gets here. The kicks arrive as writes then.
        if let Err(error) = vm.register_ioevent(kick, &address, NoDatamatch) {
            log::warn!("{transport:?}: no ioeventfd at {base:#x} for queue {queue}: {error}");
        }
    }
}

fn disconnect_kicks(vm: &VmFd, transport: &PciTransport, base: u64) {
    for (queue, kick) in (0..).zip(transport.kick_fds()) {
        let address = IoEventAddress::Mmio(base + notify_offset(queue));
        // One that could not be registered cannot be taken away.
        let _ = vm.unregister_ioevent(kick, &address, NoDatamatch);
    }
}
