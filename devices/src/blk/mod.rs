//! A virtio block device (virtio 1.2, 5.2).

pub mod config;
mod device;
mod request;

pub use config::{BlkConfig, Limits};
pub use device::BlkDevice;
pub use request::BlkLogic;
