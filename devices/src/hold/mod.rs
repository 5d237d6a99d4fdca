//! Which guest frames are held: by which device, in which direction. A [`Hold`] must be completed or abandoned.

#[expect(
    clippy::module_inception,
    reason = "the house names files after their main type"
)]
mod hold;
mod ledger;

pub use hold::Hold;
pub use ledger::{Held, Ledger, Shard};
