//! Snapshots of guests of a few instructions on this host's KVM. Skipped, with a word, where there is none.

mod support;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pincushion_vmm::console::Console;
use pincushion_vmm::machine::{Exit, Machine, MachineConfig, MachineError, Parts, Running};
use pincushion_vmm::snapshot::{Check, Likeness, Snapshot};
use support::bell::Bell;
use support::{Payload, machine, machine_with};

/// Far more than any of these guests needs, on a loaded host too.
const LIMIT: Duration = Duration::from_secs(60);

/// Says "ready", waits for a byte at the second serial port, and then prints what it had in a register and in memory before.
fn waiting_guest() -> Payload {
    const PLACE: u32 = 0x5000;
    // mov dx,0x3f8; mov al,bl; out dx,al
    let print_bl = [0x66, 0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee];
    // mov dx,0x3f8; out dx,al
    let print_al = [0x66, 0xba, 0xf8, 0x03, 0xee];
    Payload::new()
        .outb(0x2fc, 0x08)
        .outb(0x2f9, 1)
        // mov ebx, 'r'
        .code(&[0xbb, b'r', 0, 0, 0])
        .store_byte(PLACE, b'm')
        .print("ready\n")
        // l: mov dx,0x2fd; in al,dx; test al,1; jz l
        .code(&[0x66, 0xba, 0xfd, 0x02, 0xec, 0xa8, 0x01, 0x74, 0xf7])
        .code(&print_bl)
        .load_byte(PLACE)
        .code(&print_al)
        .print("\n")
        .power_off()
}

fn parts() -> (Parts, Receiver<String>) {
    let (lines, heard) = channel();
    let console = Console::new().to_lines(move |line| {
        let _ = lines.send(line.to_owned());
    });
    let parts = Parts {
        console,
        ..Parts::default()
    };
    (parts, heard)
}

/// Waits for the machine in a thread of its own, as orders need somebody who waits.
fn in_background(mut running: Running) -> std::thread::JoinHandle<Exit> {
    std::thread::spawn(move || running.wait(Some(LIMIT)))
}

/// A snapshot of the waiting guest at `path`; the guest itself went on to its end. `None` without KVM.
fn saved(kernel: &Path, path: &Path) -> Option<()> {
    let (parts, heard) = parts();
    let machine = machine(kernel, parts)?;
    let (remote, agent) = (machine.remote(), machine.agent_sender());
    let end = in_background(machine.start().expect("it starts"));
    assert_eq!(heard.recv_timeout(LIMIT), Ok("ready".into()));
    let len = remote.snapshot(path, "a note").expect("a file can be made");
    assert_eq!(len, std::fs::metadata(path).expect("it is there").len());
    agent.send(b"x");
    assert_eq!(heard.recv_timeout(LIMIT), Ok("rm".into()), "it goes on");
    assert_eq!(end.join().expect("no panic"), Exit::PowerOff);
    Some(())
}

fn config(kernel: &Path) -> MachineConfig {
    MachineConfig {
        memory_bytes: 4 << 20,
        ..MachineConfig::new(kernel)
    }
}

#[test]
fn a_restored_guest_goes_on_between_two_instructions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.snapshot");
    let kernel = waiting_guest().to_kernel();
    if saved(kernel.path(), &path).is_none() {
        return;
    }
    // The kernel is not needed any more.
    let gone = MachineConfig {
        kernel: "/nowhere".into(),
        ..config(kernel.path())
    };
    for _ in 0..3 {
        let snapshot = Snapshot::open(&path, Check::Whole).unwrap();
        assert_eq!(snapshot.note(), "a note");
        let (parts, heard) = parts();
        let machine = Machine::restore(gone.clone(), parts, &snapshot, Likeness::Same).unwrap();
        machine.agent_sender().send(b"x");
        let end = in_background(machine.start().unwrap());
        assert_eq!(heard.recv_timeout(LIMIT).unwrap(), "rm");
        assert_eq!(end.join().unwrap(), Exit::PowerOff);
    }
}

