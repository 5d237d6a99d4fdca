//! What the host and the programs inside the guest say to each other.
//!
//! Two roads lead between the scenario runner and the agent (PID 1 of the guest):
//!
//! * guest to host: `outl` to the ports in [`port`]. The write is a VM exit, so the host stamps each
//!   message and each mark with the event log's counter at the very moment the guest sent it;
//! * host to guest: lines on the second serial port (`/dev/ttyS1`), which the guest waits for by
//!   interrupt.
//!
//! A message is one JSON object. [`Request`] goes in, [`Report`] comes out, and [`Step`] is the
//! vocabulary of what an agent can do. Both ends are built from one commit; [`VERSION`] is checked
//! by the first report ([`Report::Hello`]).

pub mod cmdline;
pub mod nested;
pub mod pattern;
pub mod port;
pub mod report;
pub mod step;

pub use report::{Fault, Outcome, Report, Value};
pub use step::{Request, Step};

/// Version of this vocabulary. The host refuses an agent that says another.
pub const VERSION: u32 = 1;
