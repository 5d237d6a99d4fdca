//! What every pincushion program does in the same way: its log, its exit codes, and what becomes of it when nobody reads what it
//! prints. It lives in this crate because all programs are built on it.
#![expect(
    unsafe_code,
    reason = "the disposition of SIGPIPE is set by a call that has no safe wrapper"
)]

pub mod exit_code;

use std::fmt::Display;
use std::io::{self, Write};

/// What a command does when the reader of its output has gone, as `head` goes after its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutReader {
    /// It ends at once and quietly, by SIGPIPE, as other programs do. For commands that only print.
    End,
    /// It goes on, since it does more than print: a guest runs, files are made. What it prints by [`tell`] and [`complain`] is
    /// lost then.
    GoOn,
}

/// Begins a program: the log goes to standard error as `RUST_LOG` says, warnings by default. To be called once, before anything is
/// printed.
pub fn begin(without_reader: WithoutReader) {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .init();
    if without_reader == WithoutReader::End {
        // SAFETY: the default disposition runs no code of ours. Rust's runtime has set the signal to be ignored.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
}

/// Prints a line on standard output. A reader that has gone is no error.
///
/// # Errors
/// The line could not be written for another reason, such as a full disk.
pub fn tell(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    lenient(writeln!(out, "{line}").and_then(|()| out.flush()))
}

/// Prints a line on standard error. There is nobody to tell if that fails.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A reader that has gone is no error.
fn lenient(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gone_reader_is_forgiven() {
        assert!(lenient(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(lenient(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
