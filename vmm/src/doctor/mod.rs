//! What this host can do, found out by trying.
//!
//! A /dev/kvm that opens is no proof: some of them emulate ring 0 instruction by instruction and give up on what a stock
//! kernel does in its first second. So [`kvm::probe`] runs a tiny payload in ring 0 and reports how far it came.

pub mod kvm;
mod payload;
mod report;

pub use kvm::{KvmAbility, probe};
pub use report::{Check, Health, examine};
