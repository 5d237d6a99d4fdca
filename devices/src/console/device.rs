//! The console: features, configuration space and life cycle. Requests are understood in `request.rs` and served by the
//! queue handler.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use crate::context::Context;
use crate::device::{
    ActivateError, Activation, SavedDevice, SharedQueue, VirtioDevice, copy_config,
};
use crate::queue::{Handler, Options, Queues};
use crate::trace::event::{EventKind, Fetch};

use super::backend::{ReceiveSide, TransmitSide};
use super::config::{ConsoleConfig, EMERGENCY};
use super::input::ConsoleInput;
use super::request::{ConsoleLogic, Role};

/// Where a console's output goes. Called with what the guest sends, in order.
pub type Output = Box<dyn io::Write + Send>;

/// The output, for the queue and for emergencies. Its lock is a leaf.
#[derive(Clone)]
pub(super) struct SharedOutput(Arc<Mutex<Output>>);

impl SharedOutput {
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(bytes)?;
        output.flush()
    }
}

/// A virtio console.
pub struct ConsoleDevice {
    config: ConsoleConfig,
    queue_sizes: [u16; 2],
    input: ConsoleInput,
    output: SharedOutput,
    queues: Queues,
}

impl ConsoleDevice {
    /// A console that writes to `output`. Says so in the event log.
    ///
    /// # Errors
    /// The host has no descriptor left, or the size of the queues is not usable (`InvalidInput`).
    pub fn new(config: ConsoleConfig, output: Output, context: Context) -> io::Result<Self> {
        if !config.queue_size.is_power_of_two() || config.queue_size > 1 << 15 {
            let message = format!(
                "queue size {} is not a power of two up to 32768",
                config.queue_size
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        context.tracer().emit(|| EventKind::DeviceAdded {
            device: config.name.clone(),
            kind: "virtio-console".to_owned(),
            fetch: Fetch::Late,
            capacity_bytes: 0,
            region: None,
        });
        let input = ConsoleInput::new()?;
        let output = SharedOutput(Arc::new(Mutex::new(output)));
        let receive = Box::new(ReceiveSide {
            input: input.clone(),
            waiting: VecDeque::new(),
        });
        let transmit = Box::new(TransmitSide {
            output: output.clone(),
        });
        let options = Options {
            fetch: Fetch::Late,
            hash: false,
            ledger: true,
        };
        let mut queues = Queues::new(&config.name, context.clone());
        let logic = |role| ConsoleLogic { role };
        let name = &config.name;
        queues.add(Handler::new(
            name,
            0,
            logic(Role::Receive),
            receive,
            context.clone(),
            options,
        )?);
        queues.add(Handler::new(
            name,
            1,
            logic(Role::Transmit),
            transmit,
            context,
            options,
        )?);
        Ok(Self {
            queue_sizes: [config.queue_size; 2],
            input,
            output,
            queues,
            config,
        })
    }

    /// The way for what is typed.
    #[must_use]
    pub fn input(&self) -> ConsoleInput {
        self.input.clone()
    }
}

impl VirtioDevice for ConsoleDevice {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = self.config.space();
        copy_config(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match data {
            // 5.3.4: the low byte is written, before any queue is at work too. Accesses may be narrower than the field.
            [byte, ..] if offset == EMERGENCY && data.len() <= 4 => {
                if let Err(error) = self.output.write(&[*byte]) {
                    log::error!("{}: output lost: {error}", self.config.name);
                }
            }
            _ => log::warn!(
                "{}: the driver wrote {} bytes to configuration space at {offset:#x}, which it may not; ignored",
                self.config.name,
                data.len()
            ),
        }
    }

    fn accept_features(&mut self, features: u64) -> bool {
        if features & !self.features() != 0 || features & (1 << VIRTIO_F_VERSION_1) == 0 {
            return false;
        }
        true
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.queues.activate(activation)
    }

    fn reset(&mut self) {
        self.queues.reset();
    }

    fn save(&mut self) -> Result<SavedDevice, String> {
        Ok(SavedDevice {
            own: serde_json::Value::Null,
            queues: self.queues.save()?,
        })
    }

    fn restore(&mut self, _own: &serde_json::Value) -> Result<(), String> {
        Ok(())
    }

    fn queues(&self) -> Vec<SharedQueue> {
        self.queues.services()
    }
}
