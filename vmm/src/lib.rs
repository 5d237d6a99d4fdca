//! The KVM machine of Pincushion, and the commands of the binary `pincushion`.

pub mod agent_port;
pub mod boot;
pub mod bus;
pub mod config;
pub mod console;
mod device_manager;
mod event_loop;
pub mod exit_code;
mod irq;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod nested;
pub mod platform;
mod terminal;
mod vcpu;
mod vm;
