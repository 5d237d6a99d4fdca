//! What the agent's names mean at a step: device nodes, mount points, open files, mappings.

use std::collections::{HashMap, HashSet};

use pincushion_abi::Value;
use pincushion_abi::pattern::Pattern;
use pincushion_abi::step::MapKind;

use super::{ALL, Bytes, Effect, Place, Target, What};

#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) target: Option<Target>,
    appends: bool,
    is_directory: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Mapping {
    target: Option<Target>,
    offset: u64,
}

/// What the agent's names mean now.
#[derive(Default)]
pub(super) struct Names {
    pub(super) nodes: HashMap<String, String>,
    pub(super) mounts: Vec<(String, Option<String>)>,
    pub(super) files: HashMap<String, Handle>,
    pub(super) maps: HashMap<String, Mapping>,
    /// File systems whose `sync` is known to flush.
    syncable: HashSet<String>,
    /// Devices of which nothing is promised: mounted without barriers.
    pub(super) weak: HashSet<String>,
    /// Somebody made directories, whose own names must be durable too.
    pub(super) directories: bool,
    pub(super) effects: Vec<Effect>,
    pub(super) now: Now,
}

/// The step that is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Now {
    pub(super) step: u32,
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) ok: bool,
}

/// Kinds of file systems that hold no file of ours.
const OTHERS: [&str; 7] = [
    "proc", "sysfs", "devtmpfs", "tmpfs", "debugfs", "tracefs", "configfs",
];

impl Names {
    pub(super) fn forget(&mut self) {
        self.nodes.clear();
        self.mounts.clear();
        self.files.clear();
        self.maps.clear();
    }

    /// A device node was found.
    pub(super) fn found(&mut self, path: Option<&Value>, device: Option<&String>) {
        if let (Some(Value::Text(path)), Some(device)) = (path, device) {
            self.nodes.insert(path.clone(), device.clone());
        }
    }

    /// Notes what the present step does.
    pub(super) fn add(&mut self, place: Place, what: What) {
        let Now {
            step,
            began,
            ended,
            ok,
        } = self.now;
        let what = match what {
            What::Written(_) if !ok || ended == u64::MAX => What::Changed,
            What::Synced | What::NamesSynced if !ok => return,
            what => what,
        };
        self.effects.push(Effect {
            step,
            began,
            ended,
            place,
            what,
        });
    }

    pub(super) fn mount(&mut self, source: &str, target: &str, fstype: &str, options: &str) {
        let device = self.nodes.get(source).cloned();
        let is_alias = options
            .split(',')
            .any(|option| matches!(option, "bind" | "rbind" | "move"));
        if is_alias || (device.is_none() && !OTHERS.contains(&fstype)) {
            self.add(Place::Everything, What::Changed);
        }
        self.weaken(device.clone(), options);
        if let Some(device) = &device {
            // From now on the file system writes the device.
            let ended = std::mem::replace(&mut self.now.ended, u64::MAX);
            self.add(Place::File(raw(device), ALL), What::Changed);
            self.now.ended = ended;
            if fstype == "ext4" {
                self.syncable.insert(device.clone());
            }
        }
        self.mounts.push((target.to_owned(), device));
    }

    pub(super) fn weaken(&mut self, device: Option<String>, options: &str) {
        let is_weak = options.split(',').any(|option| {
            matches!(
                option,
                "nobarrier" | "barrier=0" | "noload" | "norecovery" | "journal_async_commit"
            )
        });
        if let Some(device) = device.filter(|_| is_weak) {
            self.weak.insert(device);
        }
    }

    /// Where a path leads: `Ok(None)` is no place of ours, `Err` nobody knows.
    pub(super) fn resolve(&self, path: &str) -> Result<Option<Target>, ()> {
        if path.split('/').any(|part| part == "..") {
            return Err(());
        }
        let parts = |path: &str| -> Vec<String> {
            let parts = path
                .split('/')
                .filter(|part| !part.is_empty() && *part != ".");
            parts.map(str::to_owned).collect()
        };
        let path_parts = parts(path);
        if let Some(device) = self.nodes.get(&format!("/{}", path_parts.join("/"))) {
            return Ok(Some(raw(device)));
        }
        let mut best: Option<(usize, &Option<String>)> = None;
        for (at, device) in &self.mounts {
            let at = parts(at);
            let is_below = path_parts.starts_with(&at);
            if is_below && best.is_none_or(|(len, _)| at.len() >= len) {
                best = Some((at.len(), device));
            }
        }
        let Some((len, Some(device))) = best else {
            return Ok(None);
        };
        Ok(Some(Target {
            device: device.clone(),
            path: format!("/{}", path_parts[len..].join("/")),
        }))
    }

