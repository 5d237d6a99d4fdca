//! The command line with the real program: what needs no guest.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

/// Runs the program; its standard output goes to a reader that has gone, as `head` goes after its lines.
fn unread(args: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    Command::new(env!("CARGO_BIN_EXE_pincushion-test"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("our program")
}

#[test]
fn commands_that_only_print_end_quietly_when_nobody_reads() {
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["show", "no-overlap"],
        &[
            "check",
            concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/no-overlap.toml"),
        ],
    ] {
        let output = unread(args);
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGPIPE),
            "{args:?}: {output:?}"
        );
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn help_that_nobody_reads_is_no_failure() {
    let output = unread(&["--help"]);
    assert!(output.stderr.is_empty(), "{output:?}");
}
