//! Oracles: each looks at the timeline of a run for one broken promise.
//!
//! [`judge`] reads a run directory and says what the run came to. [`Bench`] is the same for events that are still coming. Each
//! oracle has a file of its name whose first paragraph says what it verifies and what it does not; `docs/oracles.md` says it for users.

mod bench;
mod broken_filesystem;
mod cpu_flags;
mod dax_block_reused;
mod dma_into_freed_frame;
mod guest_splat;
mod judge;
mod leaked_hold;
mod lost_after_power_cut;
mod lost_completion;
mod lost_dma_data;
mod lying_flush;
mod must_hold;
mod pins_balanced;
mod splat;
mod touch_after_completion;
mod unexplained_fsync_error;
mod unstable_payload;
mod write_while_frozen;
mod writeback_of_held_page;

pub use bench::{Bench, Opinion, Oracle, all};
pub(crate) use guest_splat::IMPOSSIBLE_FLAGS;
pub use judge::{JudgeError, judge, judge_events, judge_log};
