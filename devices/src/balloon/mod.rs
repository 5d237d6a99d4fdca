//! A virtio memory balloon (virtio 1.2, 5.5): the guest gives memory back to the host.
//!
//! Promises: a frame that the guest gives up, by inflation or by a free page report, is discarded before it is
//! acknowledged, unless a device holds it: then it is kept, and the event log says who holds it. Only RAM that the
//! configuration names is ever discarded, never a file of the user (a pmem region).
//!
//! Does not promise that the guest reaches the target, which is a wish; nor that memory of the guest that is not backed
//! by a file (an anonymous mapping) can be given back.

mod backend;
pub mod config;
mod device;
pub mod handle;
mod pages;
mod request;
mod statistics;
#[cfg(test)]
mod tests;

pub use config::BalloonConfig;
pub use device::BalloonDevice;
pub use handle::{BalloonHandle, BalloonState, TargetError};
pub use request::BalloonLogic;
