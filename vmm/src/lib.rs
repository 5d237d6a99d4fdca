//! The KVM machine of Pincushion, and the commands of the binary `pincushion`.

pub mod config;
pub mod exit_code;
pub mod nested;
