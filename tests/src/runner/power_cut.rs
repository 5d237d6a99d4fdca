//! Records what disks and regions are given, and looks at what a power cut may leave of them.
//!
//! An image with a file system is looked at as a boot would, by `crashed.rs`. All of it becomes facts: a `power-cut` for each place, and a
//! `crash-image` for each image that is not as it must be. It judges nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pincushion_abi::pattern::Pattern;
use pincushion_devices::backend::Backend;
use pincushion_devices::trace::Tracer;
use pincushion_devices::trace::event::{Event, EventKind, Seq};
use pincushion_vmm::region::Region;
use serde_json::{Value, json};

use super::crashed::{Seen, can_mount_xfs, look_at_ext4, look_at_xfs};
use super::disks::image_path;
use crate::crash::{
    Choice, Evidence, LogWriter, Recorded, Sampler, SharedLog, State, base_path, cuts, log_path,
};
use crate::rundir::RunDir;
use crate::scenario::Scenario;
use crate::scenario::model::Content;
use crate::scenario::power_cut::PowerCut;
use crate::timeline::fsynced::{FilePromise, promises};
use crate::timeline::{Reader, Timeline};

/// The records of a run, by medium.
#[derive(Default)]
pub(super) struct Records(BTreeMap<String, SharedLog>);

impl Records {
    /// Keeps the images as they are now, and begins a record for each.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn begin(dir: &RunDir, scenario: &Scenario, images: &Path) -> io::Result<Self> {
        let Some(table) = &scenario.power_cut else {
            return Ok(Self::default());
        };
        fs::create_dir_all(dir.file("power-cut"))?;
        let begin = |id: &String| {
            copy_sparse(&image_path(images, id), &base_path(dir.path(), id))?;
            let log = LogWriter::create(&log_path(dir.path(), id))?;
            Ok((id.clone(), Arc::new(Mutex::new(log))))
        };
        table
            .devices
            .iter()
            .map(begin)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// What does the flushes of a region: `inner`, with a record if it has one.
    pub(super) fn flusher(&self, id: &str, inner: Box<dyn Backend>) -> Box<dyn Backend> {
        match self.of(id) {
            Some(log) => Box::new(Recorded::new(inner, log.clone())),
            None => inner,
        }
    }

    /// Records what the guest stores into the scenario's regions.
    pub(super) fn sample(&self, scenario: &Scenario, regions: &[Region], tracer: &Tracer) {
        let pmems = scenario.pmems.iter().zip(regions);
        let sampled = pmems.filter_map(|(pmem, region)| {
            Some(Sampler::new(
                &pmem.id,
                region.clone(),
                self.of(&pmem.id)?.clone(),
            ))
        });
        for sampler in sampled {
            tracer.add_sink(Box::new(sampler));
        }
    }

    /// The record of a medium, if it has one.
    pub(super) fn of(&self, id: &str) -> Option<&SharedLog> {
        self.0.get(id)
    }
}

/// Copies a file; where it holds zeros the copy has a hole.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let to = File::create(to)?;
    to.set_len(from.metadata()?.len())?;
    let mut chunk = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let got = from.read(&mut chunk)?;
        if got == 0 {
            return Ok(());
        }
        write_sparse(&to, offset, &chunk[..got])?;
        offset += got as u64;
    }
}

static ZEROES: [u8; 4096] = [0; 4096];

/// Writes what is not zero into a file of zeros.
fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    for (index, page) in (0..).zip(bytes.chunks(4096)) {
        if page != &ZEROES[..page.len()] {
            file.write_all_at(page, offset + index * 4096)?;
        }
    }
    Ok(())
}

/// Looks at all images that the scenario of a run asks for, and adds what was found to the run's event log.
///
/// The suite does this after the child has ended: everything is in the run's directory, and a checker is far faster here than in an emulated
/// machine.
///
/// # Errors
/// The log cannot be written.
pub fn look_and_tell(dir: &RunDir, scenario: &Scenario, seed: u64) -> io::Result<()> {
    let Some(table) = &scenario.power_cut else {
        return Ok(());
    };
    let facts = look(dir, scenario, table, seed, &dir.file("power-cut"));
    let facts = facts.unwrap_or_else(|error| {
        let wanted = "a look at what power cuts may leave";
        let value = json!({ "step": 0, "wanted": wanted, "got": error });
        vec![("step-failed".to_owned(), value)]
    });
    let log = dir.file("events.jsonl");
    let mut last = (0, 0);
    for event in Reader::open(&log).map_err(io::Error::other)? {
        let event = event.map_err(io::Error::other)?;
        last = (event.seq.0, event.time_ns);
    }
    let mut file = File::options().append(true).open(&log)?;
    for ((key, value), seq) in facts.into_iter().zip(last.0 + 1..) {
        let event = Event {
            seq: Seq(seq),
            time_ns: last.1,
            kind: EventKind::Fact { key, value },
        };
        writeln!(file, "{}", serde_json::to_string(&event)?)?;
    }
    Ok(())
}

