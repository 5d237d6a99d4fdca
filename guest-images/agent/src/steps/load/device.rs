//! Transfers between a device and the mapped pages of a file, which are pinned meanwhile, while the file is written and synced beside them.
//!
//! What the device transfers and what the CPU stores never overlap, so that what is read and what is stored must be in the file afterwards,
//! whoever wrote the page back when, and what is written must be on the device. Half of the transfers find their pages mapped, and writable where
//! they are read into, so that they can be pinned without a fault (GUP-fast). Beside some of them another mapping of the file is moved from
//! address to address, so that who counts the page table entries of a page does so while one of them is on its way.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;

use pincushion_abi::Fault;

use super::Trouble;
use super::clone::{Clones, FileClone};
use super::file::{LoadFile, bytes};
use super::random::Random;
use crate::fault::{self, Errno, sentence};
use crate::sys::file as calls;
use crate::sys::guard::{self, Stopped};
use crate::sys::memory::{self, Buffer, Span};

/// What O_DIRECT is aligned to.
const SECTOR: usize = 512;
/// Most bytes of the device that are used.
const MAX_LEN: u64 = 1 << 20;
/// How many of four transfers are reads, which write the file's pages.
const READS: usize = 3;
/// Most sectors of one transfer.
const MAX_SECTORS: usize = 64;
/// How often another mapping is moved during one of [`MOVED_ONE_IN`] transfers.
const MOVES: usize = 16;
const MOVED_ONE_IN: usize = 4;
/// Of so many things that happen beside a transfer one is a clone, where clones are wanted.
const CLONED_ONE_IN: usize = 3;
/// Most that the CPU stores at once meanwhile.
const MAX_STORE: usize = 600;

/// A part of a device that belongs to one thread, and what it holds.
pub struct Device {
    file: File,
    /// Where the part begins, in bytes.
    base: usize,
    content: Vec<u8>,
    /// Files are cloned while it transfers, if this is there.
    pub clones: Option<Clones>,
}

/// One transfer: which bytes of the file, and where those of the device begin in its part.
struct Transfer {
    taken: Range<usize>,
    at: usize,
}

impl Device {
    /// Opens the device and reads part `number` (from 0) of `parts`.
    pub fn open(path: &str, number: u32, parts: u32) -> Result<Self, Fault> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        let file = file.map_err(|error| fault::io("open O_DIRECT", &error))?;
        Self::of(file, number as usize, parts as usize)
    }

    fn of(mut file: File, number: usize, parts: usize) -> Result<Self, Fault> {
        let end = file.seek(SeekFrom::End(0));
        let end = end.map_err(|error| fault::io("lseek", &error))?;
        let all = usize::try_from(end.min(MAX_LEN)).expect("a MiB at most");
        let len = all / parts / SECTOR * SECTOR;
        if len == 0 {
            return Err(sentence(
                "fs-load",
                format!(
                    "the device holds {end} bytes: less than a sector for each of {parts} threads"
                ),
            ));
        }
        let mut device = Self {
            file,
            base: number * len,
            content: vec![0; len],
            clones: None,
        };
        device.look(0..len)?;
        Ok(device)
    }

    /// Takes what it holds now in a piece of its part for what it must hold.
    fn look(&mut self, piece: Range<usize>) -> Result<(), Fault> {
        let mut buffer = Buffer::new(piece.len())?;
        let from = (self.base + piece.start) as i64;
        let read = calls::pread(self.file.as_raw_fd(), buffer.bytes_mut(), from)?;
        crate::steps::transfer::whole("pread64", read, piece.len() as u64)?;
        self.content[piece].copy_from_slice(buffer.bytes());
        Ok(())
    }

    /// Reads into a part of the file, or writes out of it, and does other things to the file until that has ended. `false`: the file is
    /// too short.
    pub fn transfer(&mut self, file: &mut LoadFile, random: &mut Random) -> Result<bool, Trouble> {
        let sectors = file.content().len() / SECTOR;
        if sectors == 0 {
            return Ok(false);
        }
        let Transfer { taken, at } = self.choose(sectors, random);
        let span = file.map()?;
        let reads = random.below(4) < READS;
        let touched = match random.below(2) {
            0 => touch(file, span, &taken, reads),
            _ => Ok(()),
        };
        let done = touched
            .and_then(|()| self.move_bytes(file, span, &Transfer { taken, at }, reads, random));
        let unmapped = memory::unmap(span);
        done?;
        unmapped.map_err(|errno| Trouble::Wrong(errno.into()))?;
        Ok(true)
    }

    fn choose(&self, sectors: usize, random: &mut Random) -> Transfer {
        let first = random.below(sectors);
        let most = (sectors - first)
            .min(MAX_SECTORS)
            .min(self.content.len() / SECTOR);
        let len = (1 + random.below(most)) * SECTOR;
        Transfer {
            taken: first * SECTOR..first * SECTOR + len,
            at: random.below((self.content.len() - len) / SECTOR + 1) * SECTOR,
        }
    }

    fn move_bytes(
        &mut self,
        file: &mut LoadFile,
        span: Span,
        Transfer { taken, at }: &Transfer,
        reads: bool,
        random: &mut Random,
    ) -> Result<(), Trouble> {
        let (fd, offset) = (self.file.as_raw_fd(), (self.base + at) as i64);
        let part = span
            .part(taken.start, taken.len())
            .expect("inside the content");
        let call = move || match reads {
            true => calls::pread_span(fd, part, offset),
            false => calls::pwrite_span(fd, part, offset),
        };
        let done = meanwhile(call, file, span, taken, random, &mut self.clones);
        let place = *at..at + taken.len();
        match (&done, reads) {
            (Ok(()), true) => {
                file.content()[taken.clone()].copy_from_slice(&self.content[place]);
            }
            (Ok(()), false) => {
                self.content[place].copy_from_slice(&file.content()[taken.clone()]);
            }
            (Err(_), true) => {}
            // It may have been written all the same, in part or whole.
            (Err(_), false) => self.look(place).map_err(Trouble::Wrong)?,
        }
        done
    }
}

