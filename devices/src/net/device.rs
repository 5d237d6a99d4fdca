//! The card: features, configuration space and life cycle. Requests are understood in `request.rs` and `control.rs` and served
//! by the queue handler.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MQ,
};

use virtio_queue::QueueT;

use crate::context::Context;
use crate::device::{
    ActivateError, Activation, SavedDevice, Setting, SharedQueue, VirtioDevice, copy_config,
};
use crate::queue::{Handler, Options, Queues};
use crate::trace::event::EventKind;

use super::config::NetConfig;
use super::control::{Controlling, NoWork};
use super::link::Link;
use super::loopback::Injector;
use super::pace::{MAX_RATE, Pace};
use super::port::{Offloads, Port};
use super::receive::ReceiveSide;
use super::request::{Receiving, Transmitting};
use super::transmit::TransmitSide;

/// A virtio network card.
pub struct NetDevice {
    config: NetConfig,
    offloads: Offloads,
    queue_sizes: Vec<u16>,
    link: Link,
    pace: Pace,
    port: Arc<Mutex<Box<dyn Port>>>,
    queues: Queues,
}

impl NetDevice {
    /// A card at a port, with its link up. Says so in the event log.
    ///
    /// # Errors
    /// The host refuses what the port needs, has no descriptor left, or the configuration is not usable (`InvalidInput`).
    pub fn new(config: NetConfig, mut port: Box<dyn Port>, context: Context) -> io::Result<Self> {
        if let Some(defect) = config.defect() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, defect));
        }
        context.tracer().emit(|| EventKind::DeviceAdded {
            device: config.name.clone(),
            kind: "virtio-net".to_owned(),
            fetch: config.fetch,
            capacity_bytes: 0,
            region: None,
        });
        let options = Options {
            fetch: config.fetch,
            hash: config.hash,
            ledger: config.ledger,
        };
        let name = config.name.as_str();
        let link = Link::new(name, config.mac, context.clone());
        let pace = Pace::new(config.rate);
        let mut queues = Queues::new(name, context.clone());
        for pair in 0..config.pairs {
            let (sender, receiver) = port.pair(pair)?;
            let receiver = Box::new(pace.paced(receiver, &context)?);
            let (rx, tx) = (2 * pair, 2 * pair + 1);
            let side = ReceiveSide::new(name, rx, receiver, link.clone(), context.clone())?;
            let (side, context) = (Box::new(side), context.clone());
            queues.add(Handler::new(
                name,
                rx,
                Receiving,
                side,
                context.clone(),
                options,
            )?);
            let side = Box::new(TransmitSide::new(sender, link.clone()));
            let logic = Transmitting::new(link.clone(), config.longest_frame());
            queues.add(Handler::new(name, tx, logic, side, context, options)?);
        }
        let offloads = port.offloads();
        let port = Arc::new(Mutex::new(port));
        let logic = Controlling::new(link.clone(), config.pairs, port.clone());
        let index = 2 * config.pairs;
        queues.add(Handler::new(
            name,
            index,
            logic,
            Box::new(NoWork),
            context,
            options,
        )?);
        Ok(Self {
            queue_sizes: vec![config.queue_size; usize::from(index) + 1],
            offloads,
            link,
            pace,
            port,
            queues,
            config,
        })
    }

    /// The cable, for whoever wants to pull it.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// A way to put frames on its wire, where the port has one.
    #[must_use]
    pub fn injector(&self) -> Option<Injector> {
        self.port().injector()
    }

    fn port(&self) -> MutexGuard<'_, Box<dyn Port>> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VirtioDevice for NetDevice {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.config.features(self.offloads)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (mac, up) = {
            let state = self.link.state();
            (state.mac, state.up)
        };
        let space = self.config.space(mac, up);
        copy_config(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // The address is set by the control queue, which is always offered (virtio 1.2, 5.1.4.2).
        log::warn!(
            "{}: the driver wrote {} bytes to configuration space at {offset:#x}, which it may not; ignored",
            self.config.name,
            data.len()
        );
    }

    fn config_generation(&self) -> u32 {
        self.link.state().generation
    }

    fn accept_features(&mut self, features: u64) -> bool {
        let has = |bit: u32| features & (1 << bit) != 0;
        // 5.1.3.1: segmentation needs checksums.
        let needs = |bit: u32, needed: u32| !has(bit) || has(needed);
        // Without VIRTIO_NET_F_MQ the control queue has index 2 (virtio 1.2, 5.1.2), which is a receive queue here.
        let misplaced = self.config.pairs > 1 && has(VIRTIO_NET_F_CTRL_VQ) && !has(VIRTIO_NET_F_MQ);
        features & !self.features() == 0
            && !misplaced
            && has(VIRTIO_F_VERSION_1)
            && needs(VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM)
            && needs(VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM)
            && needs(VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM)
            && needs(VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_CSUM)
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let sizes = activation.queues.iter().map(QueueT::size).collect();
        let interrupt = activation.interrupt.clone();
        self.link.begin(activation.features, sizes, interrupt);
        // One, unless the card is restored.
        let pairs = self.link.state().pairs;
        self.port().configure(pairs, activation.features);
        self.queues.activate(activation)
    }

    fn reset(&mut self) {
        self.queues.reset();
        self.link.end(self.config.mac);
        self.port().configure(1, 0);
    }

    fn save(&mut self) -> Result<SavedDevice, String> {
        Ok(SavedDevice {
            own: self.link.save(),
            queues: self.queues.save()?,
        })
    }

    fn restore(&mut self, own: &serde_json::Value) -> Result<(), String> {
        self.link.restore(own, self.config.pairs)
    }

    fn queues(&self) -> Vec<SharedQueue> {
        self.queues.services()
    }

    fn settings(&self) -> Vec<Setting> {
        vec![
            Setting {
                name: "link",
                value: u64::from(self.link.is_up()),
                unit: "(1 up, 0 down)",
            },
            Setting {
                name: "rate",
                value: self.pace.rate(),
                unit: "frames/s to the guest (0 as they come)",
            },
        ]
    }

    fn change_setting(&mut self, name: &str, value: u64) -> Result<(), String> {
        match (name, value) {
            ("link", 0 | 1) => self.link.set_up(value == 1),
            ("rate", 0..=MAX_RATE) => {
                let set = self.pace.set(value);
                return set.map_err(|error| format!("cannot wake the queues: {error}"));
            }
            ("rate", _) => return Err(format!("a card gets at most {MAX_RATE} frames/s")),
            ("link", _) => return Err("a link is up (1) or down (0)".to_owned()),
            _ => return Err(format!("a card has no setting `{name}`")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::loopback::Loopback;
    use crate::trace::Tracer;

    #[test]
    fn cable_and_rate_are_settings() {
        let (tracer, recording) = Tracer::recording();
        let context = Context::new(crate::fault::Plan::default(), tracer).unwrap();
        let port = Box::new(Loopback::default());
        let mut card = NetDevice::new(NetConfig::new("n"), port, context).unwrap();
        let value = |card: &NetDevice| card.settings()[0].value;
        assert_eq!(value(&card), 1);
        card.change_setting("link", 0).unwrap();
        assert_eq!((value(&card), card.link().is_up()), (0, false));
        assert!(
            card.change_setting("link", 2).is_err() && card.change_setting("speed", 1).is_err()
        );
        assert_eq!(value(&card), 0, "a wrong change changes nothing");
        card.change_setting("link", 1).unwrap();
        card.change_setting("rate", 250).unwrap();
        assert!(card.change_setting("rate", 1_000_001).is_err());
        assert_eq!(card.settings()[1].value, 250);
        let events = recording.events();
        let changes = events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::LinkChanged { .. }));
        assert_eq!(changes.count(), 2);
    }
}