#[test]
fn another_machine_and_a_file_that_is_not_whole_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.snapshot");
    let kernel = waiting_guest().to_kernel();
    if saved(kernel.path(), &path).is_none() {
        return;
    }
    let snapshot = Snapshot::open(&path, Check::State).unwrap();
    let two = MachineConfig {
        vcpus: 2,
        ..config(kernel.path())
    };
    let refused = Machine::restore(two, Parts::default(), &snapshot, Likeness::Same);
    let Err(error @ MachineError::Snapshot(_)) = refused.map(|_| ()) else {
        panic!("a machine with another number of vCPUs was restored");
    };
    assert!(error.to_string().contains("it has 1 vCPUs, this one 2"));

    let whole = std::fs::read(&path).unwrap();
    let bad = dir.path().join("bad");
    let opened = |bytes: &[u8], check| {
        std::fs::write(&bad, bytes).unwrap();
        let opened = Snapshot::open(&bad, check).map(|_| ());
        opened.map_err(|error| error.to_string())
    };
    assert_eq!(opened(&whole, Check::Whole), Ok(()));
    for len in [0, 20, 55, 4095, 4096, 8192, whole.len() - 1] {
        let said = opened(&whole[..len], Check::State).unwrap_err();
        assert!(said.contains("cut short"), "{len} bytes: {said}");
    }
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let said = |bytes: &[u8], check| opened(bytes, check).unwrap_err();
    assert!(said(&changed(0), Check::State).contains("does not begin like one"));
    assert!(said(&changed(16), Check::State).contains("version"));
    assert!(said(&changed(whole.len() - 1), Check::State).contains("its state is damaged"));
    assert!(said(&changed(4096 + 7), Check::Whole).contains("its memory is damaged"));
    assert_eq!(opened(&changed(4096 + 7), Check::State), Ok(()));
    assert!(said(b"", Check::State).contains("cut short"));
}

#[test]
fn a_snapshot_that_cannot_be_written_stops_nothing() {
    let kernel = waiting_guest().to_kernel();
    let (parts, heard) = parts();
    let Some(machine) = machine(kernel.path(), parts) else {
        return;
    };
    let (remote, agent) = (machine.remote(), machine.agent_sender());
    let end = in_background(machine.start().unwrap());
    heard.recv_timeout(LIMIT).unwrap();
    let refused = remote.snapshot(Path::new("/no/such/place/x"), "");
    let said = refused.unwrap_err().to_string();
    assert!(
        said.contains("cannot write the snapshot /no/such/place/x"),
        "{said}"
    );
    agent.send(b"x");
    assert_eq!(end.join().unwrap(), Exit::PowerOff);
}

/// Says "ready", waits for a byte at the second serial port, and prints the low bit of the vendor in the first slot of the PCI bus: 0 for
/// virtio's, 1 where there is nothing.
fn looking_guest() -> Payload {
    Payload::new()
        .outb(0x2fc, 0x08)
        .outb(0x2f9, 1)
        .print("ready\n")
        // l: mov dx,0x2fd; in al,dx; test al,1; jz l
        .code(&[0x66, 0xba, 0xfd, 0x02, 0xec, 0xa8, 0x01, 0x74, 0xf7])
        .outl(0xcf8, 0x8000_0800)
        // mov dx,0xcfc; in eax,dx; and al,1; add al,'0'
        .code(&[0x66, 0xba, 0xfc, 0x0c, 0xed, 0x24, 0x01, 0x04, b'0'])
        // mov dx,0x3f8; out dx,al
        .code(&[0x66, 0xba, 0xf8, 0x03, 0xee])
        .print("\n")
        .power_off()
}

#[test]
fn devices_are_plugged_into_a_guest_of_a_snapshot_that_had_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guest.snapshot");
    let kernel = looking_guest().to_kernel();
    let config = MachineConfig {
        hot_plug: true,
        ..config(kernel.path())
    };
    let (parts_of_first, heard) = parts();
    let Some(machine) = machine_with(config.clone(), parts_of_first) else {
        return;
    };
    let (remote, stop) = (machine.remote(), machine.stop_handle());
    let end = in_background(machine.start().unwrap());
    assert_eq!(heard.recv_timeout(LIMIT), Ok("ready".into()));
    remote.snapshot(&path, "").unwrap();
    stop.stop();
    assert_eq!(end.join().unwrap(), Exit::Stopped);

    let snapshot = Snapshot::open(&path, Check::Whole).unwrap();
    for (is_plugged_in, seen) in [(true, "0"), (false, "1")] {
        let (mut parts, heard) = parts();
        parts.devices = vec![Bell::shared().0];
        let restored =
            Machine::restore(config.clone(), parts, &snapshot, Likeness::BeforeDrivers).unwrap();
        if is_plugged_in {
            restored.hot_plug().plug_in();
        }
        restored.agent_sender().send(b"x");
        let end = in_background(restored.start().unwrap());
        assert_eq!(heard.recv_timeout(LIMIT).unwrap(), seen);
        assert_eq!(end.join().unwrap(), Exit::PowerOff);
    }
}
