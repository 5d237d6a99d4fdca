//! The timeline: what a run's event log says, put together.
//!
//! [`Reader`] turns `events.jsonl` into events, one at a time. [`Timeline`] takes them in order and knows each request's
//! whole life, who holds which frame now, the guest's steps, the facts of the scenario, the console and the boots. It judges nothing: that
//! is for the oracles, which look at it after each event.

pub mod durable;
mod effects;
mod fact;
mod faults;
pub mod fsynced;
mod history;
mod kernel_trace;
mod lives;
mod plausible;
mod reader;
mod request;
#[cfg(test)]
pub(crate) mod script;
mod step;
mod world;

pub use effects::Target;
pub use fact::{
    CrashImage, DiskName, ExpectedStop, FACT_KEYS, Fact, FileBlocks, FilePage, Found, Frozen, Fsck,
    Image, Looked, LostBytes, MustHold, NotApplicable, Pins, PowerCut, Promised, StepFailed, Where,
};
pub use history::{Boot, Device, Overlap, PageOwner, Timeline};
pub use reader::{ReadError, Reader};
pub use request::{
    Applied, Executed, Hashed, Hold, Index, Misdeed, Park, Request, Span, Stamp, short,
};
pub use step::Step;
