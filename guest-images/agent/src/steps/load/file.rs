//! One file of the load and what it must hold.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pincushion_abi::Fault;
use pincushion_abi::step::Pattern;

use super::Trouble;
use super::random::Random;
use crate::fault::{self, sentence};
use crate::sys::guard;
use crate::sys::memory::{self, Buffer, PAGE};

/// Longest file: small, so that a disk of some MiB does not fill up.
const MAX_LEN: usize = 128 * 1024;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// An open file and its content as it must be.
pub struct LoadFile {
    path: PathBuf,
    file: File,
    content: Vec<u8>,
}

impl LoadFile {
    /// Makes it, empty.
    pub fn create(path: PathBuf) -> Result<Self, Trouble> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        Ok(Self {
            path,
            file: file.map_err(|error| trouble("open", &error))?,
            content: Vec::new(),
        })
    }

    /// Writes somewhere, also beyond the end.
    pub fn write(&mut self, random: &mut Random) -> Result<(), Trouble> {
        let (offset, len) = part(random, MAX_LEN);
        let bytes = bytes(random, len);
        self.file
            .write_all_at(&bytes, offset as u64)
            .map_err(|error| trouble("pwrite64", &error))?;
        if self.content.len() < offset + len {
            self.content.resize(offset + len, 0);
        }
        self.content[offset..offset + len].copy_from_slice(&bytes);
        Ok(())
    }

    /// Stores somewhere by the CPU through a shared mapping.
    pub fn store_mapped(&mut self, random: &mut Random) -> Result<(), Trouble> {
        if self.content.is_empty() {
            return Ok(());
        }
        let (offset, len) = part(random, self.content.len());
        let bytes = bytes(random, len);
        let span = self.map()?;
        let part = span.part(offset, len).expect("inside the content");
        let stored = guard::store(part, &bytes);
        let synced = if random.below(2) == 0 {
            memory::msync(span, libc::MS_SYNC)
        } else {
            Ok(())
        };
        memory::unmap(span).map_err(|errno| Trouble::Wrong(errno.into()))?;
        stored.map_err(|stopped| {
            self.wrong(&format!(
                "a mapped store got {} at byte {}",
                stopped.signal,
                offset + stopped.at
            ))
        })?;
        self.content[offset..offset + len].copy_from_slice(&bytes);
        synced.map_err(|errno| Trouble::Wrong(errno.into()))
    }

    /// Sets another length.
    pub fn resize(&mut self, random: &mut Random) -> Result<(), Trouble> {
        let len = random.below(MAX_LEN);
        self.file
            .set_len(len as u64)
            .map_err(|error| trouble("ftruncate", &error))?;
        self.content.resize(len, 0);
        Ok(())
    }

    /// `fsync` or `fdatasync`.
    pub fn sync(&mut self, random: &mut Random) -> Result<(), Trouble> {
        match random.below(2) {
            0 => self
                .file
                .sync_all()
                .map_err(|error| trouble("fsync", &error)),
            _ => self
                .file
                .sync_data()
                .map_err(|error| trouble("fdatasync", &error)),
        }
    }

    /// Gives it another name.
    pub fn rename(&mut self, path: PathBuf) -> Result<(), Trouble> {
        fs::rename(&self.path, &path).map_err(|error| trouble("rename", &error))?;
        self.path = path;
        Ok(())
    }

    /// Removes it.
    pub fn unlink(self) -> Result<(), Fault> {
        fs::remove_file(&self.path).map_err(|error| fault::io("unlink", &error))
    }

    /// Checks by a read, from the cache where it is there.
    pub fn check_by_read(&self) -> Result<u64, Trouble> {
        let mut found = vec![0; self.content.len()];
        self.file
            .read_exact_at(&mut found, 0)
            .map_err(|error| trouble("pread64", &error))?;
        self.compare(&found, "a read")
    }

    /// Checks what the disk holds: syncs, forgets the cache, reads.
    pub fn check_from_disk(&self) -> Result<u64, Trouble> {
        self.file
            .sync_all()
            .map_err(|error| trouble("fsync", &error))?;
        crate::sys::file::forget_cache(self.file.as_raw_fd());
        let mut found = vec![0; self.content.len()];
        self.file
            .read_exact_at(&mut found, 0)
            .map_err(|error| trouble("pread64", &error))?;
        self.compare(&found, "a read after fsync")
    }

    /// Checks by loads through a mapping.
    pub fn check_mapped(&self) -> Result<u64, Trouble> {
        if self.content.is_empty() {
            return Ok(0);
        }
        let span = self.map()?;
        let mut found = vec![0; self.content.len()];
        let loaded = guard::load(span, &mut found);
        memory::unmap(span).map_err(|errno| Trouble::Wrong(errno.into()))?;
        loaded.map_err(|stopped| {
            self.wrong(&format!(
                "a mapped load got {} at byte {}",
                stopped.signal, stopped.at
            ))
        })?;
        self.compare(&found, "a mapped load")
    }

    /// Checks by an O_DIRECT read; nothing where the file system has none.
    pub fn check_direct(&self) -> Result<u64, Trouble> {
        match read_direct(&self.path, self.content.len())? {
            Some(found) => self.compare(&found, "an O_DIRECT read"),
            None => Ok(0),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What it must hold, to be changed as the file is.
    pub(super) fn content(&mut self) -> &mut [u8] {
        &mut self.content
    }

    /// A shared mapping of all of it; there is none of an empty file.
    pub(super) fn map(&self) -> Result<memory::Span, Trouble> {
        memory::map(
            self.content.len(),
            READ_WRITE,
            libc::MAP_SHARED,
            Some(self.file.as_raw_fd()),
            0,
        )
        .map_err(|errno| Trouble::Wrong(errno.into()))
    }

    fn compare(&self, found: &[u8], by: &str) -> Result<u64, Trouble> {
        if found == self.content {
            return Ok(found.len() as u64);
        }
        let differs = found
            .iter()
            .zip(&self.content)
            .position(|(found, expected)| found != expected);
        Err(match differs {
            Some(at) => self.wrong(&format!(
                "byte {at} is {:#04x} to {by}, must be {:#04x}",
                found[at], self.content[at]
            )),
            None => self.wrong(&format!(
                "{by} gives {} bytes, must be {}",
                found.len(),
                self.content.len()
            )),
        })
    }

    fn wrong(&self, what: &str) -> Trouble {
        Trouble::Wrong(sentence(
            "fs-load",
            format!("{}: {what}", self.path.display()),
        ))
    }
}

/// Offset and length of a part of `len` bytes, which is not 0; the part is not empty.
fn part(random: &mut Random, len: usize) -> (usize, usize) {
    let offset = random.below(len);
    (offset, 1 + random.below((len - offset).min(32 * 1024)))
}

/// Reads a file of about `len` bytes by O_DIRECT, and a page more if it is longer. `None`: its file system has no O_DIRECT.
pub(super) fn read_direct(path: &Path, len: usize) -> Result<Option<Vec<u8>>, Trouble> {
    let direct = match File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
    {
        Ok(direct) => direct,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        Err(error) => return Err(trouble("open O_DIRECT", &error)),
    };
    let room = len.next_multiple_of(PAGE) + PAGE;
    let mut found = Buffer::new(room).map_err(|errno| Trouble::Wrong(errno.into()))?;
    let len = direct
        .read_at(found.bytes_mut(), 0)
        .map_err(|error| trouble("pread64 O_DIRECT", &error))?;
    Ok(Some(found.bytes()[..len].to_vec()))
}

pub(super) fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::Seed(random.next()).fill(&mut bytes);
    bytes
}

