//! A plan in words, rule by rule: what `pincushion test explain` prints.

use crate::trace::event::{Fetch, Operation, Planted, Point};

use super::action::{Delay, HoldUntil, LateTouch, RogueTouch, SameFrame};
use super::condition::{Condition, Span};
use super::plan::{Plan, Rule};

/// Who opens a gate, besides the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Somebody may.
    Unknown,
    /// Somebody does.
    Opens,
    /// Nobody does.
    Never,
}

impl Plan {
    /// What the plan will do, for people; several lines, each ended. `outside` says who else opens a gate.
    #[must_use]
    pub fn explain(&self, outside: impl Fn(&str) -> Outside) -> String {
        if self.rules.is_empty() {
            return "no rule: every request runs as it comes\n".to_owned();
        }
        let mut text = String::new();
        for (index, rule) in self.rules.iter().enumerate() {
            text.push_str(&rule.explain(index));
        }
        text.push_str(&self.explain_gates(outside));
        text.push_str(&format!(
            "At each point the first rule that matches decides. Random choices are drawn from seed {} and the request.\n",
            self.seed
        ));
        text
    }

    fn explain_gates(&self, outside: impl Fn(&str) -> Outside) -> String {
        let mut text = String::new();
        for (name, gate) in self.gates() {
            let by = match (gate.opened_by.as_slice(), outside(&name)) {
                ([], Outside::Unknown) => "somebody opens it from outside".to_owned(),
                ([], Outside::Opens) => "a step opens it".to_owned(),
                ([], Outside::Never) => {
                    "nobody opens it before the machine ends or resets its devices".to_owned()
                }
                (rules, _) => format!("{} opens it", listed(rules)),
            };
            let mut waits = Vec::new();
            if !gate.holds.is_empty() {
                waits.push(format!("{} waits for it", listed(&gate.holds)));
            }
            if !gate.arms.is_empty() {
                waits.push(format!("{} is armed by it", listed(&gate.arms)));
            }
            if waits.is_empty() {
                waits.push("nobody waits for it".to_owned());
            }
            text.push_str(&format!("Gate `{name}`: {by}; {}.\n", waits.join(", ")));
        }
        text
    }
}

fn listed(rules: &[String]) -> String {
    let quoted: Vec<String> = rules.iter().map(|rule| format!("`{rule}`")).collect();
    quoted.join(", ")
}

impl Rule {
    /// What the rule will do, given its index; several lines, each ended.
    #[must_use]
    pub fn explain(&self, index: usize) -> String {
        let when = match self.asked_at() {
            Point::Fetched => "is fetched",
            Point::Executed => "has been executed",
            Point::Completed => "is completed",
        };
        let often = match self.times {
            None => "Each time".to_owned(),
            Some(1) => "Once, the first time".to_owned(),
            Some(times) => format!("The first {times} times"),
        };
        let (noun, clauses) = self.condition().words();
        let clauses = if clauses.is_empty() {
            String::new()
        } else {
            format!(", if {}", clauses.join(" and "))
        };
        let mut text = format!("{}. {}\n", index + 1, self.title(index));
        text.push_str(&format!("   {often} that {noun} {when}{clauses}:\n"));
        for action in self.actions() {
            text.push_str(&format!("   - {action}\n"));
        }
        text
    }

    fn actions(&self) -> Vec<String> {
        let mut all = Vec::new();
        let gate = |gate: &String| format!("open the gate `{gate}`");
        all.extend(self.open_gate.as_ref().map(gate));
        all.extend(self.fetch.map(|fetch| match fetch {
            Fetch::Early => "copy its payload now, when it is popped".to_owned(),
            Fetch::Late => "read its payload when it runs".to_owned(),
        }));
        let keep = |hold: &HoldUntil| format!("keep it, and its frames, {}", hold.words());
        all.extend(self.hold.as_ref().map(keep));
        all.extend(self.reorder.map(|reorder| {
            format!(
                "gather {} completions, or those of 5 ms if fewer come, and let them go in an order drawn by the seed",
                reorder.window
            )
        }));
        all.extend(self.short.map(super::action::Short::words));
        all.extend(
            self.torn
                .as_ref()
                .map(|torn| format!("{}, and the answer claims all", torn.words())),
        );
        all.extend(
            self.corrupt
                .map(|corrupt| format!("{} of what moves", corrupt.words())),
        );
        all.extend(self.fail.map(|status| match self.asked_at() {
            Point::Fetched if !self.damages() => {
                format!("do not run it, and answer {status}")
            }
            _ => format!("answer {status}, however its work ended"),
        }));
        all.extend(self.completion_actions());
        if let Some(count) = self.config_changes {
            all.push(format!(
                "raise {count} configuration change interrupts in which nothing has changed"
            ));
        }
        if self.needs_reset {
            all.push(
                "set DEVICE_NEEDS_RESET and stop until the driver resets the device".to_owned(),
            );
        }
        if self.verify {
            all.push("note that the rule was reached".to_owned());
        }
        all
    }

