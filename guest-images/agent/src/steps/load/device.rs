//! Reads of a device straight into the mapped pages of a file, which are pinned meanwhile, while the file is written and synced beside them.
//!
//! What the device reads and what the CPU stores never overlap, so that both must be in the file afterwards, whoever wrote the page back when.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;

use pincushion_abi::Fault;

use super::Trouble;
use super::file::{LoadFile, bytes};
use super::random::Random;
use crate::fault::{self, sentence};
use crate::sys::memory::{self, Buffer, Span};
use crate::sys::{file as calls, guard};

/// What O_DIRECT is aligned to.
const SECTOR: usize = 512;
/// Most bytes of the device that are used.
const MAX_LEN: u64 = 1 << 20;
/// Most sectors of one read.
const MAX_SECTORS: usize = 64;
/// Most that the CPU stores at once meanwhile.
const MAX_STORE: usize = 600;

/// A device, and what it holds.
pub struct Device {
    file: File,
    content: Vec<u8>,
}

impl Device {
    /// Opens and reads it.
    pub fn open(path: &str) -> Result<Self, Fault> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        Self::of(file.map_err(|error| fault::io("open O_DIRECT", &error))?)
    }

    fn of(mut file: File) -> Result<Self, Fault> {
        let end = file.seek(SeekFrom::End(0));
        let len = end
            .map_err(|error| fault::io("lseek", &error))?
            .min(MAX_LEN);
        let len = usize::try_from(len).expect("a MiB at most") / SECTOR * SECTOR;
        if len == 0 {
            return Err(sentence("fs-load", "the device holds less than a sector"));
        }
        let mut buffer = Buffer::new(len)?;
        let read = calls::pread(file.as_raw_fd(), buffer.bytes_mut(), 0)?;
        crate::steps::transfer::whole("pread64", read, len as u64)?;
        Ok(Self {
            file,
            content: buffer.bytes().to_vec(),
        })
    }

    /// Reads a part of it into a part of the file, and does other things to the file until that has ended. `false`: the file is too short.
    pub fn read_into(&self, file: &mut LoadFile, random: &mut Random) -> Result<bool, Trouble> {
        let sectors = file.content().len() / SECTOR;
        if sectors == 0 {
            return Ok(false);
        }
        let first = random.below(sectors);
        let most = (sectors - first)
            .min(MAX_SECTORS)
            .min(self.content.len() / SECTOR);
        let len = (1 + random.below(most)) * SECTOR;
        let into = first * SECTOR..first * SECTOR + len;
        let from = random.below((self.content.len() - len) / SECTOR + 1) * SECTOR;
        let span = file.map()?;
        let part = span.part(into.start, len).expect("inside the content");
        let (read, beside) = thread::scope(|scope| {
            let reads = scope.spawn(|| calls::pread_span(self.file.as_raw_fd(), part, from as i64));
            let beside =
                (0..1 + random.below(3)).try_for_each(|_| beside(file, span, &into, random));
            (reads.join(), beside)
        });
        let unmapped = memory::unmap(span);
        beside?;
        let read = read.expect("it has nothing to panic at");
        read.and_then(|read| unmapped.map(|()| read))
            .map_err(Fault::from)
            .and_then(|read| {
                crate::steps::transfer::whole("pread64 into a mapping", read, len as u64)
            })
            .map_err(Trouble::Wrong)?;
        file.content()[into].copy_from_slice(&self.content[from..from + len]);
        Ok(true)
    }
}

/// Something else that happens to the file, of which `taken` belongs to the device.
fn beside(
    file: &mut LoadFile,
    span: Span,
    taken: &Range<usize>,
    random: &mut Random,
) -> Result<(), Trouble> {
    match random.below(4) {
        0 => file.sync(random),
        1 => memory::msync(span, libc::MS_SYNC).map_err(|errno| Trouble::Wrong(errno.into())),
        2 => store(file, span, taken, random),
        _ => Ok(()),
    }
}

