//! The KVM machine of Pincushion, and the commands of the binary `pincushion`.

pub mod exit_code;
