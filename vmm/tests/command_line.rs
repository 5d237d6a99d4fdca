//! What a user gets wrong at the command line, with the real program: the message, the exit code, and nothing that hangs.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pincushion_vmm::doctor::{KvmAbility, probe};
use pincushion_vmm::exit_code;
use support::Payload;
use tempfile::TempDir;

/// Far more than any of these commands needs, on a loaded host too.
const LIMIT: Duration = Duration::from_secs(60);

/// A directory to run the program in, with a kernel `k` that spins and a disk `d.img` of 1 MiB.
fn room() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("k"), Payload::new().spin().to_elf()).expect("a small file");
    let disk = File::create(dir.path().join("d.img")).expect("a small file");
    disk.set_len(1 << 20).expect("a small file");
    dir
}

/// `line` in `dir`; its words are parted by spaces.
fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pincushion"));
    command
        .args(line.split_whitespace())
        .current_dir(dir)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Waits for the end; kills what does not end.
fn ended(mut child: Child) -> (u8, String) {
    let begin = Instant::now();
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || stderr.read_to_string(&mut said).map(|_| said));
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("Linux 5.3");
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: LIMIT.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let ready = rustix::event::poll(&mut fds, Some(&limit)).expect("a wait");
    if ready == 0 {
        child.kill().expect("our child");
    }
    let status = child.wait().expect("our child");
    let said = reader.join().expect("a reader").expect("text");
    assert_eq!(
        status.signal(),
        None,
        "after {:?}, it said: {said}",
        begin.elapsed()
    );
    let code = status.code().expect("it ended by itself");
    (u8::try_from(code).expect("a byte"), said)
}

/// Each line, run in `dir`, ends with `code` and says all the words, in their order.
fn refused(dir: &Path, code: u8, cases: &[(&str, &[&str])]) {
    for (line, words) in cases {
        let (got, said) = ended(command(dir, line).spawn().expect("our program"));
        assert_eq!(got, code, "{line}: {said}");
        let mut rest = said.as_str();
        for word in *words {
            let found = rest.split_once(word);
            rest = found
                .unwrap_or_else(|| panic!("{line}: no `{word}` in: {said}"))
                .1;
        }
    }
}

#[test]
fn flags_that_cannot_be_meant_are_named_with_what_can() {
    let room = room();
    refused(
        room.path(),
        exit_code::BAD_ARGUMENTS,
        &[
            ("run", &["--kernel PATH"]),
            ("run --kernel k --memory 0", &["--memory 0", "16M"]),
            ("run --kernel k --memory 1", &["--memory 1", "16M"]),
            ("run --kernel k --memory 536870913", &["whole pages"]),
            (
                "run --kernel k --memory 1X",
                &["`1X` is not a size", "512M"],
            ),
            ("run --kernel k --cpus 0", &["--cpus 0", "1 to 16"]),
            ("run --kernel k --cpus 1000", &["--cpus 1000", "1 to 16"]),
            ("run --kernel k --limit 5", &["`5`", "90s"]),
            ("run --kernel k --console nowhere", &["`nowhere`", "stdio"]),
            ("run --kernel k --memroy 1G", &["--memroy", "--memory"]),
            ("run --kernel k --blk paht=d.img", &["`paht`", "`path`"]),
            (
                "run --kernel k --blk path=d.img,backend=urin",
                &["`urin`", "`uring`"],
            ),
            ("frobnicate", &["no command `frobnicate`"]),
            ("dcotor", &["did you mean `doctor`"]),
        ],
    );
}

