//! One hold of one request: a duty that is either completed or abandoned.
//!
//! ```text
//!             complete            the request is done; the used index may follow
//!   Open ----------------> Closed
//!        ----------------> Closed
//!             abandon             a device reset or the end of the machine took it back
//! ```
//!
//! Dropping an open hold is our bug: it is logged as an error, and an assertion fails in builds that have them.

use crate::trace::event::{Direction, GuestRange, HoldEnd, HoldId};

use super::ledger::Shard;

/// The device owns the frames of a request until this is completed or abandoned.
#[derive(Debug)]
#[must_use = "frames stay held until the hold is completed or abandoned"]
pub struct Hold {
    id: HoldId,
    direction: Direction,
}

impl Hold {
    pub(super) fn new(id: HoldId, direction: Direction) -> Self {
        Self { id, direction }
    }

    /// Its name in the event log.
    #[must_use]
    pub fn id(&self) -> HoldId {
        self.id
    }

    /// Which way the bytes go.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The request is done: gives the frames back. Call it before the used index becomes visible, because the guest
    /// owns the pages from then on. `ranges` are those it was opened with.
    pub fn complete(self, shard: &mut Shard, ranges: &[GuestRange]) -> HoldEnd {
        self.close(shard, ranges, HoldEnd::Completed)
    }

    /// The request is taken back: gives the frames back. `ranges` are those it was opened with.
    pub fn abandon(self, shard: &mut Shard, ranges: &[GuestRange]) -> HoldEnd {
        self.close(shard, ranges, HoldEnd::Abandoned)
    }

    #[inline]
    fn close(self, shard: &mut Shard, ranges: &[GuestRange], how: HoldEnd) -> HoldEnd {
        shard.release(self.direction, ranges);
        // Only a hold that is still open is ever dropped.
        std::mem::forget(self);
        how
    }
}

impl Drop for Hold {
    #[cold]
    fn drop(&mut self) {
        log::error!("hold {} was dropped open: its frames stay held", self.id.0);
        debug_assert!(
            std::thread::panicking(),
            "hold {} was neither completed nor abandoned",
            self.id.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::Ledger;

    #[test]
    #[should_panic(expected = "neither completed nor abandoned")]
    fn forgetting_a_hold_is_loud() {
        let ledger = Ledger::default();
        let mut shard = ledger.shard("a", 16);
        drop(shard.open(Direction::ToDevice, &[]));
    }
}
