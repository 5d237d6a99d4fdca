//! What a power cut may leave of a disk or of a region of persistent memory.
//!
//! ```text
//!  while it runs   recording disk / region sampler ──> ID.log   what was written, and which flushes were really done
//!                                                      ID.base  the image before the guest ran
//!  afterwards      event log + ID.log ──> History      who wrote what, from when to when, and what each flush covers
//!                  History at a cut   ──> State        what is certain, and what each open unit may hold
//!                  State, seed, number ──> image
//! ```
//!
//! Nothing is cut: the machine goes on, and each place in its event log can be asked for afterwards. So one boot gives as many
//! cuts as anybody wants, and each image has a name that makes it again: device, place, seed and number.
//!
//! Promises that no image holds anything that a correct device could not have left, as the virtio specification has it: a flush covers
//! the writes that the guest had been told of before it asked, and nothing else is sure. Does not promise all images that
//! may be left: there are more than anybody can look at.

mod evidence;
mod history;
mod images;
mod places;
mod record;
mod recorder;
mod sampler;
mod state;

pub use evidence::{Evidence, EvidenceError, base_path, log_path};
pub use history::{Barrier, Change, History, Kind};
pub use images::Choice;
pub use places::cuts;
pub use record::{Entry, EntryKind, LogReader, LogWriter};
pub use recorder::{Recorded, SharedLog};
pub use sampler::Sampler;
pub use state::State;
