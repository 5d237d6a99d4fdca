//! A disk whose host file system is full, in a machine: the guest sees an I/O error and goes on. Needs KVM, and root for a
//! file system of its own; skipped, with a word, without.

mod support;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use pincushion_devices::fault::Plan;
use pincushion_vmm::assembly::Assembly;
use pincushion_vmm::config::{BlkConfig, Transport, VmConfig, key_values};
use pincushion_vmm::machine::{Exit, Parts};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use support::{Payload, machine_with};

/// The window of the first device (virtio 1.2, 4.2.2), and where the driver's structures lie.
const WINDOW: u32 = 0xd000_0000;
const DESCRIPTORS: u32 = 0x20_0000;
const AVAIL: u32 = 0x20_1000;
const USED: u32 = 0x20_2000;
const HEADER: u32 = 0x20_3000;
const STATUS: u32 = 0x20_4000;
const DATA: u32 = 0x30_0000;

const VIRTQ_DESC_F_NEXT: u32 = 1;
const VIRTQ_DESC_F_WRITE: u32 = 2;

/// More than the file system holds, and as much as one descriptor may have.
const TOO_MUCH: u32 = 64 << 10;

/// A file system of 32 KiB in memory that only its descriptor reaches.
fn tiny_file_system() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", "32k")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

/// Brings the device up with one queue of 16.
fn with_driver() -> Payload {
    [
        (0x70, 0x3),         // status: acknowledge, driver
        (0x24, 1),           // driver features, upper half: VERSION_1
        (0x20, 1),           //
        (0x70, 0xb),         // features ok
        (0x30, 0),           // queue 0
        (0x38, 16),          // its size
        (0x80, DESCRIPTORS), //
        (0x90, AVAIL),       //
        (0xa0, USED),        //
        (0x44, 1),           // queue ready
        (0x70, 0xf),         // driver ok
    ]
    .iter()
    .fold(Payload::new(), |payload, (register, value)| {
        payload.store(WINDOW + register, *value)
    })
}

/// Sends request number `count`, from 1 to 2, and waits until the device has used it. Its status lies at [`STATUS`].
fn request(payload: Payload, count: u32, kind: u32, len: u32, data_flags: u32) -> Payload {
    let chain = [
        (HEADER, 16, VIRTQ_DESC_F_NEXT),
        (DATA, len, VIRTQ_DESC_F_NEXT | data_flags),
        (STATUS, 1, VIRTQ_DESC_F_WRITE),
    ];
    let payload = payload.store(HEADER, kind).store(STATUS, 0);
    let payload = (0..).zip(chain).fold(payload, |payload, (index, entry)| {
        let (address, len, flags) = entry;
        let at = DESCRIPTORS + 16 * index;
        payload
            .store(at, address)
            .store(at + 8, len)
            .store(at + 12, flags | (index + 1) << 16)
    });
    payload
        .store(AVAIL, count << 16)
        .store(WINDOW + 0x50, 0)
        .wait_for(USED, count << 16)
}

#[test]
fn the_guest_sees_an_io_error_and_goes_on() {
    let mount = match tiny_file_system() {
        Ok(mount) => mount,
        Err(errno) => {
            eprintln!("skipped: cannot mount a tiny file system: {errno}");
            return;
        }
    };
    let logs = tempfile::tempdir().expect("a temporary directory");
    for backend in ["file", "uring"] {
        let log = logs.path().join(backend);
        let path = format!("/proc/self/fd/{}/{backend}.img", mount.as_raw_fd());
        let image = File::create(&path).expect("an empty file needs no space");
        image.set_len(1 << 20).expect("a hole needs no space");
        // The write must end with VIRTIO_BLK_S_IOERR, 1: only that sets bit 0. Then a read is still answered.
        let payload = request(with_driver(), 1, 1, TOO_MUCH, 0).wait_for(STATUS, 1);
        let payload = request(payload, 2, 0, 4096, VIRTQ_DESC_F_WRITE).power_off();
        let kernel = payload.to_kernel();
        let blk: BlkConfig =
            key_values::parse(&format!("path={path},backend={backend}")).expect("a disk");
        let config = VmConfig {
            kernel: Some(kernel.path().to_owned()),
            memory: 16 << 20,
            blk: vec![blk],
            events: Some(log.clone()),
            transport: Transport::Mmio,
            ..VmConfig::default()
        };
        let config = config.resolve().expect("a machine");
        let assembly = Assembly::new(&config, Plan::default()).expect("its parts");
        let parts = Parts {
            devices: assembly.devices.clone(),
            ..Parts::default()
        };
        let Some(machine) = machine_with(config.machine(), parts) else {
            return;
        };
        let exit = machine
            .start()
            .expect("threads")
            .wait(Some(Duration::from_secs(60)));
        assert_eq!(exit, Exit::PowerOff, "{backend}");
        let events = std::fs::read_to_string(&log).expect("the event log");
        assert!(events.contains("No space left"), "{backend}: {events}");
        std::fs::remove_file(&path).expect("our file");
    }
}
