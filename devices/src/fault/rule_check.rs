//! What is wrong with one rule by itself: actions that contradict each other, or make no sense at its point or for its
//! operation, and conditions that never come true. Each sentence says the way out.

use crate::trace::event::{FRAME_SIZE, Operation, Planted, Point};

use super::action::{Delay, HoldUntil, InterruptFault, RogueAt};
use super::condition::Condition;
use super::plan::Rule;

type Problem = Option<&'static str>;

/// Configuration changes of one rule at most: each is an interrupt, raised while the queue waits.
const MAX_CONFIG_CHANGES: u32 = 100_000;

fn when(wrong: bool, problem: &'static str) -> Problem {
    wrong.then_some(problem)
}

impl Rule {
    /// The first thing that is wrong.
    pub(super) fn problem(&self) -> Problem {
        when(
            !self.acts(),
            "has no action; give it hold, fail, torn or another one (docs/fault-plan.md lists them), or verify = true",
        )
        .or_else(|| self.condition().problem())
        .or_else(|| {
            when(
                self.times == Some(0),
                "times = 0 never acts; leave it away to act always",
            )
        })
        .or_else(|| self.problem_with_point())
        .or_else(|| self.problem_with_numbers())
        .or_else(|| self.contradiction())
        .or_else(|| self.problem_with_operation())
    }

    fn acts(&self) -> bool {
        let keys = [
            self.hold.is_some(),
            self.open_gate.is_some(),
            self.reorder.is_some(),
            self.fail.is_some(),
            self.fetch.is_some(),
            self.damages(),
            self.late_touch.is_some(),
            self.rogue_touch.is_some(),
            self.interrupt.is_some(),
            self.config_changes.is_some(),
            self.duplicate,
            self.needs_reset,
            self.verify,
            self.planted.is_some(),
        ];
        keys.contains(&true)
    }

    pub(super) fn damages(&self) -> bool {
        let is_wrong = self.planted == Some(Planted::WrongBytes);
        self.short.is_some() || self.torn.is_some() || self.corrupt.is_some() || is_wrong
    }

    fn problem_with_point(&self) -> Problem {
        let point = self.asked_at();
        let late = point != Point::Fetched;
        let completed = point == Point::Completed;
        when(
            completed && self.hold.is_some(),
            "cannot hold at `completed`: the frames are already given back; hold at `executed`",
        )
        .or(when(
            completed && self.fail.is_some(),
            "cannot fail at `completed`: the status is already written; fail at `executed`",
        ))
        .or(when(
            late && self.fetch.is_some(),
            "a payload is fetched before it is executed; choose `fetch` at point `fetched`",
        ))
        .or(when(
            late && self.damages(),
            "a payload is damaged while it moves; choose short, torn, corrupt and wrong-bytes at point `fetched`",
        ))
        .or(when(
            late && self.planted == Some(Planted::LyingFlush),
            "a flush has to lie before it is executed; plant it at point `fetched`",
        ))
        .or(when(
            completed && self.planted == Some(Planted::HoldAfterCompletion),
            "the hold is closed by then; plant it at point `fetched` or `executed`",
        ))
        .or(when(
            self.planted == Some(Planted::EarlyCompletion) && (late || self.hold.is_none()),
            "a request completes early while it is held at point `fetched`; give the rule a hold there",
        ))
        .or(when(
            point != Point::Executed && self.reorder.is_some(),
            "only completions are reordered; leave `point` away, or set it to `executed`",
        ))
    }

    fn problem_with_numbers(&self) -> Problem {
        let delay = self.holds().find_map(|hold| match hold {
            HoldUntil::For(delay) => delay.problem(),
            HoldUntil::Gate(_) | HoldUntil::SameFrame(_) | HoldUntil::ForMs(_) => None,
        });
        let corrupt = self.corrupt.unwrap_or_default();
        let coalesced = match self.interrupt {
            Some(InterruptFault::Coalesce(count)) => count,
            Some(InterruptFault::Drop | InterruptFault::Spurious) | None => 2,
        };
        delay
            .or(when(
                self.reorder.is_some_and(|reorder| reorder.window < 2),
                "a window of less than two completions has one order only; give it 2 or more",
            ))
            .or(when(
                coalesced < 2,
                "an interrupt is put off until more than one waits; give it 2 or more",
            ))
            .or(when(
                self.corrupt.is_some() && corrupt.bits == 0,
                "corrupt with bits = 0 flips nothing; give it 1 or more",
            ))
            .or(when(
                corrupt.within.is_some_and(super::Span::is_empty),
                "a span is empty; `to` is one past the last and must be greater than `from`",
            ))
            .or(when(
                self.rogue_touch
                    .is_some_and(|rogue| !(1..=FRAME_SIZE).contains(&rogue.bytes)),
                "a rogue touch writes 1 to 4096 bytes, which is at most one frame",
            ))
            .or(when(
                self.config_changes
                    .is_some_and(|count| !(1..=MAX_CONFIG_CHANGES).contains(&count)),
                "config-changes counts interrupts; give it 1 or more, up to 100000",
            ))
    }

