//! What all queues of a card share: whether the link is up, and what the driver has set up.
//!
//! Its lock is taken last and for a moment: nothing else is locked and nobody is called with it held.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::context::Context;
use crate::device::Interrupt;
use crate::trace::event::EventKind;

use super::config::Mac;

/// The cable of a card, which anybody may pull. Clones are the same cable.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    context: Context,
    state: Mutex<State>,
}

/// What the driver has set up, and the link.
#[derive(Clone)]
pub(super) struct State {
    pub(super) up: bool,
    pub(super) generation: u32,
    pub(super) mac: Mac,
    /// Queue pairs in use.
    pub(super) pairs: u16,
    pub(super) features: u64,
    /// Descriptors of each queue, as the driver chose them.
    pub(super) queue_sizes: Vec<u16>,
    pub(super) mode: ReceiveMode,
    interrupt: Option<Arc<dyn Interrupt>>,
    /// One for each receive queue: makes it look at the link again.
    pokes: Vec<Arc<EventFd>>,
}

/// What the driver wants to receive. Remembered only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ReceiveMode {
    /// One bit for each command of the class `VIRTIO_NET_CTRL_RX` that is on.
    pub(super) bits: u8,
    /// Entries of the address tables.
    pub(super) addresses: u32,
}

/// What of it is in a snapshot.
#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    up: bool,
    generation: u32,
    mac: String,
    pairs: u16,
    receive_bits: u8,
    receive_addresses: u32,
}

impl Link {
    pub(super) fn new(name: &str, mac: Mac, context: Context) -> Self {
        let state = State {
            up: true,
            generation: 0,
            mac,
            pairs: 1,
            features: 0,
            queue_sizes: Vec::new(),
            mode: ReceiveMode::default(),
            interrupt: None,
            pokes: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                context,
                state: Mutex::new(state),
            }),
        }
    }

    /// Whether the link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state().up
    }

    /// Plugs the cable in or pulls it, and tells the driver (virtio 1.2, 5.1.4.2). While it is out, what the guest sends is
    /// lost, and what comes in waits at the host.
    pub fn set_up(&self, up: bool) {
        let (interrupt, pokes) = {
            let mut state = self.state();
            if state.up == up {
                return;
            }
            state.up = up;
            state.generation = state.generation.wrapping_add(1);
            (state.interrupt.clone(), state.pokes.clone())
        };
        let device = self.shared.name.clone();
        let tracer = self.shared.context.tracer();
        tracer.emit(|| EventKind::LinkChanged { device, up });
        for poke in pokes {
            if let Err(error) = poke.write(1) {
                log::error!("{}: cannot wake a receive queue: {error}", self.shared.name);
            }
        }
        if let Some(interrupt) = interrupt {
            interrupt.signal_config();
        }
    }

    /// A descriptor that becomes readable when the link changes.
    pub(super) fn poke(&self) -> io::Result<Arc<EventFd>> {
        let poke = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        self.state().pokes.push(poke.clone());
        Ok(poke)
    }

    /// The driver begins.
    pub(super) fn begin(&self, features: u64, sizes: Vec<u16>, interrupt: Arc<dyn Interrupt>) {
        let mut state = self.state();
        state.features = features;
        state.queue_sizes = sizes;
        state.interrupt = Some(interrupt);
    }

    /// The driver is gone, and what it has set up with it.
    pub(super) fn end(&self, mac: Mac) {
        let mut state = self.state();
        state.features = 0;
        state.interrupt = None;
        state.pairs = 1;
        state.mac = mac;
        state.mode = ReceiveMode::default();
    }

    /// For a snapshot.
    pub(super) fn save(&self) -> serde_json::Value {
        let state = self.state();
        let saved = Saved {
            up: state.up,
            generation: state.generation,
            mac: state.mac.to_string(),
            pairs: state.pairs,
            receive_bits: state.mode.bits,
            receive_addresses: state.mode.addresses,
        };
        serde_json::to_value(saved).expect("plain data")
    }

    /// As it was saved, before the driver begins; of a card with at most `pairs` pairs of queues.
    pub(super) fn restore(&self, own: &serde_json::Value, pairs: u16) -> Result<(), String> {
        let saved: Saved =
            serde_json::from_value(own.clone()).map_err(|error| error.to_string())?;
        let mac = saved.mac.parse().map_err(|_| "its address is none")?;
        if saved.pairs == 0 || saved.pairs > pairs {
            return Err(format!("it uses {} pairs of queues", saved.pairs));
        }
        let mut state = self.state();
        state.up = saved.up;
        state.generation = saved.generation;
        state.mac = mac;
        state.pairs = saved.pairs;
        state.mode = ReceiveMode {
            bits: saved.receive_bits,
            addresses: saved.receive_addresses,
        };
        Ok(())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything could panic.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
