//! The queues of a card under the real queue handler, each with a driver of its own: frames, holds, hostile chains.

mod control;
mod frames;
mod hostile;

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};

use crate::context::Context;
use crate::device::QueueService;
use crate::fault::Plan;
use crate::interrupt::Counting;
use crate::mock::{Desc, Driver, Used};
use crate::queue::{Handler, Logic, Options};
use crate::trace::event::{EventKind, Fetch};
use crate::trace::{Recording, Tracer};

use super::config::NetConfig;
use super::control::{Controlling, NoWork};
use super::header::LEN;
use super::link::Link;
use super::port::Port;
use super::receive::ReceiveSide;
use super::request::{Receiving, Transmitting};
use super::transmit::TransmitSide;

/// One queue with its driver.
struct Lane<L: Logic> {
    handler: Handler<L>,
    driver: Driver,
}

/// A card of one pair.
struct Bench {
    rx: Lane<Receiving>,
    tx: Lane<Transmitting>,
    control: Lane<Controlling>,
    link: Link,
    context: Context,
    log: Recording,
    interrupt: Arc<Counting>,
}

const OPTIONS: Options = Options {
    fetch: Fetch::Late,
    hash: true,
    ledger: true,
};

impl<L: Logic> Lane<L> {
    fn new(mut handler: Handler<L>, features: u64, interrupt: &Arc<Counting>) -> Self {
        let driver = Driver::new(16, 64);
        let activation = driver.activation(features, interrupt.clone());
        let queue = activation.queues.into_iter().next().unwrap();
        handler
            .activate(activation.memory, features, queue, interrupt.clone())
            .unwrap();
        Self { handler, driver }
    }

    /// What an event loop would do.
    fn serve(&mut self) -> Vec<Used> {
        self.handler.on_kick();
        self.handler.on_wake();
        self.driver.take_used()
    }
}

impl Bench {
    fn new(port: impl Port + 'static, features: u64, plan: &str) -> Self {
        let plan = Plan::parse(plan, std::path::Path::new("plan.toml")).unwrap();
        let (tracer, log) = Tracer::recording();
        let context = Context::new(plan, tracer).unwrap();
        let config = NetConfig::new("n");
        let link = Link::new("n", config.mac, context.clone());
        let interrupt = Arc::new(Counting::default());
        link.begin(features, vec![16; 3], interrupt.clone());
        let mut port: Box<dyn Port> = Box::new(port);
        let (sender, receiver) = port.pair(0).unwrap();
        let port = Arc::new(Mutex::new(port));
        let side = ReceiveSide::new("n", 0, receiver, link.clone(), context.clone()).unwrap();
        let rx = Handler::new("n", 0, Receiving, Box::new(side), context.clone(), OPTIONS);
        let side = Box::new(TransmitSide::new(sender, link.clone()));
        let logic = Transmitting::new(link.clone(), config.longest_frame());
        let tx = Handler::new("n", 1, logic, side, context.clone(), OPTIONS);
        let logic = Controlling::new(link.clone(), 4, port);
        let control = Handler::new("n", 2, logic, Box::new(NoWork), context.clone(), OPTIONS);
        Self {
            rx: Lane::new(rx.unwrap(), features, &interrupt),
            tx: Lane::new(tx.unwrap(), features, &interrupt),
            control: Lane::new(control.unwrap(), features, &interrupt),
            link,
            context,
            log,
            interrupt,
        }
    }

    /// Offers a frame with a plain header and lets the card send it.
    fn send(&mut self, frame: &[u8]) -> Vec<Used> {
        self.offer_frame(&[0; LEN], frame);
        self.tx.serve()
    }

    /// Header in one descriptor, frame in another, in frames of the driver's that are used in turn.
    fn offer_frame(&mut self, header: &[u8], frame: &[u8]) -> u16 {
        let place = u64::from(self.tx.driver.next_head()) * 4;
        let (at, body) = (self.tx.driver.data(place), self.tx.driver.data(place + 1));
        self.tx.driver.put(at, header);
        self.tx.driver.put(body, frame);
        self.tx
            .driver
            .offer(&[readable(at, header.len()), readable(body, frame.len())])
    }

    /// Posts a receive buffer of `len` bytes at a frame of the driver's; returns its address.
    fn post(&mut self, frame: u64, len: usize) -> u64 {
        let addr = self.rx.driver.data(frame);
        self.rx.driver.offer(&[writable(addr, len)]);
        addr
    }

    fn received(&self, addr: u64, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let memory = self.rx.driver.memory();
        memory.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }

    fn mistakes(&self) -> Vec<String> {
        let events = self.log.events();
        let mistake = |kind: &EventKind| match kind {
            EventKind::GuestMistake { what, .. } => Some(what.clone()),
            _ => None,
        };
        events
            .iter()
            .filter_map(|event| mistake(&event.kind))
            .collect()
    }

    fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        let events = self.log.events();
        events.iter().filter(|event| wanted(&event.kind)).count()
    }
}

fn readable(addr: u64, len: usize) -> Desc {
    Desc {
        addr,
        len: u32::try_from(len).unwrap(),
        writable: false,
    }
}

fn writable(addr: u64, len: usize) -> Desc {
    Desc {
        writable: true,
        ..readable(addr, len)
    }
}
