//! One step again and again, with one pair of marks around all of them.

use std::time::{Duration, Instant};

use pincushion_abi::report::Report;
use pincushion_abi::step::Repeat;

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::port::{Phase, Port};
use crate::stamp::Stamp;
use crate::steps::process::fit_for_child;

/// Until the count is full, the time is over, or the step fails.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, wanted: &Repeat) -> StepResult {
    if !fit_for_child(&wanted.step) {
        let text = "this step is not one to repeat: take one that a forked child may do";
        return Err(sentence("repeat", text));
    }
    let limit = Instant::now() + Duration::from_millis(wanted.limit_ms);
    let id = stamp.id();
    stamp.around(|| {
        let mut rounds = 0;
        while rounds < wanted.count && Instant::now() < limit {
            super::run(agent, &mut Stamp::new(id, &Unmarked), &wanted.step)?;
            rounds += 1;
        }
        Ok(Found::nothing().number("rounds", rounds.into()))
    })
}

/// The marks of the single rounds go nowhere.
struct Unmarked;

impl Port for Unmarked {
    fn mark(&self, _id: u32, _phase: Phase) {}

    fn report(&self, _report: &Report) {}

    fn seize(&self) {}
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::port::{Phase, Sent};
    use crate::steps::testing::Bench;

    #[test]
    fn a_step_is_repeated_with_one_pair_of_marks_and_stops_where_it_fails() {
        let bench = Bench::new();
        bench.create("f");
        let write = json!({"op": "write-pattern", "file": "f", "offset": 0, "len": 10, "pattern": {"byte": 1}});
        let found = bench.ok(json!({"op": "repeat", "step": write, "count": 3}));
        assert_eq!(found["rounds"], Value::Number(3));
        let marks = [Sent::Mark(1, Phase::Begin), Sent::Mark(1, Phase::End)];
        assert_eq!(bench.port.sent()[2..], marks, "create has the first two");
        let fails = json!({"op": "close", "file": "f"});
        let fault = bench.fails(json!({"op": "repeat", "step": fails, "count": 2}));
        assert!(fault.name.contains("no file \"f\""), "{}", fault.name);
        let none = json!({"op": "repeat", "step": {"op": "sync"}, "count": 2, "limit_ms": 0});
        assert_eq!(bench.ok(none)["rounds"], Value::Number(0));
        let panic = json!({"op": "repeat", "step": {"op": "panic"}, "count": 1});
        assert!(bench.fails(panic).name.contains("not one to repeat"));
    }
}