/// Has the pages mapped: by stores of what they hold anyway, or by loads.
fn touch(
    file: &mut LoadFile,
    span: Span,
    taken: &Range<usize>,
    writable: bool,
) -> Result<(), Trouble> {
    let part = span
        .part(taken.start, taken.len())
        .expect("inside the content");
    let mut bytes = file.content()[taken.clone()].to_vec();
    let touched = if writable {
        guard::store(part, &bytes)
    } else {
        guard::load(part, &mut bytes)
    };
    touched.map_err(|Stopped { signal, at }| {
        Trouble::Wrong(sentence(
            "fs-load",
            format!(
                "a page before a transfer of the device: {signal} at byte {}",
                taken.start + at
            ),
        ))
    })
}

/// A transfer of what is `taken`, and one to three other things that happen to the file until it has ended.
fn meanwhile(
    transfer: impl FnOnce() -> Result<usize, Errno> + Send,
    file: &mut LoadFile,
    span: Span,
    taken: &Range<usize>,
    random: &mut Random,
    clones: &mut Option<Clones>,
) -> Result<(), Trouble> {
    let mut made = Vec::new();
    let other = match random.below(MOVED_ONE_IN) {
        0 => Some(another(file)?),
        _ => None,
    };
    let (moved, beside, elsewhere) = thread::scope(|scope| {
        let moves = scope.spawn(transfer);
        let other = other.map(|other| scope.spawn(move || move_about(other)));
        let beside = (0..1 + random.below(3)).try_for_each(|_| {
            let Some(clones) = clones.as_mut().filter(|_| random.below(CLONED_ONE_IN) == 0) else {
                return beside(file, span, taken, random);
            };
            match FileClone::make(file, taken, made.len())? {
                Some(clone) => made.push(clone),
                None => clones.refused += 1,
            }
            Ok(())
        });
        let elsewhere = other.map_or(Ok(Ok(())), thread::ScopedJoinHandle::join);
        (moves.join(), beside, elsewhere)
    });
    beside?;
    let (moved, elsewhere) = (
        moved.expect("it has nothing to panic at"),
        elsewhere.expect("neither has it"),
    );
    elsewhere.map_err(|errno| Trouble::Wrong(errno.into()))?;
    moved
        .map_err(Fault::from)
        .and_then(|moved| {
            crate::steps::transfer::whole("a transfer of the device", moved, taken.len() as u64)
        })
        .map_err(Trouble::Wrong)?;
    check_clones(made, file, random, clones)
}

/// Whether clones that were made during a transfer are the same after it.
fn check_clones(
    made: Vec<FileClone>,
    file: &mut LoadFile,
    random: &mut Random,
    clones: &mut Option<Clones>,
) -> Result<(), Trouble> {
    if made.is_empty() {
        return Ok(());
    }
    file.sync(random)?;
    for clone in made {
        clone.check()?;
        clones.get_or_insert_default().kept += 1;
    }
    Ok(())
}

/// Another mapping of the file, with its pages in it.
fn another(file: &mut LoadFile) -> Result<Span, Trouble> {
    let other = file.map()?;
    let touched = touch(file, other, &(0..other.len()), false);
    if touched.is_err() {
        // What was wrong with its pages says more than what is wrong with it.
        let _ = memory::unmap(other);
    }
    touched.map(|()| other)
}

/// Moves a mapping from address to address, and unmaps it where it is then.
fn move_about(mut span: Span) -> Result<(), Errno> {
    let moved = move_on(&mut span);
    moved.and(memory::unmap(span))
}