/// Looks at all images that the scenario asks for. Gives facts as key and value.
///
/// # Errors
/// The evidence is missing, or a program; in words.
pub fn look(
    dir: &RunDir,
    scenario: &Scenario,
    table: &PowerCut,
    seed: u64,
    scratch: &Path,
) -> Result<Vec<(String, Value)>, String> {
    fs::create_dir_all(scratch)
        .map_err(|error| format!("cannot make {}: {error}", scratch.display()))?;
    let words = |error: &dyn std::error::Error| crate::words(error);
    let mut events = Vec::new();
    let mut timeline = Timeline::default();
    for event in Reader::open(&dir.file("events.jsonl")).map_err(|error| words(&error))? {
        let event = event.map_err(|error| words(&error))?;
        timeline.feed(&event);
        events.push(event);
    }
    let (places, left_out) = cuts(table, &events, &timeline, seed);
    drop(events);
    let all = promises(&timeline);
    let mut facts = Vec::new();
    for device in &table.devices {
        let evidence =
            Evidence::load(dir.path(), &timeline, device).map_err(|error| words(&error))?;
        let promised: Vec<&FilePromise> = all
            .iter()
            .filter(|promise| promise.target.device == *device)
            .collect();
        let mut lens = Lens {
            scratch: scratch.join("crash.img"),
            file_system: content(scenario, device).and_then(Content::file_system),
            paths: promised
                .iter()
                .map(|promise| promise.target.path.clone())
                .collect(),
            seen: HashMap::new(),
        };
        if lens.file_system == Some("xfs") {
            let whole = scratch.join("whole.img");
            copy_sparse(&base_path(dir.path(), device), &whole).map_err(|error| words(&error))?;
            can_mount_xfs(&whole)?;
            fs::remove_file(&whole).map_err(|error| words(&error))?;
        }
        for &cut in &places {
            log::debug!("{device}: the power goes after event {cut}");
            let state = evidence.at(cut).map_err(|error| words(&error))?;
            let choice = Choice {
                seed,
                device,
                cut,
                image: 0,
                atomic: evidence.atomic(table.atomic),
            };
            let at_cut = AtCut {
                state: &state,
                promised: promised
                    .iter()
                    .filter(|promise| promise.holds_at(cut))
                    .copied()
                    .collect(),
                undone: evidence
                    .history()
                    .undone
                    .iter()
                    .filter(|told| **told <= cut)
                    .count(),
            };
            facts.extend(at_cut.look(choice, table.images, left_out, &mut lens)?);
        }
    }
    // What is left there is in nobody's way.
    let _ = fs::remove_file(scratch.join("crash.img"));
    Ok(facts)
}

fn content(scenario: &Scenario, id: &str) -> Option<Content> {
    let disk = scenario.disks.iter().find(|disk| disk.id == id);
    let pmem = scenario.pmems.iter().find(|pmem| pmem.id == id);
    disk.map(|disk| disk.content)
        .or(pmem.map(|pmem| pmem.content))
}

/// One medium at one cut.
struct AtCut<'a> {
    state: &'a State<'a>,
    promised: Vec<&'a FilePromise>,
    /// Flushes that were answered and not done.
    undone: usize,
}

