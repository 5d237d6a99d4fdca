//! Applies a series of patches, in memory, to the few files that it touches.
//!
//! Promises: every line of a hunk has to be there as it is, only its place may have moved (the nearest place counts); what does not
//! fit is told with patch, file and hunk, and nothing is changed anywhere.

use std::collections::BTreeMap;

use super::KernelError;
use super::patch::{FilePatch, Hunk, Kind, Patch};
use crate::error::Error;

/// A file as the series leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileState {
    /// `None`: there is no such file.
    pub(super) bytes: Option<Vec<u8>>,
    /// Whether the series made it a program.
    pub(super) executable: bool,
}

/// What a series makes of the source.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Every file that a patch names.
    pub(super) files: BTreeMap<String, FileState>,
    /// Hunks that fit at another line, for people who keep the series.
    pub(super) moved: Vec<String>,
}

/// Applies the patches in order. `original` reads a file of the untouched source; `None` where it has none.
pub(super) fn apply(
    series: &[Patch],
    mut original: impl FnMut(&str) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    for patch in series {
        for file in &patch.files {
            let state = match outcome.files.remove(&file.path) {
                Some(state) => state,
                None => FileState {
                    bytes: original(&file.path)?,
                    executable: false,
                },
            };
            let state = apply_file(patch, file, state, &mut outcome.moved)?;
            outcome.files.insert(file.path.clone(), state);
        }
    }
    Ok(outcome)
}

fn apply_file(
    patch: &Patch,
    file: &FilePatch,
    state: FileState,
    moved: &mut Vec<String>,
) -> Result<FileState, KernelError> {
    let refuse = |hunk: usize, why: String| KernelError::DoesNotApply {
        patch: patch.name.clone(),
        file: file.path.clone(),
        hunk,
        line: file.hunks.get(hunk - 1).map_or(0, |hunk| hunk.line),
        why,
    };
    let before = match (file.kind, state.bytes) {
        (Kind::Create { .. }, Some(_)) => {
            return Err(refuse(1, "the file is there already".to_owned()));
        }
        (Kind::Create { .. }, None) => Vec::new(),
        (Kind::Change | Kind::Delete, Some(bytes)) => bytes,
        (Kind::Change | Kind::Delete, None) => {
            return Err(refuse(1, "there is no such file".to_owned()));
        }
    };
    let lines: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let mut after = Vec::new();
    // Lines of the file that are done with, and how far the hunk before had moved.
    let (mut done, mut drift) = (0usize, 0isize);
    for (index, hunk) in file.hunks.iter().enumerate() {
        let expected = expected_at(hunk).saturating_add_signed(drift);
        let Some(at) = find(&lines, hunk, done, expected) else {
            return Err(refuse(index + 1, mismatch(&lines, hunk, expected)));
        };
        let offset = at.cast_signed() - expected_at(hunk).cast_signed();
        if offset != 0 {
            moved.push(format!(
                "{}: {}, hunk {} fits {offset:+} lines away",
                patch.name,
                file.path,
                index + 1
            ));
        }
        drift = offset;
        after.extend(lines[done..at].concat());
        after.extend(hunk.new.concat().into_bytes());
        done = at + hunk.old.len();
    }
    after.extend(lines[done..].concat());
    if file.kind == Kind::Delete {
        if !after.is_empty() {
            return Err(refuse(
                file.hunks.len(),
                "it deletes the file, which has more lines than that".to_owned(),
            ));
        }
        return Ok(FileState {
            bytes: None,
            executable: false,
        });
    }
    Ok(FileState {
        bytes: Some(after),
        executable: state.executable || file.kind == Kind::Create { executable: true },
    })
}

/// Index of a hunk's first line in the file before, if nothing has moved. One without old lines is inserted behind its line.
fn expected_at(hunk: &Hunk) -> usize {
    if hunk.old.is_empty() {
        hunk.start
    } else {
        hunk.start.saturating_sub(1)
    }
}

/// The place at or behind `from` that is nearest to `expected` and where all old lines of the hunk are.
fn find(lines: &[&[u8]], hunk: &Hunk, from: usize, expected: usize) -> Option<usize> {
    let last = lines.len().checked_sub(hunk.old.len())?;
    let fits = |at: &usize| {
        let there = lines[*at..].iter();
        hunk.old
            .iter()
            .zip(there)
            .all(|(old, line)| old.as_bytes() == *line)
    };
    (from..=last)
        .filter(fits)
        .min_by_key(|at| at.abs_diff(expected))
}

