//! The files that kernels of our own designs are made of: source.toml, the series and its patches, the configuration fragments.
//! They are embedded in the program; a kernel developer has them in a directory, and edits and builds them there.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::KernelError;
use crate::error::{Error, IoContext as _};
use crate::progress::Progress;
use crate::store::entries;

/// Path from the top of the tree, and text.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/kernel_files.rs"));

/// Names a directory to use in place of what is embedded.
pub const TREE_VARIABLE: &str = "PINCUSHION_KERNEL_TREE";

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelFiles {
    /// In the program.
    Embedded,
    /// In a directory like `guest-images/kernel`.
    Directory(PathBuf),
}

impl KernelFiles {
    /// Those of `tree`, else of the directory in `$PINCUSHION_KERNEL_TREE`, else the embedded ones.
    #[must_use]
    pub fn of(tree: Option<&Path>) -> Self {
        let named = tree.map(Path::to_owned).or_else(|| {
            env::var_os(TREE_VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        });
        named.map_or(Self::Embedded, Self::Directory)
    }

    /// How messages call a file of it.
    #[must_use]
    pub fn name_of(&self, path: &str) -> String {
        match self {
            Self::Embedded => path.to_owned(),
            Self::Directory(dir) => dir.join(path).display().to_string(),
        }
    }

    /// The text of one file; `needed_by` is half a sentence for the message where there is none.
    pub(super) fn read(&self, path: &str, needed_by: &str) -> Result<Cow<'static, str>, Error> {
        let absent = |tree: String| KernelError::NoFile {
            tree,
            path: path.to_owned(),
            needed_by: needed_by.to_owned(),
        };
        match self {
            Self::Embedded => {
                let mut files = EMBEDDED.iter();
                let found = files.find(|(known, _)| *known == path);
                let (_, text) = found.ok_or_else(|| absent("this program".to_owned()))?;
                Ok(Cow::Borrowed(text))
            }
            Self::Directory(dir) => match fs::read_to_string(dir.join(path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let tree = format!("{} (--tree or ${TREE_VARIABLE})", dir.display());
                    Err(absent(tree).into())
                }
                text => Ok(Cow::Owned(text.during("read", &dir.join(path))?)),
            },
        }
    }

    /// The names of the patches, in order: the lines of patches/series that are no comments.
    pub(super) fn series(&self) -> Result<Vec<String>, Error> {
        let text = self.read("patches/series", "")?;
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        Ok(lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Says which patches of a directory the series does not name, but for a cover letter: they are not applied.
    pub(super) fn tell_unnamed(&self, progress: &mut dyn Progress) -> Result<(), Error> {
        let Self::Directory(dir) = self else {
            return Ok(());
        };
        let named = self.series()?;
        let there = entries(&dir.join("patches"))?.into_iter();
        let names = there.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let is_forgotten = |name: &String| {
            name.ends_with(".patch") && !name.starts_with("0000-") && !named.contains(name)
        };
        for name in names.filter(is_forgotten) {
            progress.step(
                "note",
                &format!("patches/{name} is not applied: patches/series does not name it"),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_serves_in_place_of_what_is_embedded_and_a_missing_file_is_told_with_who_wants_it()
     {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("patches")).unwrap();
        fs::write(
            dir.path().join("patches/series"),
            "# first\n0001-a.patch\n\n0002-b.patch # why\n",
        )
        .unwrap();
        let files = KernelFiles::of(Some(dir.path()));
        assert_eq!(files.series().unwrap(), ["0001-a.patch", "0002-b.patch"]);
        let error = files
            .read("config/x.config", ", which flavour `x` names")
            .unwrap_err();
        let told = format!(
            "{} (--tree or $PINCUSHION_KERNEL_TREE) has no config/x.config, which flavour `x` names",
            dir.path().display()
        );
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn a_patch_that_the_series_does_not_name_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("patches")).unwrap();
        for name in ["0000-cover-letter.patch", "0001-a.patch", "0002-b.patch"] {
            fs::write(dir.path().join("patches").join(name), "").unwrap();
        }
        fs::write(dir.path().join("patches/series"), "0001-a.patch\n").unwrap();
        let mut notes = Vec::new();
        let files = KernelFiles::of(Some(dir.path()));
        let mut tell = |_: &str, told: &str| notes.push(told.to_owned());
        files.tell_unnamed(&mut tell).unwrap();
        assert_eq!(
            notes,
            ["patches/0002-b.patch is not applied: patches/series does not name it"]
        );
    }

    #[test]
    fn every_patch_of_the_series_is_embedded_and_no_other_lies_about() {
        let mut named = KernelFiles::Embedded.series().unwrap();
        let embedded = EMBEDDED
            .iter()
            .filter_map(|(path, _)| path.strip_prefix("patches/"));
        let mut patches: Vec<&str> = embedded.filter(|path| *path != "series").collect();
        named.sort();
        patches.sort_unstable();
        assert_eq!(named, patches);
    }
}
