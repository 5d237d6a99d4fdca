//! The balloon: features, configuration space and life cycle. Requests are understood in `request.rs` and served by the
//! queue handler.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;

use crate::context::Context;
use crate::device::{
    ActivateError, Activation, SavedDevice, SharedQueue, VirtioDevice, copy_config,
};
use crate::queue::{Handler, Options, Queues};
use crate::trace::event::{EventKind, Fetch, GuestRange};

use super::backend::HostSide;
use super::config::{self, ACTUAL, BalloonConfig, PAGE_POISON, POISON};
use super::handle::{BalloonHandle, Shared};
use super::request::{BalloonLogic, Role};

/// Queues that a driver may set up: see [`Role::of`].
const QUEUES: usize = 5;
/// The queue for statistics, if they were agreed on; from here on there are reports.
const STATISTICS: usize = 2;

/// A virtio memory balloon.
pub struct BalloonDevice {
    config: BalloonConfig,
    shared: Arc<Shared>,
    queue_sizes: [u16; QUEUES],
    features: u64,
    handlers: Vec<Arc<Mutex<Handler<BalloonLogic>>>>,
    queues: Queues,
}

impl BalloonDevice {
    /// A balloon that is empty. Says so in the event log.
    ///
    /// # Errors
    /// The host has no descriptor left, or the configuration is not usable (`InvalidInput`).
    pub fn new(config: BalloonConfig, context: Context) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        if let Some(problem) = config.problem() {
            return Err(invalid(problem));
        }
        context.tracer().emit(|| EventKind::DeviceAdded {
            device: config.name.clone(),
            kind: "virtio-balloon".to_owned(),
            fetch: Fetch::Early,
            capacity_bytes: config.ram_bytes(),
            region: None,
        });
        let shared = Arc::new(Shared::new(&config, context.clone())?);
        let target = shared.set_target(config.target_bytes);
        target.map_err(|error| invalid(error.to_string()))?;
        let mut queues = Queues::new(&config.name, context.clone());
        let ram: Arc<[GuestRange]> = config.ram.clone().into();
        let mut handlers = Vec::new();
        for index in 0..QUEUES {
            let handler = handler(index, &config, &ram, &shared, &context)?;
            handlers.push(queues.add(handler));
        }
        Ok(Self {
            queue_sizes: [config.queue_size; QUEUES],
            features: 0,
            handlers,
            queues,
            shared,
            config,
        })
    }

    /// The host's side.
    #[must_use]
    pub fn handle(&self) -> BalloonHandle {
        BalloonHandle::new(self.shared.clone())
    }
}

fn handler(
    index: usize,
    config: &BalloonConfig,
    ram: &Arc<[GuestRange]>,
    shared: &Arc<Shared>,
    context: &Context,
) -> io::Result<Handler<BalloonLogic>> {
    let backend = Box::new(HostSide {
        device: config.name.clone(),
        context: context.clone(),
        shared: shared.clone(),
        keeps_poison: index >= STATISTICS,
        hears_wishes: index == STATISTICS,
        waiting: Vec::new(),
    });
    let logic = BalloonLogic {
        role: None,
        ram: ram.clone(),
        shared: shared.clone(),
    };
    let options = Options {
        fetch: Fetch::Early,
        hash: false,
        ledger: true,
    };
    let queue = u16::try_from(index).expect("a handful of queues");
    Handler::new(
        &config.name,
        queue,
        logic,
        backend,
        context.clone(),
        options,
    )
}

impl VirtioDevice for BalloonDevice {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let shared = &self.shared;
        let space = config::space(
            shared.target_frames(),
            shared.actual_frames(),
            shared.poison(),
        );
        copy_config(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let field = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        match (offset, field) {
            (ACTUAL, Ok(frames)) => self.shared.set_actual(frames),
            (POISON, Ok(value)) if self.features & (1 << PAGE_POISON) != 0 => {
                self.shared.set_poison(value);
            }
            _ => log::warn!(
                "{}: the driver wrote {} bytes to configuration space at {offset:#x}, which it may not; ignored",
                self.config.name,
                data.len()
            ),
        }
    }

    fn config_generation(&self) -> u32 {
        self.shared.generation()
    }

    fn accept_features(&mut self, features: u64) -> bool {
        if features & !self.features() != 0 || features & (1 << VIRTIO_F_VERSION_1) == 0 {
            return false;
        }
        self.features = features;
        true
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        for (index, handler) in self.handlers.iter().enumerate() {
            let mut handler = handler.lock().unwrap_or_else(PoisonError::into_inner);
            handler.logic_mut().role = Role::of(index, activation.features);
        }
        let interrupt = activation.interrupt.clone();
        self.queues.activate(activation)?;
        self.shared.connect(Some(interrupt));
        Ok(())
    }

    fn reset(&mut self) {
        self.queues.reset();
        self.shared.connect(None);
        self.features = 0;
    }

    fn save(&mut self) -> Result<SavedDevice, String> {
        Ok(SavedDevice {
            own: self.shared.save(),
            queues: self.queues.save()?,
        })
    }

    fn restore(&mut self, own: &serde_json::Value) -> Result<(), String> {
        self.shared.restore(own)
    }

    fn queues(&self) -> Vec<SharedQueue> {
        self.queues.services()
    }
}
