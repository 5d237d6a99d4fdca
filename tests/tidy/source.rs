//! The files of the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A Rust file.
pub struct SourceFile {
    /// Path from the top of the tree.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }
}

/// Top of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the tree")
        .to_owned()
}

/// Paths of all files that git knows, from the top of the tree; those that were deleted and not yet committed left out.
pub fn tracked_files() -> Vec<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root())
        .args(["ls-files", "-z"])
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("paths are UTF-8")
        .split_terminator('\0')
        .filter(|path| root().join(path).exists())
        .map(str::to_owned)
        .collect()
}

/// All Rust files.
pub fn rust_files() -> Vec<SourceFile> {
    tracked_files()
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| SourceFile {
            text: std::fs::read_to_string(root().join(&path)).expect("a source file"),
            path,
        })
        .collect()
}
