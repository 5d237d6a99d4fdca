//! The table of designs: what the kernels of our own designs have shown in scenarios, and what their pins cost, on one page.
//!
//! ```text
//! runs -> measured.rs, told.rs (logs) \
//! runs -> the report card ------------> table.rs -> view.rs -> markdown.rs, html.rs; JSON
//! knowledge.toml (what no run tells) -/      |--> words.rs, how rows differ
//! conclusion.toml (sentences of ours) -------\--> conclusion.rs, those that the cells bear out
//! ```
//!
//! Promises: what the page says of a run is in that run's directory; what no run has said is empty or "?", and what is from knowledge.toml has
//! its source beside it; what is said of them in words is made of the cells, or stands only
//! where each cell that it speaks of says so. Does not promise: that times mean anything
//! on another machine. Only ratios of one boot set are shown, with their spread.

mod conclusion;
mod html;
pub mod knowledge;
mod markdown;
mod measured;
mod once;
mod ratio;
mod table;
#[cfg(test)]
mod testing;
mod told;
mod view;
mod words;

pub use html::html;
pub use markdown::markdown;
pub use measured::{Measured, MostPins, Rounds};
pub use ratio::Ratio;
pub use table::{About, Absent, Cell, Cost, Parts, PromiseCell, Row, ScenarioColumn, Table, Times};
pub use told::{Answers, Memmap, Tracking};

/// Scenarios that tell designs apart, on each policy.
pub const TAG: &str = "designs";
/// Scenarios about the tracking alone: one policy will do.
pub const TAG_ONCE: &str = "designs-once";
/// Scenarios that compare the kernel's answers with an exact count, with one policy of each design.
pub const TAG_CHECK: &str = "designs-check";
/// Scenarios that measure.
pub const TAG_COST: &str = "designs-cost";

/// What all costs are compared with: upstream's design, with the policy that changes nothing.
pub const BASELINE_DESIGN: &str = "bias";

/// The design that takes nothing for pinned.
pub const CONTROL: &str = "none";
