//! A child on the host: started, listened to, and killed when its time is over.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::stop::{Stop, UnderWay};

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChildEnd {
    /// By itself and well: its log tells everything.
    Done,
    /// It failed, or was killed by a signal.
    Crashed(String),
    /// It was still there when its time was over.
    LimitReached,
    /// It could not be started; the words are for people.
    NotStarted(String),
    /// The user wished to stop before it had ended.
    Stopped,
}

/// Runs a child until it ends, its time is over or the user stops it; every line that it prints, on either stream, goes to `each_line`.
pub(super) fn run(
    mut command: Command,
    limit: Duration,
    stop: &Stop,
    each_line: &mut dyn FnMut(&str),
) -> ChildEnd {
    let not_started = |error: std::io::Error| ChildEnd::NotStarted(error.to_string());
    let (reader, writer) = match std::io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return not_started(error),
    };
    let second = match writer.try_clone() {
        Ok(second) => second,
        Err(error) => return not_started(error),
    };
    command.stdin(Stdio::null()).stdout(writer).stderr(second);
    // A Ctrl-C on the terminal is for us alone: it becomes a wish to stop, and then a SIGTERM.
    command.process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return not_started(error),
    };
    let under_way = stoppable(&child, stop);
    // Closes our ends of the pipe, so that the child's end is the end of its output.
    drop(command);
    let (sender, lines) = channel();
    let listener = thread::spawn(move || listen(reader, &|line| sender.send(line).is_ok()));
    let deadline = Instant::now() + limit;
    let mut is_late = false;
    loop {
        let patience = if is_late {
            Duration::from_secs(10)
        } else {
            deadline.saturating_duration_since(Instant::now())
        };
        match lines.recv_timeout(patience) {
            Ok(line) => each_line(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if is_late => break,
            Err(RecvTimeoutError::Timeout) => {
                is_late = true;
                // It may have ended by itself in this moment.
                let _ = child.kill();
            }
        }
    }
    let status = child.wait();
    drop(under_way);
    // A grandchild that keeps the pipe open must not keep us.
    if !is_late {
        let _ = listener.join();
    }
    match status {
        _ if is_late => ChildEnd::LimitReached,
        Ok(status) if status.success() => ChildEnd::Done,
        Ok(status) => ChildEnd::Crashed(status.to_string()),
        Err(error) => ChildEnd::Crashed(error.to_string()),
    }
}

/// Ends the child when the user wishes to stop. By its pidfd, since its number may be another's by then.
fn stoppable(child: &Child, stop: &Stop) -> Option<UnderWay> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
        .inspect_err(|error| log::warn!("a stop will wait for this run: {error}"))
        .ok()?;
    Some(stop.while_under_way(move |signal| {
        // It may have ended by itself in this moment.
        let _ = pidfd_send_signal(&pidfd, signal);
    }))
}

/// Passes on line by line, until the end or until nobody wants more.
fn listen(reader: impl Read, pass_on: &dyn Fn(String) -> bool) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .is_ok_and(|read| read > 0)
    {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !pass_on(text) {
            return;
        }
        line.clear();
    }
}

/// A writer that cuts what is written into lines.
pub(super) struct Lines<'a> {
    rest: Vec<u8>,
    each_line: &'a mut dyn FnMut(&str),
}

impl<'a> Lines<'a> {
    /// Gives each line, without its end, to `each_line`.
    pub(super) fn new(each_line: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            rest: Vec::new(),
            each_line,
        }
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            (self.each_line)(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            (self.each_line)(String::from_utf8_lossy(&self.rest).trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (ChildEnd, Vec<String>) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let stop = Stop::default();
        let end = run(command, limit, &stop, &mut |line| {
            lines.push(line.to_owned())
        });
        (end, lines)
    }

    #[test]
    fn both_streams_are_heard_line_by_line() {
        let (end, lines) = shell(
            "echo one; echo two >&2; printf three",
            Duration::from_secs(60),
        );
        assert_eq!(
            (end, lines),
            (
                ChildEnd::Done,
                vec!["one".to_owned(), "two".into(), "three".into()]
            )
        );
    }

    #[test]
    fn a_child_that_crashes_says_how() {
        let (end, _) = shell("kill -SEGV $$", Duration::from_secs(60));
        assert!(matches!(end, ChildEnd::Crashed(how) if how.contains("signal: 11")));
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let (end, lines) = shell(
            "echo here; exec cat /dev/zero > /dev/null",
            Duration::from_millis(100),
        );
        assert_eq!(end, ChildEnd::LimitReached);
        assert_eq!(lines, ["here"]);
    }

    #[test]
    fn a_child_ends_when_the_user_stops() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo here; exec cat /dev/zero > /dev/null"]);
        let stop = Stop::default();
        let end = run(command, Duration::from_secs(60), &stop, &mut |_| {
            stop.wish(2)
        });
        assert!(
            matches!(&end, ChildEnd::Crashed(how) if how.contains("signal: 15")),
            "{end:?}"
        );
    }

    #[test]
    fn a_program_that_is_missing_is_told() {
        let end = run(
            Command::new("/no/such/program"),
            Duration::from_secs(1),
            &Stop::default(),
            &mut |_| (),
        );
        assert!(matches!(end, ChildEnd::NotStarted(_)));
    }

    #[test]
    fn bytes_become_lines_and_the_last_one_too() {
        let mut seen = Vec::new();
        let mut each = |line: &str| seen.push(line.to_owned());
        let mut lines = Lines::new(&mut each);
        lines.write_all(b"a\nb").unwrap();
        lines.write_all(b"c\nd").unwrap();
        drop(lines);
        assert_eq!(seen, ["a", "bc", "d"]);
    }
}