#[test]
fn files_of_ours_are_refused_with_their_line() {
    let room = room();
    let write = |name: &str, text: &str| fs::write(room.path().join(name), text).unwrap();
    write("key.toml", "kernel = 'k'\nmemroy = '1G'\n");
    write("unit.toml", "kernel = 'k'\nmemory = '1X'\n");
    write("plan-key.toml", "[[rule]]\nnmae = 'x'\n");
    write("plan-rule.toml", "[[rule]]\nname = 'x'\n");
    write(
        "plan-cycle.toml",
        "[[rule]]\nafter-gate = 'a'\nopen-gate = 'b'\n[[rule]]\nafter-gate = 'b'\nopen-gate = 'a'\n",
    );
    refused(
        room.path(),
        exit_code::BAD_ARGUMENTS,
        &[
            ("run --config key.toml", &["key.toml:2:1", "`memory`"]),
            ("run --config unit.toml", &["unit.toml:2:10", "512M"]),
            ("run --config none.toml", &["--config none.toml"]),
            ("run --kernel k --plan none.toml", &["--plan none.toml"]),
            (
                "run --kernel k --plan plan-key.toml",
                &["plan-key.toml:2:1", "`name`"],
            ),
            (
                "run --kernel k --plan plan-rule.toml",
                &["plan-rule.toml", "rule `x`", "no action"],
            ),
            (
                "run --kernel k --plan plan-cycle.toml",
                &["plan-cycle.toml:1", "cycle of gates", "gate `b`"],
            ),
        ],
    );
}

#[test]
fn what_is_missing_or_unusable_is_a_setup_error() {
    let room = room();
    let file = |name: &str, len: u64| {
        let file = File::create(room.path().join(name)).unwrap();
        file.set_len(len).unwrap();
    };
    file("odd.img", 1000);
    file("empty.img", 0);
    file("big", 1 << 30);
    fs::write(room.path().join("text"), "#!/bin/sh\n").unwrap();
    fs::create_dir(room.path().join("dir")).unwrap();
    refused(
        room.path(),
        exit_code::SETUP_ERROR,
        &[
            ("run --kernel none", &["kernel none", "No such file"]),
            ("run --kernel text", &["text is not a kernel", "bzImage"]),
            ("run --kernel dir", &["kernel dir"]),
            (
                "run --kernel k --memory 1000000G",
                &["more than this host has", "--memory"],
            ),
            ("run --kernel k --initrd none", &["initrd none"]),
            (
                "run --kernel k --memory 64M --initrd big",
                &["initrd big", "does not fit", "--memory"],
            ),
            (
                "run --kernel k --blk path=none",
                &["id=blk0", "does not exist"],
            ),
            ("run --kernel k --blk path=dir,id=a", &["id=a", "directory"]),
            ("run --kernel k --blk path=empty.img", &["is empty"]),
            (
                "run --kernel k --blk path=odd.img",
                &["1000 bytes", "multiple of 512"],
            ),
            (
                "run --kernel k --blk path=d.img --blk path=d.img",
                &["id=blk1", "in use", "read-only"],
            ),
            (
                "run --kernel k --events text",
                &["--events text", "name a new file"],
            ),
            (
                "run --kernel k --events none/e",
                &["--events none/e", "directory"],
            ),
            (
                "run --kernel k --console file=none/c",
                &["console file none/c"],
            ),
        ],
    );
    let kept = fs::read(room.path().join("text")).unwrap();
    assert_eq!(kept, b"#!/bin/sh\n", "--events must not empty a file");
}

#[test]
fn a_region_or_a_wire_that_cannot_be_had_is_a_setup_error_with_the_way_out() {
    let room = room();
    let file = |name: &str, len: u64| {
        let file = File::create(room.path().join(name)).unwrap();
        file.set_len(len).unwrap();
    };
    file("odd.pmem", (2 << 20) + 512);
    file("small.pmem", 2 << 20);
    fs::write(room.path().join("text"), "#!/bin/sh\n").unwrap();
    refused(
        room.path(),
        exit_code::SETUP_ERROR,
        &[
            (
                "run --kernel k --pmem path=none",
                &["--pmem id=pmem0", "does not exist", "truncate -s"],
            ),
            (
                "run --kernel k --pmem path=odd.pmem,id=p",
                &["--pmem id=p", "multiple of 2 MiB", "truncate -s 4194304"],
            ),
            (
                "run --kernel k --pmem path=small.pmem,size=4M",
                &["2097152 bytes", "size=4194304", "truncate"],
            ),
            (
                "run --kernel k --net pcap=text",
                &["--net id=net0", "text: at byte 0"],
            ),
            (
                "run --kernel k --net tap=pinno9,id=n",
                &["--net id=n", "`pinno9`", "ip tuntap add"],
            ),
        ],
    );
}

