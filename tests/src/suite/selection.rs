//! Which runs a user asks for.

use std::path::{Path, PathBuf};

use pincushion_devices::toml_error::nearest;

use crate::scenario::catalogue::Listed;
use crate::scenario::{LoadError, Scenario, catalogue, parse_all};

/// The count of a run that is there for the machine to be warm when others measure: what it measures counts for nothing.
pub const WARM_UP: u32 = 0;

/// One run to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What to do.
    pub scenario: Scenario,
    /// Its file, if it is not one of ours, with `#` and the variant behind it where it has variants.
    pub file: Option<PathBuf>,
    /// On which kernel.
    pub kernel: String,
    /// Count, from 1; [`WARM_UP`] for a run that only warms its machine up.
    pub repeat: u32,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Scenarios by name, or all variants of a file by what their names begin with; none and no tag: all.
    pub names: Vec<String>,
    /// Scenarios by tag.
    pub tags: Vec<String>,
    /// Files of the user's own, for one variant of them with `#` and its name.
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
    /// A kernel that cannot be.
    #[error(transparent)]
    Kernel(#[from] pincushion_image::Error),
    /// An unknown name.
    #[error("there is no scenario `{name}`{guess}; `pincushion test list` shows all")]
    UnknownName {
        /// It.
        name: String,
        /// The nearest, as half a sentence.
        guess: String,
    },
    /// A variant that the file lacks.
    #[error("{} has no variant `{variant}`; it has: {known}", file.display())]
    UnknownVariant {
        /// The file.
        file: PathBuf,
        /// What was asked for.
        variant: String,
        /// Those that exist.
        known: String,
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
    let is_wanted = |Listed { file, scenario }: &Listed| {
        let mut names = selection.names.iter();
        is_everything
            || names.any(|name| name == file || *name == scenario.name)
            || scenario.tags.iter().any(|tag| selection.tags.contains(tag))
    };
    let mut wanted: Vec<(Scenario, Option<PathBuf>)> = all
        .into_iter()
        .filter(is_wanted)
        .map(|listed| (listed.scenario, None))
        .collect();
    for file in &selection.files {
        let of_file = read_file(file)?.into_iter();
        wanted.extend(of_file.map(|(scenario, path)| {
            let path = std::path::absolute(&path).unwrap_or(path);
            (scenario, Some(path))
        }));
    }
    // One that is named twice runs once: its runs would share a directory.
    let chosen = crate::each_once(&selection.kernels);
    let mut items = Vec::new();
    for repeat in 1..=selection.repeat.max(1) {
        for (scenario, file) in &wanted {
            let kernels = if chosen.is_empty() {
                scenario.kernels.iter().collect()
            } else {
                chosen.clone()
            };
            items.extend(kernels.into_iter().map(|kernel| Item {
                scenario: scenario.clone(),
                file: file.clone(),
                kernel: kernel.clone(),
                repeat,
            }));
        }
    }
    Ok(items)
}

/// Reads a scenario file of the user's own: its scenarios, each with the word by which it alone is asked for (`FILE`, or
/// `FILE#VARIANT`).
///
/// # Errors
/// [`SelectionError`].
pub fn read_file(file: &Path) -> Result<Vec<(Scenario, PathBuf)>, SelectionError> {
    let (path, variant) = split_variant(file);
    let text = std::fs::read_to_string(&path).map_err(|source| LoadError::Read {
        path: path.clone(),
        source,
    })?;
    let all = parse_all(&text, &path)?;
    if let Some(wanted) = &variant
        && !all
            .iter()
            .any(|(variant, _)| variant.as_ref() == Some(wanted))
    {
        let known: Vec<&str> = all
            .iter()
            .filter_map(|(variant, _)| variant.as_deref())
            .collect();
        return Err(SelectionError::UnknownVariant {
            file: path,
            variant: wanted.clone(),
            known: if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            },
        });
    }
    let is_wanted = |of: &Option<String>| variant.is_none() || *of == variant;
    let wanted = all.into_iter().filter(|(of, _)| is_wanted(of));
    Ok(wanted
        .map(|(of, scenario)| match of {
            None => (scenario, path.clone()),
            Some(of) => (scenario, PathBuf::from(format!("{}#{of}", path.display()))),
        })
        .collect())
}

