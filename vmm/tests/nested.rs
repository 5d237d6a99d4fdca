//! A real nested machine: booted once, used by every test here, gone with this process.
//!
//! Ignored by default, since it emulates a whole machine and fetches a kernel. To run it:
//!
//! ```text
//! cargo build -p pincushion-agent && cargo test -p pincushion-vmm --test nested -- --ignored --skip inside
//! ```
//!
//! The program that runs in there is this very file: [`inside`], chosen by an environment variable.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy knows only those in test functions"
)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use pincushion_vmm::nested::{
    Command, Ended, NestedConfig, NestedMachine, boot_files, ensure_qemu, find_agent,
};

const PROGRAM: &str = "/bin/inside";
const WHAT: &str = "PINCUSHION_INSIDE";
const BEGIN: &[u8] = b"<<<begin>>>";
const BIG: usize = 64 << 20;

/// What the big output consists of: every byte depends on its place.
fn noise() -> impl Iterator<Item = [u8; 8]> {
    (0..BIG as u64 / 8).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n >> 7)).to_le_bytes())
}

/// The commands that run in the machine. On the host this does nothing.
#[test]
#[ignore = "runs inside of the nested machine"]
fn inside() {
    let Ok(what) = std::env::var(WHAT) else {
        return;
    };
    match what.as_str() {
        "exit 7" => std::process::exit(7),
        "abort" => std::process::abort(),
        "hang" => loop {
            thread::park();
        },
        "print" => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            out.write_all(BEGIN).unwrap();
            for bytes in noise() {
                out.write_all(&bytes).unwrap();
            }
        }
        "exhaust memory" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1_u8; 1 << 20]);
            }
        }
        other => panic!("no such command: {other}"),
    }
}

fn machine() -> &'static NestedMachine {
    static MACHINE: OnceLock<NestedMachine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let progress = |line: &str| eprintln!("{line}");
        ensure_qemu(&progress).unwrap();
        let (kernel, initrd) = boot_files(&find_agent().unwrap(), &progress).unwrap();
        let config = NestedConfig::new(kernel, initrd);
        let machine = NestedMachine::boot(&config, &progress).unwrap();
        let this = std::env::current_exe().unwrap();
        machine
            .put_if_changed(&this, Path::new(PROGRAM), 0o755)
            .unwrap();
        machine
    })
}

fn inside_command(what: &str) -> Command {
    let argv = [
        PROGRAM,
        "--ignored",
        "--exact",
        "inside",
        "--nocapture",
        "--quiet",
    ];
    let mut command = Command::new(argv);
    command.env.insert(WHAT.to_owned(), what.to_owned());
    command.limit = Some(Duration::from_secs(300));
    command
}

fn run(command: &Command) -> (Ended, Vec<u8>) {
    let mut output = Vec::new();
    let ended = machine()
        .run(command, &mut output, &mut io::stderr())
        .unwrap();
    (ended, output)
}

#[test]
#[ignore = "boots a nested machine"]
fn exit_codes_and_signals_pass_through() {
    assert_eq!(run(&inside_command("exit 7")).0, Ended::Exited(7));
    assert_eq!(run(&inside_command("abort")).0, Ended::Killed(6));
}

#[test]
#[ignore = "boots a nested machine"]
fn a_hanging_command_is_cut_by_its_limit() {
    let mut hanging = inside_command("hang");
    hanging.limit = Some(Duration::from_secs(2));
    assert_eq!(run(&hanging).0, Ended::LimitReached);
    assert_eq!(run(&inside_command("exit 7")).0, Ended::Exited(7));
}

fn assert_is_noise(output: &[u8]) {
    let begin = output
        .windows(BEGIN.len())
        .position(|window| window == BEGIN)
        .unwrap();
    let payload = &output[begin + BEGIN.len()..][..BIG];
    let place = payload
        .chunks(8)
        .zip(noise())
        .position(|(got, made)| got != made);
    assert_eq!(place, None, "the first wrong group of eight bytes");
}

#[test]
#[ignore = "boots a nested machine"]
fn output_of_64_mib_arrives_intact_also_when_two_commands_print_at_once() {
    machine();
    let begin = Instant::now();
    let (ended, output) = run(&inside_command("print"));
    assert_eq!(ended, Ended::Exited(0));
    assert_is_noise(&output);
    eprintln!("64 MiB of output took {:?}", begin.elapsed());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_is_noise(&run(&inside_command("print")).1));
        }
    });
}

#[test]
#[ignore = "boots a nested machine"]
fn a_sparse_file_goes_there_and_back_as_holes() {
    const LEN: u64 = 256 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (from, back) = (dir.path().join("from"), dir.path().join("back"));
    let file = File::create(&from).unwrap();
    file.set_len(LEN).unwrap();
    for at in [0, LEN / 3, LEN - 4] {
        file.write_all_at(b"data", at).unwrap();
    }
    let begin = Instant::now();
    machine()
        .put(&from, Path::new("/tmp/sparse"), 0o600)
        .unwrap();
    machine().get(Path::new("/tmp/sparse"), &back).unwrap();
    machine().remove(Path::new("/tmp/sparse")).unwrap();
    eprintln!("a sparse file took {:?}", begin.elapsed());
    let meta = fs::metadata(&back).unwrap();
    assert_eq!(meta.len(), LEN);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    assert!(fs::read(&from).unwrap() == fs::read(&back).unwrap());
}

#[test]
#[ignore = "boots a nested machine"]
fn a_file_of_64_mib_goes_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (from, back) = (dir.path().join("from"), dir.path().join("back"));
    let content: Vec<u8> = noise().flatten().collect();
    fs::write(&from, &content).unwrap();
    let inside = Path::new("/tmp/big/file");
    machine();
    let begin = Instant::now();
    machine().put_if_changed(&from, inside, 0o600).unwrap();
    eprintln!("sending 64 MiB took {:?}", begin.elapsed());
    let begin = Instant::now();
    machine().put_if_changed(&from, inside, 0o600).unwrap();
    eprintln!("sending them again took {:?}", begin.elapsed());
    let begin = Instant::now();
    machine().get(inside, &back).unwrap();
    eprintln!("fetching them took {:?}", begin.elapsed());
    machine().remove(Path::new("/tmp/big")).unwrap();
    assert!(fs::read(&back).unwrap() == content);
}

#[test]
#[ignore = "boots a nested machine"]
fn a_command_that_takes_all_memory_is_killed_and_the_next_one_runs() {
    assert_eq!(run(&inside_command("exhaust memory")).0, Ended::Killed(9));
    assert_eq!(run(&inside_command("exit 7")).0, Ended::Exited(7));
}
