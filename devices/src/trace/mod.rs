//! The event log: what happened, in one order. It is the only interface between running and judging.

pub mod event;
mod sink;
mod tracer;

pub use event::{Event, EventKind, HoldId, RequestId, Seq};
pub use sink::{JsonLines, Recording, Sink};
pub use tracer::Tracer;
