//! Snapshots of guests that have just booted, so that others like them need not.
//!
//! One is made when the agent has said hello and the modules of the run's file systems are loaded, but no driver has begun with a
//! device: the guest knows no more of its devices than that they are there, and on a PCI bus, where they are plugged in later, not even
//! that. So another run goes on from it with devices of its own, and everything that its plan and its log are about happens in that
//! run. What the guests share is what a kernel has after a boot: its random numbers and its clock.
//!
//! Promises: a name stands for everything that a guest can have seen until then; room for snapshots is bounded. It does not promise
//! that a snapshot can be restored: a run that cannot boots.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pincushion_devices::device::SharedDevice;
use pincushion_vmm::machine::{MachineConfig, Transport};
use xxhash_rust::xxh3::xxh3_128;

use crate::rundir::RunInfo;
use crate::scenario::Scenario;

/// Most that all snapshots of a directory may take, in bytes: half of its file system, which may be the memory of a nested machine
/// that guests of 512 MiB share, and never more than 4 GiB.
pub(super) fn room(dir: &Path) -> io::Result<u64> {
    let file_system = rustix::fs::statvfs(dir)?;
    let bytes = file_system.f_blocks.saturating_mul(file_system.f_frsize);
    Ok((bytes / 2).min(4 << 30))
}

/// Where the snapshot of a run's machine is, or would be; `None` where the guest is to boot by itself.
pub(super) fn place(
    dir: &Path,
    scenario: &Scenario,
    info: &RunInfo,
    config: &MachineConfig,
    devices: &[SharedDevice],
) -> Option<PathBuf> {
    let vm = &scenario.vm;
    if scenario.boots_by_itself() || info.image_digest.is_empty() {
        return None;
    }
    // Those of the PCI bus are plugged in afterwards.
    let at_boot = devices.iter().filter(|_| vm.transport == Transport::Mmio);
    let devices: Vec<(u32, usize)> = at_boot
        .map(|device| {
            let device = device.lock().expect("nobody has used it yet");
            (device.device_type(), device.queue_max_sizes().len())
        })
        .collect();
    let shape = (
        (&info.image_digest, vm.format, &config.cmdline),
        (config.vcpus, config.memory_bytes, config.transport),
        scenario.modules_to_load(&info.kernel),
        devices,
    );
    let name = xxh3_128(format!("{shape:?}").as_bytes());
    Some(dir.join(format!("{name:032x}.snapshot")))
}

/// Whether there is a snapshot at `path`. It counts as new then: what is used goes last where there is no room.
pub(super) fn is_there(path: &Path) -> bool {
    // That its time cannot be set makes it go earlier, no more.
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    if let Err(error) = file.set_modified(SystemTime::now()) {
        log::debug!("{}: {error}", path.display());
    }
    true
}

