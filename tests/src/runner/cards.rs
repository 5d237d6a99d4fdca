//! The network cards of a run: made at their wires, found in the guest.
//!
//! A card with `tap` gets a network of its own: this process leaves the host's for a new namespace, makes the tap there, and serves a
//! TCP echo. So a scenario touches no network but its own, and needs root.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use pincushion_abi::step::ETHER_TYPE;
use pincushion_abi::{Outcome, Step as Act, Value};
use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::net::{Injector, Link, Mac, lab};

use super::stage::{STEP_LIMIT, Stage};
use super::trouble::Trouble;
use crate::scenario::Scenario;
use crate::scenario::model::{InjectStep, LinkStep};

/// The cables by the card's name.
pub(super) type Cables = HashMap<String, Cable>;

/// What a scenario does to a card from outside.
pub(super) struct Cable {
    link: Link,
    injector: Option<Injector>,
}

/// Makes the cards of a scenario, in order.
pub(super) fn make(
    scenario: &Scenario,
    context: &Context,
) -> anyhow::Result<(Vec<SharedDevice>, Cables)> {
    let (mut devices, mut cables) = (Vec::new(), Cables::new());
    if scenario.nets.iter().any(|net| net.tap.is_some()) {
        lab::enter()
            .context("cannot make a network namespace; a scenario with a tap needs root")?;
        lab::serve_echo().context("cannot serve a TCP echo")?;
    }
    for net in &scenario.nets {
        if let Some(tap) = &net.tap {
            lab::tap(tap, net.queues.unwrap_or(1))
                .with_context(|| format!("cannot make tap {tap}; does the kernel have `tun`?"))?;
        }
        let id = net.id.as_deref().unwrap_or_default();
        let card = pincushion_vmm::net::card(net, id, context)?;
        let cable = Cable {
            link: card.link(),
            injector: card.injector(),
        };
        cables.insert(id.to_owned(), cable);
        devices.push(Arc::new(Mutex::new(card)) as SharedDevice);
    }
    Ok((devices, cables))
}

impl Stage<'_> {
    /// Loads the driver, and finds the interface of each card: `${net.ID}` and `${bus.ID}`.
    pub(super) fn find_cards(&mut self) -> Result<(), Trouble> {
        let nets = &self.scenario.nets;
        if !nets.is_empty() {
            let name = "virtio_net".to_owned();
            self.ask(Act::LoadModule { name }, "load virtio_net")?;
        }
        for net in nets {
            let id = net.id.as_deref().unwrap_or_default();
            let mac = net.mac.clone();
            let mac = mac.unwrap_or_else(|| Mac::of_name(id).to_string());
            let outcome = self.ask(Act::FindNet { mac }, &format!("find card {id}"))?;
            let Outcome::Ok(found) = outcome else {
                continue;
            };
            for (kind, key) in [("net", "interface"), ("bus", "bus")] {
                if let Some(Value::Text(text)) = found.get(key) {
                    self.values.set(format!("{kind}.{id}"), text.clone());
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, act: Act, title: &str) -> Result<Outcome, Trouble> {
        let sent = self.send(act, None, title.to_owned(), None, None)?;
        self.answer(&sent, STEP_LIMIT)
    }

    /// Plugs a cable in or pulls it.
    pub(super) fn pull(&self, step: &LinkStep) -> Result<(), Trouble> {
        self.cable(&step.net)?.link.set_up(step.up);
        Ok(())
    }

    /// Puts frames on the wire of a card, as those that the agent sends.
    pub(super) fn inject(&self, step: &InjectStep) -> Result<(), Trouble> {
        let cable = self.cable(&step.net)?;
        let stuck = |why: String| Trouble::Stuck(format!("cannot inject a frame: {why}"));
        let injector = cable.injector.as_ref();
        let injector = injector.ok_or_else(|| stuck("the card is not at a loopback".into()))?;
        let frame = frame(step);
        for _ in 0..step.count {
            let injected = injector.inject(&frame);
            injected.map_err(|error| stuck(error.to_string()))?;
        }
        Ok(())
    }

    fn cable(&self, net: &str) -> Result<&Cable, Trouble> {
        let cable = self.cables.get(net);
        cable.ok_or_else(|| Trouble::Stuck(format!("there is no card `{net}`")))
    }
}

/// A broadcast of the type that the agent's packet sockets hear.
fn frame(step: &InjectStep) -> Vec<u8> {
    let mut payload = vec![0; usize::from(step.len)];
    step.pattern.fill(&mut payload);
    let from_outside = [0x52, 0x50, 0, 0, 0, 0xfe];
    let header = [&[0xff; 6][..], &from_outside, &ETHER_TYPE.to_be_bytes()].concat();
    [header, payload].concat()
}
