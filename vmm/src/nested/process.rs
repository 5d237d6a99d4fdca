//! The QEMU process: started, listened to, and gone with its owner.
//!
//! A *keeper* thread starts QEMU, copies its output and waits for it. The thread lives as long as QEMU, which matters:
//! the kernel's parent-death signal follows the thread that forked, and not the process.

#![expect(
    unsafe_code,
    reason = "the parent-death signal is set between fork and exec"
)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use rustix::process::{getpid, set_parent_process_death_signal};

use super::error::{NestedError, host, host_file};
use crate::lock::lock;

/// How much of the console and of standard error is kept for messages, in bytes.
const TAIL: usize = 4096;

/// How long QEMU may take from closing the agent's port to its end.
const ENDING_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// A running QEMU. Dropping it kills it and waits until it is gone.
pub(super) struct Process {
    pidfd: OwnedFd,
    keeper: Option<JoinHandle<()>>,
    heard: Arc<Mutex<Heard>>,
}

/// What came out of QEMU. One lock, held for a moment, nothing else taken under it.
#[derive(Default)]
struct Heard {
    console: Tail,
    stderr: Tail,
    status: Option<String>,
}

/// The last words of a process that ended.
pub(super) struct LastWords {
    pub(super) status: String,
    pub(super) stderr: String,
    pub(super) console: String,
}

impl Process {
    /// Starts `program`; `stdin` becomes its standard input. The console goes to the file `log` too, if given.
    pub(super) fn start(
        program: &Path,
        args: Vec<OsString>,
        stdin: OwnedFd,
        log: Option<&Path>,
    ) -> Result<Self, NestedError> {
        let log = match log {
            None => None,
            Some(path) => Some(File::create(path).map_err(host_file("create the log", path))?),
        };
        let heard = Arc::<Mutex<Heard>>::default();
        let (started, start) = mpsc::channel();
        let keeper = Keeper {
            program: program.to_owned(),
            args,
            stdin,
            log,
            heard: Arc::clone(&heard),
        };
        let keeper = thread::Builder::new()
            .name("nested-qemu".to_owned())
            .spawn(move || keeper.run(&started))
            .map_err(host("start a thread"))?;
        let started = start.recv().expect("the keeper always says how it went");
        let pidfd = started.map_err(|source| NestedError::Start {
            program: program.to_owned(),
            source,
        })?;
        Ok(Self {
            pidfd,
            keeper: Some(keeper),
            heard,
        })
    }

    /// The last lines of the console.
    pub(super) fn console(&self) -> String {
        lock(&self.heard).console.text()
    }

    /// Kills QEMU if it still runs, waits until it is gone, and returns what it said.
    pub(super) fn end(&mut self) -> LastWords {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.join()
    }

