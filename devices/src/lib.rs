//! Virtio devices that hold guest pages.
//!
//! A device says *what* a request is and the queue handler says *when* it runs: a fault [`fault::Plan`] may park a
//! request until an event, so that its guest pages stay under DMA for exactly as long as a scenario needs. What
//! happens is written to an event log ([`trace`]), which is all that an oracle sees.
//!
//! This crate knows no KVM, no scenario and no oracle.

pub mod backend;
pub mod balloon;
#[cfg(any(test, feature = "test-utils"))]
pub mod bare;
pub mod blk;
pub mod clock;
pub mod console;
pub mod context;
pub mod device;
pub mod fault;
pub mod hold;
pub mod interrupt;
pub mod memory;
#[cfg(any(test, feature = "test-utils"))]
pub mod mock;
pub mod net;
pub mod pmem;
pub mod queue;
pub mod toml_error;
pub mod trace;
pub mod transport;
