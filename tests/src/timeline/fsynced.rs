//! What must be in a file after a power cut: what the agent wrote and made durable, from the log alone.
//!
//! A write of a pattern, and an fsync, fdatasync, msync, or (on ext4) sync or syncfs of the file that began after the write had ended and ended
//! well, promise the bytes from the end of the one until somebody may change them again. A file that this run may have made is promised only
//! once its name is durable too, by an fsync of its directory or a sync: POSIX does not say that fsync of the file is
//! enough. Promises that what it returns was promised to the program; does not promise to return all that was.

use pincushion_abi::pattern::Pattern;

use super::effects::{Bytes, Effect, Place, Target, What, effects};
use super::history::Timeline;

/// Bytes of a file that survive a power cut at any event from `from` on and before `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePromise {
    /// Whose bytes.
    pub target: Target,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// They themselves.
    pub pattern: Pattern,
    /// Number of the step that wrote them.
    pub written: u32,
    /// Number of the step that made them durable.
    pub synced: u32,
    /// The event with which that was known to the program.
    pub from: u64,
    /// The first event after which they may have been changed; `u64::MAX`: none.
    pub until: u64,
}

impl FilePromise {
    /// Whether a cut just after an event must leave the bytes.
    #[must_use]
    pub fn holds_at(&self, cut: u64) -> bool {
        self.from <= cut && cut < self.until
    }
}

/// All promises, in the order of the writes.
#[must_use]
pub fn promises(timeline: &Timeline) -> Vec<FilePromise> {
    let effects = effects(timeline);
    let writes = effects.iter().enumerate();
    let promised = writes.filter_map(|(index, effect)| promise(&effects, index, effect));
    promised
        .filter(|promise| promise.from < promise.until)
        .collect()
}

fn promise(effects: &[Effect], index: usize, write: &Effect) -> Option<FilePromise> {
    let (Place::File(target, bytes), What::Written(pattern)) = (&write.place, write.what) else {
        return None;
    };
    let sync = effects
        .iter()
        .filter(|effect| effect.what == What::Synced && effect.began > write.ended)
        .filter(|effect| covers(&effect.place, target, *bytes))
        .min_by_key(|effect| effect.ended)?;
    let named = name_is_durable(effects, target)?;
    let disturbed = effects
        .iter()
        .enumerate()
        .filter(|(other, effect)| {
            *other != index && matches!(effect.what, What::Written(_) | What::Changed)
        })
        .filter(|(_, effect)| effect.ended > write.began && meets(&effect.place, target, *bytes))
        .map(|(_, effect)| effect.began)
        .min();
    Some(FilePromise {
        target: target.clone(),
        offset: bytes.from,
        len: bytes.to - bytes.from,
        pattern,
        written: write.step,
        synced: sync.step,
        from: sync.ended.max(named),
        until: disturbed.unwrap_or(u64::MAX),
    })
}

/// From which event on the file is certainly found by its name; `None`: nobody saw to that.
fn name_is_durable(effects: &[Effect], target: &Target) -> Option<u64> {
    let mut made = effects.iter().filter(|effect| {
        effect.what == What::Created
            && matches!(&effect.place, Place::File(created, _) if created == target)
    });
    let Some(first) = made.next() else {
        // It was opened without being made, so it was there before.
        return Some(0);
    };
    let directory = target.path.rsplit_once('/').map(|(directory, _)| directory);
    let synced = effects
        .iter()
        .filter(|effect| effect.what == What::NamesSynced && effect.began > first.ended)
        .filter(|effect| match &effect.place {
            Place::File(synced, _) => {
                synced.device == target.device
                    && Some(synced.path.trim_end_matches('/')) == directory
            }
            Place::Device(device) => *device == target.device,
            Place::Everything => true,
        });
    synced.map(|effect| effect.ended).min()
}

/// Whether all of the bytes are certainly touched.
fn covers(place: &Place, target: &Target, bytes: Bytes) -> bool {
    match place {
        Place::File(touched, part) => {
            touched == target && part.from <= bytes.from && bytes.to <= part.to
        }
        // A sync is of file systems, not of a device's own bytes.
        Place::Device(device) => *device == target.device && !target.path.is_empty(),
        Place::Everything => false,
    }
}

