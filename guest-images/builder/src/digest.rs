//! SHA-256 digests, in lower-case hexadecimal as apt and `sha256sum` print them, and the record of a file by which
//! later runs notice that it changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, IoContext as _};

/// The digest of `bytes`, 64 hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// One file of a cache entry, as it was when the entry was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Path below the entry's directory.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Digest of the content.
    pub sha256: String,
}

impl FileRecord {
    /// Records `path` below `root`.
    pub(crate) fn of(root: &Path, path: &str, sha256: String) -> Result<Self, Error> {
        let full = root.join(path);
        let (size, mtime_ns) = size_and_mtime(&full)?;
        Ok(Self {
            path: path.to_owned(),
            size,
            mtime_ns,
            sha256,
        })
    }

    /// Believes the file if size and time are as recorded, and reads it only where the time differs
    /// (a cache that was copied keeps its content and loses its times).
    pub(crate) fn check_quickly(&self, root: &Path) -> Result<(), Error> {
        let full = root.join(&self.path);
        if size_and_mtime(&full)? == (self.size, self.mtime_ns) {
            Ok(())
        } else {
            self.check_fully(root)
        }
    }

    /// Reads the file and compares its digest.
    pub(crate) fn check_fully(&self, root: &Path) -> Result<(), Error> {
        let full = root.join(&self.path);
        self.check_bytes(&full, &fs::read(&full).during("read", &full)?)
    }

    /// Compares the digest of `bytes`, which were read from `full`.
    pub(crate) fn check_bytes(&self, full: &Path, bytes: &[u8]) -> Result<(), Error> {
        if sha256(bytes) == self.sha256 {
            return Ok(());
        }
        Err(Error::Changed {
            path: full.to_owned(),
        })
    }
}

fn size_and_mtime(path: &Path) -> Result<(u64, i64), Error> {
    let metadata = fs::metadata(path).during("read", path)?;
    let mtime_ns = metadata
        .mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(metadata.mtime_nsec());
    Ok((metadata.len(), mtime_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_sha256sum() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_touched_file_is_believed_and_a_changed_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let mut record = FileRecord::of(dir.path(), "f", sha256(b"one")).unwrap();
        record.mtime_ns -= 1;
        record.check_quickly(dir.path()).unwrap();
        fs::write(&path, "two").unwrap();
        assert!(matches!(
            record.check_quickly(dir.path()),
            Err(Error::Changed { .. })
        ));
    }
}
