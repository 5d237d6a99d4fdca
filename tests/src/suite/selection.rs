//! Which runs a user asks for.

use std::path::{Path, PathBuf};

use pincushion_devices::toml_error::nearest;

use crate::scenario::{LoadError, Scenario, catalogue, parse};

/// One run to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What to do.
    pub scenario: Scenario,
    /// Its file, if it is not one of ours.
    pub file: Option<PathBuf>,
    /// On which kernel.
    pub kernel: String,
    /// Count, from 1.
    pub repeat: u32,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Scenarios by name; none and no tag: all.
    pub names: Vec<String>,
    /// Scenarios by tag.
    pub tags: Vec<String>,
    /// Files of the user's own.
    pub files: Vec<PathBuf>,
    /// Kernels; none: those that each scenario names.
    pub kernels: Vec<String>,
    /// How often each.
    pub repeat: u32,
}

/// Why nothing can be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// A file is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An unknown name.
    #[error("there is no scenario `{name}`{guess}; `pincushion test list` shows all")]
    UnknownName {
        /// It.
        name: String,
        /// The nearest, as half a sentence.
        guess: String,
    },
    /// A tag that no scenario has.
    #[error("no scenario has the tag `{tag}`; tags are: {known}")]
    UnknownTag {
        /// It.
        tag: String,
        /// Those that exist.
        known: String,
    },
}

/// The runs that a selection means: kernel by kernel, so that a machine's caches stay warm.
///
/// # Errors
/// [`SelectionError`].
pub fn select(selection: &Selection) -> Result<Vec<Item>, SelectionError> {
    let all = catalogue::all()?;
    refuse_unknown(selection, &all)?;
    let is_everything =
        selection.names.is_empty() && selection.tags.is_empty() && selection.files.is_empty();
    let is_wanted = |scenario: &Scenario| {
        is_everything
            || selection.names.contains(&scenario.name)
            || scenario.tags.iter().any(|tag| selection.tags.contains(tag))
    };
    let mut wanted: Vec<(Scenario, Option<PathBuf>)> = all
        .into_iter()
        .filter(|scenario| is_wanted(scenario))
        .map(|scenario| (scenario, None))
        .collect();
    for file in &selection.files {
        let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        wanted.push((read_file(file)?, Some(path)));
    }
    let mut items = Vec::new();
    for repeat in 1..=selection.repeat.max(1) {
        for (scenario, file) in &wanted {
            let kernels = if selection.kernels.is_empty() {
                &scenario.kernels
            } else {
                &selection.kernels
            };
            items.extend(kernels.iter().map(|kernel| Item {
                scenario: scenario.clone(),
                file: file.clone(),
                kernel: kernel.clone(),
                repeat,
            }));
        }
    }
    Ok(items)
}

/// Reads a scenario file of the user's own.
///
/// # Errors
/// [`LoadError`].
pub fn read_file(path: &Path) -> Result<Scenario, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, path)
}

fn refuse_unknown(selection: &Selection, all: &[Scenario]) -> Result<(), SelectionError> {
    for name in &selection.names {
        if !all.iter().any(|scenario| scenario.name == *name) {
            let near = nearest(name, all.iter().map(|scenario| scenario.name.as_str()));
            let guess = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Err(SelectionError::UnknownName {
                name: name.clone(),
                guess,
            });
        }
    }
    let mut known: Vec<&str> = all
        .iter()
        .flat_map(|scenario| scenario.tags.iter().map(String::as_str))
        .collect();
    known.sort_unstable();
    known.dedup();
    for tag in &selection.tags {
        if !known.contains(&tag.as_str()) {
            return Err(SelectionError::UnknownTag {
                tag: tag.clone(),
                known: known.join(", "),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_tag_and_a_repeat_multiply() {
        let selection = Selection {
            names: vec!["boot-1-cpu".into()],
            repeat: 3,
            ..Selection::default()
        };
        let items = select(&selection).unwrap();
        assert_eq!(items.len(), 6);
        assert_eq!(items.iter().map(|item| item.repeat).max(), Some(3));
        let one_kernel = Selection {
            kernels: vec!["host".into()],
            ..selection
        };
        assert!(
            select(&one_kernel)
                .unwrap()
                .iter()
                .all(|item| item.kernel == "host")
        );
        let demo = Selection {
            tags: vec!["demo".into()],
            ..Selection::default()
        };
        assert!(
            select(&demo)
                .unwrap()
                .iter()
                .all(|item| item.scenario.tags.contains(&"demo".into()))
        );
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        let items = select(&Selection::default()).unwrap();
        assert!(catalogue::names().all(|name| items.iter().any(|item| item.scenario.name == name)));
    }

    #[test]
    fn unknown_names_and_tags_are_refused_with_a_way_out() {
        let name = Selection {
            names: vec!["boot-1-cpus".into()],
            ..Selection::default()
        };
        assert!(
            select(&name)
                .unwrap_err()
                .to_string()
                .contains("did you mean `boot-1-cpu`?")
        );
        let tag = Selection {
            tags: vec!["demos".into()],
            ..Selection::default()
        };
        assert!(select(&tag).unwrap_err().to_string().contains("tags are: "));
    }
}
