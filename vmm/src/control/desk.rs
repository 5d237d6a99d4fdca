//! The plan as clients see it: armed or not, and with the holds that were set by device.
//!
//! What devices obey is made from it anew at each change: nothing where it is disarmed, else its rules, then one more for
//! each device with a hold of its own. What is parked keeps its wait through every change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pincushion_devices::context::Context;
use pincushion_devices::fault::{Plan, PlanError, Rule};
use serde_json::{Value, json};

/// The plan of one machine.
#[derive(Debug)]
pub(super) struct Desk {
    context: Context,
    plan: Plan,
    is_armed: bool,
    hold_ms: BTreeMap<String, u64>,
    /// Matches of each rule before the rules were loaded last.
    spent: Vec<u64>,
    /// Which rules of the plan the devices have, in their order.
    loaded: Vec<usize>,
}

/// Why a plan was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeskError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the plan is not what the schema says: {0}")]
    Json(String),
    #[error("give the plan either as `plan` (JSON) or as `toml` (the text of a plan file)")]
    Neither,
}

impl Desk {
    /// `plan` is the one that `context` obeys already.
    pub(super) fn new(context: Context, plan: Plan) -> Self {
        Self {
            context,
            is_armed: true,
            hold_ms: BTreeMap::new(),
            spent: vec![0; plan.rules.len()],
            loaded: (0..plan.rules.len()).collect(),
            plan,
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn is_armed(&self) -> bool {
        self.is_armed
    }

    /// How long each request of a device is held that no rule speaks of.
    pub(super) fn hold_ms(&self, device: &str) -> u64 {
        self.hold_ms.get(device).copied().unwrap_or(0)
    }

    /// How often each rule of the plan has matched since the plan was put in its place, in the order of the plan.
    pub(super) fn matches(&self) -> Vec<u64> {
        let mut matches = self.spent.clone();
        for (index, state) in self.loaded.iter().zip(self.context.injector().states()) {
            matches[*index] += state.matches;
        }
        matches
    }

    /// Puts another plan in its place.
    pub(super) fn replace(&mut self, plan: Plan, is_armed: bool) -> Result<(), DeskError> {
        plan.check()?;
        let spent = vec![0; plan.rules.len()];
        self.load(plan, is_armed, self.hold_ms.clone(), spent)
    }

    /// Lets the rules act, or not. Without effect where they do already, or do not.
    pub(super) fn arm(&mut self, is_armed: bool) -> Result<(), DeskError> {
        if self.is_armed == is_armed {
            return Ok(());
        }
        self.load(
            self.plan.clone(),
            is_armed,
            self.hold_ms.clone(),
            self.matches(),
        )
    }

    /// Holds each request of a device that no rule speaks of for so long; 0: no more.
    pub(super) fn set_hold(&mut self, device: &str, ms: u64) -> Result<(), DeskError> {
        if self.hold_ms(device) == ms {
            return Ok(());
        }
        let mut hold_ms = self.hold_ms.clone();
        match ms {
            0 => drop(hold_ms.remove(device)),
            ms => drop(hold_ms.insert(device.to_owned(), ms)),
        }
        self.load(self.plan.clone(), self.is_armed, hold_ms, self.matches())
    }

    fn load(
        &mut self,
        plan: Plan,
        is_armed: bool,
        hold_ms: BTreeMap<String, u64>,
        spent: Vec<u64>,
    ) -> Result<(), DeskError> {
        let (effective, loaded) = effective(&plan, is_armed, &spent, &hold_ms);
        self.context.replace_plan(effective)?;
        *self = Self {
            context: self.context.clone(),
            plan,
            is_armed,
            hold_ms,
            spent,
            loaded,
        };
        Ok(())
    }

    /// Gates that the plan names.
    pub(super) fn gates(&self) -> BTreeSet<String> {
        let mut gates = BTreeSet::new();
        let plan = serde_json::to_value(&self.plan);
        collect_gates(&plan.unwrap_or_default(), &mut gates);
        gates
    }
}

/// Reads a plan in one of its two spellings.
pub(super) fn read(plan: Option<Value>, toml: Option<&str>) -> Result<Plan, DeskError> {
    match (plan, toml) {
        (Some(value), None) => serde_json::from_value(value).map_err(|error| {
            DeskError::Json(pincushion_devices::toml_error::explain(&error.to_string()))
        }),
        (None, Some(text)) => Ok(Plan::parse(text, Path::new("plan"))?),
        _ => Err(DeskError::Neither),
    }
}

/// What devices obey, and which of the plan's rules are in it. A rule that has acted as often as it may is not.
fn effective(
    plan: &Plan,
    is_armed: bool,
    spent: &[u64],
    hold_ms: &BTreeMap<String, u64>,
) -> (Plan, Vec<usize>) {
    let mut effective = Plan {
        rules: Vec::new(),
        ..plan.clone()
    };
    let mut loaded = Vec::new();
    for (index, rule) in plan.rules.iter().enumerate() {
        let left = rule.times.map(|times| times.saturating_sub(spent[index]));
        if is_armed && left != Some(0) {
            effective.rules.push(Rule {
                name: Some(rule.title(index)),
                times: left,
                ..rule.clone()
            });
            loaded.push(index);
        }
    }
    let holds = hold_ms.iter().map(|(device, ms)| hold(device, *ms));
    effective.rules.extend(holds);
    (effective, loaded)
}

fn hold(device: &str, ms: u64) -> Rule {
    let rule = json!({
        "name": format!("hold of {device} by the control socket"),
        "device": device,
        "hold": { "for-ms": ms },
    });
    serde_json::from_value(rule).expect("the fault language has these words")
}

/// Gates are named by these keys, wherever they are in a rule.
fn collect_gates(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(name) if matches!(key.as_str(), "gate" | "after-gate") => {
                        into.insert(name.clone());
                    }
                    value => collect_gates(value, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_gates(value, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(text: &str) -> Desk {
        let plan = read(None, Some(text)).unwrap();
        Desk::new(Context::quiet(), plan)
    }

    const GATED: &str = "[[rule]]\nname = 'r'\nafter-gate = 'arm'\nhold = { gate = 'go' }\n";

    #[test]
    fn the_gates_of_a_plan_are_found_wherever_they_are_named() {
        assert_eq!(
            desk(GATED).gates().into_iter().collect::<Vec<_>>(),
            ["arm", "go"]
        );
        assert!(desk("").gates().is_empty());
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let json =
            json!({ "rule": [{ "name": "r", "after-gate": "arm", "hold": { "gate": "go" } }] });
        let plan = read(Some(json), None).unwrap();
        assert_eq!(&plan, desk(GATED).plan());
        assert!(matches!(read(None, None), Err(DeskError::Neither)));
        assert!(matches!(
            read(Some(json!({})), Some("")),
            Err(DeskError::Neither)
        ));
    }

    #[test]
    fn a_wrong_plan_changes_nothing() {
        let mut desk = desk(GATED);
        let twice = read(None, Some("[[rule]]\n")).map(|plan| desk.replace(plan, false));
        assert!(twice.is_err() || twice.is_ok_and(|replaced| replaced.is_err()));
        assert!(desk.is_armed());
        assert_eq!(desk.plan().rules.len(), 1);
        let said = read(Some(json!({ "rule": [{ "devise": "b" }] })), None).unwrap_err();
        assert!(
            said.to_string().contains("did you mean `device`?"),
            "{said}"
        );
    }

    #[test]
    fn a_disarmed_plan_keeps_its_rules_and_the_holds_of_devices_come_last() {
        let plan = read(None, Some(GATED)).unwrap();
        let holds = [("b".to_owned(), 5)].into();
        assert_eq!(effective(&plan, true, &[0], &holds).0.rules.len(), 2);
        let (disarmed, loaded) = effective(&plan, false, &[0], &holds);
        assert_eq!((disarmed.rules.len(), loaded.len()), (1, 0));
        assert_eq!(disarmed.rules[0].device.as_deref(), Some("b"));
        let mut desk = desk(GATED);
        desk.arm(false).unwrap();
        desk.set_hold("b", 5).unwrap();
        desk.arm(true).unwrap();
        assert_eq!(
            (
                desk.plan().rules.len(),
                desk.hold_ms("b"),
                desk.hold_ms("c")
            ),
            (1, 5, 0)
        );
    }

    #[test]
    fn a_rule_that_has_acted_as_often_as_it_may_does_not_begin_anew() {
        let text = "[[rule]]\ntimes = 3\nverify = true\n[[rule]]\ntimes = 2\nverify = true\n";
        let plan = read(None, Some(text)).unwrap();
        let (effective, loaded) = effective(&plan, true, &[3, 1], &BTreeMap::new());
        assert_eq!(loaded, [1]);
        assert_eq!(effective.rules[0].times, Some(1));
        assert_eq!(
            effective.rules[0].name.as_deref(),
            Some("rule 2"),
            "its name stays"
        );
    }
}
