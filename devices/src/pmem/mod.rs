//! virtio-pmem (virtio 1.2, 5.19): a file as persistent memory of the guest.
//!
//! The device only says where its region is and flushes it. The guest loads and stores in the region without the device, and another
//! device's DMA may go there: the machine maps the file into guest memory (`pincushion_vmm::region`). So a frame of the region
//! is in the ledger whenever any device holds it, as a frame of RAM is.

mod config;
mod device;
mod file;
mod request;
#[cfg(test)]
mod tests;

pub use config::PmemConfig;
pub use device::PmemDevice;
pub use file::{ALIGNMENT, PmemError, PmemFile};
pub use request::{PmemLogic, PmemRequest};
