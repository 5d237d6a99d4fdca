//! A step that asks the machine's control socket (docs/control.md), as a program beside the machine would. Plain data, its check, and
//! whether an answer is as wanted.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request, or a look at `pincushion top`. Exactly one of `get`, `post`, `put`, `patch` and `screen`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ControlStep {
    /// GET of this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get: Option<String>,
    /// POST to this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<String>,
    /// PUT to this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put: Option<String>,
    /// PATCH of this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// `pincushion top`, drawn once: each of these texts is on its screen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub screen: Vec<String>,
    /// For a request: its body, sent as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<toml::Value>,
    /// For a request: the HTTP status that must come; absent: 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// For a request: what the JSON answer must have, and may have more of: each key of a table, for each item of an array some item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<toml::Value>,
}

/// What a [`ControlStep`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A request of this method to this address.
    Request(&'static str, &'a str),
    /// A screen of `pincushion top`.
    Screen,
}

impl ControlStep {
    /// What is asked.
    ///
    /// # Errors
    /// Nothing, two things, or parts that do not go together; in words.
    pub fn asked(&self) -> Result<Asked<'_>, String> {
        let methods = [
            ("GET", &self.get),
            ("POST", &self.post),
            ("PUT", &self.put),
            ("PATCH", &self.patch),
        ];
        let requests = methods.into_iter().filter_map(|(method, address)| {
            let address = address.as_deref()?;
            Some(Asked::Request(method, address))
        });
        let screen = (!self.screen.is_empty()).then_some(Asked::Screen);
        let asked: Vec<Asked<'_>> = requests.chain(screen).collect();
        let [asked] = asked[..] else {
            return Err("control: give it one of get, post, put, patch and screen".into());
        };
        let is_bare = self.body.is_none() && self.status.is_none() && self.answer.is_none();
        match asked {
            Asked::Screen if !is_bare => {
                Err("control: body, status and answer go with a request, not with screen".into())
            }
            Asked::Request(_, address) if !address.starts_with('/') => Err(format!(
                "control: the address `{address}` does not begin with a slash; docs/control.md lists them"
            )),
            Asked::Request(..) | Asked::Screen => Ok(asked),
        }
    }
}

/// What of `wanted` is not in `found`, as a path and both values; `None`: all of it is there.
#[must_use]
pub fn lacking(wanted: &Value, found: &Value) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, value)| {
            let there = found.get(key).unwrap_or(&Value::Null);
            lacking(value, there).map(|what| format!(".{key}{what}"))
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            let is_there =
                |value: &&Value| found.iter().any(|other| lacking(value, other).is_none());
            let missing = wanted.iter().find(|value| !is_there(value))?;
            let found = Value::from(found.clone());
            Some(format!(": none of {found} has {missing}"))
        }
        (wanted, found) => (wanted != found).then(|| format!(" = {found}, not {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_asks_one_thing_in_one_way() {
        let step = |text: &str| toml::from_str::<ControlStep>(text).unwrap();
        let get = step("get = '/v1/holds'\nstatus = 404");
        assert_eq!(get.asked(), Ok(Asked::Request("GET", "/v1/holds")));
        assert_eq!(step("screen = ['RUNNING']").asked(), Ok(Asked::Screen));
        for (text, why) in [
            ("", "give it one of"),
            ("get = '/a'\npost = '/b'", "give it one of"),
            ("screen = ['a']\nget = '/b'", "give it one of"),
            ("screen = ['a']\nstatus = 200", "go with a request"),
            ("get = 'v1/holds'", "begin with a slash"),
        ] {
            let refused = step(text).asked().unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn an_answer_may_have_more_than_is_wanted_and_not_less() {
        let found = json!({ "total": 2, "holds": [{ "device": "a", "bytes": 1 }, { "device": "b", "bytes": 2 }] });
        assert_eq!(lacking(&json!({ "total": 2 }), &found), None);
        assert_eq!(
            lacking(&json!({ "holds": [{ "device": "b" }] }), &found),
            None
        );
        assert_eq!(lacking(&json!({ "holds": [] }), &found), None);
        for (wanted, what) in [
            (json!({ "total": 3 }), ".total = 2, not 3"),
            (json!({ "gates": [] }), ".gates = null, not []"),
            (
                json!({ "holds": [{ "device": "b", "bytes": 1 }] }),
                ".holds: none of",
            ),
        ] {
            let lacks = lacking(&wanted, &found).unwrap();
            assert!(lacks.contains(what), "{lacks}");
        }
    }
}