    /// What happens when the guest gets it back.
    fn completion_actions(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.late_touch.as_ref().map(LateTouch::words));
        all.extend(self.rogue_touch.map(RogueTouch::words));
        if self.duplicate {
            all.push("publish its used element twice".to_owned());
        }
        all.extend(self.interrupt.map(super::action::InterruptFault::words));
        all.extend(self.planted.map(|planted| {
            let what = match planted {
                Planted::TouchAfterCompletion => "write its frames again after its completion",
                Planted::LyingFlush => "answer ok without flushing",
                Planted::DroppedCompletion => "never publish its used element",
                Planted::HoldAfterCompletion => "forget to close its hold",
                Planted::EarlyCompletion => "publish its used element before its payload moves",
                Planted::WrongBytes => "flip some bits of its payload, and not say so",
            };
            format!("{what} (a self-test: an oracle has to find it)")
        }));
        all
    }
}

impl LateTouch {
    fn words(&self) -> String {
        let when = match &self.after {
            None => "at once when".to_owned(),
            Some(HoldUntil::Gate(gate)) => format!("when gate `{gate}` is opened, after"),
            Some(hold) => format!("{}, counted from when", hold.words()),
        };
        format!(
            "write {} into its frames, {when} the guest has them back",
            self.write.words()
        )
    }
}

impl RogueTouch {
    fn words(self) -> String {
        let (bytes, place, what) = (self.bytes, self.at.words(), self.write.words());
        format!("at its completion write {bytes} bytes ({what}) {place}")
    }
}

impl HoldUntil {
    fn words(&self) -> String {
        match self {
            Self::Gate(gate) => format!("until gate `{gate}` is opened"),
            Self::SameFrame(SameFrame { point, device }) => {
                let who = match device {
                    Some(device) => format!("a request of device `{device}`"),
                    None => "another request".to_owned(),
                };
                format!(
                    "until {who} that shares a frame with it {}",
                    reaches(*point)
                )
            }
            Self::ForMs(ms) => format!("for {ms} ms"),
            Self::For(Delay::UniformUs(Span { from, to })) => {
                format!("for {from} to {to} us, every duration as likely")
            }
            Self::For(Delay::ExponentialUs { mean, max }) => {
                format!("for {mean} us in the mean, exponentially distributed, at most {max} us")
            }
            Self::For(Delay::OneOfUs(values)) => {
                let values: Vec<String> = values.iter().map(u64::to_string).collect();
                format!("for one of {} us", values.join(", "))
            }
        }
    }
}

fn reaches(point: Point) -> &'static str {
    match point {
        Point::Fetched => "is fetched",
        Point::Executed => "has been executed",
        Point::Completed => "is completed",
    }
}

impl Condition {
    /// What it is about, and what must be true of that.
    fn words(&self) -> (String, Vec<String>) {
        let operation = self.operation.map_or("request", word);
        let article = if operation.starts_with('u') {
            "an"
        } else {
            "a"
        };
        let mut noun = format!("{article} {operation}");
        if let Some(device) = &self.device {
            noun += &format!(" of device `{device}`");
        }
        if let Some(queue) = self.queue {
            noun += &format!(" in queue {queue}");
        }
        (noun, self.clauses())
    }

