//! The agent of the *nested machine*: the emulated machine in which Pincushion runs where the host's KVM is
//! missing or too small.
//!
//! [`serve`] speaks [`pincushion_abi::nested`] over any pair of streams: it runs commands, several at
//! once, and takes and gives files. It knows nothing of where it runs, so unit tests serve over a
//! socket pair. [`init`] is what PID 1 does around it: mount, load modules, find the port, reap.
//!
//! Promised: whatever a command does (crash, hang, fork without end, write without end), the next
//! request is answered; a command's processes are gone when its reply is sent. Not promised: survival of a
//! machine out of memory, or of a kernel panic; then the machine switches off and the host sees the stream end.

mod command;
mod files;
mod flow;
pub mod init;
mod kvm;
mod outbox;
mod server;

pub use kvm::{Kept, tsc_trouble};
pub use server::{ServeError, serve};