/// Moves a mapping [`MOVES`] times; `span` says where it is, also after a failure.
fn move_on(span: &mut Span) -> Result<(), Errno> {
    for _ in 0..MOVES {
        *span = memory::remap(*span)?;
    }
    Ok(())
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
                "a store beside a transfer of the device got {} at byte {}",
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

    fn writable(path: &std::path::Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn bench() -> (tempfile::TempDir, Device, LoadFile, Random) {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random::new(9);
        let mut bytes = vec![0; 64 * SECTOR + 7];
        Pattern::Seed(3).fill(&mut bytes);
        std::fs::write(dir.path().join("device"), &bytes).unwrap();
        // Without O_DIRECT, which a temporary directory may not have.
        let device = Device::of(writable(&dir.path().join("device")), 0, 1).unwrap();
        let mut file = LoadFile::create(dir.path().join("f")).unwrap();
        file.write(&mut random).unwrap();
        (dir, device, file, random)
    }

    #[test]
    fn what_the_device_read_and_what_was_stored_beside_it_are_in_the_file_and_what_it_wrote_on_the_device()
     {
        let (dir, mut device, mut file, mut random) = bench();
        assert_eq!(device.content.len(), 64 * SECTOR, "whole sectors");
        let before = device.content.clone();
        let mut moved = 0;
        for _ in 0..60 {
            moved += u32::from(device.transfer(&mut file, &mut random).unwrap());
            file.check_by_read().unwrap();
            file.resize(&mut random).unwrap();
        }
        assert!(moved > 50, "{moved}");
        file.check_from_disk().unwrap();
        let now = std::fs::read(dir.path().join("device")).unwrap();
        assert!(now[..64 * SECTOR] == device.content && device.content != before);
    }

    #[test]
    fn another_mapping_is_elsewhere_after_its_moves_and_has_the_files_bytes() {
        let (_dir, _, mut file, _) = bench();
        let at_first = another(&mut file).unwrap();
        let mut span = at_first;
        move_on(&mut span).unwrap();
        assert_ne!(span.address(), at_first.address());
        let mut found = vec![0; span.len()];
        guard::load(span, &mut found).unwrap();
        assert!(found == file.content());
        assert!(guard::load(at_first, &mut found).is_err());
        memory::unmap(span).unwrap();
    }

    #[test]
    fn a_device_that_is_shorter_than_the_file_is_read_within_its_end() {
        let (_dir, mut device, mut file, mut random) = bench();
        device.content.truncate(2 * SECTOR);
        for _ in 0..20 {
            assert!(device.transfer(&mut file, &mut random).unwrap());
            file.check_by_read().unwrap();
        }
    }

    #[test]
    fn a_device_that_reads_something_else_is_found() {
        let (_dir, mut device, mut file, mut random) = bench();
        for byte in &mut device.content {
            *byte ^= 1;
        }
        let is_found = (0..20).any(|_| {
            assert!(device.transfer(&mut file, &mut random).unwrap());
            file.check_by_read().is_err()
        });
        assert!(is_found);
    }

    #[test]
    fn a_load_that_finds_something_wrong_goes_on_with_other_files_but_not_for_ever() {
        let (dir, mut device, _, random) = bench();
        // What is to be written fails.
        device.file = File::open(dir.path().join("device")).unwrap();
        let stop = AtomicBool::new(false);
        let until = Instant::now() + Duration::from_secs(300);
        let load = dir.path().join("load");
        let done = one_thread(&load, random, Some(device), until, &stop).unwrap();
        assert!(stop.into_inner() && done.wrong >= MAX_WRONG);
        assert!(done.operations > 2 * done.wrong, "{done:?}");
        let wrong = done.wrong;
        let first = done.found().unwrap_err().name;
        assert!(first.starts_with("EBADF (operation "), "{first}");
        assert!(
            first.ends_with(&format!("; {wrong} wrong in all")),
            "{first}"
        );
    }

    #[test]
    fn what_was_written_though_something_else_failed_is_known() {
        let (dir, mut device, _, mut random) = bench();
        // It takes everything, maps as zeros, and cannot be synced.
        let mut zeros = LoadFile::create("/dev/zero".into()).unwrap();
        zeros.write(&mut random).unwrap();
        let mut failed = 0;
        for _ in 0..60 {
            zeros.content().fill(0);
            failed += u32::from(device.transfer(&mut zeros, &mut random).is_err());
            let now = std::fs::read(dir.path().join("device")).unwrap();
            assert!(now[..64 * SECTOR] == device.content);
        }
        assert!(failed > 10, "{failed}");
    }

    #[test]
    fn a_file_or_a_device_of_less_than_a_sector_is_left_alone() {
        let (dir, mut device, _, mut random) = bench();
        let mut short = LoadFile::create(dir.path().join("short")).unwrap();
        assert!(!device.transfer(&mut short, &mut random).unwrap());
        let shared = writable(&dir.path().join("device"));
        let mut second = Device::of(shared, 1, 2).unwrap();
        assert_eq!(
            (second.base, second.content.len()),
            (32 * SECTOR, 32 * SECTOR)
        );
        assert!(second.content == device.content[32 * SECTOR..]);
        let is = second.content[SECTOR..2 * SECTOR].to_vec();
        second.content.fill(0);
        second.look(SECTOR..2 * SECTOR).unwrap();
        assert!(second.content[SECTOR..2 * SECTOR] == is && second.content[2 * SECTOR] == 0);
        std::fs::write(dir.path().join("tiny"), [0; SECTOR - 1]).unwrap();
        assert!(Device::of(writable(&dir.path().join("tiny")), 0, 1).is_err());
    }
}