#[test]
fn linux_on_a_kvm_that_cannot_run_it_is_refused_at_once() {
    if !matches!(probe(), KvmAbility::PayloadsOnly { .. }) {
        eprintln!("skipped: this host's KVM is not of that kind");
        return;
    }
    let room = room();
    let mut kernel = Payload::new().spin().to_elf();
    kernel.extend(b"Linux version 6.12.0");
    fs::write(room.path().join("linux"), kernel).unwrap();
    let line = "run --kernel linux --memory 16M --console off";
    refused(
        room.path(),
        exit_code::NO_USABLE_KVM,
        &[(line, &["Linux kernel", "pincushion nested"])],
    );
}

/// A guest that prints a line and spins, once it has printed it; `None`, said aloud, without KVM.
fn spinning(dir: &Path, more: &str) -> Option<Child> {
    if let KvmAbility::None { reason } = probe() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let payload = Payload::new().print("up\n").spin();
    fs::write(dir.join("spin"), payload.to_elf()).expect("a small file");
    let line = format!("run --kernel spin --memory 16M --limit 60s {more}");
    let mut child = command(dir, &line)
        .stdout(Stdio::piped())
        .spawn()
        .expect("our program");
    let mut up = [0; 3];
    let stdout = child.stdout.as_mut().expect("piped");
    if stdout.read_exact(&mut up).is_err() {
        let (code, said) = ended(child);
        panic!("it ended with {code} before it was up: {said}");
    }
    assert_eq!(&up, b"up\n");
    Some(child)
}

/// Standard output whose reader has gone, as `head` goes after its lines.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_command_that_only_prints_ends_quietly_when_nobody_reads() {
    let room = room();
    let output = command(room.path(), "doctor --json")
        .stdout(unread())
        .output()
        .expect("our program");
    assert_eq!(output.status.signal(), Some(libc::SIGPIPE), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_guest_goes_on_when_nobody_reads_its_console() {
    if let KvmAbility::None { reason } = probe() {
        eprintln!("skipped: {reason}");
        return;
    }
    let room = room();
    let payload = Payload::new().print("one\n").print("two\n").spin();
    fs::write(room.path().join("talk"), payload.to_elf()).expect("a small file");
    let line = "run --kernel talk --memory 16M --limit 1s";
    let child = command(room.path(), line)
        .stdout(unread())
        .spawn()
        .expect("our program");
    let (code, said) = ended(child);
    assert_eq!(code, exit_code::HANG, "it spins until its limit: {said}");
    assert_eq!(said.matches("nobody reads").count(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_image_of_a_running_machine_is_refused_to_a_second() {
    let room = room();
    let Some(first) = spinning(room.path(), "--blk path=d.img") else {
        return;
    };
    let holder = first.id().to_string();
    refused(
        room.path(),
        exit_code::SETUP_ERROR,
        &[(
            "run --kernel k --blk path=d.img",
            &["d.img", "in use", &holder],
        )],
    );
    signal(&first, rustix::process::Signal::TERM);
    assert_eq!(ended(first).0, exit_code::TERMINATED);
}

#[test]
fn a_signal_stops_the_guest_in_order() {
    let room = room();
    let Some(child) = spinning(room.path(), "--events e.jsonl") else {
        return;
    };
    signal(&child, rustix::process::Signal::INT);
    let (code, said) = ended(child);
    assert_eq!(code, exit_code::INTERRUPTED, "{said}");
    assert!(said.contains("once more leaves at once"), "{said}");
    let events = fs::read_to_string(room.path().join("e.jsonl")).unwrap();
    assert!(events.contains("stopped"), "the log has its end: {events}");
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("our child");
}
