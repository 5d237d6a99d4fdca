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

pub mod action;
pub mod condition;
pub mod decision;
mod draw;
mod explain;
mod flag;
mod gate;
mod inbox;
mod injector;
mod marks;
mod matching;
pub mod plan;
mod rule_check;
mod validate;
mod waits;
mod watch;
mod words;

pub use action::{HoldUntil, InterruptFault, SameFrame};
pub use condition::{Condition, Span};
pub use decision::{AtCompletion, Damage, Decision, Late, ReorderBy, Rogue};
pub use explain::Outside;
pub use gate::Gates;
pub use inbox::{Inbox, Message, Release, Ticket, Waiting};
pub use injector::{DeviceRules, Injector, Query, RuleState};
pub use marks::Marks;
pub use plan::{Plan, Rule};
pub use validate::PlanError;
pub use waits::GateUse;
pub use watch::Watches;
