//! What the host and the agent of the *nested machine* say to each other.
//!
//! The nested machine is an emulated x86-64 machine with nested virtualization, in which any
//! Pincushion command can run on a host whose KVM is missing or too small. Its PID 1 serves one
//! byte stream (a virtio-serial port) that carries [`Frame`]s of several channels at once:
//!
//! ```text
//! host                                   agent
//!   |  <----------------  Hello (channel 0)  |   once, when it can serve
//!   |  Request::Run (channel 7)  --------->  |
//!   |  <-------------  Stdout, Stderr (7)    |   at most WINDOW bytes ahead of the credit
//!   |  Credit (7)  ----------------------->  |
//!   |  Signal (7)  ----------------------->  |   at a limit, or when the user interrupts
//!   |  <-----------------------  Reply (7)   |   the last frame of the channel
//! ```
//!
//! Promised: frames of one channel arrive in order; a channel ends with exactly one [`Reply`] other
//! than [`Reply::Send`]; a payload never exceeds [`MAX_PAYLOAD`], so a reader allocates little
//! whatever the other side says. Not promised: any order between channels, and any time: all limits
//! are kept by the host.

mod frame;
mod message;
pub mod sparse;

pub use frame::{Block, Frame, Kind, MAX_PAYLOAD, WireError};
pub use message::{Entry, EntryKind, Hello, Reply, Request};

/// Version of this vocabulary. The host refuses an agent that says another.
pub const VERSION: u32 = 1;

/// Names the sources of the nested machine's agent and of this vocabulary: a program and an agent that differ in it were not built
/// together, and what one of them needs may be missing in the other.
pub const SOURCES: &str = env!("PINCUSHION_NESTED_SOURCES");

/// Name of the virtio-serial port, as both sides give it.
pub const PORT_NAME: &str = "pincushion-nested";

/// Set to `1` for every command in the nested machine, which must not look for a nested machine of its own.
pub const INSIDE: &str = "PINCUSHION_NESTED";

/// Bytes of output or file data that the agent may send on a channel before the host has granted
/// more by [`Kind::Credit`]. It bounds what a slow reader makes the host keep in memory.
pub const WINDOW: u32 = 4 << 20;