/// The first line that is not what the hunk expects.
fn mismatch(lines: &[&[u8]], hunk: &Hunk, expected: usize) -> String {
    let differs =
        |(n, old): &(usize, &String)| lines.get(expected + n).copied() != Some(old.as_bytes());
    match hunk.old.iter().enumerate().find(differs) {
        Some((n, old)) => {
            let there = lines
                .get(expected + n)
                .map_or("the end of the file".to_owned(), |line| {
                    format!("`{}`", String::from_utf8_lossy(line).trim_end())
                });
            format!(
                "line {} should be `{}` and is {there}",
                expected + n + 1,
                old.trim_end()
            )
        }
        // All lines are there, but a hunk before has used some of them.
        None => format!(
            "its lines at {} overlap those of the hunk before",
            expected + 1
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "a\nb\nc\nd\ne\nf\n";

    fn result(patches: &[&str]) -> Result<Outcome, Error> {
        let parsed = patches
            .iter()
            .zip(1..)
            .map(|(text, n)| Patch::parse(&format!("000{n}.patch"), text).unwrap());
        apply(&parsed.collect::<Vec<_>>(), |path| {
            Ok((path == "mm/a.c").then(|| SOURCE.as_bytes().to_vec()))
        })
    }

    fn text(outcome: &Outcome, path: &str) -> Option<String> {
        let bytes = outcome.files[path].bytes.clone();
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn refusal(patches: &[&str]) -> String {
        result(patches).unwrap_err().to_string()
    }

    const CHANGE: &str = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -1,3 +1,4 @@\n a\n-b\n+B\n+BB\n c\n@@ -5,2 +6,1 @@\n-e\n f\n";
    const CREATE: &str = "diff --git a/mm/n.c b/mm/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/mm/n.c\n@@ -0,0 +1,2 @@\n+n\n+m\n";

    #[test]
    fn patches_build_on_each_other_and_the_source_is_not_touched() {
        let second = "--- a/mm/n.c\n+++ b/mm/n.c\n@@ -2 +2 @@\n-m\n+M\n";
        let outcome = result(&[CHANGE, CREATE, second]).unwrap();
        assert_eq!(text(&outcome, "mm/a.c").unwrap(), "a\nB\nBB\nc\nd\nf\n");
        assert_eq!(text(&outcome, "mm/n.c").unwrap(), "n\nM\n");
        assert_eq!(outcome.moved, Vec::<String>::new());
    }

    #[test]
    fn a_file_made_and_deleted_again_is_none() {
        let delete = "--- a/mm/n.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-n\n-m\n";
        assert_eq!(text(&result(&[CREATE, delete]).unwrap(), "mm/n.c"), None);
        let part = "--- a/mm/a.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n";
        assert!(refusal(&[part]).contains("has more lines than that"));
    }

    #[test]
    fn a_hunk_whose_lines_have_moved_fits_and_is_told() {
        let late = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -2,2 +2,2 @@\n d\n-e\n+E\n";
        let outcome = result(&[late]).unwrap();
        assert_eq!(text(&outcome, "mm/a.c").unwrap(), "a\nb\nc\nd\nE\nf\n");
        assert_eq!(
            outcome.moved,
            ["0001.patch: mm/a.c, hunk 1 fits +2 lines away"]
        );
    }

    #[test]
    fn what_does_not_fit_is_told_with_patch_file_and_hunk() {
        let wrong = CHANGE.replace("-e\n f\n", "-e\n g\n");
        assert_eq!(
            refusal(&[CREATE, &wrong]),
            "0002.patch does not apply: mm/a.c, hunk 2 (line 9 of the patch): line 6 should be `g` and is `f`"
        );
        assert!(refusal(&[CHANGE, CHANGE]).contains("0002.patch does not apply: mm/a.c, hunk 1"));
        assert!(
            refusal(&[CREATE, CREATE])
                .contains("mm/n.c, hunk 1 (line 5 of the patch): the file is there already")
        );
        let absent = CHANGE.replace("mm/a.c", "mm/z.c");
        assert!(
            refusal(&[&absent])
                .contains("mm/z.c, hunk 1 (line 3 of the patch): there is no such file")
        );
        let beyond = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -6,2 +6,1 @@\n f\n-g\n";
        assert!(refusal(&[beyond]).contains("line 7 should be `g` and is the end of the file"));
    }

    #[test]
    fn lines_are_inserted_behind_the_line_that_a_hunk_without_context_names() {
        let insert = "--- a/mm/a.c\n+++ b/mm/a.c\n@@ -6,0 +7 @@\n+g\n";
        assert_eq!(
            text(&result(&[insert]).unwrap(), "mm/a.c").unwrap(),
            "a\nb\nc\nd\ne\nf\ng\n"
        );
    }
}
