//! The machine: made from a [`MachineConfig`] and its devices, started, waited for.
//!
//! ```text
//! Machine::new ---> start ---> Running ---> wait ---> Exit
//!  files read,      threads     |  ^
//!  VM made          run         |  | guest resets, OnReset::Reboot: a new VM, same devices
//!                               +--+
//! ```
//!
//! Promises: when a [`Running`] is dropped, none of its threads, descriptors or memory is left. It does not
//! watch over itself: a limit, a panic or a reset is acted upon by the thread that waits.

mod config;
mod error;
pub(crate) mod event;
mod exit;
mod parts;
pub(crate) mod pause;
mod remote;
mod running;
mod saved;

pub use config::{MAX_WORKERS, MachineConfig, OnReset, Transport};
pub use error::MachineError;
pub use exit::Exit;
pub use parts::{Machine, Parts};
pub use remote::{Order, OrderError, Remote, RunState};
pub use running::{Running, StopHandle};

pub use crate::device_manager::HotPlug;
pub use crate::vcpu_report::{VcpuReport, full_text as vcpus_text};