/// Makes room for one more snapshot of `len` bytes at most where all may take `room`, the oldest first. `false`: it is too large.
pub(super) fn make_room(dir: &Path, len: u64, room: u64) -> io::Result<bool> {
    if len > room {
        return Ok(false);
    }
    let mut found: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What another run removes in this moment needs no room.
        if let Ok(data) = entry.metadata() {
            found.push((data.modified()?, data.len(), entry.path()));
        }
    }
    found.sort();
    let mut total: u64 = found.iter().map(|(_, len, _)| len).sum();
    for (_, its, path) in found {
        if total + len <= room {
            break;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => total -= its,
        }
    }
    Ok(total + len <= room)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use pincushion_devices::backend::MemoryDisk;
    use pincushion_devices::blk::{BlkConfig, BlkDevice};
    use pincushion_devices::context::Context;

    use super::*;
    use crate::scenario::model::{Initrd, KernelFormat};

    fn disk(name: &str) -> SharedDevice {
        let disk = Box::new(MemoryDisk::new(1 << 20));
        let disk = BlkDevice::new(BlkConfig::new(name), disk, Context::quiet());
        Arc::new(Mutex::new(disk.unwrap()))
    }

    fn placed(
        change: impl FnOnce(&mut Scenario, &mut RunInfo),
        devices: &[SharedDevice],
    ) -> String {
        let text = "name = 'x'\nsummary = 'y'\n[expect.default]\nverdict = 'pass'\n";
        let mut scenario = crate::scenario::parse(text, Path::new("x.toml")).unwrap();
        let mut info = RunInfo {
            image_digest: "d".into(),
            ..RunInfo::default()
        };
        change(&mut scenario, &mut info);
        let config =
            super::super::machine::config(&scenario.vm, Path::new("k"), "", Path::new("i"));
        let place = place(Path::new("/s"), &scenario, &info, &config, devices);
        place.map_or("none".into(), |path| path.display().to_string())
    }

    fn on_ext4(scenario: &mut Scenario, _: &mut RunInfo) {
        let text = "name = 'x'\nsummary = 'y'\n[[disk]]\nid = 'a'\nsize = '8M'\ncontent = 'ext4'\n\
                    [expect.default]\nverdict = 'pass'\n";
        scenario.disks = crate::scenario::parse(text, Path::new("x.toml"))
            .unwrap()
            .disks;
    }

    #[test]
    fn what_a_guest_can_have_seen_makes_the_name_and_its_disks_names_do_not() {
        let one = placed(|_, _| (), &[disk("a")]);
        assert!(one.starts_with("/s/"), "{one}");
        assert_eq!(placed(|_, _| (), &[disk("data")]), one);
        assert_eq!(placed(|_, _| (), &[disk("a"), disk("b")]), one);
        let by_mmio = |scenario: &mut Scenario, _: &mut RunInfo| {
            scenario.vm.transport = Transport::Mmio;
        };
        assert_ne!(
            placed(by_mmio, &[disk("a"), disk("b")]),
            placed(by_mmio, &[disk("a")])
        );
        let others = [
            placed(by_mmio, &[disk("a")]),
            placed(|scenario, _| scenario.vm.cpus = 1, &[disk("a")]),
            placed(|scenario, _| scenario.vm.memory = "1G".into(), &[disk("a")]),
            placed(|scenario, _| scenario.vm.cmdline = "x".into(), &[disk("a")]),
            placed(|_, info| info.image_digest = "e".into(), &[disk("a")]),
            placed(on_ext4, &[disk("a")]),
        ];
        assert!(!others.contains(&one));
        assert!(!others.contains(&"none".to_owned()));
    }

    #[test]
    fn a_scenario_about_booting_boots() {
        for change in [
            (|scenario, _| scenario.vm.fresh = true) as fn(&mut Scenario, &mut RunInfo),
            |scenario, _| scenario.vm.format = KernelFormat::Garbage,
            |scenario, _| scenario.vm.initrd = Initrd::None,
            |scenario, _| scenario.vm.programs.push("fio".into()),
            |scenario, _| scenario.tags.push("boot".into()),
            |_, info| info.image_digest.clear(),
        ] {
            assert_eq!(placed(change, &[]), "none");
        }
    }

    #[test]
    fn there_is_room_in_any_file_system_and_not_for_everything() {
        let room = room(Path::new("/")).unwrap();
        assert!(room > 0 && room <= 4 << 30, "{room}");
        assert!(super::room(Path::new("/none")).is_err());
    }

    #[test]
    fn the_oldest_snapshots_go_where_there_is_no_room() {
        let dir = tempfile::tempdir().unwrap();
        const ROOM: u64 = 1 << 30;
        let put = |name: &str, len: u64, age_s: u64| {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(len).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age_s);
            file.set_modified(time).unwrap();
        };
        put("used", ROOM / 4, 5);
        put("new", ROOM / 4, 20);
        put("old", ROOM / 2, 10);
        assert!(is_there(&dir.path().join("used")));
        assert!(!is_there(&dir.path().join("none")));
        assert!(make_room(dir.path(), ROOM / 4, ROOM).unwrap());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|entry| entry.file_name() != "old"));
        assert!(!make_room(dir.path(), ROOM + 1, ROOM).unwrap());
    }
}
