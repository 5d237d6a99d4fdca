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

/// A whole plan, as a TOML file spells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Name in events and messages; absent: `rule N`, N from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The point where the rule is asked: `fetched` (default) or `executed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,

    /// Condition: name of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Condition: kind of request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Condition: the request covers at least one of these sectors (512 bytes, half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sectors: Option<Span>,
    /// Condition: count of requests that the queue fetched before (half-open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<Span>,
    /// Condition: shares a frame with a request that this device holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_frame_with: Option<String>,
    /// Condition: covers this guest physical address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// Condition: the rule is armed: this gate has been opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_gate: Option<String>,
    /// The rule acts on the first so many matches only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,

    /// Action: park the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldUntil>,
    /// Action: fail with this status instead of running (point `fetched`), or after it ran (point `executed`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<Status>,
    /// Action: read a write's payload at the pop or when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Fetch>,
    /// Action: nothing but the record that the rule was reached.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub verify: bool,
    /// Action for self-tests: a device that is wrong on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<Planted>,
}

/// A half-open span `from <= x < to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// First.
    pub from: u64,
    /// One past the last.
    pub to: u64,
}

/// How long a request is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HoldUntil {
    /// Until this gate is opened. An open gate holds nobody.
    Gate(String),
    /// Until another request that shares a frame reaches a point.
    SameFrame(SameFrame),
    /// For so many milliseconds on the host's clock.
    ForMs(u64),
}

/// The awaited event of another request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SameFrame {
    /// Which point it must reach.
    pub point: Point,
    /// Only requests of this device; absent: any other request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
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