    fn clauses(&self) -> Vec<String> {
        let mut all = Vec::new();
        let span = |span: Span| {
            if span.to == span.from.saturating_add(1) {
                format!("{}", span.from)
            } else {
                format!("{} to {}", span.from, span.to.saturating_sub(1))
            }
        };
        let sectors = |sectors| format!("it covers one of the sectors {}", span(sectors));
        all.extend(self.sectors.map(sectors));
        let ordinal = |ordinals| format!("its number in the queue (from 0) is {}", span(ordinals));
        all.extend(self.ordinals.map(ordinal));
        all.extend(
            self.size
                .map(|size| format!("it is {} bytes long", span(size))),
        );
        let shares =
            |device: &String| format!("it shares a frame with a request that `{device}` holds");
        all.extend(self.shares_frame_with.as_ref().map(shares));
        all.extend(
            self.frame
                .map(|addr| format!("it covers the frame of {addr:#x}")),
        );
        let armed = |gate: &String| format!("gate `{gate}` has been opened");
        all.extend(self.after_gate.as_ref().map(armed));
        let mark = |mark: &String| format!("the guest's step `{mark}` is under way");
        all.extend(self.mark.as_ref().map(mark));
        all.extend(self.probability.map(|share| {
            let percent = f64::from(share.millionths()) / 10_000.0;
            format!("a draw of {percent} % says so")
        }));
        if !self.any.is_empty() {
            let options: Vec<String> = self.any.iter().map(Self::sentence).collect();
            all.push(format!("({})", options.join(" or ")));
        }
        all.extend(self.all.iter().map(Self::sentence));
        let not = |condition: &Self| format!("not ({})", condition.sentence());
        all.extend(self.not.as_deref().map(not));
        all
    }

    /// A nested condition.
    fn sentence(&self) -> String {
        let mut parts = Vec::new();
        if self.device.is_some() || self.queue.is_some() || self.operation.is_some() {
            parts.push(format!("it is {}", self.words().0));
        }
        parts.extend(self.clauses());
        parts.join(" and ")
    }
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Flush => "flush",
        Operation::Discard => "discard",
        Operation::WriteZeroes => "write-zeroes",
        Operation::GetId => "get-id",
        Operation::Transmit => "transmit",
        Operation::Receive => "receive",
        Operation::Control => "control command",
        Operation::Inflate => "inflate",
        Operation::Deflate => "deflate",
        Operation::Statistics => "statistics request",
        Operation::ReportFree => "report of free pages",
        Operation::Unknown => "unknown request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &str) -> String {
        let plan = Plan::parse(text, std::path::Path::new("p.toml")).unwrap();
        plan.explain(|_| Outside::Unknown)
    }

    #[test]
    fn a_plan_reads_as_what_it_will_do() {
        let said = explained(
            "seed = 7\n[[rule]]\nname = 'tear'\ndevice = 'a'\noperation = 'write'\ntimes = 1\nprobability = 0.25\n\
             not = { sectors = { from = 0, to = 8 } }\ntorn = { prefix = 512 }\nfail = 'ioerr'\n\
             [[rule]]\ndevice = 'b'\nany = [{ operation = 'read' }, { size = { from = 4096, to = 4097 } }]\nhold = { gate = 'g' }\n",
        );
        let wanted = "1. tear\n   Once, the first time that a write of device `a` is fetched, \
             if a draw of 25 % says so and not (it covers one of the sectors 0 to 7):\n\
             \x20  - tear: only the first 512 bytes move, and the answer claims all\n   - answer ioerr, however its work ended\n\
             2. rule 2\n   Each time that a request of device `b` is fetched, if (it is a read or it is 4096 bytes long):\n\
             \x20  - keep it, and its frames, until gate `g` is opened\n\
             Gate `g`: somebody opens it from outside; `rule 2` waits for it.\n\
             At each point the first rule that matches decides. Random choices are drawn from seed 7 and the request.\n";
        assert_eq!(said, wanted);
        assert!(explained("").starts_with("no rule"));
    }

    #[test]
    fn every_action_has_its_words() {
        for (action, words) in [
            (
                "hold = { for = { uniform-us = { from = 50, to = 500 } } }",
                "keep it, and its frames, for 50 to 500 us",
            ),
            ("reorder = { window = 8 }", "gather 8 completions"),
            ("fail = 77", "do not run it, and answer status 77"),
            ("short = { share = 0.5 }", "move 50 % only and say so"),
            ("corrupt = { bits = 3 }", "flip 3 bits of what moves"),
            ("duplicate = true", "publish its used element twice"),
            (
                "late-touch = { after = { gate = 'g' }, write = 'noise' }",
                "write noise into its frames, when gate `g`",
            ),
            (
                "rogue-touch = { at = 'next-frame' }",
                "at its completion write 64 bytes (the bytes that are there) into the frame after",
            ),
            ("interrupt = 'drop'", "drop its interrupt"),
            ("config-changes = 9", "raise 9 configuration change"),
            ("needs-reset = true", "set DEVICE_NEEDS_RESET"),
            ("open-gate = 'h'", "open the gate `h`"),
            ("verify = true", "note that the rule was reached"),
        ] {
            let said = explained(&format!("[[rule]]\n{action}\n"));
            assert!(said.contains(&format!("   - {words}")), "{action}: {said}");
        }
    }
}