    pub(super) fn open(&mut self, path: &str, flags: &[String], file: &str) {
        let has = |flag: &str| flags.iter().any(|known| known == flag);
        let Ok(target) = self.resolve(path) else {
            self.add(Place::Everything, What::Changed);
            self.files.remove(file);
            return;
        };
        if let Some(target) = &target {
            if has("trunc") || has("tmpfile") {
                self.add(Place::File(target.clone(), ALL), What::Changed);
            }
            if has("creat") {
                self.add(Place::File(target.clone(), ALL), What::Created);
            }
        }
        let handle = Handle {
            target,
            appends: has("append"),
            is_directory: has("directory"),
        };
        self.files.insert(file.to_owned(), handle);
    }

    /// A name goes away, or comes to mean another file. What has it open keeps writing somewhere.
    pub(super) fn lose(&mut self, path: &str) {
        self.now.ended = u64::MAX;
        match self.resolve(path) {
            Ok(Some(target)) => self.add(Place::File(target, ALL), What::Changed),
            Ok(None) => {}
            Err(()) => self.add(Place::Everything, What::Changed),
        }
    }

    pub(super) fn touch_file(&mut self, file: &str, bytes: Bytes, what: What) {
        match self.files.get(file) {
            Some(Handle {
                target: Some(target),
                ..
            }) => {
                let target = target.clone();
                self.touch(target, bytes, what);
            }
            // A file that is none of ours.
            Some(Handle { target: None, .. }) => {}
            None if self.now.ok => self.add(Place::Everything, What::Changed),
            // The agent does not know that name either.
            None => {}
        }
    }

    pub(super) fn touch(&mut self, target: Target, bytes: Bytes, what: What) {
        if target.path.is_empty() && !matches!(what, What::Synced) {
            // Whoever writes the device writes every file on it.
            self.add(Place::Device(target.device.clone()), What::Changed);
        }
        if matches!(what, What::Synced) && self.weak.contains(&target.device) {
            return;
        }
        self.add(Place::File(target, bytes), what);
    }

    pub(super) fn write(&mut self, file: &str, bytes: Bytes, pattern: Option<Pattern>) {
        let appends = self.files.get(file).is_some_and(|handle| handle.appends);
        match pattern {
            Some(pattern) if !appends => self.touch_file(file, bytes, What::Written(pattern)),
            _ => self.touch_file(file, if appends { ALL } else { bytes }, What::Changed),
        }
    }

    pub(super) fn map(&mut self, file: Option<&String>, kind: MapKind, offset: u64, map: &str) {
        let handle = file.and_then(|file| self.files.get(file));
        let target = match kind {
            MapKind::Shared => handle.and_then(|handle| handle.target.clone()),
            MapKind::Private | MapKind::Anonymous => None,
        };
        let mapping = Mapping { target, offset };
        self.maps.insert(map.to_owned(), mapping);
    }

    pub(super) fn store(&mut self, map: &str, offset: u64, len: u64, pattern: Option<Pattern>) {
        match self.maps.get(map) {
            Some(Mapping {
                target: Some(target),
                offset: start,
            }) => {
                let (target, place) = (target.clone(), bytes(start.saturating_add(offset), len));
                self.touch(target, place, pattern.map_or(What::Changed, What::Written));
            }
            Some(Mapping { target: None, .. }) => {}
            None if self.now.ok => self.add(Place::Everything, What::Changed),
            None => {}
        }
    }

    pub(super) fn sync_file(&mut self, file: &str) {
        let Some(Handle {
            target: Some(target),
            is_directory,
            ..
        }) = self.files.get(file).cloned()
        else {
            return;
        };
        if !is_directory {
            self.touch(target, ALL, What::Synced);
        } else if !self.directories && !self.weak.contains(&target.device) {
            self.add(Place::File(target, ALL), What::NamesSynced);
        }
    }

    pub(super) fn sync_map(&mut self, map: &str, offset: u64, len: u64) {
        if let Some(Mapping {
            target: Some(target),
            offset: start,
        }) = self.maps.get(map).cloned()
        {
            let place = bytes(start.saturating_add(offset), len);
            self.touch(target, place, What::Synced);
        }
    }

    pub(super) fn sync_devices(&mut self, devices: Vec<String>) {
        for device in devices {
            if self.syncable.contains(&device) && !self.weak.contains(&device) {
                self.add(Place::Device(device.clone()), What::Synced);
                self.add(Place::Device(device), What::NamesSynced);
            }
        }
    }
}

pub(super) fn bytes(offset: u64, len: u64) -> Bytes {
    Bytes {
        from: offset,
        to: offset.saturating_add(len),
    }
}

fn raw(device: &str) -> Target {
    Target {
        device: device.to_owned(),
        path: String::new(),
    }
}
