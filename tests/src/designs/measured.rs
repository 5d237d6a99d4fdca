//! What the logs of runs say beside their verdicts: how long things took, what the kernel told of itself (told.rs), and two questions that only
//! values answer.

use std::path::Path;

use pincushion_abi::step::Measure;
use pincushion_abi::{Outcome, Step as Act, Value};
use serde::Serialize;

use super::told::{Answers, Memmap, Tracking, values};
use crate::timeline::{ReadError, Reader, Step, Timeline};

/// How the directory of a second try ends.
const SECOND_TRY: &str = "-again";
/// Fewer rounds are a look, and no measurement.
const FEWEST_ROUNDS: usize = 3;

/// How many pins a page has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MostPins {
    /// So many it had.
    pub reached: u64,
    /// One more was refused.
    pub then_refused: bool,
}

/// What the rounds of a measure have taken, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rounds {
    /// Nanoseconds of the guest's clock for one operation.
    pub ns: Vec<f64>,
    /// The same in units of a loop that ran around each round: what the host had of time for its guest falls out of them. Empty where the run
    /// did not tell.
    pub loops: Vec<f64>,
}

/// What one run's log says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// By what the step says of itself, in the order of the steps.
    pub costs: Vec<(String, Rounds)>,
    /// What the kernel told.
    pub tracking: Option<Tracking>,
    /// What its memory's pages take.
    pub memmap: Option<Memmap>,
    /// What its answers were worth.
    pub answers: Option<Answers>,
    /// Whether a page that many share, and nobody has pinned, was kept from the swap space.
    pub looked_pinned: Option<bool>,
    /// How many pins a page has taken, if the run has tried one too many.
    pub most_pins: Option<MostPins>,
}

impl Measured {
    /// Reads the log in a run directory. If the run was a second try, a shared page that went in the first one was not taken for pinned, whatever
    /// the second one saw: that it stays may have other reasons.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(run_dir: &Path) -> Result<Self, ReadError> {
        let measured = Self::read_one(run_dir)?;
        let name = run_dir.file_name().and_then(|name| name.to_str());
        let first = name.and_then(|name| name.strip_suffix(SECOND_TRY));
        let first = first.and_then(|first| Self::read_one(&run_dir.with_file_name(first)).ok());
        let went = first.is_some_and(|first| first.looked_pinned == Some(false));
        Ok(Self {
            looked_pinned: if went {
                Some(false)
            } else {
                measured.looked_pinned
            },
            ..measured
        })
    }

    fn read_one(run_dir: &Path) -> Result<Self, ReadError> {
        let mut timeline = Timeline::default();
        for event in Reader::open(&run_dir.join("events.jsonl"))? {
            timeline.feed(&event?);
        }
        Ok(Self::of(&timeline.steps))
    }

    fn of(steps: &[Step]) -> Self {
        Self {
            costs: steps.iter().filter_map(cost).collect(),
            tracking: steps.iter().filter_map(Tracking::told).next_back(),
            memmap: steps.iter().filter_map(Memmap::told).next_back(),
            answers: steps.iter().filter_map(Answers::told).next_back(),
            looked_pinned: looked_pinned(steps),
            most_pins: most_pins(steps),
        }
    }
}

fn cost(step: &Step) -> Option<(String, Rounds)> {
    let Some(Act::Measure(Measure::Pin { .. } | Measure::Read { .. } | Measure::Fsync { .. })) =
        &step.act
    else {
        return None;
    };
    let values = values(step)?;
    let (Some(Value::Numbers(rounds)), Some(Value::Number(operations))) =
        (values.get("round_ns"), values.get("operations"))
    else {
        return None;
    };
    let loops = match values.get("loop_ns") {
        Some(Value::Numbers(loops)) if loops.len() == rounds.len() => &loops[..],
        _ => &[],
    };
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
    let number = |ns: &u64| *ns as f64;
    let each = |ns: &u64| number(ns) / number(operations).max(1.0);
    let ns: Vec<f64> = rounds.iter().map(each).collect();
    let by_loops = ns.iter().zip(loops);
    let rounds = Rounds {
        loops: by_loops
            .map(|(ns, one)| ns / number(one).max(1.0))
            .collect(),
        ns,
    };
    (rounds.ns.len() >= FEWEST_ROUNDS).then(|| (step.name.clone(), rounds))
}

/// KSM made one page of more than 1024, the program's memory was reclaimed, and then somebody looked where its page is.
fn looked_pinned(steps: &[Step]) -> Option<bool> {
    let is_shared = |step: &Step| match &step.act {
        Some(Act::WaitText { path, text, .. }) => {
            path.ends_with("/ksm/pages_sharing")
                && text.parse().is_ok_and(|count: u64| count > 1024)
        }
        _ => false,
    };
    let steps = &steps[steps.iter().position(is_shared)?..];
    let is_reclaim = |step: &Step| match &step.act {
        Some(Act::WriteFile { path, .. }) => path.ends_with("/memory.reclaim"),
        _ => false,
    };
    let looks = &steps[steps.iter().rposition(is_reclaim)?..];
    let swapped = looks.iter().find_map(|step| match &step.act {
        Some(Act::Frames { .. }) => values(step)?.get("swapped"),
        _ => None,
    })?;
    match swapped {
        Value::Numbers(pages) => Some(*pages.first()? == 0),
        _ => None,
    }
}

