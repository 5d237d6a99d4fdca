//! The KVM machine of Pincushion, and the commands of the binary `pincushion`.

pub mod affinity;
pub mod agent_port;
pub mod assembly;
pub mod boot;
mod bus;
pub mod causes;
pub mod cli;
pub mod config;
pub mod console;
pub mod control;
mod device_manager;
pub mod doctor;
mod event_loop;
mod host_memory;
mod irq;
mod layout;
mod lock;
pub mod machine;
pub mod memory;
mod mmio_slots;
pub mod nested;
pub mod net;
mod pci;
pub mod persistent_memory;
mod platform;
pub mod region;
pub mod signals;
pub mod snapshot;
mod store_log;
mod terminal;
mod vcpu;
mod vcpu_report;
mod vm;

pub use pincushion_image::program::{self, exit_code};
