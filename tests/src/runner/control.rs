//! The machine's control socket, and the scenario as its client: what a program beside the machine does, with a real guest in it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::fault::Plan;
use pincushion_vmm::cli::top_screen;
use pincushion_vmm::control::client::Client;
use pincushion_vmm::control::observer::Observer;
use pincushion_vmm::control::{About, Controlled, Server};

use super::machine::Present;
use crate::scenario::control_step::{Asked, ControlStep, lacking};

/// Columns and lines of the screen on which `top` is drawn.
const SCREEN: (u16, u16) = (160, 50);

/// The socket, and a client of it.
pub(super) struct Control {
    client: Client,
    _server: Server,
}

/// What the socket is to control; begun before the devices work, so that its observer misses nothing.
pub(super) struct Wanted {
    observer: Observer,
    plan: Plan,
    devices: Vec<SharedDevice>,
    about: About,
}

impl Wanted {
    pub(super) fn new(
        context: &Context,
        plan: Plan,
        devices: Vec<SharedDevice>,
        about: About,
    ) -> Self {
        let observer = Observer::new();
        context.tracer().add_sink(Box::new(observer.clone()));
        Self {
            observer,
            plan,
            devices,
            about,
        }
    }

    /// Listens in the directory `dir`.
    pub(super) fn serve(
        self,
        dir: &Path,
        context: Context,
        machine: Present,
    ) -> anyhow::Result<Control> {
        let path = dir.join("api.sock");
        let server = Server::start(
            &path,
            Controlled {
                context,
                plan: self.plan,
                observer: self.observer,
                machine: Arc::new(machine),
                devices: self.devices,
                about: self.about,
            },
        )?;
        let client = Client::new(&path).context("cannot make a client of the control socket")?;
        Ok(Control {
            client,
            _server: server,
        })
    }
}

impl Control {
    /// Asks, and compares what comes with what is wanted.
    ///
    /// # Errors
    /// What was wanted and what came, in words.
    pub(super) fn ask(&self, step: &ControlStep) -> Result<(), String> {
        let (method, address) = match step.asked()? {
            Asked::Screen => return self.look(&step.screen),
            Asked::Request(method, address) => (method, address),
        };
        let (kind, body) = match &step.body {
            Some(body) => (
                "application/json",
                serde_json::to_vec(body).map_err(|error| error.to_string())?,
            ),
            None => ("", Vec::new()),
        };
        let method_type = method.parse().map_err(|_| format!("no method {method}"))?;
        let answer = self.client.ask(&method_type, address, kind, body);
        let answer = answer.map_err(|error| format!("{method} {address}: {error}"))?;
        let text = String::from_utf8_lossy(&answer.body);
        let wanted = step.status.unwrap_or(200);
        if answer.status != wanted {
            let status = answer.status;
            return Err(format!(
                "{method} {address}: status {status}, not {wanted}: {text}"
            ));
        }
        let Some(wanted) = &step.answer else {
            return Ok(());
        };
        let found = serde_json::from_str(&text)
            .map_err(|error| format!("{method} {address}: no JSON ({error}): {text}"))?;
        let wanted = serde_json::to_value(wanted).map_err(|error| error.to_string())?;
        match lacking(&wanted, &found) {
            None => Ok(()),
            Some(what) => Err(format!("{method} {address}: the answer{what}")),
        }
    }

    fn look(&self, texts: &[String]) -> Result<(), String> {
        let (columns, lines) = SCREEN;
        let screen = top_screen(&self.client, columns, lines);
        let screen = screen.map_err(|error| format!("top: {error}"))?;
        match texts.iter().find(|text| !screen.contains(text.as_str())) {
            None => Ok(()),
            Some(text) => Err(format!("top does not show {text:?}:\n{screen}")),
        }
    }
}