/// Stores by the CPU, right beside what the device writes where there is room: mostly in the same page.
fn store(
    file: &mut LoadFile,
    span: Span,
    taken: &Range<usize>,
    random: &mut Random,
) -> Result<(), Trouble> {
    let len = 1 + random.below(MAX_STORE);
    let at = if taken.end + len <= file.content().len() {
        taken.end
    } else if len <= taken.start {
        taken.start - len
    } else {
        return Ok(());
    };
    let bytes = bytes(random, len);
    let part = span.part(at, len).expect("inside the content");
    guard::store(part, &bytes).map_err(|stopped| {
        Trouble::Wrong(sentence(
            "fs-load",
            format!(
                "a store beside a read of the device got {} at byte {}",
                stopped.signal,
                at + stopped.at
            ),
        ))
    })?;
    file.content()[at..at + len].copy_from_slice(&bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use pincushion_abi::step::Pattern;

    use super::*;
    use crate::steps::load::{MAX_WRONG, one_thread};

    fn bench() -> (tempfile::TempDir, Device, LoadFile, Random) {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random::new(9);
        let mut bytes = vec![0; 64 * SECTOR + 7];
        Pattern::Seed(3).fill(&mut bytes);
        std::fs::write(dir.path().join("device"), &bytes).unwrap();
        // Without O_DIRECT, which a temporary directory may not have.
        let device = Device::of(File::open(dir.path().join("device")).unwrap()).unwrap();
        let mut file = LoadFile::create(dir.path().join("f")).unwrap();
        file.write(&mut random).unwrap();
        (dir, device, file, random)
    }

    #[test]
    fn what_the_device_read_and_what_was_stored_beside_it_are_in_the_file() {
        let (_dir, device, mut file, mut random) = bench();
        assert_eq!(device.content.len(), 64 * SECTOR, "whole sectors");
        let mut read = 0;
        for _ in 0..60 {
            read += u32::from(device.read_into(&mut file, &mut random).unwrap());
            file.check_by_read().unwrap();
            file.resize(&mut random).unwrap();
        }
        assert!(read > 50, "{read}");
        file.check_from_disk().unwrap();
    }

    #[test]
    fn a_device_that_is_shorter_than_the_file_is_read_within_its_end() {
        let (_dir, mut device, mut file, mut random) = bench();
        device.content.truncate(2 * SECTOR);
        for _ in 0..20 {
            assert!(device.read_into(&mut file, &mut random).unwrap());
            file.check_by_read().unwrap();
        }
    }

    #[test]
    fn a_device_that_reads_something_else_is_found() {
        let (_dir, mut device, mut file, mut random) = bench();
        for byte in &mut device.content {
            *byte ^= 1;
        }
        assert!(device.read_into(&mut file, &mut random).unwrap());
        assert!(file.check_by_read().is_err());
    }

    #[test]
    fn a_load_that_finds_something_wrong_goes_on_with_other_files_but_not_for_ever() {
        let (dir, mut device, _, random) = bench();
        device.content.fill(0xee);
        let stop = AtomicBool::new(false);
        let until = Instant::now() + Duration::from_secs(3600);
        let load = dir.path().join("load");
        let done = one_thread(&load, random, Some(&device), until, &stop).unwrap();
        assert!(stop.into_inner() && done.wrong >= MAX_WRONG);
        assert!(done.operations > 2 * done.wrong, "{done:?}");
        let wrong = done.wrong;
        let first = done.found().unwrap_err().name;
        assert!(first.contains("must be 0xee (operation "), "{first}");
        assert!(
            first.ends_with(&format!("; {wrong} wrong in all")),
            "{first}"
        );
    }

    #[test]
    fn a_file_or_a_device_of_less_than_a_sector_is_left_alone() {
        let (dir, device, _, mut random) = bench();
        let mut short = LoadFile::create(dir.path().join("short")).unwrap();
        assert!(!device.read_into(&mut short, &mut random).unwrap());
        std::fs::write(dir.path().join("tiny"), [0; SECTOR - 1]).unwrap();
        assert!(Device::of(File::open(dir.path().join("tiny")).unwrap()).is_err());
    }
}