/// The scenario pins a page as often as can be, counts, and tries once more as `more`.
fn most_pins(steps: &[Step]) -> Option<MostPins> {
    let is_one_more = |step: &Step| match &step.act {
        Some(Act::UringRegister { tag, .. }) => tag == "more",
        _ => false,
    };
    let place = steps.iter().position(is_one_more)?;
    let reached = steps[..place].iter().rev().find_map(|step| {
        match (&step.act, values(step)?.get("pinned")) {
            (Some(Act::Counters { .. }), Some(Value::Number(pinned))) => Some(*pinned),
            _ => None,
        }
    })?;
    let then_refused = match &steps[place].outcome.as_ref()?.1 {
        Outcome::Ok(_) => false,
        Outcome::Failed(_) => true,
    };
    Some(MostPins {
        reached,
        then_refused,
    })
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Fault;
    use serde_json::json;

    use super::*;
    use crate::timeline::Stamp;

    fn step(say: &str, act: serde_json::Value, outcome: Outcome) -> Step {
        let at = Stamp { seq: 1, time_ns: 1 };
        Step {
            name: say.into(),
            act: Some(serde_json::from_value(act).unwrap()),
            outcome: Some((at, outcome)),
            ..Step::new(1)
        }
    }

    fn ok(values: serde_json::Value) -> Outcome {
        Outcome::Ok(serde_json::from_value(values).unwrap())
    }

    fn failed() -> Outcome {
        Outcome::Failed(Fault {
            call: "io_uring_register".into(),
            errno: 12,
            name: "ENOMEM".into(),
        })
    }

    #[test]
    fn a_measure_is_told_per_operation_and_a_look_is_none() {
        let fsync = json!({"op": "measure", "do": "fsync", "file": "a", "map": "m", "rounds": 3});
        let steps = [
            step(
                "fast",
                fsync.clone(),
                ok(json!({"round_ns": [10, 20, 30], "operations": 2})),
            ),
            step(
                "a look",
                fsync.clone(),
                ok(json!({"round_ns": [10], "operations": 1})),
            ),
            step("failed", fsync.clone(), failed()),
            // The machine was half as quick in its second round.
            step(
                "uneven",
                fsync,
                ok(json!({"round_ns": [10, 20, 10], "loop_ns": [5, 10, 5], "operations": 1})),
            ),
        ];
        let measured = Measured::of(&steps);
        let rounds = |ns: [f64; 3], loops: &[f64]| Rounds {
            ns: ns.to_vec(),
            loops: loops.to_vec(),
        };
        assert_eq!(
            measured.costs,
            [
                ("fast".to_owned(), rounds([5.0, 10.0, 15.0], &[])),
                ("uneven".to_owned(), rounds([10.0, 20.0, 10.0], &[2.0; 3])),
            ]
        );
    }

    #[test]
    fn only_a_look_after_the_reclaim_says_whether_a_shared_page_is_taken_for_pinned() {
        let reclaim = json!({"op": "write-file", "path": "/cg/box/memory.reclaim", "text": "512M"});
        let look = |swapped: u64| {
            step(
                "look",
                json!({"op": "frames", "map": "page"}),
                ok(json!({"swapped": [swapped]})),
            )
        };
        let reclaim = || step("reclaim", reclaim.clone(), failed());
        let shared = |count: &str| {
            let path = "/sys/kernel/mm/ksm/pages_sharing";
            let wait = json!({"op": "wait-text", "path": path, "text": count});
            step("wait", wait, ok(json!({})))
        };
        let said = |steps: &[Step]| Measured::of(steps).looked_pinned;
        let many = || shared("1099");
        assert_eq!(said(&[many(), look(0)]), None);
        assert_eq!(said(&[many(), look(0), reclaim()]), None);
        let stays = [many(), look(0), reclaim(), reclaim(), look(0)];
        assert_eq!(said(&stays), Some(true));
        assert_eq!(said(&[many(), look(0), reclaim(), look(1)]), Some(false));
        // Nothing is shared, or too little.
        assert_eq!(said(&stays[1..]), None);
        assert_eq!(said(&[shared("899"), reclaim(), look(0)]), None);
    }

    #[test]
    fn one_pin_too_many_tells_the_most_that_there_can_be() {
        let count = step(
            "count",
            json!({"op": "counters"}),
            ok(json!({"pinned": 2_097_152})),
        );
        let more = json!({"op": "uring-register", "map": "page", "tag": "more"});
        for (outcome, then_refused) in [(failed(), true), (ok(json!({})), false)] {
            let steps = [count.clone(), step("more", more.clone(), outcome)];
            let reached = 2_097_152;
            let most = MostPins {
                reached,
                then_refused,
            };
            assert_eq!(Measured::of(&steps).most_pins, Some(most));
        }
        assert_eq!(Measured::of(&[count]).most_pins, None);
    }
}
