//! The configuration: fragments become one, and what the kernel's own tool makes of it is compared with what was asked for, since
//! `allnoconfig` drops a line that it does not know, or whose dependency is missing, without a word.

use std::collections::BTreeMap;

use super::KernelError;

/// What the fragments ask for, by option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    wanted: BTreeMap<String, Wanted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    /// `y`, `"text"`, `8`; `None`: not set.
    value: Option<String>,
    /// `guest.config:12`.
    place: String,
}

impl Config {
    /// Adds a fragment; its lines win over those before.
    pub(super) fn add(&mut self, fragment: &str, text: &str) -> Result<(), KernelError> {
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            let (name, value) = match setting(line) {
                Some(setting) => setting,
                None if line.is_empty() || is_comment(line) => continue,
                None => {
                    return Err(KernelError::BadFragment {
                        fragment: fragment.to_owned(),
                        line: n + 1,
                        text: line.to_owned(),
                    });
                }
            };
            let wanted = Wanted {
                value: value.map(str::to_owned),
                place: format!("{fragment}:{}", n + 1),
            };
            self.wanted.insert(name.to_owned(), wanted);
        }
        Ok(())
    }

    /// One file for KCONFIG_ALLCONFIG: the same for the same settings, whatever comments and order the fragments have.
    pub(super) fn to_text(&self) -> String {
        let line = |(name, wanted): (&String, &Wanted)| match &wanted.value {
            Some(value) => format!("{name}={value}\n"),
            None => format!("# {name} is not set\n"),
        };
        self.wanted.iter().map(line).collect()
    }

    /// Compares with the `.config` that came of it.
    pub(super) fn check(&self, resulting: &str) -> Result<(), KernelError> {
        let there: BTreeMap<&str, &str> = resulting
            .lines()
            .filter_map(setting)
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let mut lines = Vec::new();
        for (name, wanted) in &self.wanted {
            let found = there.get(name.as_str()).copied();
            if found != wanted.value.as_deref() {
                let say = |value: Option<&str>| {
                    value.map_or("not set".to_owned(), |value| format!("`{value}`"))
                };
                lines.push(format!(
                    "{name} ({}) should be {} and is {}",
                    wanted.place,
                    say(wanted.value.as_deref()),
                    say(found)
                ));
            }
        }
        if lines.is_empty() {
            Ok(())
        } else {
            Err(KernelError::ConfigNotTaken { lines })
        }
    }
}

/// Option and value of a line; `n` is the same as not set.
fn setting(line: &str) -> Option<(&str, Option<&str>)> {
    let is_name = |name: &str| {
        name.strip_prefix("CONFIG_").is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
    };
    if let Some(name) = line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"))
    {
        return is_name(name).then_some((name, None));
    }
    let (name, value) = line.split_once('=')?;
    (is_name(name) && !value.is_empty()).then_some((name, (value != "n").then_some(value)))
}

/// `# CONFIG_X=y` and the like is a setting that somebody switched off, which is fine; what looks like `is not set` misspelt is not.
fn is_comment(line: &str) -> bool {
    line.starts_with('#') && !(line.starts_with("# CONFIG_") && line.contains("not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(fragments: &[&str]) -> Config {
        let mut config = Config::default();
        for (text, name) in fragments.iter().zip(["guest.config", "debug.config"]) {
            config.add(name, text).unwrap();
        }
        config
    }

    #[test]
    fn later_fragments_win_and_comments_and_order_change_nothing() {
        let one = config(&[
            "# base\nCONFIG_B=8\nCONFIG_A=y\n",
            "# CONFIG_A is not set\n",
        ]);
        assert_eq!(one.to_text(), "# CONFIG_A is not set\nCONFIG_B=8\n");
        assert_eq!(
            one.to_text(),
            config(&["CONFIG_A=n\n\nCONFIG_B=8"]).to_text()
        );
    }

    #[test]
    fn lines_that_were_not_taken_are_named_with_their_place() {
        let config = config(&[
            "CONFIG_A=y\nCONFIG_N=8\n# CONFIG_OFF is not set\nCONFIG_S=\"-pin\"\n",
            "CONFIG_DEBUG_VM=y\n",
        ]);
        config
            .check("CONFIG_A=y\nCONFIG_N=8\nCONFIG_S=\"-pin\"\nCONFIG_DEBUG_VM=y\nCONFIG_MORE=y\n")
            .unwrap();
        let error = config.check("CONFIG_A=y\nCONFIG_N=64\nCONFIG_OFF=y\nCONFIG_S=\"-pin\"\n# CONFIG_DEBUG_VM is not set\n");
        let told = error.unwrap_err().to_string();
        for line in [
            "did not take 3 of the fragments' lines",
            "CONFIG_N (guest.config:2) should be `8` and is `64`",
            "CONFIG_OFF (guest.config:3) should be not set and is `y`",
            "CONFIG_DEBUG_VM (debug.config:1) should be `y` and is not set",
        ] {
            assert!(told.contains(line), "{told}");
        }
    }

    #[test]
    fn a_line_that_is_no_setting_is_refused_with_its_place() {
        for bad in [
            "CONFIG_A",
            "CONFIG_A=",
            "A=y",
            "CONFIG_A y",
            "# CONFIG_A is not sett",
            "CONFIG_=y",
        ] {
            let text = format!("CONFIG_B=y\n{bad}\n");
            let told = Config::default()
                .add("x.config", &text)
                .unwrap_err()
                .to_string();
            assert!(
                told.starts_with(&format!("x.config:2: `{bad}` is neither")),
                "{told}"
            );
        }
    }
}
