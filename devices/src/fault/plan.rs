//! The fault plan: plain data, match to action, first match wins.
//!
//! ```toml
//! [[rule]]
//! name = "hold the read of b"
//! device = "b"
//! operation = "read"
//! sectors = { from = 0, to = 8 }
//! hold = { gate = "read" }
//!
//! [[rule]]
//! device = "a"
//! operation = "write"
//! shares-frame-with = "b"
//! fetch = "early"
//! hold = { same-frame = { point = "executed", device = "b" } }
//! ```
//!
//! A rule is asked at one [`Point`] of each request; all its conditions must hold. The first rule that matches at
//! a point decides there, and later rules are not asked. A rule that never matched is reported at the end.

use serde::{Deserialize, Serialize};

use crate::trace::event::{Fetch, Operation, Planted, Point, Status};

use super::action::{
    Corrupt, HoldUntil, InterruptFault, LateTouch, Reorder, RogueTouch, Short, Torn,
};
use super::condition::{Condition, Share, Span};

/// A whole plan, as a TOML file spells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// Names what random choices there are.
    #[serde(default)]
    pub seed: u64,
    /// In order of precedence.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
}

/// One rule: conditions, then what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Name in events and messages; absent: `rule N`, N from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The point where the rule is asked: `fetched`, `executed` or `completed`; absent: `fetched`, but `executed` for a
    /// rule that reorders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,

    /// Condition: name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Condition: index of the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u16>,
    /// Condition: kind of request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Condition: the request covers at least one of these sectors (512 bytes, half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sectors: Option<Span>,
    /// Condition: count of requests that the queue fetched before (half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<Span>,
    /// Condition: length of the request in bytes (half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Span>,
    /// Condition: shares a frame with a request that this device holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_frame_with: Option<String>,
    /// Condition: covers the frame of this guest physical address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Condition: the rule is armed: this gate has been opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_gate: Option<String>,
    /// Condition: a step of the guest's agent with this name is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Condition: comes true for this share of the requests, drawn by the seed for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<Share>,
    /// Condition: at least one of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<Condition>,
    /// Condition: each of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<Condition>,
    /// Condition: this does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Condition>>,
    /// The rule acts on the first so many matches only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,

    /// Action: park the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldUntil>,
    /// Action: open this gate, when the rule acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_gate: Option<String>,
    /// Action: completions wait for each other and go on in another order (point `executed`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// Action: fail with this status instead of running (point `fetched`), or after it ran (point `executed`). Together with
    /// `short`, `torn` or `corrupt` the request runs, damaged, and is answered with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<Status>,
    /// Action: read a write's payload at the pop or when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Fetch>,
    /// Action: move the first part of the payload only, and say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<Short>,
    /// Action: move pieces of the payload only, and claim that all of it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
    /// Action: flip bits of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Corrupt>,
    /// Action: write the request's frames after the guest got them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_touch: Option<LateTouch>,
    /// Action: write a frame that no request gave to the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rogue_touch: Option<RogueTouch>,
    /// Action: what happens to the interrupt of the completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<InterruptFault>,
    /// Action: raise so many configuration change interrupts, in which nothing has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_changes: Option<u32>,
    /// Action: publish the used element twice.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub duplicate: bool,
    /// Action: set DEVICE_NEEDS_RESET: the device does nothing more until the driver resets it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub needs_reset: bool,
    /// Action: nothing but the record that the rule was reached.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub verify: bool,
    /// Action for self-tests: a device that is wrong on purpose, and an oracle has to find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<Planted>,
}

#[cfg(feature = "schema")]
impl Plan {
    /// The JSON schema of a plan, for editors and for programs that write plans; `docs/fault-plan.schema.json` is its text.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Plan).to_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_plan_is_valid() {
        let text = include_str!("plan.rs");
        let example: String = text
            .lines()
            .skip_while(|line| !line.starts_with("//! ```toml"))
            .skip(1)
            .take_while(|line| !line.starts_with("//! ```"))
            .map(|line| line.trim_start_matches("//!").trim_start().to_owned() + "\n")
            .collect();
        let plan: Plan = toml::from_str(&example).unwrap();
        assert_eq!(plan.rules.len(), 2);
        assert_eq!(plan.rules[0].hold, Some(HoldUntil::Gate("read".into())));
        assert_eq!(plan.rules[1].fetch, Some(Fetch::Early));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = toml::from_str::<Plan>("[[rule]]\ndevise = \"b\"").unwrap_err();
        assert!(error.to_string().contains("devise"), "{error}");
    }
}