    fn contradiction(&self) -> Problem {
        let held_at = match &self.hold {
            Some(HoldUntil::Gate(gate)) => Some(gate),
            Some(HoldUntil::SameFrame(_) | HoldUntil::ForMs(_) | HoldUntil::For(_)) | None => None,
        };
        let open_by_then = [self.after_gate.as_ref(), self.open_gate.as_ref()];
        let dropped = self.planted == Some(Planted::DroppedCompletion);
        when(
            held_at.is_some() && open_by_then.contains(&held_at),
            "holds at a gate that is open when the rule acts, and an open gate holds nobody; use two gates",
        )
        .or(when(
            self.short.is_some() && self.torn.is_some(),
            "short and torn contradict each other: one says how much moved, the other claims all; use one of them",
        ))
        .or(when(
            self.reorder.is_some() && self.hold.is_some(),
            "a completion that is gathered by `reorder` waits already; hold it at point `fetched` by another rule",
        ))
        .or(when(
            dropped && (self.duplicate || self.late_touch.is_some() || self.interrupt.is_some()),
            "a completion that is dropped has no second one, no interrupt and nothing after it: they contradict each other",
        ))
        .or(when(
            self.planted == Some(Planted::TouchAfterCompletion) && self.late_touch.is_some(),
            "planted = \"touch-after-completion\" and late-touch are one fault; use late-touch, or planted for a self-test",
        ))
    }

    fn problem_with_operation(&self) -> Problem {
        let operation = self.operation?;
        let bare = match operation {
            Operation::Read
            | Operation::Write
            | Operation::GetId
            | Operation::Transmit
            | Operation::Receive
            | Operation::Inflate
            | Operation::Deflate
            | Operation::ReportFree => false,
            Operation::Flush
            | Operation::Discard
            | Operation::WriteZeroes
            | Operation::Control
            | Operation::Statistics
            | Operation::Unknown => true,
        };
        let same_frame = matches!(self.hold, Some(HoldUntil::SameFrame(_)));
        let on_frames = same_frame || self.shares_frame_with.is_some() || self.frame.is_some();
        let next_frame = self
            .rogue_touch
            .is_some_and(|rogue| rogue.at == RogueAt::NextFrame);
        when(
            bare && on_frames,
            "this operation has no frames, so a condition or a hold on frames never comes true",
        )
        .or(when(
            bare && (self.damages() || self.late_touch.is_some() || next_frame),
            "this operation has no payload to damage or to touch; use operation = \"read\" or \"write\"",
        ))
        .or(when(
            self.fetch.is_some() && !matches!(operation, Operation::Write | Operation::Transmit),
            "only a write's payload is fetched; `fetch` goes with operation = \"write\" or \"transmit\"",
        ))
        .or(when(
            self.planted == Some(Planted::LyingFlush) && operation != Operation::Flush,
            "only a flush can be a lying flush; use operation = \"flush\"",
        ))
    }
}

impl Condition {
    fn problem(&self) -> Problem {
        let spans = [self.sectors, self.ordinals, self.size];
        let nested = || self.any.iter().chain(&self.all).chain(self.not.as_deref());
        when(
            spans.into_iter().flatten().any(super::Span::is_empty),
            "a span is empty; `to` is one past the last and must be greater than `from`",
        )
        .or(when(
            self.probability.is_some_and(|share| share.millionths() == 0),
            "a probability of 0 never comes true; give it more than 0, at least 0.000001",
        ))
        .or(when(
            self.mark.as_deref() == Some(""),
            "mark needs the name of a step",
        ))
        .or(when(
            nested().any(|condition| *condition == Self::default()),
            "an empty condition in any, all or not is true for everything; put a key into it or leave it away",
        ))
        .or_else(|| nested().find_map(Self::problem))
    }
}

impl Delay {
    fn problem(&self) -> Problem {
        match self {
            Self::UniformUs(span) => when(
                span.is_empty(),
                "a span is empty; `to` is one past the last and must be greater than `from`",
            ),
            Self::ExponentialUs { mean, max } => when(
                *mean == 0 || *max == 0,
                "exponential-us needs a mean and a max of 1 or more",
            ),
            Self::OneOfUs(values) => when(
                values.is_empty(),
                "one-of-us lists no duration; give it one or more, in microseconds",
            ),
        }
    }
}
