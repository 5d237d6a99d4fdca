//! What a kernel with our series tells of itself in a run: its design and counters, what its memory's pages take, and what its answers were worth.

use std::collections::BTreeMap;

use pincushion_abi::{Outcome, Step as Act, Value};
use serde::Serialize;

use crate::timeline::Step;

/// Where a kernel with our series tells of itself.
const TRACKING: &str = "/sys/kernel/debug/pin_tracking";

/// What a kernel with our series said of itself when its run was over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tracking {
    /// The design that it uses.
    pub design: String,
    /// What carries it.
    pub carrier: String,
    /// The policy that it uses.
    pub policy: String,
    /// sizeof(struct page).
    pub struct_page_size: Option<u64>,
    /// All lines with a number.
    pub counters: BTreeMap<String, i64>,
}

impl Tracking {
    /// From the text of the file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut tracking = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else {
                continue;
            };
            match (key, value.parse::<i64>()) {
                ("design", _) => tracking.design = value.to_owned(),
                ("carrier", _) => tracking.carrier = value.to_owned(),
                ("policy", _) => tracking.policy = value.to_owned(),
                ("struct_page_size", Ok(size)) => {
                    tracking.struct_page_size = u64::try_from(size).ok();
                }
                (key, Ok(count)) => {
                    tracking.counters.insert(key.to_owned(), count);
                }
                (_, Err(_)) => {}
            }
        }
        tracking
    }

    /// A step that asks for certain numbers has a question of its own, and may have a parameter of its own.
    pub(super) fn told(step: &Step) -> Option<Self> {
        match (&step.act, values(step)?.get("text")) {
            (Some(Act::ReadFile { path, numbers }), Some(Value::Text(text)))
                if path == TRACKING && numbers.is_empty() =>
            {
                Some(Self::parse(text))
            }
            _ => None,
        }
    }

    /// A kernel takes an unknown name for its default, so what it says of itself is compared with what was asked of it.
    pub(super) fn odd(&self, design: &str, policy: &str) -> Option<String> {
        let fits = self.design == design && self.policy == policy;
        (!fits).then(|| {
            format!(
                "the guest says that it runs {}+{}",
                self.design, self.policy
            )
        })
    }
}

/// What a guest's kernel keeps for each page of its memory, in pages (/proc/vmstat).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memmap {
    /// `nr_memmap_boot_pages`: struct page of the memory that is there at boot.
    pub boot_pages: u64,
    /// `nr_memmap_pages`: what came later, which is page_ext where no memory was plugged in.
    pub later_pages: u64,
}

impl Memmap {
    pub(super) fn told(step: &Step) -> Option<Self> {
        let Some(Act::Counters { .. }) = &step.act else {
            return None;
        };
        Some(Self {
            boot_pages: number(step, "nr_memmap_boot_pages")?,
            later_pages: number(step, "nr_memmap_pages")?,
        })
    }

    /// Bytes of page_ext for each page of memory, where a struct page has so many.
    #[must_use]
    pub fn page_ext_bytes(self, struct_page_size: u64) -> Option<u64> {
        let bytes = self.later_pages.checked_mul(struct_page_size)?;
        bytes.checked_div(self.boot_pages)
    }
}

/// Answers to "is this folio pinned?" that the kernel has compared with an exact count of its own (`pin_check=1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// "No", right or wrong.
    pub no: u64,
    /// Of these, where there was a pin: what is lost with them is data.
    pub wrong_no: u64,
    /// "Yes", right or wrong.
    pub yes: u64,
    /// Of these, where there was none, at most: a pin that comes or goes meanwhile may be counted.
    pub wrong_yes: u64,
}

impl Answers {
    pub(super) fn told(step: &Step) -> Option<Self> {
        if !matches!(&step.act, Some(Act::ReadFile { path, .. }) if path == TRACKING) {
            return None;
        }
        Some(Self {
            no: number(step, "answered_no")?,
            wrong_no: number(step, "answered_no_wrongly")?,
            yes: number(step, "answered_yes")?,
            wrong_yes: number(step, "answered_yes_wrongly")?,
        })
    }
}

/// The values of a step that did what it was asked.
pub(super) fn values(step: &Step) -> Option<&BTreeMap<String, Value>> {
    match &step.outcome {
        Some((_, Outcome::Ok(values))) => Some(values),
        Some((_, Outcome::Failed(_))) | None => None,
    }
}

fn number(step: &Step, name: &str) -> Option<u64> {
    match values(step)?.get(name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::timeline::Stamp;

    fn told(act: serde_json::Value, values: serde_json::Value) -> Step {
        let at = Stamp { seq: 1, time_ns: 1 };
        let values = serde_json::from_value(values).unwrap();
        Step {
            act: Some(serde_json::from_value(act).unwrap()),
            outcome: Some((at, Outcome::Ok(values))),
            ..Step::new(1)
        }
    }

    #[test]
    fn the_kernel_tells_of_itself_in_lines() {
        let text = "design flag+ext\ncarrier PG_dma_pinned, and a count in page_ext\nknown none bias\nstruct_page_size 64\npins 12\n\
                    policy bounce\npolicies none skip\nwait_limit_ms 200\n";
        let read = told(
            json!({"op": "read-file", "path": TRACKING}),
            json!({"text": text}),
        );
        let tracking = Tracking::told(&read).unwrap();
        assert_eq!(
            (tracking.design.as_str(), tracking.policy.as_str()),
            ("flag+ext", "bounce")
        );
        assert_eq!(tracking.struct_page_size, Some(64));
        assert_eq!(tracking.counters["pins"], 12);
        assert!(!tracking.counters.contains_key("known"));
    }

    #[test]
    fn a_guest_that_runs_another_design_than_it_was_asked_to_is_told() {
        let tracking = Tracking::parse("design bias\npolicy none\n");
        assert_eq!(tracking.odd("bias", "none"), None);
        assert_eq!(
            tracking.odd("bias", "bounce").as_deref(),
            Some("the guest says that it runs bias+none")
        );
    }

    #[test]
    fn page_ext_is_what_was_allocated_beside_struct_page() {
        let count = |values| told(json!({"op": "counters"}), values);
        assert_eq!(Memmap::told(&count(json!({"pinned": 0}))), None);
        // 512 MiB of memory: 8 MiB of struct page, and 8 bytes of page_ext a page.
        let step = count(json!({"nr_memmap_boot_pages": 2048, "nr_memmap_pages": 256}));
        let memmap = Memmap::told(&step).unwrap();
        assert_eq!(memmap.page_ext_bytes(64), Some(8));
        let nothing = Memmap {
            boot_pages: 0,
            later_pages: 1,
        };
        assert_eq!(nothing.page_ext_bytes(64), None);
    }

    #[test]
    fn answers_are_of_who_asked_for_them_and_say_nothing_else_of_the_kernel() {
        let names = [
            "answered_no",
            "answered_no_wrongly",
            "answered_yes",
            "answered_yes_wrongly",
        ];
        let asked = json!({"op": "read-file", "path": TRACKING, "numbers": names});
        let said = json!({
            "text": "design lru+july\npolicy bounce\n",
            "answered_no": 90, "answered_no_wrongly": 2, "answered_yes": 8, "answered_yes_wrongly": 1,
        });
        let step = told(asked, said);
        let answers = Answers {
            no: 90,
            wrong_no: 2,
            yes: 8,
            wrong_yes: 1,
        };
        assert_eq!(Answers::told(&step), Some(answers));
        assert_eq!(Tracking::told(&step), None);
    }
}
