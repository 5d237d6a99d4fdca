//! What the agent's steps did to files: which bytes of which file on which device, from when to when.
//!
//! Promises to under-approximate what is known and to over-approximate what may have changed: a step of which it is not quite clear
//! what it touches counts as one that may have touched everything.

use pincushion_abi::pattern::Pattern;
use pincushion_abi::step::IoDirection;
use pincushion_abi::{Outcome, Step as Act};

use super::history::Timeline;
use super::step::Step;

mod names;

use names::{Names, Now, bytes};

/// A file, or a whole device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The disk or region.
    pub device: String,
    /// Path in its file system; empty: the device's own bytes.
    pub path: String,
}

/// What a step touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Bytes of a file.
    File(Target, Bytes),
    /// Every file of a device.
    Device(String),
    /// Nobody knows.
    Everything,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// All of a file.
pub(super) const ALL: Bytes = Bytes {
    from: 0,
    to: u64::MAX,
};

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It holds this pattern, from the place's first byte on.
    Written(Pattern),
    /// It may hold anything.
    Changed,
    /// What it holds is durable afterwards.
    Synced,
    /// The file may have been made by this step.
    Created,
    /// The names in this directory (or, of a device, all names) are durable afterwards.
    NamesSynced,
}

/// One effect of a step. Of a step that did not end well nothing good is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) step: u32,
    pub(super) began: u64,
    /// `u64::MAX`: nobody knows when it ends.
    pub(super) ended: u64,
    pub(super) place: Place,
    pub(super) what: What,
}

/// All effects, in the order in which the steps began.
pub(super) fn effects(timeline: &Timeline) -> Vec<Effect> {
    let mut steps: Vec<(u64, &Step)> = timeline
        .steps
        .iter()
        .filter_map(|step| Some((step.began?.seq, step)))
        .collect();
    steps.sort_by_key(|(began, _)| *began);
    let mut boots = timeline.boots.iter().map(|boot| boot.began.seq).peekable();
    let mut names = Names::default();
    for (began, step) in steps {
        while boots.next_if(|boot| *boot < began).is_some() {
            // Names of files and mappings, and what is mounted, are those of one boot.
            names.forget();
        }
        names.step(timeline, step, began);
    }
    names.effects
}

impl Names {
    fn step(&mut self, timeline: &Timeline, step: &Step, began: u64) {
        self.now = Now {
            step: step.id,
            began,
            ended: step.ended.map_or(u64::MAX, |ended| ended.seq),
            ok: step.succeeded(),
        };
        match (&step.act, &step.outcome) {
            (Some(Act::FindDisk { serial }), Some((_, Outcome::Ok(found)))) => {
                self.found(found.get("path"), Some(serial));
            }
            (Some(Act::FindPmem { start, .. }), Some((_, Outcome::Ok(found)))) => {
                let mut devices = timeline.devices.iter();
                let region = devices
                    .find(|(_, device)| device.region.is_some_and(|region| region.addr == *start));
                self.found(found.get("path"), region.map(|(name, _)| name));
            }
            (Some(act), _) => self.act(act),
            (None, _) => self.add(Place::Everything, What::Changed),
        }
    }

    fn act(&mut self, act: &Act) {
        let is_known = self.act_on_names(act)
            || self.act_on_bytes(act)
            || self.act_of_sync(act)
            || only_looks(act);
        if !is_known {
            // A child has names of its own, a program does what it likes, and of others nobody has thought yet.
            self.add(Place::Everything, What::Changed);
        }
    }

    /// Steps after which names mean something else. Whether this is one.
    fn act_on_names(&mut self, act: &Act) -> bool {
        match act {
            Act::Mount {
                source,
                target,
                fstype,
                options,
            } => self.mount(source, target, fstype, options),
            Act::Remount { target, options } => {
                let device = self.mounts.iter().rev().find(|(at, _)| at == target);
                self.weaken(device.and_then(|(_, device)| device.clone()), options);
            }
            Act::Umount { target } => {
                if let Some(at) = self.mounts.iter().rposition(|(at, _)| at == target) {
                    self.mounts.remove(at);
                }
            }
            Act::Mkdir { .. } => self.directories = true,
            Act::Open { path, flags, file } => self.open(path, flags, file),
            Act::Close { file } => drop(self.files.remove(file)),
            Act::Unlink { path } => self.lose(path),
            Act::Rename { from, to } => {
                self.lose(from);
                self.lose(to);
            }
            Act::Mmap {
                file,
                kind,
                offset,
                map,
                ..
            } => self.map(file.as_ref(), *kind, *offset, map),
            Act::Munmap { map } => drop(self.maps.remove(map)),
            _ => return false,
        }
        true
    }

