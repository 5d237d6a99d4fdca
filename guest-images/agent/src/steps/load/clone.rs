//! Clones of a file that are made while a device may still write its pages (FICLONE).
//!
//! A clone keeps the bytes that it was made of. Which bytes those are where the device writes is not known, so the clone is read at once and
//! once more when the device has ended and the file was synced: it must be the same. A kernel that knows of the device's pins may refuse.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::Trouble;
use super::file::{LoadFile, read_direct, trouble};
use crate::fault::sentence;
use crate::sys::extents;

/// What became of the clones that were asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Clones {
    /// Made, and found unchanged.
    pub kept: u64,
    /// Refused with EBUSY.
    pub refused: u64,
}

/// A clone, and what it held when it was made.
pub struct FileClone {
    path: PathBuf,
    content: Vec<u8>,
}

impl FileClone {
    /// Clones a file, of which the bytes `taken` may be the device's; `number` tells its clones apart. `None`: it was refused.
    pub fn make(
        of: &mut LoadFile,
        taken: &Range<usize>,
        number: usize,
    ) -> Result<Option<Self>, Trouble> {
        let path = of.path().with_extension(format!("clone-{number}"));
        let to = File::create(&path).map_err(|error| trouble("open", &error))?;
        match extents::clone(of.file().as_raw_fd(), to.as_raw_fd()) {
            Ok(()) => Self::of(path, of.content(), taken).map(Some),
            Err(errno) => {
                let removed = fs::remove_file(&path);
                match errno.number {
                    libc::EBUSY => removed
                        .map(|()| None)
                        .map_err(|error| trouble("unlink", &error)),
                    number => Err(trouble(errno.call, &io::Error::from_raw_os_error(number))),
                }
            }
        }
    }

    /// Reads what has just been made of a file that holds this.
    fn of(path: PathBuf, file: &[u8], taken: &Range<usize>) -> Result<Self, Trouble> {
        let content = read(&path, file.len())?;
        let clone = Self { path, content };
        let mut expected = file.to_vec();
        let device = taken.start..taken.end.min(clone.content.len());
        if let (Some(to), Some(from)) =
            (expected.get_mut(device.clone()), clone.content.get(device))
        {
            to.copy_from_slice(from);
        }
        clone.compare(&clone.content, &expected, "when it was made")?;
        Ok(clone)
    }

    /// Reads it once more, when the device has ended and the file was synced, and removes it.
    pub fn check(self) -> Result<(), Trouble> {
        let now = read(&self.path, self.content.len())?;
        self.compare(&now, &self.content, "after the device's transfer")?;
        fs::remove_file(&self.path).map_err(|error| trouble("unlink", &error))
    }

    fn compare(&self, found: &[u8], expected: &[u8], when: &str) -> Result<(), Trouble> {
        if found == expected {
            return Ok(());
        }
        let what = match found.iter().zip(expected).position(|(a, b)| a != b) {
            Some(at) => format!(
                "byte {at} of the clone is {:#04x} {when}, must be {:#04x}",
                found[at], expected[at]
            ),
            None => format!(
                "the clone has {} bytes {when}, must have {}",
                found.len(),
                expected.len()
            ),
        };
        Err(Trouble::Wrong(sentence(
            "fs-load",
            format!("{}: {what}", self.path.display()),
        )))
    }
}

/// What the disk holds; where there is no O_DIRECT, what the cache does.
fn read(path: &Path, len: usize) -> Result<Vec<u8>, Trouble> {
    match read_direct(path, len)? {
        Some(found) => Ok(found),
        None => fs::read(path).map_err(|error| trouble("read", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone_in(
        dir: &tempfile::TempDir,
        file: &[u8],
        clone: &[u8],
        taken: Range<usize>,
    ) -> Result<FileClone, Trouble> {
        let path = dir.path().join("f.clone");
        fs::write(&path, clone).unwrap();
        FileClone::of(path, file, &taken)
    }

    fn said(trouble: Trouble) -> String {
        match trouble {
            Trouble::Wrong(fault) => fault.name,
            Trouble::DiskFull => "the disk is full".to_owned(),
        }
    }

    #[test]
    fn a_clone_has_the_files_bytes_but_where_the_device_writes() {
        let dir = tempfile::tempdir().unwrap();
        clone_in(&dir, b"abcdef", b"abXYef", 2..4).unwrap();
        let trouble = clone_in(&dir, b"abcdef", b"abXYeg", 2..4).err().unwrap();
        assert!(
            said(trouble).ends_with("byte 5 of the clone is 0x67 when it was made, must be 0x66")
        );
        let trouble = clone_in(&dir, b"abcdef", b"abX", 2..4).err().unwrap();
        assert!(said(trouble).ends_with("the clone has 3 bytes when it was made, must have 6"));
    }

    #[test]
    fn a_clone_that_changes_is_found_and_one_that_does_not_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let clone = clone_in(&dir, b"abcdef", b"abXYef", 2..4).unwrap();
        let path = clone.path.clone();
        clone.check().unwrap();
        assert!(!path.exists());
        let clone = clone_in(&dir, b"abcdef", b"abXYef", 2..4).unwrap();
        fs::write(&clone.path, b"abXZef").unwrap();
        assert!(
            said(clone.check().unwrap_err())
                .ends_with("byte 3 of the clone is 0x5a after the device's transfer, must be 0x59")
        );
    }
}
