//! Both ends of the stream over a socket pair: the agent's server on a thread of this process, no machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pincushion_abi::nested::{Frame, Hello, Kind, SOURCES, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::process::Process;
use super::{Command, Ended, NestedError, NestedMachine};

/// Longer than anything takes here, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn hello() -> Hello {
    Hello {
        version: VERSION,
        sources: SOURCES.to_owned(),
        kernel: "test".to_owned(),
        kvm_trouble: None,
        tsc_trouble: None,
        warnings: Vec::new(),
    }
}

/// Something that is killed when the machine is dropped, in the place of QEMU.
fn stand_in() -> Process {
    let null = File::open("/dev/null").unwrap();
    let args = vec!["1000".into()];
    Process::start(Path::new("/bin/sleep"), args, null.into(), None).unwrap()
}

/// A machine whose agent is a thread.
fn machine() -> NestedMachine {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let writer = theirs.try_clone().unwrap();
        pincushion_agent::nested::serve(&mut &theirs, writer, &hello(), None).unwrap();
    });
    NestedMachine::greet(ours, stand_in(), LIMIT).unwrap()
}

/// A machine whose agent says `first` and then does as `rest` says.
fn strange_machine(
    first: Vec<u8>,
    rest: impl FnOnce(UnixStream) + Send + 'static,
) -> Result<NestedMachine, NestedError> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&first).unwrap();
    thread::spawn(move || rest(theirs));
    let mut ended = stand_in();
    ended.end();
    NestedMachine::greet(ours, ended, LIMIT)
}

fn hello_bytes(hello: &Hello) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = Frame::json(Kind::Hello, 0, hello).unwrap();
    frame.write_to(&mut bytes).unwrap();
    bytes
}

fn shell(line: &str) -> Command {
    Command::new(["/bin/sh", "-c", line])
}

fn run(machine: &NestedMachine, command: &Command) -> (Ended, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = machine.run(command, &mut stdout, &mut stderr).unwrap();
    (ended, stdout, stderr)
}

#[test]
fn exit_codes_and_signals_pass_through() {
    let machine = machine();
    assert_eq!(run(&machine, &shell("exit 0")).0, Ended::Exited(0));
    assert_eq!(run(&machine, &shell("exit 7")).0, Ended::Exited(7));
    assert_eq!(run(&machine, &shell("kill -9 $$")).0, Ended::Killed(9));
    assert_eq!(run(&machine, &shell("kill -15 $$")).0, Ended::Killed(15));
}

#[test]
fn output_and_errors_stay_apart_and_the_environment_arrives() {
    let machine = machine();
    let mut command = shell("echo out $WORD; echo err >&2; pwd; cat");
    command.env.insert("WORD".to_owned(), "a b".to_owned());
    command.cwd = Some("/".into());
    let (ended, stdout, stderr) = run(&machine, &command);
    assert_eq!(ended, Ended::Exited(0));
    assert_eq!(String::from_utf8(stdout).unwrap(), "out a b\n/\n");
    assert_eq!(String::from_utf8(stderr).unwrap(), "err\n");
}

#[test]
fn a_program_that_is_not_there_is_refused_and_the_next_command_runs() {
    let machine = machine();
    let missing = Command::new(["/no/such/program"]);
    let error = machine
        .run(&missing, &mut io::sink(), &mut io::sink())
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    assert_eq!(run(&machine, &shell("true")).0, Ended::Exited(0));
}

#[test]
fn a_hanging_command_ends_by_its_limit_with_all_it_started() {
    let machine = machine();
    let mut command = shell("sleep 1000 & echo $!; wait");
    command.limit = Some(Duration::from_millis(200));
    let (ended, stdout, _) = run(&machine, &command);
    assert_eq!(ended, Ended::LimitReached);
    let child = String::from_utf8(stdout).unwrap();
    wait_until_gone(child.trim().parse().unwrap());
}

/// Waits until a process that was killed is gone; dying takes a moment.
fn wait_until_gone(pid: i32) {
    let pid = Pid::from_raw(pid).unwrap();
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
    assert_eq!(ended, Ok(1), "{pid:?} still runs");
}

