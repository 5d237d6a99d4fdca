//! One run of one scenario, in a process of its own: `pincushion-test run-one`.
//!
//! ```text
//! scenario.toml -> disks, plan -> machine thread: boots, waits, boots again
//!                                      | events (the only way back)
//!                  stage: steps  <-----+
//!                      |  lines to the agent, gates
//!                      v
//!                  host checks, end
//! ```
//!
//! Promises: whatever happens, the event log ends with how the machine ended, and every wait has a limit and says what it
//! waited for. It judges nothing.

mod await_event;
mod cards;
mod control;
mod crashed;
mod disks;
mod first_steps;
mod host_acts;
mod host_checks;
mod machine;
mod power_cut;
mod run_one;
mod snapshots;
mod stage;
mod titles;
mod trouble;
mod volatile_disk;
mod witness;

pub use power_cut::{look as look_at_power_cuts, look_and_tell, write_image};
pub use run_one::{Order, run_one};
pub(crate) use titles::title;
