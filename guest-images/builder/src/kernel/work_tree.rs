//! Keeps the unpacked source as the series wants it, and touches only files whose content changes: so a build after an edit of the
//! series compiles what depends on it and nothing else.
//!
//! What a file was before the first patch touched it is kept in `pristine/` beside the tree before the file is changed, so a
//! run that was killed at any point is put right by the next. Files that somebody else changes in the tree are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::apply::{FileState, Outcome, apply};
use super::patch::Patch;
use crate::entry::{read_json, write_json};
use crate::error::{Error, IoContext as _};

/// The tree and what is known about it.
#[derive(Debug)]
pub(super) struct WorkTree {
    tree: PathBuf,
    pristine: PathBuf,
    /// Names every file that a series has ever touched: `true` if the source has it.
    touched: PathBuf,
}

/// What was done to the tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Files that were written or removed.
    pub(super) files: usize,
    /// Hunks that fit at another line.
    pub(super) moved: Vec<String>,
}

impl WorkTree {
    /// The tree `dir/tree`.
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self {
            tree: dir.join("tree"),
            pristine: dir.join("pristine"),
            touched: dir.join("touched.json"),
        }
    }

    /// Makes the tree what the series makes of the source. If a patch does not apply, nothing is changed.
    pub(super) fn bring_to(&self, series: &[Patch]) -> Result<Changes, Error> {
        let mut touched: BTreeMap<String, bool> = read_json(&self.touched)?.unwrap_or_default();
        let outcome = self.outcome(series, &touched)?;
        for path in outcome.files.keys() {
            if !touched.contains_key(path) {
                let is_there = self.keep(path)?;
                touched.insert(path.clone(), is_there);
            }
        }
        // Before the first file changes: what is not named here is taken for the source's own.
        write_json(&self.touched, &touched)?;
        let mut changes = Changes {
            files: 0,
            moved: outcome.moved,
        };
        let all: BTreeSet<&String> = touched.keys().chain(outcome.files.keys()).collect();
        for path in all {
            let state = match outcome.files.get(path) {
                Some(state) => state.clone(),
                // A patch of before has gone.
                None => FileState {
                    bytes: self.original(path, &touched)?,
                    executable: false,
                },
            };
            changes.files += usize::from(self.write(path, &state)?);
        }
        Ok(changes)
    }

    /// Whether there is a tree to ask.
    pub(super) fn is_there(&self) -> bool {
        self.tree.is_dir()
    }

    /// What the series makes of the source, without doing it.
    pub(super) fn preview(&self, series: &[Patch]) -> Result<Outcome, Error> {
        self.outcome(series, &read_json(&self.touched)?.unwrap_or_default())
    }

    fn outcome(
        &self,
        series: &[Patch],
        touched: &BTreeMap<String, bool>,
    ) -> Result<Outcome, Error> {
        apply(series, |path| self.original(path, touched))
    }

    /// The file as the source has it.
    fn original(
        &self,
        path: &str,
        touched: &BTreeMap<String, bool>,
    ) -> Result<Option<Vec<u8>>, Error> {
        match touched.get(path) {
            Some(true) => read(&self.pristine.join(path)),
            Some(false) => Ok(None),
            None => read(&self.tree.join(path)),
        }
    }

    /// Keeps the file, which no patch has touched yet; gives whether there is one.
    fn keep(&self, path: &str) -> Result<bool, Error> {
        let Some(bytes) = read(&self.tree.join(path))? else {
            return Ok(false);
        };
        write_whole(&self.pristine.join(path), &bytes, None)?;
        Ok(true)
    }

    /// Writes the file if it is not so already; gives whether it did.
    fn write(&self, path: &str, state: &FileState) -> Result<bool, Error> {
        let full = self.tree.join(path);
        let there = read(&full)?;
        if there == state.bytes {
            return Ok(false);
        }
        match &state.bytes {
            None => fs::remove_file(&full).during("remove", &full)?,
            Some(bytes) => {
                let mode = match fs::metadata(&full) {
                    Ok(metadata) => metadata.permissions().mode() & 0o777,
                    Err(_) if state.executable => 0o755,
                    Err(_) => 0o644,
                };
                write_whole(&full, bytes, Some(mode))?;
            }
        }
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        bytes => bytes.map(Some).during("read", path),
    }
}

