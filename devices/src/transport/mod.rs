//! How a driver reaches a device: registers in guest physical memory, or a function on a PCI bus.

mod core;
#[cfg(test)]
mod fake;
mod interrupt;
mod mmio;
#[cfg(test)]
mod mmio_tests;
pub mod pci;
mod queue_setup;
mod registers;
mod saved;
mod status;

pub use mmio::MmioTransport;
pub use registers::{QUEUE_NOTIFY, WINDOW_SIZE};
pub use saved::{DeviceShape, SavedCore, SavedMmio, SavedPci, StateError};
pub use status::has_driver;
