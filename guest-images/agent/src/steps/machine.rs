//! Modules, disks, drivers, and the ends that a machine can come to.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use pincushion_abi::Fault;

use crate::agent::Agent;
use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::modules;
use crate::stamp::Stamp;
use crate::sys::{file, process};

const VIRTIO: &str = "/sys/bus/virtio/devices";

/// Loads a module of the image.
pub fn load_module(stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let loaded = stamp.around(|| modules::load_by_name(name))?;
    Ok(Found::nothing().texts("loaded", loaded))
}

/// Finds the disk with a serial.
pub fn find_disk(stamp: &mut Stamp<'_>, serial: &str) -> StepResult {
    let disks = stamp
        .around(|| disks(Path::new("/sys/block")))
        .map_err(|error| fault::io("read /sys/block", &error))?;
    match disks.iter().find(|disk| disk.serial == serial) {
        Some(disk) => Ok(Found::nothing()
            .text("path", format!("/dev/{}", disk.name))
            .text("bus", disk.bus.as_str())),
        None => {
            let seen: Vec<String> = disks
                .iter()
                .map(|disk| format!("{} {:?}", disk.name, disk.serial))
                .collect();
            Err(sentence(
                "find-disk",
                format!(
                    "no virtio disk has the serial {serial:?}; seen: [{}]",
                    seen.join(", ")
                ),
            ))
        }
    }
}

struct Disk {
    name: String,
    serial: String,
    bus: String,
}

fn disks(root: &Path) -> std::io::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("vd") {
            continue;
        }
        // A disk that goes away while it is looked at counts as one without a serial.
        let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        let device = fs::read_link(entry.path().join("device")).unwrap_or_default();
        disks.push(Disk {
            name,
            serial: serial.trim().to_owned(),
            bus: last_part(&device),
        });
    }
    Ok(disks)
}

/// Unbinds and binds a driver.
pub fn rebind(stamp: &mut Stamp<'_>, device: &str) -> StepResult {
    let link = PathBuf::from(VIRTIO).join(device).join("driver");
    if device.is_empty() || device.contains('/') || !link.exists() {
        return Err(sentence(
            "rebind",
            format!(
                "no virtio device {device:?} with a driver; known: {}",
                devices()
            ),
        ));
    }
    let driver = last_part(&fs::read_link(&link).map_err(|error| fault::io("readlink", &error))?);
    let open = |end: &str| {
        let path = PathBuf::from("/sys/bus/virtio/drivers")
            .join(&driver)
            .join(end);
        File::options()
            .write(true)
            .open(path)
            .map_err(|error| fault::io("open", &error))
    };
    let (mut unbind, mut bind) = (open("unbind")?, open("bind")?);
    stamp.around(|| {
        unbind
            .write_all(device.as_bytes())
            .map_err(|error| fault::io("unbind", &error))?;
        bind.write_all(device.as_bytes())
            .map_err(|error| fault::io("bind", &error))
    })?;
    Ok(Found::nothing().text("driver", driver))
}

fn devices() -> String {
    let entries = fs::read_dir(VIRTIO).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

fn last_part(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `reboot(2)` without sync. Comes back only when it failed.
pub fn reboot(stamp: &mut Stamp<'_>) -> StepResult {
    stamp.begin();
    Err(process::reboot(libc::RB_AUTOBOOT).into())
}

/// `sync` and power off. Comes back only when it failed.
pub fn power_off(stamp: &mut Stamp<'_>) -> StepResult {
    stamp.begin();
    file::sync();
    Err(process::reboot(libc::RB_POWER_OFF).into())
}

/// Crashes the kernel. Comes back only when it failed.
pub fn panic(stamp: &mut Stamp<'_>) -> StepResult {
    let trigger = File::options().write(true).open("/proc/sysrq-trigger");
    let mut trigger = trigger.map_err(|error| fault::io("open", &error))?;
    stamp.begin();
    let written = trigger.write_all(b"c");
    Err(still_alive(written))
}

fn still_alive(written: std::io::Result<()>) -> Fault {
    match written {
        Ok(()) => sentence("sysrq", "the kernel lives on after sysrq c"),
        Err(error) => fault::io("write", &error),
    }
}

/// Stops answering: no report leaves any more, no name is found any more.
pub fn hang(agent: &Agent, stamp: &mut Stamp<'_>) -> ! {
    stamp.begin();
    agent.port.seize();
    let _names = agent.names();
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn a_disk_is_known_by_its_serial_and_its_bus_name_by_the_device_link() {
        let root = tempfile::tempdir().unwrap();
        for (name, serial, device) in [
            ("vda", "first\n", "../../../virtio0"),
            ("vdb", "hold", "../../../virtio1"),
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("serial"), serial).unwrap();
            symlink(device, root.path().join(name).join("device")).unwrap();
        }
        fs::create_dir(root.path().join("loop0")).unwrap();
        let mut found = disks(root.path()).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let told: Vec<_> = found
            .iter()
            .map(|d| (d.name.as_str(), d.serial.as_str(), d.bus.as_str()))
            .collect();
        assert_eq!(
            told,
            [("vda", "first", "virtio0"), ("vdb", "hold", "virtio1")]
        );
    }

    #[test]
    fn a_missing_disk_or_device_is_named() {
        let bench = Bench::new();
        assert!(
            bench
                .fails(json!({"op": "find-disk", "serial": "none such"}))
                .name
                .contains("\"none such\"")
        );
        assert!(
            bench
                .fails(json!({"op": "rebind", "device": "../x"}))
                .name
                .contains("\"../x\"")
        );
    }
}