#[test]
fn what_a_command_leaves_behind_does_not_delay_its_end() {
    let machine = machine();
    let (ended, stdout, _) = run(&machine, &shell("sleep 1000 & echo done"));
    assert_eq!((ended, stdout), (Ended::Exited(0), b"done\n".to_vec()));
}

#[test]
fn output_beyond_the_window_arrives_complete() {
    let machine = machine();
    let (ended, stdout, _) = run(&machine, &shell("head -c 20000000 /dev/zero"));
    assert_eq!((ended, stdout.len()), (Ended::Exited(0), 20_000_000));
}

/// Lets the other end go on only when it is told to.
struct Gated(mpsc::Receiver<()>);

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The sender is gone once the gate is open for good.
        let _ = self.0.recv_timeout(LIMIT);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stands_still_does_not_hold_up_another_command() {
    let machine = machine();
    let (open, gate) = mpsc::channel();
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let endless = shell("head -c 20000000 /dev/zero");
            machine.run(&endless, &mut Gated(gate), &mut io::sink())
        });
        for _ in 0..20 {
            let (ended, stdout, _) = run(&machine, &shell("head -c 1000000 /dev/zero"));
            assert_eq!((ended, stdout.len()), (Ended::Exited(0), 1_000_000));
        }
        drop(open);
        assert_eq!(slow.join().unwrap().unwrap(), Ended::Exited(0));
    });
}

#[test]
fn a_writer_that_fails_kills_the_command() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let machine = machine();
    let endless = Command::new(["/usr/bin/yes"]);
    let error = machine
        .run(&endless, &mut Broken, &mut io::sink())
        .unwrap_err();
    assert!(matches!(error, NestedError::Output { .. }), "{error}");
    assert_eq!(run(&machine, &shell("true")).0, Ended::Exited(0));
}

#[test]
fn a_signal_reaches_the_command() {
    let machine = machine();
    let signaller = machine.signaller();
    struct SignalAtEachWord(super::Signaller);
    impl Write for SignalAtEachWord {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.signal_all(2);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // A word, and so a signal, each second: one that comes just before a shell waits may be heard only when the wait is over.
    let command = shell(
        "trap 'exit 42' INT; i=0; while [ $i -lt 60 ]; do i=$((i + 1)); echo ready; sleep 1; done",
    );
    let ended = machine.run(&command, &mut SignalAtEachWord(signaller), &mut io::sink());
    assert_eq!(ended.unwrap(), Ended::Exited(42));
}

#[test]
fn a_sparse_file_goes_there_and_back_as_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let file = File::create(path("from")).unwrap();
    file.set_len(256 << 20).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 100_000_001).unwrap();
    file.write_all_at(b"end", (256 << 20) - 3).unwrap();
    let machine = machine();
    machine
        .put(&path("from"), &path("deep/inside"), 0o640)
        .unwrap();
    machine.get(&path("deep/inside"), &path("back")).unwrap();
    let meta = fs::metadata(path("back")).unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o777), (256 << 20, 0o640));
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    assert!(fs::read(path("from")).unwrap() == fs::read(path("back")).unwrap());
}

#[test]
fn a_directory_comes_back_with_all_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, back) = (dir.path().join("inside"), dir.path().join("back"));
    let machine = machine();
    machine.make_dir(&inside.join("a/b")).unwrap();
    fs::write(inside.join("a/b/file"), "content").unwrap();
    fs::write(inside.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("a/b", inside.join("link")).unwrap();
    machine.get(&inside, &back).unwrap();
    // Again, over what is there now.
    machine.get(&inside, &back).unwrap();
    assert_eq!(fs::read(back.join("link/file")).unwrap(), b"content");
    assert_eq!(fs::read(back.join("empty")).unwrap(), b"");
    machine.remove(&inside).unwrap();
    machine.remove(&inside).unwrap();
    assert!(!inside.exists());
    assert!(matches!(
        machine.get(&inside, &back),
        Err(NestedError::Refused(_))
    ));
}

