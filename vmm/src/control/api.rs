//! What every route has at hand.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::fault::Plan;
use pincushion_devices::trace::EventKind;

use super::desk::Desk;
use super::error::ApiError;
use super::observer::Observer;
use crate::lock::lock;
use crate::machine::{Order, OrderError, Remote, RunState};

/// What the control socket needs of a machine. A test's machine needs no KVM.
pub trait Operate: Send + Sync {
    /// What it does now.
    fn state(&self) -> RunState;
    /// How often its guest was started.
    fn boots(&self) -> u32;
    /// Since its first start.
    fn uptime(&self) -> Duration;
    /// Carries out an order; may block for as long as that takes.
    ///
    /// # Errors
    /// Why it was not carried out.
    fn give(&self, order: Order) -> Result<(), OrderError>;
    /// Writes a snapshot and returns its length in bytes; blocks for as long as that takes.
    ///
    /// # Errors
    /// Why there is none.
    fn snapshot(&self, path: &Path) -> Result<u64, OrderError>;
}

impl Operate for Remote {
    fn state(&self) -> RunState {
        Remote::state(self)
    }

    fn boots(&self) -> u32 {
        Remote::boots(self)
    }

    fn uptime(&self) -> Duration {
        Remote::uptime(self)
    }

    fn give(&self, order: Order) -> Result<(), OrderError> {
        Remote::give(self, order)
    }

    fn snapshot(&self, path: &Path) -> Result<u64, OrderError> {
        Remote::snapshot(self, path, "")
    }
}

/// What a client is told about the machine that never changes.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its kernel's file.
    pub kernel: String,
}

/// A machine under control.
pub struct Controlled {
    /// Its plan, gates and ledger.
    pub context: Context,
    /// The plan that `context` was made with.
    pub plan: Plan,
    /// A sink of its tracer already.
    pub observer: Observer,
    /// The machine itself.
    pub machine: Arc<dyn Operate>,
    /// Its devices.
    pub devices: Vec<SharedDevice>,
    /// What never changes.
    pub about: About,
}

/// State of all routes.
#[derive(Clone)]
pub(super) struct Api(Arc<Shared>);

struct Shared {
    context: Context,
    observer: Observer,
    machine: Arc<dyn Operate>,
    devices: Vec<SharedDevice>,
    about: About,
    desk: Mutex<Desk>,
}

impl Api {
    pub(super) fn new(controlled: Controlled) -> Self {
        let Controlled {
            context,
            plan,
            observer,
            machine,
            devices,
            about,
        } = controlled;
        for device in &devices {
            let device = lock(device);
            let queues = u16::try_from(device.queue_max_sizes().len()).unwrap_or(u16::MAX);
            observer.expect_device(device.name(), queues);
        }
        Self(Arc::new(Shared {
            desk: Mutex::new(Desk::new(context.clone(), plan)),
            context,
            observer,
            machine,
            devices,
            about,
        }))
    }

    pub(super) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(super) fn observer(&self) -> &Observer {
        &self.0.observer
    }

    pub(super) fn machine(&self) -> &dyn Operate {
        self.0.machine.as_ref()
    }

    pub(super) fn devices(&self) -> &[SharedDevice] {
        &self.0.devices
    }

    pub(super) fn about(&self) -> &About {
        &self.0.about
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.0.desk)
    }

    /// Tells the event log what a client has done.
    pub(super) fn log(&self, action: &str, detail: impl Into<String>) {
        let (action, detail) = (action.to_owned(), detail.into());
        log::info!("control: {action} {detail}");
        self.context()
            .tracer()
            .emit(|| EventKind::Control { action, detail });
    }

    /// Does what may block, away from the thread that serves all clients.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let api = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&api)).await;
        done.unwrap_or_else(|error| {
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            Err(ApiError::new(
                status,
                format!("a bug of the control socket: {error}"),
            ))
        })
    }
}