pub(super) fn trouble(call: &str, error: &io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Trouble::DiskFull,
        _ => Trouble::Wrong(fault::io(call, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_in(dir: &tempfile::TempDir) -> (LoadFile, Random) {
        let mut random = Random::new(4);
        let mut file = LoadFile::create(dir.path().join("f")).unwrap();
        file.write(&mut random).unwrap();
        (file, random)
    }

    #[test]
    fn each_way_to_change_a_file_is_seen_by_each_way_to_check_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, mut random) = file_in(&dir);
        for round in 0..8 {
            file.write(&mut random).unwrap();
            file.store_mapped(&mut random).unwrap();
            if round % 2 == 0 {
                file.resize(&mut random).unwrap();
            }
            file.rename(dir.path().join(format!("f{round}"))).unwrap();
            let len = file.content.len() as u64;
            assert_eq!(file.check_by_read().unwrap(), len);
            assert_eq!(file.check_mapped().unwrap(), len);
            assert_eq!(file.check_from_disk().unwrap(), len);
            file.check_direct().unwrap();
        }
        file.unlink().unwrap();
    }

    #[test]
    fn a_byte_changed_behind_its_back_is_found_by_each_check() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = file_in(&dir);
        let at = file.content.len() - 1;
        file.file
            .write_all_at(&[file.content[at] ^ 1], at as u64)
            .unwrap();
        for checked in [
            file.check_by_read(),
            file.check_mapped(),
            file.check_from_disk(),
        ] {
            let Err(Trouble::Wrong(fault)) = checked else {
                panic!("{checked:?}")
            };
            assert!(
                fault.name.contains(&format!("byte {at} is")),
                "{}",
                fault.name
            );
        }
    }
}