/// Whole or not at all, also when the disk fills up or we are killed.
fn write_whole(path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).during("create", parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".pincushion-tmp");
    let temporary = path.with_file_name(name);
    fs::write(&temporary, bytes).during("write", &temporary)?;
    if let Some(mode) = mode {
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))
            .during("set the mode of", &temporary)?;
    }
    fs::rename(&temporary, path).during("rename", &temporary)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const A: &str = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1,2 +1,2 @@\n a\n-b\n+B\n";
    const B: &str = "--- a/mm/b.c\n+++ b/mm/b.c\n@@ -1 +1 @@\n-x\n+y\n";
    const NEW: &str = "--- /dev/null\n+++ b/mm/deep/n.c\n@@ -0,0 +1 @@\n+n\n";

    fn source() -> (tempfile::TempDir, WorkTree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/mm")).unwrap();
        fs::write(dir.path().join("tree/mm/a.c"), "a\nb\n").unwrap();
        fs::write(dir.path().join("tree/mm/b.c"), "x\n").unwrap();
        let tree = WorkTree::in_dir(dir.path());
        (dir, tree)
    }

    fn series(texts: &[&str]) -> Vec<Patch> {
        texts
            .iter()
            .map(|text| Patch::parse("p", text).unwrap())
            .collect()
    }

    fn text(tree: &WorkTree, path: &str) -> Option<String> {
        fs::read_to_string(tree.tree.join(path)).ok()
    }

    #[test]
    fn only_files_whose_content_changes_are_written() {
        let (_dir, tree) = source();
        assert_eq!(tree.bring_to(&series(&[A, NEW])).unwrap().files, 2);
        let old = SystemTime::UNIX_EPOCH;
        for path in ["mm/a.c", "mm/deep/n.c"] {
            let file = fs::File::options()
                .append(true)
                .open(tree.tree.join(path))
                .unwrap();
            file.set_modified(old).unwrap();
        }
        let more = NEW.replace("+n", "+m");
        assert_eq!(tree.bring_to(&series(&[A, B, &more])).unwrap().files, 2);
        let time = |path: &str| {
            fs::metadata(tree.tree.join(path))
                .unwrap()
                .modified()
                .unwrap()
        };
        assert_eq!(time("mm/a.c"), old, "it is as it was");
        assert!(time("mm/deep/n.c") > old && text(&tree, "mm/b.c").unwrap() == "y\n");
        assert_eq!(
            tree.bring_to(&series(&[A, B, &more])).unwrap(),
            Changes::default()
        );
    }

    #[test]
    fn a_patch_that_leaves_the_series_leaves_the_tree_too() {
        let (_dir, tree) = source();
        tree.bring_to(&series(&[A, B, NEW])).unwrap();
        tree.bring_to(&series(&[B])).unwrap();
        assert_eq!(text(&tree, "mm/a.c").unwrap(), "a\nb\n");
        assert_eq!(
            (
                text(&tree, "mm/b.c").unwrap().as_str(),
                text(&tree, "mm/deep/n.c")
            ),
            ("y\n", None)
        );
        tree.bring_to(&[]).unwrap();
        assert_eq!(text(&tree, "mm/b.c").unwrap(), "x\n");
    }

    #[test]
    fn a_series_that_does_not_apply_changes_nothing() {
        let (_dir, tree) = source();
        let wrong = B.replace("-x", "-z");
        let error = tree
            .bring_to(&series(&[A, &wrong]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("mm/b.c, hunk 1"), "{error}");
        assert_eq!(text(&tree, "mm/a.c").unwrap(), "a\nb\n");
    }

    #[test]
    fn a_run_that_was_killed_between_two_files_is_put_right_by_the_next() {
        let (_dir, tree) = source();
        tree.bring_to(&series(&[A, B])).unwrap();
        // As after a kill: one file is of the new series, the other still of the old one.
        fs::write(tree.tree.join("mm/b.c"), "x\n").unwrap();
        assert_eq!(tree.bring_to(&series(&[A, B])).unwrap().files, 1);
        assert_eq!(text(&tree, "mm/b.c").unwrap(), "y\n");
    }

    #[test]
    fn a_file_keeps_its_permissions() {
        let (_dir, tree) = source();
        let path = tree.tree.join("mm/a.c");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        tree.bring_to(&series(&[A])).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }
}