impl AtCut<'_> {
    fn look(
        &self,
        choice: Choice<'_>,
        images: u32,
        left_out: usize,
        lens: &mut Lens,
    ) -> Result<Vec<(String, Value)>, String> {
        let (device, at) = (choice.device, choice.cut);
        let mut facts = Vec::new();
        let mut different = BTreeSet::new();
        for image in 0..images {
            let choice = Choice { image, ..choice };
            let bytes = choice.make(self.state);
            let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
            if !different.insert(hash) {
                continue;
            }
            let seen = lens.look(hash, &bytes)?;
            // What a damaged file system, whose journal may not have been replayed, has in its files says nothing more.
            let readable = self.promised.iter().filter(|_| seen.damage.is_none());
            let lost = readable.filter_map(|promise| {
                let detail = seen.differs(promise)?;
                Some(json!({ "written": promise.written, "synced": promise.synced, "detail": detail }))
            });
            let lost: Vec<Value> = lost.collect();
            if seen.damage.is_some() || !lost.is_empty() {
                let value = json!({
                    "device": device, "at": at, "image": image, "seed": choice.seed, "clean": seen.damage.is_none(),
                    "output": seen.damage.as_deref().unwrap_or_default(), "lost": lost, "flushes_undone": self.undone,
                });
                facts.push(("crash-image".to_owned(), value));
            }
        }
        let value = json!({
            "device": device, "at": at, "images": different.len(), "open_units": self.state.open_units(),
            "promises": self.promised.len(), "cuts_left_out": left_out,
        });
        facts.push(("power-cut".to_owned(), value));
        Ok(facts)
    }
}

/// Looks at images, at each content once.
struct Lens {
    scratch: PathBuf,
    file_system: Option<&'static str>,
    /// Files that anything was ever promised of.
    paths: BTreeSet<String>,
    seen: HashMap<u64, Arc<Seen>>,
}

impl Seen {
    /// How a file is other than promised.
    fn differs(&self, promise: &FilePromise) -> Option<String> {
        let path = &promise.target.path;
        let name = if path.is_empty() { "the medium" } else { path };
        let Some(Some(bytes)) = self.files.get(path) else {
            return Some(format!("{name} is not there"));
        };
        differs(bytes, promise.offset, promise.len, promise.pattern)
            .map(|what| format!("{name}: {what}"))
    }
}

fn differs(bytes: &[u8], offset: u64, len: u64, pattern: Pattern) -> Option<String> {
    let part = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(len).ok())
        .and_then(|(offset, len)| bytes.get(offset..)?.get(..len));
    let Some(part) = part else {
        return Some(format!(
            "it has {} bytes, and those from {offset} to {} were promised",
            bytes.len(),
            offset + len
        ));
    };
    let at = pattern.first_difference(part)?;
    Some(format!(
        "byte {} is {:#04x}, not {:#04x}",
        offset + at as u64,
        part[at],
        pattern.byte(at as u64)
    ))
}

impl Lens {
    fn look(&mut self, hash: u64, bytes: &[u8]) -> Result<Arc<Seen>, String> {
        if let Some(seen) = self.seen.get(&hash) {
            return Ok(seen.clone());
        }
        let seen = Arc::new(match self.file_system {
            None => self.look_at_bytes(bytes),
            Some(name) => {
                write_image(&self.scratch, bytes)
                    .map_err(|error| format!("cannot write {}: {error}", self.scratch.display()))?;
                match name {
                    "ext4" => look_at_ext4(&self.scratch, &self.paths)?,
                    "xfs" => look_at_xfs(&self.scratch, &self.paths)?,
                    name => return Err(format!("nobody here looks at {name}")),
                }
            }
        });
        self.seen.insert(hash, seen.clone());
        Ok(seen)
    }

    fn look_at_bytes(&self, bytes: &[u8]) -> Seen {
        let wanted = self.paths.iter();
        let files = wanted.map(|path| (path.clone(), path.is_empty().then(|| bytes.to_vec())));
        Seen {
            damage: None,
            files: files.collect(),
        }
    }
}

/// Writes an image, with holes where it holds zeros.
///
/// # Errors
/// The host's.
pub fn write_image(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    write_sparse(&file, 0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_bytes_and_holes_for_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut bytes = vec![0; 3 << 20];
        bytes[1 << 20] = 7;
        bytes[(3 << 20) - 1] = 8;
        fs::write(&from, &bytes).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert!(fs::read(&to).unwrap() == bytes);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&to).unwrap());
        assert!(blocks * 512 <= 64 << 10, "{blocks} blocks");
    }

    #[test]
    fn what_differs_is_told_by_its_place_in_the_file() {
        let bytes = [0x41; 100];
        assert_eq!(differs(&bytes, 10, 90, Pattern::Byte(0x41)), None);
        assert_eq!(
            differs(&bytes, 10, 90, Pattern::Byte(0x42)).unwrap(),
            "byte 10 is 0x41, not 0x42"
        );
        assert!(
            differs(&bytes, 10, 91, Pattern::Byte(0x41))
                .unwrap()
                .contains("has 100 bytes")
        );
    }
}
