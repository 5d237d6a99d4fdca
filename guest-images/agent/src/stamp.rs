//! The two marks of a step and the guest's clock beside them.

use crate::port::{Phase, Port};
use crate::sys::clock;

/// Sees to it that a step has exactly one begin and one end mark.
///
/// ```text
/// new --around(call)--> began, call, ended --finish--> (times)
///  \------------------------finish, sends both marks------/
/// ```
pub struct Stamp<'p> {
    id: u32,
    port: &'p dyn Port,
    began_ns: Option<u64>,
    ended_ns: Option<u64>,
}

impl<'p> Stamp<'p> {
    /// For step `id`.
    pub fn new(id: u32, port: &'p dyn Port) -> Self {
        Self {
            id,
            port,
            began_ns: None,
            ended_ns: None,
        }
    }

    /// Runs the system calls of the step between the marks; at most once per step.
    pub fn around<R>(&mut self, calls: impl FnOnce() -> R) -> R {
        debug_assert!(self.began_ns.is_none(), "a step has one pair of marks");
        self.begin();
        let result = calls();
        self.end();
        result
    }

    /// Sends the begin mark only, for a call that does not come back when it succeeds, or comes back
    /// twice.
    pub fn begin(&mut self) {
        self.began_ns = Some(clock::monotonic_ns());
        self.port.mark(self.id, Phase::Begin);
    }

    /// Sends the end mark.
    pub fn end(&mut self) {
        self.port.mark(self.id, Phase::End);
        self.ended_ns = Some(clock::monotonic_ns());
    }

    /// Sends the marks that have not been sent, and gives the times of both.
    pub fn finish(&mut self) -> (u64, u64) {
        if self.began_ns.is_none() {
            self.begin();
        }
        if self.ended_ns.is_none() {
            self.end();
        }
        (self.began_ns.unwrap_or(0), self.ended_ns.unwrap_or(0))
    }

    /// Takes over the times of marks that another process has sent for this step.
    pub fn sent_elsewhere(&mut self, began_ns: u64, ended_ns: u64) {
        self.began_ns = Some(began_ns);
        self.ended_ns = Some(ended_ns);
    }

    /// A process that died sent the begin mark; the end mark remains to be sent here.
    pub fn begun_elsewhere(&mut self) {
        self.began_ns = Some(clock::monotonic_ns());
    }

    /// The step's id.
    pub fn id(&self) -> u32 {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Collector, Sent};

    const BOTH: [Sent; 2] = [Sent::Mark(3, Phase::Begin), Sent::Mark(3, Phase::End)];

    #[test]
    fn a_step_that_made_its_calls_has_one_mark_on_each_side() {
        let port = Collector::default();
        let mut stamp = Stamp::new(3, &port);
        let seen = stamp.around(|| port.sent());
        assert_eq!(seen, BOTH[..1]);
        let (began, ended) = stamp.finish();
        assert_eq!(port.sent(), BOTH);
        assert!(began <= ended);
    }

    #[test]
    fn a_step_that_failed_before_its_calls_has_both_marks_as_well() {
        let port = Collector::default();
        Stamp::new(3, &port).finish();
        assert_eq!(port.sent(), BOTH);
    }

    #[test]
    fn a_call_that_came_back_against_expectation_gets_its_end_mark() {
        let port = Collector::default();
        let mut stamp = Stamp::new(3, &port);
        stamp.begin();
        stamp.finish();
        assert_eq!(port.sent(), BOTH);
    }
}
