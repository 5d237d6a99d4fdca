//! A suite: many runs, each in a child of its own, on the host or in nested machines.
//!
//! ```text
//! selection -> items -> seats -> run directory -> child (host | nested) -> judge -> summary
//! ```
//!
//! Promises: a child that crashes, hangs or is killed costs its own run only; where a run took place never decides its
//! verdict. The evidence of each run is whole before it is judged, and the judge sees nothing else.

mod child;
mod execution;
mod images;
mod nested;
mod outcome;
mod place;
mod programs;
mod seats;
mod selection;
mod stop;
mod storage;

pub use execution::{Progress, Suite};
pub use place::{COUNTING, NESTED, Place, PlaceChoice, missing_for, missing_for_guests};
pub use programs::{Programs, workspace_commit};
pub use seats::threads_for;
pub(crate) use selection::split_variant;
pub use selection::{Item, Selection, SelectionError, WARM_UP, read_file, select};
pub use stop::Stop;
pub use storage::{suite_dir, today};
