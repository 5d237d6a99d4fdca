//! Looks at disk images after the machine has ended; what is found becomes facts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pincushion_abi::pattern::Pattern;
use serde_json::{Value, json};

use super::disks::{image_path, tool};
use crate::rundir::{CONSOLE_LOG, VIRTIO_CONSOLE_LOG};
use crate::scenario::model::HostCheck;
use crate::timeline::durable::flushed_pieces;
use crate::timeline::{Reader, Timeline};

/// Does one check; `images` is where the images are, `events` the run's log. Gives facts as key and value.
///
/// # Errors
/// An image or a program is missing; in words.
pub fn check(
    check: &HostCheck,
    images: &Path,
    events: &Path,
) -> Result<Vec<(String, Value)>, String> {
    let one = |key: &str, value: Value| Ok(vec![(key.to_owned(), value)]);
    match check {
        HostCheck::Fsck { disk } => one("fsck", fsck(disk, &image_path(images, disk))?),
        HostCheck::File {
            disk,
            path,
            offset,
            len,
            pattern,
            promise,
        } => {
            let bytes = file_on_ext4(&image_path(images, disk), path)?;
            let part = slice(&bytes, *offset, *len).unwrap_or(&[]);
            one(
                "found",
                found(
                    promise,
                    part,
                    *len,
                    *pattern,
                    &format!("{path} of disk {disk}, from byte {offset}"),
                ),
            )
        }
        HostCheck::Bytes {
            disk,
            offset,
            len,
            pattern,
            promise,
        } => {
            let bytes = image_bytes(&image_path(images, disk), *offset, *len)
                .map_err(|error| format!("disk {disk}: {error}"))?;
            one(
                "found",
                found(
                    promise,
                    &bytes,
                    *len,
                    *pattern,
                    &format!("byte {offset} of disk {disk}"),
                ),
            )
        }
        HostCheck::Console { text } => {
            let log = events.with_file_name(VIRTIO_CONSOLE_LOG);
            written(&log, text).map(|()| Vec::new())
        }
        HostCheck::Said { texts } => {
            let log = events.with_file_name(CONSOLE_LOG);
            said(&log, texts).map(|()| Vec::new())
        }
        HostCheck::Quiet { about } => {
            let log = events.with_file_name(CONSOLE_LOG);
            quiet(&log, about).map(|()| Vec::new())
        }
        HostCheck::Flushed { disk } => {
            let facts = flushed(disk, &image_path(images, disk), events)?;
            Ok(facts
                .into_iter()
                .map(|value| ("image".to_owned(), value))
                .collect())
        }
    }
}

