//! The KVM machine of Pincushion, and the commands of the binary `pincushion`.

pub mod agent_port;
pub mod assembly;
pub mod boot;
mod bus;
mod causes;
pub mod cli;
pub mod config;
pub mod console;
mod device_manager;
pub mod doctor;
mod event_loop;
pub mod exit_code;
mod host_memory;
mod irq;
mod layout;
mod lock;
pub mod machine;
pub mod memory;
pub mod nested;
pub mod net;
mod platform;
pub mod region;
pub mod signals;
mod terminal;
mod vcpu;
mod vcpu_report;
mod vm;