    /// Lets QEMU end by itself, which the caller saw begin, and returns what it said.
    pub(super) fn wait(&mut self) -> LastWords {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ended = poll(&mut fds, Some(&ENDING_LIMIT));
        if !matches!(ended, Ok(1..)) {
            log::warn!("nested: QEMU does not end by itself, killing it");
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        self.join()
    }

    fn join(&mut self) -> LastWords {
        if let Some(keeper) = self.keeper.take() {
            // A panic in there was printed by its thread.
            let _ = keeper.join();
        }
        let heard = lock(&self.heard);
        LastWords {
            status: heard.status.clone().unwrap_or_else(|| "lost".to_owned()),
            stderr: heard.stderr.text(),
            console: heard.console.text(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

struct Keeper {
    program: PathBuf,
    args: Vec<OsString>,
    stdin: OwnedFd,
    log: Option<File>,
    heard: Arc<Mutex<Heard>>,
}

impl Keeper {
    fn run(self, started: &mpsc::Sender<io::Result<OwnedFd>>) {
        let Self {
            program,
            args,
            stdin,
            log,
            heard,
        } = self;
        let child = spawn(&program, args, stdin).and_then(|child| {
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
            Ok((child, pidfd))
        });
        // The receiver waits for this message, so it is there.
        let mut child = match child {
            Err(why) => return started.send(Err(why)).unwrap_or_default(),
            Ok((child, pidfd)) => {
                started.send(Ok(pidfd)).unwrap_or_default();
                child
            }
        };
        if let Err(why) = listen(&mut child, log, &heard) {
            log::warn!("nested: lost QEMU's output: {why}");
        }
        let status = child.wait().map(|status| status.to_string());
        lock(&heard).status = Some(status.unwrap_or_else(|why| why.to_string()));
    }
}

fn spawn(program: &Path, args: Vec<OsString>, stdin: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C on the terminal is for the command inside; we pass it on ourselves.
        .process_group(0);
    let us = getpid();
    // SAFETY: the closure runs in the child between fork and exec. It does two system calls on plain numbers, which are
    // async-signal-safe, and takes no lock or memory.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Whoever died before the signal was armed is not our parent any more.
            if getppid() == Some(us) {
                Ok(())
            } else {
                Err(rustix::io::Errno::SRCH.into())
            }
        });
    }
    command.spawn()
}

/// Copies QEMU's output until both pipes end.
fn listen(child: &mut Child, mut log: Option<File>, heard: &Mutex<Heard>) -> io::Result<()> {
    let mut pipes = [
        (Stream::Console, child.stdout.take().map(OwnedFd::from)),
        (Stream::Stderr, child.stderr.take().map(OwnedFd::from)),
    ];
    let mut buffer = vec![0; 16 << 10];
    while let Some(ready) = wait_for_any(&pipes)? {
        let (stream, slot) = &mut pipes[ready];
        let Some(pipe) = slot else { continue };
        let len = rustix::io::read(&*pipe, &mut buffer)?;
        let bytes = &buffer[..len];
        if bytes.is_empty() {
            *slot = None;
        }
        match stream {
            Stream::Console => {
                if let Some(log) = &mut log {
                    log.write_all(bytes)?;
                }
                lock(heard).console.push(bytes);
            }
            Stream::Stderr => lock(heard).stderr.push(bytes),
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Stream {
    Console,
    Stderr,
}

/// Waits until one of the pipes can be read and returns its place; `None` once all are closed.
fn wait_for_any(pipes: &[(Stream, Option<OwnedFd>)]) -> io::Result<Option<usize>> {
    let mut places = Vec::new();
    let mut fds = Vec::new();
    for (place, (_, pipe)) in pipes.iter().enumerate() {
        if let Some(pipe) = pipe {
            places.push(place);
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
    }
    while !fds.is_empty() {
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        if let Some(ready) = fds.iter().position(|fd| !fd.revents().is_empty()) {
            return Ok(Some(places[ready]));
        }
    }
    Ok(None)
}

/// The end of a text that may be long.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.drain(..self.0.len().saturating_sub(TAIL));
    }

    /// At most 20 whole lines.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Process {
        let args = vec!["-c".into(), line.into()];
        let null = File::open("/dev/null").unwrap();
        Process::start(Path::new("/bin/sh"), args, null.into(), None).unwrap()
    }

    #[test]
    fn last_words_and_status_are_kept() {
        let mut process = shell("echo console; echo trouble >&2; exit 3");
        let words = process.wait();
        assert_eq!(words.console, "console");
        assert_eq!(words.stderr, "trouble");
        assert!(words.status.contains('3'), "{}", words.status);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let mut process = shell("echo $$; exec sleep 1000");
        let words = process.end();
        assert!(words.status.contains("signal: 9"), "{}", words.status);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let null = File::open("/dev/null").unwrap();
        let missing = Path::new("/no/such/qemu");
        let error = Process::start(missing, vec![], null.into(), None)
            .err()
            .unwrap();
        assert!(error.to_string().contains("/no/such/qemu"), "{error}");
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        for line in 0..10_000 {
            tail.push(format!("line {line}\n").as_bytes());
        }
        assert!(tail.text().ends_with("line 9999"));
        assert_eq!(tail.text().lines().count(), 20);
    }
}
