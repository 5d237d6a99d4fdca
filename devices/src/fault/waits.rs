//! Who waits for whom in a plan: gates that no rule can be the first to open, and rules that wait for each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::trace::event::Point;

use super::action::{HoldUntil, SameFrame};
use super::condition::Condition;
use super::plan::{Plan, Rule};

/// A gate of a plan, and the rules that it concerns, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateUse {
    /// Rules that hold requests, or put a touch off, until it is opened.
    pub holds: Vec<String>,
    /// Rules that are armed by it.
    pub arms: Vec<String>,
    /// Rules that open it.
    pub opened_by: Vec<String>,
}

impl Plan {
    /// The gates that rules name.
    #[must_use]
    pub fn gates(&self) -> BTreeMap<String, GateUse> {
        let mut gates: BTreeMap<String, GateUse> = BTreeMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let title = rule.title(index);
            for gate in rule.awaited_gates() {
                let entry = gates.entry(gate.to_owned()).or_default();
                entry.holds.push(title.clone());
            }
            for gate in rule.condition().arming_gates() {
                let entry = gates.entry(gate.to_owned()).or_default();
                entry.arms.push(title.clone());
            }
            if let Some(gate) = &rule.open_gate {
                let entry = gates.entry(gate.clone()).or_default();
                entry.opened_by.push(title.clone());
            }
        }
        gates
    }

    /// Gates at which requests would wait to the end of the machine: no rule opens them, and `outside` says that nobody
    /// else does.
    #[must_use]
    pub fn forgotten_gates(&self, outside: impl Fn(&str) -> bool) -> Vec<(String, GateUse)> {
        let gates = self.gates().into_iter();
        gates
            .filter(|(name, gate)| {
                !gate.holds.is_empty() && gate.opened_by.is_empty() && !outside(name)
            })
            .collect()
    }
}

impl Rule {
    /// Gates until which it holds something.
    fn awaited_gates(&self) -> Vec<&str> {
        self.holds()
            .filter_map(|hold| match hold {
                HoldUntil::Gate(gate) => Some(gate.as_str()),
                HoldUntil::SameFrame(_) | HoldUntil::ForMs(_) | HoldUntil::For(_) => None,
            })
            .collect()
    }

    /// What it makes a request, or a touch, wait for.
    pub(super) fn holds(&self) -> impl Iterator<Item = &HoldUntil> {
        let late = self.late_touch.as_ref();
        let after = late.and_then(|late| late.after.as_ref());
        self.hold.iter().chain(after)
    }
}

impl Rule {
    /// Devices that it names, in conditions and in what it waits for.
    #[must_use]
    pub fn devices(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        self.condition().add_devices(&mut all);
        for hold in self.holds() {
            if let HoldUntil::SameFrame(same) = hold {
                all.extend(same.device.clone());
            }
        }
        all
    }
}

impl Condition {
    fn add_devices(&self, all: &mut BTreeSet<String>) {
        all.extend(self.device.clone());
        all.extend(self.shares_frame_with.clone());
        let nested = self.any.iter().chain(&self.all).chain(self.not.as_deref());
        nested.for_each(|condition| condition.add_devices(all));
    }

    /// Gates that must have been opened, here or in a nested condition.
    fn arming_gates(&self) -> BTreeSet<&str> {
        let nested = self.any.iter().chain(&self.all).chain(self.not.as_deref());
        let own = self.after_gate.as_deref().into_iter();
        own.chain(nested.flat_map(Self::arming_gates)).collect()
    }

    /// Gates without which it cannot hold.
    fn needed_gates(&self) -> BTreeSet<&str> {
        let own = self.after_gate.as_deref().into_iter();
        own.chain(self.all.iter().flat_map(Self::needed_gates))
            .collect()
    }
}

/// The first rule of a cycle in which everybody waits for everybody, and what to do about it.
pub(super) fn cycle(rules: &[Rule]) -> Option<(usize, String)> {
    gate_cycle(rules).or_else(|| frame_cycle(rules))
}

/// Gates that only rules open, all of which are armed by such gates: nobody begins.
fn gate_cycle(rules: &[Rule]) -> Option<(usize, String)> {
    let conditions: Vec<Condition> = rules.iter().map(Rule::condition).collect();
    let opened: BTreeSet<&str> = rules
        .iter()
        .filter_map(|rule| rule.open_gate.as_deref())
        .collect();
    // A gate that no rule opens is opened from outside.
    let mut can_open: BTreeSet<&str> = BTreeSet::new();
    loop {
        let reachable = |gate: &&str| can_open.contains(*gate) || !opened.contains(*gate);
        let more: Vec<&str> = rules
            .iter()
            .zip(&conditions)
            .filter(|(_, condition)| condition.needed_gates().iter().all(reachable))
            .filter_map(|(rule, _)| rule.open_gate.as_deref())
            .filter(|gate| !can_open.contains(gate))
            .collect();
        if more.is_empty() {
            break;
        }
        can_open.extend(more);
    }
    let stuck = |rule: &Rule| {
        let gate = rule.open_gate.as_deref();
        gate.is_some_and(|gate| !can_open.contains(gate))
    };
    let first = rules.iter().position(stuck)?;
    // From the first on: the gate that each waits for, until one comes twice.
    let mut way: Vec<String> = Vec::new();
    let mut index = first;
    loop {
        let title = rules[index].title(index);
        let closed = |gate: &&str| opened.contains(gate) && !can_open.contains(gate);
        let gate = conditions[index].needed_gates().into_iter().find(closed)?;
        let step = format!("rule `{title}` waits for gate `{gate}`");
        if way.contains(&step) {
            break;
        }
        way.push(step);
        let opens = |rule: &Rule| rule.open_gate.as_deref() == Some(gate);
        index = rules.iter().position(opens)?;
    }
    let problem = format!(
        "is in a cycle of gates, so that none of them is ever opened: {}; let one of these rules do without `after-gate`",
        way.join(", which only a rule opens that waits too: ")
    );
    Some((first, problem))
}