/// All of a console's log, whatever bytes the guest has put there.
fn text_of(log: &Path) -> Result<String, String> {
    let bytes = std::fs::read(log).map_err(|error| format!("{}: {error}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the guest has written `text`.
fn written(log: &Path, text: &str) -> Result<(), String> {
    if text_of(log)?.contains(text) {
        Ok(())
    } else {
        Err(format!(
            "the guest did not write {text:?} to the virtio console; see {}",
            log.display()
        ))
    }
}

/// Whether each text is in some line of the console.
fn said(log: &Path, texts: &[String]) -> Result<(), String> {
    let console = text_of(log)?;
    let is_there = |text: &&String| console.lines().any(|line| line.contains(*text));
    match texts.iter().find(|text| !is_there(text)) {
        None => Ok(()),
        Some(text) => Err(format!("the guest's console does not say {text:?}")),
    }
}

/// Whether no line of the console has one of the words.
fn quiet(log: &Path, about: &[String]) -> Result<(), String> {
    let text = text_of(log)?.to_lowercase();
    let said = |line: &&str| about.iter().any(|word| line.contains(word));
    match text.lines().find(said) {
        None => Ok(()),
        Some(line) => Err(format!("the guest's console says {line:?}")),
    }
}

/// Where a superblock of btrfs has its magic number: 64 bytes into the first one, at 64 KiB.
const BTRFS_MAGIC_AT: u64 = 0x1_0040;

fn fsck(disk: &str, image: &Path) -> Result<Value, String> {
    let says = |offset, magic: &[u8]| {
        image_bytes(image, offset, magic.len() as u64).is_ok_and(|bytes| bytes == magic)
    };
    let (program, flags): (_, &[&str]) = if says(0, b"XFSB") {
        // It has one allocation group, and so no second superblock to compare with.
        ("xfs_repair", &["-n", "-o", "force_geometry"])
    } else if says(BTRFS_MAGIC_AT, b"_BHRfS_M") {
        ("btrfs", &["check", "--readonly"])
    } else {
        ("e2fsck", &["-f", "-n"])
    };
    let output = tool(program)
        .args(flags)
        .arg(image)
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    // e2fsck(8), xfs_repair(8), btrfs-check(8): 0 is no errors; nothing is ever corrected.
    Ok(json!({ "device": disk, "clean": output.status.code() == Some(0), "output": said.trim() }))
}

pub(super) fn file_on_ext4(image: &Path, path: &str) -> Result<Vec<u8>, String> {
    let output = tool("debugfs")
        .arg("-R")
        .arg(format!("cat {path}"))
        .arg(image)
        .output();
    let output = output.map_err(|error| format!("cannot run debugfs: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // debugfs says its version, and exits with 0 also where there is no such file.
    match said
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("debugfs "))
    {
        Some(complaint) if output.stdout.is_empty() => Err(format!("debugfs: {complaint}")),
        _ => Ok(output.stdout),
    }
}

fn image_bytes(image: &Path, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    File::open(image)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// What the image holds of all that the log says was flushed.
fn flushed(disk: &str, image: &Path, events: &Path) -> Result<Vec<Value>, String> {
    let mut timeline = Timeline::default();
    for event in Reader::open(events).map_err(|error| error.to_string())? {
        timeline.feed(&event.map_err(|error| error.to_string())?);
    }
    let pieces = flushed_pieces(&timeline, disk).into_iter().map(|piece| {
        let bytes = image_bytes(image, piece.sector * 512, piece.bytes)
            .map_err(|error| format!("disk {disk}: {error}"))?;
        let hash = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes));
        Ok(json!({ "device": disk, "sector": piece.sector, "bytes": piece.bytes, "hash": hash }))
    });
    pieces.collect()
}

fn slice(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let offset = usize::try_from(offset).ok()?;
    bytes.get(offset..)?.get(..usize::try_from(len).ok()?)
}

fn found(promise: &str, bytes: &[u8], len: u64, pattern: Pattern, place: &str) -> Value {
    let difference = pattern.first_difference(bytes);
    let detail = match difference {
        _ if bytes.len() as u64 != len => {
            format!("{place}: {} of {len} bytes are there", bytes.len())
        }
        Some(at) => format!(
            "{place}: byte {at} is {:#04x}, not {:#04x}",
            bytes[at],
            pattern.byte(at as u64)
        ),
        None => place.to_owned(),
    };
    let equal = difference.is_none() && bytes.len() as u64 == len;
    json!({ "id": promise, "where": "disk", "equal": equal, "detail": detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_quiet_about_what_it_does_not_name() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("events.jsonl");
        let look = |word: &str| {
            let about = vec![word.to_owned()];
            check(&HostCheck::Quiet { about }, Path::new("none"), &events)
        };
        assert!(look("virtio").is_err(), "there is no log");
        std::fs::write(
            dir.path().join(CONSOLE_LOG),
            "[1] fine\n[2] Virtio_blk: bad\n",
        )
        .unwrap();
        assert_eq!(look("pci"), Ok(vec![]));
        assert!(look("virtio").unwrap_err().contains("virtio_blk: bad"));
    }

    #[test]
    fn what_a_kernel_must_have_said_is_missed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("events.jsonl");
        let look = |texts: &[&str]| {
            let texts = texts.iter().map(ToString::to_string).collect();
            check(&HostCheck::Said { texts }, Path::new("none"), &events)
        };
        assert!(look(&["fine"]).is_err(), "there is no log");
        std::fs::write(dir.path().join(CONSOLE_LOG), "[1] fine\n[2] done\n").unwrap();
        assert_eq!(look(&["done", "fine"]), Ok(vec![]));
        let missing = look(&["done", "fine\n[2]"]).unwrap_err();
        assert!(missing.contains("does not say \"fine\\n"), "{missing}");
    }

    #[test]
    fn a_text_on_the_console_is_there_or_is_missed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("events.jsonl");
        let look = |text: &str| {
            let text = text.to_owned();
            check(&HostCheck::Console { text }, Path::new("none"), &events)
        };
        assert!(look("hello").is_err(), "there is no console");
        std::fs::write(dir.path().join(VIRTIO_CONSOLE_LOG), b"[1] hello\xff\n").unwrap();
        assert_eq!(look("hello"), Ok(vec![]));
        assert!(look("bye").unwrap_err().contains("\"bye\""));
    }

    #[test]
    fn a_fresh_btrfs_is_clean_and_one_without_its_trees_is_not() {
        if pincushion_image::host_program("btrfs").is_err() {
            return eprintln!("skipped: btrfs-progs is not installed");
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a.img");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(128 << 20).unwrap();
        let made = tool("mkfs.btrfs").arg("-q").arg(&image).status().unwrap();
        assert!(made.success());
        assert_eq!(fsck("a", &image).unwrap()["clean"], true);
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xff; 40 << 20], 20 << 20).unwrap();
        assert_eq!(fsck("a", &image).unwrap()["clean"], false);
    }

    #[test]
    fn bytes_of_an_image_are_compared_and_the_first_difference_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0x41; 8192];
        bytes[5000] = 0x42;
        std::fs::write(dir.path().join("a.img"), bytes).unwrap();
        let at = |offset| HostCheck::Bytes {
            disk: "a".into(),
            offset,
            len: 4096,
            pattern: Pattern::Byte(0x41),
            promise: "p".into(),
        };
        let look = |offset| {
            check(&at(offset), dir.path(), Path::new("none"))
                .unwrap()
                .remove(0)
                .1
        };
        assert_eq!(look(0)["equal"], true);
        assert_eq!(look(4096)["equal"], false);
        assert_eq!(
            look(4096)["detail"],
            "byte 4096 of disk a: byte 904 is 0x42, not 0x41"
        );
        assert!(check(&at(8192), dir.path(), Path::new("none")).is_err());
    }

    #[test]
    fn a_file_that_is_too_short_is_not_equal() {
        let value = found("p", &[0x41; 9], 10, Pattern::Byte(0x41), "here");
        assert_eq!(
            (value["equal"].as_bool(), value["detail"].as_str()),
            (Some(false), Some("here: 9 of 10 bytes are there"))
        );
    }
}
