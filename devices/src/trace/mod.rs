//! The event log: what happened, in one order. It is the only interface between running and judging.

pub mod event;

pub use event::{Event, EventKind, HoldId, RequestId, Seq};