/// `FILE#VARIANT` in its two halves; a file whose name has a `#` is a file.
pub(crate) fn split_variant(file: &Path) -> (PathBuf, Option<String>) {
    let word = file.to_string_lossy();
    match word.rsplit_once('#') {
        Some((path, variant)) if !file.exists() => (path.into(), Some(variant.to_owned())),
        _ => (file.to_owned(), None),
    }
}

fn refuse_unknown(selection: &Selection, all: &[Listed]) -> Result<(), SelectionError> {
    for kernel in &selection.kernels {
        kernel.parse::<pincushion_image::KernelSpec>()?;
    }
    for name in &selection.names {
        let names = || {
            all.iter()
                .flat_map(|listed| [listed.file, &listed.scenario.name])
        };
        if !names().any(|known| known == name) {
            let guess = match nearest(name, names()) {
                _ if name.contains(".toml") => format!("; a file is given by `--scenario {name}`"),
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            };
            return Err(SelectionError::UnknownName {
                name: name.clone(),
                guess,
            });
        }
    }
    let mut known: Vec<&str> = all
        .iter()
        .flat_map(|listed| listed.scenario.tags.iter().map(String::as_str))
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
        for listed in catalogue::all().unwrap() {
            let name = &listed.scenario.name;
            assert!(
                items.iter().any(|item| item.scenario.name == *name),
                "{name}"
            );
        }
    }

    #[test]
    fn a_file_with_variants_is_all_of_them_or_the_one_behind_the_hash() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        let text = "name = 'x'\nsummary = 'y'\n[expect.default]\nverdict = 'pass'\n[[variant]]\nname = 'a'\n[[variant]]\nname = 'b'\n";
        std::fs::write(&file, text).unwrap();
        let of = |word: &str| {
            let files = vec![PathBuf::from(format!("{}{word}", file.display()))];
            let items = select(&Selection {
                files,
                ..Selection::default()
            })?;
            let told = items
                .into_iter()
                .map(|item| (item.scenario.name, item.file.unwrap()));
            Ok::<Vec<_>, SelectionError>(told.collect())
        };
        let whole = of("").unwrap();
        assert_eq!(
            whole
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            ["x-a", "x-b"]
        );
        // The word that is kept for a replay asks for just this one.
        assert!(whole[1].1.ends_with("x.toml#b"), "{whole:?}");
        assert_eq!(of("#b").unwrap(), whole[1..]);
        assert!(
            of("#c")
                .unwrap_err()
                .to_string()
                .contains("no variant `c`; it has: a, b")
        );
    }

    #[test]
    fn a_kernel_that_cannot_be_is_refused_before_anything_runs() {
        for (kernel, told) in [
            ("design:bais", "did you mean `bias`?"),
            ("design:bias+bonce", "did you mean `bounce`?"),
            ("fedora:41", "names no kernel"),
        ] {
            let selection = Selection {
                kernels: vec!["debian:6.12".into(), kernel.into()],
                ..Selection::default()
            };
            let refusal = select(&selection).unwrap_err().to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn a_kernel_that_is_named_twice_runs_once() {
        let selection = Selection {
            names: vec!["boot-1-cpu".into()],
            kernels: ["debian:6.1", "debian:6.12", "debian:6.1"]
                .map(str::to_owned)
                .to_vec(),
            ..Selection::default()
        };
        let items = select(&selection).unwrap();
        let kernels: Vec<&str> = items.iter().map(|item| item.kernel.as_str()).collect();
        assert_eq!(kernels, ["debian:6.1", "debian:6.12"]);
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