#[test]
fn bytes_that_are_there_are_not_sent_again_and_a_change_inside_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let from: PathBuf = dir.path().join("from");
    let inside = |name: &str| dir.path().join(name);
    fs::write(&from, "program").unwrap();
    let machine = machine();
    machine
        .put_if_changed(&from, &inside("one"), 0o755)
        .unwrap();
    let first = fs::metadata(inside("one")).unwrap().ino();
    machine
        .put_if_changed(&from, &inside("one"), 0o755)
        .unwrap();
    assert_eq!(
        first,
        fs::metadata(inside("one")).unwrap().ino(),
        "it was written again"
    );
    machine
        .put_if_changed(&from, &inside("two"), 0o700)
        .unwrap();
    assert_eq!(fs::read(inside("two")).unwrap(), b"program");
    assert_eq!(fs::metadata(inside("two")).unwrap().mode() & 0o777, 0o700);
    fs::write(inside("two"), "scribbled").unwrap();
    machine
        .put_if_changed(&from, &inside("two"), 0o700)
        .unwrap();
    assert_eq!(fs::read(inside("two")).unwrap(), b"program");
}

#[test]
fn a_missing_file_is_named() {
    let error = machine()
        .put(Path::new("/no/such/file"), Path::new("/x"), 0o644)
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

#[test]
fn an_agent_of_another_version_is_refused() {
    let other = Hello {
        version: VERSION + 1,
        ..hello()
    };
    let error = strange_machine(hello_bytes(&other), drop).err().unwrap();
    assert!(matches!(error, NestedError::Version { .. }), "{error}");
}

#[test]
fn an_agent_that_was_built_from_other_sources_is_refused_with_the_way_out() {
    for sources in ["", "0123456789abcdef"] {
        let stale = Hello {
            sources: sources.into(),
            ..hello()
        };
        let error = strange_machine(hello_bytes(&stale), drop).err().unwrap();
        assert!(matches!(error, NestedError::StaleAgent), "{error}");
        let said = error.to_string();
        assert!(
            said.contains("pincushion-nested-agent") && said.contains("`cargo build`"),
            "{said}"
        );
    }
}

#[test]
fn an_agent_that_talks_nonsense_is_refused() {
    let error = strange_machine(b"Kernel panic - not syncing".to_vec(), drop)
        .err()
        .unwrap();
    assert!(matches!(error, NestedError::QemuDied { .. }), "{error}");
    let mut wrong = hello_bytes(&hello());
    wrong[0] = Kind::Reply as u8;
    let error = strange_machine(wrong, drop).err().unwrap();
    assert!(matches!(error, NestedError::Wire(_)), "{error}");
}

#[test]
fn a_machine_that_ends_during_a_command_is_told() {
    let machine = strange_machine(hello_bytes(&hello()), |mut stream| {
        Frame::read_from(&mut stream).unwrap();
    });
    let error = machine
        .unwrap()
        .run(&shell("true"), &mut io::sink(), &mut io::sink());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ended while running \"/bin/sh\""), "{error}");
}

#[test]
fn a_machine_that_is_alive_is_asked_again_and_again_and_one_that_is_silent_is_given_up() {
    let mut machine = machine();
    machine.asked_every = Duration::from_millis(1);
    assert_eq!(run(&machine, &shell("sleep 0.1")).0, Ended::Exited(0));

    let (end, until_the_end) = mpsc::channel::<()>();
    let mut silent = strange_machine(hello_bytes(&hello()), move |stream| {
        let _ = until_the_end.recv();
        drop(stream);
    })
    .unwrap();
    silent.asked_every = Duration::from_millis(1);
    silent.silence_limit = Duration::from_millis(20);
    let error = silent.run(&shell("true"), &mut io::sink(), &mut io::sink());
    let error = error.unwrap_err();
    assert!(matches!(error, NestedError::NotAnswering { .. }), "{error}");
    drop(end);
}

#[test]
fn a_machine_that_never_says_hello_meets_the_boot_limit() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = NestedMachine::greet(ours, stand_in(), Duration::from_millis(50))
        .err()
        .unwrap();
    assert!(matches!(error, NestedError::BootLimit { .. }), "{error}");
}
