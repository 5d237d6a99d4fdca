//! A virtio console with one port (virtio 1.2, 5.3); Linux calls it hvc0.
//!
//! Promises: bytes leave in the order in which the guest sent them, and come in the order in which they were typed; receive
//! buffers are held from the moment they are posted until bytes fill them. A place that cannot be written loses the bytes and
//! says so; it stops neither the guest nor the device.
//!
//! Does not have more ports (VIRTIO_CONSOLE_F_MULTIPORT).

mod backend;
pub mod config;
mod device;
pub mod input;
mod request;
#[cfg(test)]
mod tests;

pub use config::ConsoleConfig;
pub use device::{ConsoleDevice, Output};
pub use input::ConsoleInput;
