//! A memory balloon, as `--balloon` and `[balloon]` spell it.

use serde::{Deserialize, Serialize};

use super::units;

/// A virtio-balloon device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BalloonConfig {
    /// Name in plans, events and messages.
    #[serde(default = "default_id")]
    pub id: String,
    /// Memory that the guest is asked to give up from the start, in bytes; a whole number of pages.
    #[serde(default, with = "units::size")]
    pub target: u64,
    /// The guest reports free pages, and the host takes their memory until they are used again.
    #[serde(default = "on")]
    pub reporting: bool,
    /// The guest may take pages back from the balloon when it is short of memory.
    #[serde(default = "on")]
    pub deflate_on_oom: bool,
}

impl Default for BalloonConfig {
    fn default() -> Self {
        Self {
            id: default_id(),
            target: 0,
            reporting: true,
            deflate_on_oom: true,
        }
    }
}

impl BalloonConfig {
    /// What is wrong with it in a machine of so many bytes of RAM.
    pub(super) fn problem(&self, memory: u64) -> Option<String> {
        let target = units::format_size(self.target);
        if !self.target.is_multiple_of(4096) {
            return Some(format!(
                "--balloon target={target}: a balloon has whole pages of 4K"
            ));
        }
        (self.target > memory).then(|| {
            let memory = units::format_size(memory);
            format!("--balloon target={target}: the guest has only {memory} to give; give less")
        })
    }
}

fn default_id() -> String {
    "balloon".to_owned()
}

fn on() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key_values;

    #[test]
    fn a_flag_says_what_differs_from_an_empty_balloon_that_reports() {
        let balloon: BalloonConfig = key_values::parse("target=64M,reporting=off").unwrap();
        let expected = BalloonConfig {
            target: 64 << 20,
            reporting: false,
            ..BalloonConfig::default()
        };
        assert_eq!(balloon, expected);
        let said = key_values::parse::<BalloonConfig>("size=64M").unwrap_err();
        assert!(said.contains("`size`"), "{said}");
    }

    #[test]
    fn a_target_beyond_the_guests_memory_is_refused() {
        let problem = |target| {
            let balloon = BalloonConfig {
                target,
                ..BalloonConfig::default()
            };
            balloon.problem(1 << 20)
        };
        assert_eq!(problem(1 << 20), None);
        assert!(problem(4097).is_some_and(|text| text.contains("whole pages")));
        assert!(problem(2 << 20).is_some_and(|text| text.contains("only 1M")));
    }
}
