//! The one place where order lives: kick, pop, park, run, complete, signal.
//!
//! A device describes its requests by implementing [`Logic`]; [`Handler`] does the rest and is the only one that
//! knows about faults, holds, time and interrupts. The order of one request is drawn in [`handler`].

mod complete;
mod core;
mod damage;
mod device_queue;
mod fetch;
mod free;
mod group;
pub mod handler;
mod in_flight;
mod linger;
pub mod logic;
mod misdeed;
mod page_hash;
mod payload;
mod queues;
mod ring;
mod run;
mod saved;
mod stray;
#[cfg(test)]
mod tests;
mod wake;

pub use handler::{Handler, Options};
pub use logic::{Chain, Logic, Outcome, Parsed, Refusal, Segment, Stage};
pub use queues::Queues;