    /// Steps that may change what files hold. Whether this is one.
    fn act_on_bytes(&mut self, act: &Act) -> bool {
        match act {
            Act::WriteFile { path, .. } => self.write_file(path),
            Act::Truncate { file, .. } | Act::Fallocate { file, .. } => {
                self.touch_file(file, ALL, What::Changed);
            }
            Act::Clone { to, .. } => self.touch_file(to, ALL, What::Changed),
            Act::WritePattern {
                file,
                offset,
                len,
                pattern,
            } => self.write(file, bytes(*offset, *len), Some(*pattern)),
            Act::PwriteFrom {
                file, offset, len, ..
            } => self.write(file, bytes(*offset, *len), None),
            Act::AioSubmit {
                direction,
                file,
                offset,
                map,
                map_offset,
                len,
                ..
            }
            | Act::UringSubmit {
                direction,
                file,
                offset,
                map,
                map_offset,
                len,
                ..
            } => {
                // It ends some time after the step.
                self.now.ended = u64::MAX;
                match direction {
                    IoDirection::Read => self.store(map, *map_offset, *len, None),
                    IoDirection::Write => self.write(file, bytes(*offset, *len), None),
                }
            }
            Act::PreadInto {
                map,
                map_offset,
                len,
                ..
            } => self.store(map, *map_offset, *len, None),
            Act::Store {
                map,
                offset,
                len,
                pattern,
            } => self.store(map, *offset, *len, Some(*pattern)),
            Act::Madvise { map, advice } if advice == "remove" => {
                self.store(map, 0, u64::MAX, None);
            }
            Act::FsLoad(load) => {
                // It has directories and files of its own below, whose names no step says.
                self.directories = true;
                self.lose(&load.dir);
            }
            _ => return false,
        }
        true
    }

    /// Steps that make something durable, or only look though they are in a child. Whether this is one.
    fn act_of_sync(&mut self, act: &Act) -> bool {
        match act {
            Act::Fsync { file } | Act::Fdatasync { file } => self.sync_file(file),
            Act::Msync {
                map,
                offset,
                len,
                flags,
            } if flags.iter().any(|flag| flag == "sync") => {
                self.sync_map(map, *offset, len.unwrap_or(u64::MAX));
            }
            Act::Syncfs { file } => {
                let handle = self.files.get(file);
                let device = handle.and_then(|handle| handle.target.clone());
                self.sync_devices(device.into_iter().map(|target| target.device).collect());
            }
            Act::Sync {} => self.sync_devices(self.nodes.values().cloned().collect()),
            Act::InChild { step, .. } => return only_looks(step),
            _ => return false,
        }
        true
    }

    fn write_file(&mut self, path: &str) {
        if path.contains("write_cache") {
            self.add(Place::Everything, What::Changed);
            self.weak.extend(self.nodes.values().cloned());
        }
        match self.resolve(path) {
            Ok(Some(target)) => self.add(Place::File(target, ALL), What::Changed),
            Ok(None) => {}
            Err(()) => self.add(Place::Everything, What::Changed),
        }
    }
}

/// Whether a step changes no file, and makes nothing durable.
fn only_looks(act: &Act) -> bool {
    matches!(
        act,
        Act::LoadModule { .. }
            | Act::WaitPath { .. }
            | Act::ReadHash { .. }
            | Act::ReadVerify { .. }
            | Act::Frames { .. }
            | Act::PageFlags { .. }
            | Act::Load { .. }
            | Act::Verify { .. }
            | Act::AioWait { .. }
            | Act::UringWait { .. }
            | Act::Msync { .. }
            | Act::SyncFileRange { .. }
            | Act::Madvise { .. }
            | Act::Fork { .. }
            | Act::EndChild { .. }
            | Act::DropCaches {}
            | Act::Counters { .. }
            | Act::ReadFile { .. }
            | Act::WaitText { .. }
            | Act::WhereBlocked { .. }
            | Act::Rebind { .. }
            | Act::FindDisk { .. }
            | Act::FindNet { .. }
            | Act::LinkSet { .. }
            | Act::Ping { .. }
            | Act::TcpEcho { .. }
            | Act::FindPmem { .. }
            | Act::Fiemap { .. }
            | Act::Interrupt { .. }
            | Act::UringRegister { .. }
            | Act::UringRelease { .. }
            | Act::Dmesg {}
            | Act::Reboot {}
            | Act::PowerOff {}
            | Act::Panic {}
            | Act::Hang {}
            | Act::Mark { .. }
    )
}
