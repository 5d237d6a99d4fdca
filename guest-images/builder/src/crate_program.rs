//! Programs that no package of Debian's has and the crates' registry does: cargo builds them into the cache, and checks their digests.

use std::path::PathBuf;

use crate::error::Error;
use crate::store::{Store, entries, remove_if_there};

/// Each with the version that was tried.
const KNOWN: [(&str, &str); 1] = [("fsx", "0.3.2")];

/// Their directory in the cache.
const PROGRAMS: &str = "programs";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CrateProgram {
    name: &'static str,
    version: &'static str,
}

impl CrateProgram {
    /// The program of that name, if it is one of them.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let known = KNOWN.iter().find(|(known, _)| *known == name);
        known.map(|&(name, version)| Self { name, version })
    }

    /// Where it is once it is built. A program of this name elsewhere is another one, or of another version.
    pub(crate) fn path(self) -> Result<PathBuf, Error> {
        Ok(self.root()?.join("bin").join(self.name))
    }

    /// Where it goes in an image.
    pub(crate) fn path_in_image(self) -> String {
        format!("/usr/bin/{}", self.name)
    }

    /// What cargo is to be told to build it.
    pub(crate) fn arguments(self) -> Result<Vec<String>, Error> {
        let root = self.root()?.display().to_string();
        let words = ["install", "--locked", self.name, "--version", self.version];
        let words = words.into_iter().map(str::to_owned);
        Ok(words.chain(["--root".to_owned(), root]).collect())
    }

    /// The same, for people.
    pub(crate) fn line(self) -> String {
        let words = self.arguments().unwrap_or_default();
        let words = words.iter().map(|word| match word.contains(' ') {
            true => format!("'{word}'"),
            false => word.clone(),
        });
        format!("cargo {}", words.collect::<Vec<_>>().join(" "))
    }

    /// A directory for each version, so that another one is built when it is wanted.
    fn root(self) -> Result<PathBuf, Error> {
        let name = format!("{}-{}", self.name, self.version);
        Ok(Store::open_default()?.root().join(PROGRAMS).join(name))
    }
}

/// Whether the program of that name comes from a crate, so that it is built without being root.
#[must_use]
pub fn is_of_a_crate(name: &str) -> bool {
    CrateProgram::named(name).is_some()
}

/// Removes all of them from the cache, and says what was there.
///
/// # Errors
/// A directory cannot be read or removed.
pub fn remove_crate_programs(store: &Store) -> Result<Vec<PathBuf>, Error> {
    let all = entries(&store.root().join(PROGRAMS))?;
    for program in &all {
        remove_if_there(program)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_a_crate_lies_in_the_cache_and_its_line_builds_it_there() {
        let fsx = CrateProgram::named("fsx").unwrap();
        let path = fsx.path().unwrap();
        assert!(
            path.ends_with("programs/fsx-0.3.2/bin/fsx"),
            "{}",
            path.display()
        );
        let line = fsx.line();
        assert!(
            line.starts_with("cargo install --locked fsx --version 0.3.2 --root "),
            "{line}"
        );
        assert_eq!(fsx.path_in_image(), "/usr/bin/fsx");
        assert_eq!(CrateProgram::named("fio"), None);
    }

    #[test]
    fn what_was_built_is_removed_and_an_empty_cache_has_nothing_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path()).unwrap();
        assert!(remove_crate_programs(&store).unwrap().is_empty());
        let program = store.root().join(PROGRAMS).join("fsx-0.0.1");
        std::fs::create_dir_all(program.join("bin")).unwrap();
        assert_eq!(remove_crate_programs(&store).unwrap(), [&*program]);
        assert!(!program.exists());
    }
}