/// Rules that hold every request of their devices until one of the other device goes on which is held likewise.
fn frame_cycle(rules: &[Rule]) -> Option<(usize, String)> {
    let waits: Vec<(usize, &str, Point, &SameFrame)> = rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| match &rule.hold {
            Some(HoldUntil::SameFrame(same)) if rule.holds_all() => {
                Some((index, rule.device.as_deref()?, rule.asked_at(), same))
            }
            _ => None,
        })
        .collect();
    // A request that is parked at a point has reached it, but no later one.
    let blocks = |at: Point, awaited: Point| order(awaited) > order(at);
    waits.iter().find_map(|(first, device, point, same)| {
        let (second, ..) = waits.iter().find(|(_, other, at, back)| {
            same.device.as_deref() == Some(other)
                && back.device.as_deref() == Some(device)
                && blocks(*at, same.point)
                && blocks(*point, back.point)
        })?;
        let title = rules[*second].title(*second);
        let problem = format!(
            "waits for requests that rule `{title}` holds until one that this rule holds goes on: neither ever does; give one of them \
             `times`, or let it wait for an earlier point"
        );
        Some((*first, problem))
    })
}

impl Rule {
    /// Whether it holds each request of its device.
    fn holds_all(&self) -> bool {
        let only_device = Condition {
            device: self.device.clone(),
            ..Condition::default()
        };
        self.times.is_none() && self.condition() == only_device
    }
}

fn order(point: Point) -> u8 {
    match point {
        Point::Fetched => 0,
        Point::Executed => 1,
        Point::Completed => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        Plan::parse(text, std::path::Path::new("p.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_cycle_of_gates_is_refused_with_its_rules_and_its_line() {
        let said = plan(
            "[[rule]]\nname = 'begin'\nopen-gate = 'free'\n\n\
             [[rule]]\nname = 'one'\nafter-gate = 'b'\nopen-gate = 'a'\n\
             [[rule]]\nname = 'two'\nall = [{ after-gate = 'a' }, { after-gate = 'free' }]\nopen-gate = 'b'\n",
        )
        .unwrap_err();
        assert!(
            said.starts_with("p.toml:5: rule `one`: is in a cycle of gates"),
            "{said}"
        );
        assert!(said.contains("rule `one` waits for gate `b`"), "{said}");
        assert!(said.contains("rule `two` waits for gate `a`"), "{said}");
        assert!(!said.contains("free"), "{said}");
    }

    #[test]
    fn a_chain_of_gates_that_somebody_begins_is_fine() {
        let chain = "[[rule]]\nafter-gate = 'b'\nopen-gate = 'a'\n[[rule]]\nafter-gate = 'a'\nverify = true\n";
        assert!(plan(chain).is_ok(), "b is opened from outside");
        let two_ways = format!("{chain}[[rule]]\nafter-gate = 'a'\nopen-gate = 'b'\n");
        assert!(plan(&two_ways).is_err());
        let begun = format!("{two_ways}[[rule]]\ndevice = 'c'\nopen-gate = 'a'\n");
        assert!(plan(&begun).is_ok(), "c's rule opens a by itself");
        let any = "[[rule]]\nany = [{ after-gate = 'a' }, { device = 'x' }]\nopen-gate = 'a'\n";
        assert!(plan(any).is_ok(), "device x begins");
    }

    fn mutual(point: &str, more: &str) -> Result<Plan, String> {
        plan(&format!(
            "[[rule]]\ndevice = 'a'\nhold = {{ same-frame = {{ point = 'executed', device = 'b' }} }}\n\
             [[rule]]\ndevice = 'b'\n{more}\nhold = {{ same-frame = {{ point = '{point}', device = 'a' }} }}\n"
        ))
    }

    #[test]
    fn devices_that_wait_for_each_other_are_refused() {
        let said = mutual("executed", "").unwrap_err();
        assert!(
            said.contains("rule `rule 2` holds until one that this rule holds"),
            "{said}"
        );
        assert!(mutual("fetched", "").is_ok(), "a held request was fetched");
        assert!(
            mutual("executed", "times = 1").is_ok(),
            "a second request of b goes on"
        );
    }

    #[test]
    fn a_gate_that_nobody_opens_is_forgotten() {
        let plan = plan(
            "[[rule]]\nhold = { gate = 'g' }\n[[rule]]\nhold = { gate = 'h' }\n\
             [[rule]]\nlate-touch = { after = { gate = 'i' } }\n[[rule]]\nopen-gate = 'h'\n",
        )
        .unwrap();
        let forgotten = plan.forgotten_gates(|gate| gate == "i");
        assert_eq!(forgotten.len(), 1);
        assert_eq!(
            (forgotten[0].0.as_str(), forgotten[0].1.holds.clone()),
            ("g", vec!["rule 1".into()])
        );
    }
}
