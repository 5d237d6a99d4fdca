//! A virtio block device (virtio 1.2, 5.2).

mod check;
pub mod config;
mod device;
mod layout;
mod request;
#[cfg(test)]
mod tests;

pub use config::{BlkConfig, Limits};
pub use device::BlkDevice;
pub use request::BlkLogic;
