//! The control socket: a real block device with a driver of a test behind a machine that only counts orders; and once a
//! real machine with a guest of a few instructions, skipped where there is no KVM.

mod bench;
mod document;
mod events;
mod holds;
mod machine;
mod schema;
mod socket;
#[path = "../support/mod.rs"]
mod support;