/// Whether any of the bytes may be touched.
fn meets(place: &Place, target: &Target, bytes: Bytes) -> bool {
    match place {
        Place::File(touched, part) => {
            touched == target && part.from < bytes.to && bytes.from < part.to
        }
        Place::Device(device) => *device == target.device && !target.path.is_empty(),
        Place::Everything => true,
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::EventKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::timeline::script::Script;

    /// A guest with disk a at /dev/vda, mounted at /mnt.
    struct Guest {
        script: Script,
        steps: u32,
    }

    impl Guest {
        fn new() -> Self {
            let mut guest = Self {
                script: Script::booted(),
                steps: 0,
            };
            guest.find_disk();
            guest.mount("");
            guest
        }

        fn find_disk(&mut self) {
            self.begin(json!({"op": "find-disk", "serial": "a"}));
            self.end(json!({"ok": {"path": "/dev/vda"}}));
        }

        fn mount(&mut self, options: &str) {
            self.does(json!({"op": "mount", "source": "/dev/vda", "target": "/mnt", "fstype": "ext4", "options": options}));
        }

        fn begin(&mut self, step: Value) -> u64 {
            self.steps += 1;
            self.script.push(EventKind::StepSent {
                step: self.steps,
                thread: None,
                name: String::new(),
                text: step.to_string(),
            });
            self.script.push(EventKind::StepBegan { step: self.steps })
        }

        fn end(&mut self, outcome: Value) -> u64 {
            let step = self.steps;
            let ended = self.script.push(EventKind::StepEnded { step });
            let report = json!({"report": "done", "id": step, "outcome": outcome, "began_ns": 0, "ended_ns": 1});
            self.script.push(EventKind::AgentReport {
                text: report.to_string(),
            });
            ended
        }

        /// Begin and end of a step that ends well.
        fn does(&mut self, step: Value) -> (u64, u64) {
            (self.begin(step), self.end(json!({"ok": {}})))
        }

        fn open(&mut self, path: &str, flags: &[&str], file: &str) {
            self.does(json!({"op": "open", "path": path, "flags": flags, "file": file}));
        }

        fn write(&mut self, file: &str, offset: u64, byte: u8) -> (u64, u64) {
            self.does(json!({"op": "write-pattern", "file": file, "offset": offset, "len": 4096, "pattern": {"byte": byte}}))
        }

        fn fsync(&mut self, file: &str) -> (u64, u64) {
            self.does(json!({"op": "fsync", "file": file}))
        }

        fn promises(&self) -> Vec<FilePromise> {
            promises(&self.script.timeline())
        }
    }

    #[test]
    fn what_was_written_and_then_synced_is_promised_from_the_end_of_the_sync() {
        let mut guest = Guest::new();
        guest.open("/mnt//data", &["rdwr"], "f");
        guest.write("f", 4096, 7);
        let (_, synced) = guest.fsync("f");
        let [promise] = &guest.promises()[..] else {
            panic!("{:?}", guest.promises())
        };
        assert_eq!(
            (promise.target.device.as_str(), promise.target.path.as_str()),
            ("a", "/data")
        );
        assert_eq!((promise.offset, promise.len), (4096, 4096));
        assert_eq!((promise.from, promise.until), (synced, u64::MAX));
        assert!(!promise.holds_at(synced - 1) && promise.holds_at(synced));
    }

    #[test]
    fn what_was_not_synced_or_written_during_the_sync_is_not_promised() {
        let mut guest = Guest::new();
        guest.open("/mnt/data", &["rdwr"], "f");
        guest.open("/mnt/other", &["rdwr"], "other");
        guest.fsync("f");
        guest.write("f", 0, 7);
        guest.fsync("other");
        guest.does(json!({"op": "sync-file-range", "file": "f", "offset": 0, "len": 4096, "flags": ["write"]}));
        guest.begin(json!({"op": "fsync", "file": "f"}));
        guest.end(json!({"failed": {"call": "fsync", "errno": 5, "name": "EIO"}}));
        assert_eq!(guest.promises(), []);
    }

    #[test]
    fn the_next_write_of_the_same_bytes_ends_the_promise_when_it_begins() {
        let mut guest = Guest::new();
        guest.open("/mnt/data", &["rdwr"], "f");
        guest.write("f", 0, 7);
        guest.write("f", 8192, 8);
        guest.fsync("f");
        let (again, _) = guest.write("f", 0, 9);
        let (_, synced) = guest.fsync("f");
        let spans: Vec<_> = guest
            .promises()
            .iter()
            .map(|p| (p.pattern, p.until))
            .collect();
        assert_eq!(
            spans,
            [
                (Pattern::Byte(7), again),
                (Pattern::Byte(8), u64::MAX),
                (Pattern::Byte(9), u64::MAX)
            ]
        );
        assert_eq!(guest.promises()[2].from, synced);
    }

    #[test]
    fn a_new_file_is_promised_once_its_name_is_durable() {
        for (sync, promised) in [
            (json!({"op": "fsync", "file": "f"}), 0),
            (json!({"op": "fsync", "file": "dir"}), 1),
            (json!({"op": "sync"}), 1),
        ] {
            let mut guest = Guest::new();
            guest.open("/mnt", &["rdonly", "directory"], "dir");
            guest.open("/mnt/new", &["rdwr", "creat"], "f");
            guest.write("f", 0, 7);
            guest.fsync("f");
            guest.does(sync.clone());
            assert_eq!(guest.promises().len(), promised, "{sync}");
        }
    }

    #[test]
    fn stores_into_a_shared_mapping_are_writes_and_msync_covers_its_part() {
        let mut guest = Guest::new();
        guest.open("/mnt/data", &["rdwr"], "f");
        for (kind, promised) in [("shared", 1), ("private", 1)] {
            guest.does(json!({"op": "mmap", "file": "f", "kind": kind, "offset": 4096, "len": 8192, "map": kind}));
            guest.does(
                json!({"op": "store", "map": kind, "offset": 0, "len": 64, "pattern": {"byte": 1}}),
            );
            guest.does(
                json!({"op": "msync", "map": kind, "offset": 4096, "len": 4096, "flags": ["sync"]}),
            );
            guest.does(json!({"op": "msync", "map": kind, "len": 4096, "flags": ["async"]}));
            assert_eq!(
                guest.promises().len(),
                promised - usize::from(kind == "shared")
            );
            guest.does(json!({"op": "msync", "map": kind, "len": 4096, "flags": ["sync"]}));
            assert_eq!(guest.promises().len(), promised);
        }
        assert_eq!(guest.promises()[0].offset, 4096);
    }

    #[test]
    fn whatever_may_change_a_file_ends_its_promises() {
        for act in [
            json!({"op": "truncate", "file": "f", "len": 0}),
            json!({"op": "fallocate", "file": "f", "mode": ["punch_hole", "keep_size"], "offset": 0, "len": 4096}),
            json!({"op": "unlink", "path": "/mnt/data"}),
            json!({"op": "rename", "from": "/mnt/other", "to": "/mnt/data"}),
            json!({"op": "open", "path": "/mnt/data", "flags": ["wronly", "trunc"], "file": "g"}),
            json!({"op": "aio-submit", "direction": "read", "file": "f", "offset": 0, "map": "m", "len": 512, "tag": "t"}),
            json!({"op": "madvise", "map": "m", "advice": "remove"}),
            json!({"op": "exec", "argv": ["/bin/anything"]}),
            json!({"op": "in-child", "child": "c", "step": {"op": "unlink", "path": "/mnt/data"}}),
            json!({"op": "mount", "source": "/mnt", "target": "/alias", "fstype": "none", "options": "bind"}),
            json!({"op": "write-file", "path": "/sys/block/vda/queue/write_cache", "text": "write through"}),
            json!({"op": "something new"}),
        ] {
            let mut guest = Guest::new();
            guest.open("/mnt/data", &["rdwr"], "f");
            guest.does(
                json!({"op": "mmap", "file": "f", "kind": "shared", "len": 4096, "map": "m"}),
            );
            guest.write("f", 0, 7);
            guest.fsync("f");
            let (began, _) = guest.does(act.clone());
            assert_eq!(guest.promises()[0].until, began, "{act}");
        }
    }

    #[test]
    fn looking_at_a_file_changes_nothing() {
        let mut guest = Guest::new();
        guest.open("/mnt/data", &["rdwr"], "f");
        guest.write("f", 0, 7);
        guest.fsync("f");
        guest.does(json!({"op": "read-verify", "file": "f", "offset": 0, "len": 4096, "pattern": {"byte": 7}}));
        guest.does(json!({"op": "write-file", "path": "/proc/sys/vm/drop_caches", "text": "3"}));
        guest.does(
            json!({"op": "in-child", "child": "c", "step": {"op": "load", "map": "m", "len": 1}}),
        );
        guest.does(json!({"op": "close", "file": "f"}));
        assert_eq!(guest.promises()[0].until, u64::MAX);
    }

    #[test]
    fn a_file_system_without_barriers_promises_nothing() {
        let mut guest = Guest::new();
        guest.does(json!({"op": "umount", "target": "/mnt"}));
        guest.mount("noatime,nobarrier");
        guest.open("/mnt/data", &["rdwr"], "f");
        guest.write("f", 0, 7);
        guest.fsync("f");
        assert_eq!(guest.promises(), []);
    }

    #[test]
    fn a_devices_own_bytes_are_promised_until_it_is_mounted() {
        let mut guest = Guest {
            script: Script::booted(),
            steps: 0,
        };
        guest.find_disk();
        guest.open("/dev/vda", &["rdwr"], "f");
        guest.write("f", 0, 7);
        guest.fsync("f");
        assert_eq!(guest.promises()[0].target.path, "");
        assert_eq!(guest.promises()[0].until, u64::MAX);
        guest.mount("");
        assert_ne!(guest.promises()[0].until, u64::MAX);
    }

    #[test]
    fn names_of_the_boot_before_mean_nothing_and_its_promises_stand() {
        let mut guest = Guest::new();
        guest.open("/mnt/data", &["rdwr"], "f");
        guest.write("f", 0, 7);
        guest.fsync("f");
        guest.script.boot(2);
        guest.find_disk();
        guest.mount("");
        guest.open("/mnt/other", &["rdwr"], "f");
        guest.write("f", 0, 9);
        guest.fsync("f");
        let paths: Vec<_> = guest
            .promises()
            .into_iter()
            .map(|p| (p.target.path, p.until))
            .collect();
        assert_eq!(
            paths,
            [
                ("/data".to_owned(), u64::MAX),
                ("/other".to_owned(), u64::MAX)
            ]
        );
    }
}
