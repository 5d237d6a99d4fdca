//! Faults: plain data ([`Plan`]), who decides ([`Injector`]), and who lets go ([`Gates`], [`Watches`]).
//!
//! ```text
//!   decide(request, point) -> hold?        device thread, under the device's lock
//!        |
//!        v
//!   Gates / Watches / alarm                remember (inbox, ticket); a parked request costs no thread
//!        |  opened, reached, due           any thread
//!        v
//!   Inbox: push release, wake eventfd
//!        |
//!        v
//!   on_wake -> the request goes on         device thread
//! ```

mod gate;
mod inbox;
mod injector;
pub mod plan;
mod validate;
mod watch;

pub use gate::Gates;
pub use inbox::{Inbox, Message, Release, Ticket, Waiting};
pub use injector::{Decision, DeviceRules, Injector, Query};
pub use plan::{HoldUntil, Plan, Rule, SameFrame, Span};
pub use validate::PlanError;
pub use watch::Watches;
