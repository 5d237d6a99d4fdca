//! One command: started, watched, and gone with all its processes when it is reported.
//!
//! A command leads a process group of its own. Where the kernel offers control groups it gets one of these
//! as well, so that processes which left the process group are found too. When the command itself ends, what it
//! left behind is killed: the machine has to be clean for the next one.

#![expect(
    unsafe_code,
    reason = "the control group is joined between fork and exec"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use pincushion_abi::nested::{Frame, INSIDE, Kind, Reply};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::flow::Flow;
use super::outbox::Outbox;

/// Output is read in pieces of this many bytes, the default capacity of a pipe.
const PIECE: usize = 64 << 10;

/// What to run.
pub(super) struct Order {
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
    /// Where to make a control group, if at all.
    pub(super) cgroups: Option<PathBuf>,
}

/// Runs the command to its end and sends all that it prints. The reply is left to the caller.
pub(super) fn run(order: &Order, channel: u32, flow: &Flow, outbox: &Outbox) -> Reply {
    match Running::start(order, channel) {
        Err(why) => {
            let program = order.argv.first().map_or("", String::as_str);
            Reply::Failed {
                why: format!("cannot start {program:?}: {why}"),
            }
        }
        Ok(mut running) => match running.watch(channel, flow, outbox) {
            Ok(status) => reply_of(status),
            Err(why) => Reply::Failed {
                why: format!("lost sight of the command: {why}"),
            },
        },
    }
}

fn reply_of(status: ExitStatus) -> Reply {
    match (status.code(), status.signal()) {
        (Some(code), _) => Reply::Exited { code },
        (None, Some(signal)) => Reply::Killed { signal },
        (None, None) => Reply::Failed {
            why: format!("the command ended in an unknown way: {status}"),
        },
    }
}

struct Running {
    child: Child,
    /// Readable once the child has ended.
    pidfd: OwnedFd,
    pipes: [(Kind, Option<OwnedFd>); 2],
    cgroup: Option<Cgroup>,
}

impl Running {
    fn start(order: &Order, channel: u32) -> io::Result<Self> {
        let Some((program, args)) = order.argv.split_first() else {
            return Err(io::Error::other("the command line is empty"));
        };
        fs::create_dir_all(&order.cwd)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .env(INSIDE, "1")
            .envs(&order.env)
            .current_dir(&order.cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let cgroup = match &order.cgroups {
            None => None,
            Some(parent) => Some(Cgroup::make(parent, channel)?),
        };
        if let Some(cgroup) = &cgroup {
            let procs = cgroup.procs()?;
            // SAFETY: the closure runs in the child between fork and exec. It does one open(2) and two write(2) of
            // constants, which are async-signal-safe, and takes no lock or memory.
            unsafe {
                command.pre_exec(move || {
                    // The server is spared when memory ends; what it starts is not. Without that right it has nothing to give back.
                    let score = rustix::fs::open(
                        c"/proc/self/oom_score_adj",
                        OFlags::WRONLY,
                        Mode::empty(),
                    );
                    let _ = score.and_then(|score| rustix::io::write(&score, b"0"));
                    rustix::io::write(&procs, b"0")?;
                    Ok(())
                });
            }
        }
        let mut child = command.spawn()?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for pipe in [&stdout, &stderr].into_iter().flatten() {
            rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)?;
        }
        Ok(Self {
            child,
            pidfd,
            pipes: [(Kind::Stdout, stdout), (Kind::Stderr, stderr)],
            cgroup,
        })
    }

    /// Pumps output and obeys the host until the command has ended and its pipes are empty.
    fn watch(&mut self, channel: u32, flow: &Flow, outbox: &Outbox) -> io::Result<ExitStatus> {
        let mut sender = Sender {
            channel,
            flow,
            outbox,
            buffer: vec![0; PIECE],
        };
        let status = loop {
            let ready = self.wait(flow)?;
            flow.acknowledge();
            for signal in flow.take_signals() {
                self.signal(signal);
            }
            if flow.host_is_gone() {
                self.kill();
            }
            for (pipe, _) in self.pipes.iter_mut().zip(ready.pipes).filter(|(_, r)| *r) {
                sender.pump(pipe)?;
            }
            if ready.ended {
                break self.child.wait()?;
            }
        };
        self.kill();
        // What the command wrote lies in the pipes; nobody who could write more is left.
        while flow.wait_for_credit().is_ok() {
            let mut moved = false;
            for pipe in &mut self.pipes {
                moved |= sender.pump(pipe)?;
            }
            if !moved {
                break;
            }
        }
        Ok(status)
    }

    /// Waits for whatever comes first. The host's limit ends it: it sends a signal, or goes.
    fn wait(&self, flow: &Flow) -> io::Result<Ready> {
        let may_send = flow.credit() > 0;
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(flow.wake(), PollFlags::IN),
        ];
        let mut place = [None; 2];
        for (place, (_, pipe)) in place.iter_mut().zip(&self.pipes) {
            if let Some(pipe) = pipe.as_ref().filter(|_| may_send) {
                *place = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            // Nothing is marked as ready then, and the caller comes again.
            Err(Errno::INTR) => fds.iter_mut().for_each(PollFd::clear_revents),
            Err(why) => return Err(why.into()),
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            ended: is_ready(0),
            pipes: place.map(|place| place.is_some_and(is_ready)),
        })
    }

    /// Sends a signal to the whole process group; a number that is no signal is ignored.
    fn signal(&self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else {
            return;
        };
        if signal == Signal::KILL {
            self.kill();
        } else {
            // The group may have ended already, which the pidfd tells next.
            let _ = kill_process_group(Pid::from_child(&self.child), signal);
        }
    }

    /// Kills every process of the command. Until the child was waited for its number cannot be another's, and
    /// afterwards the group keeps the number for as long as it has members.
    fn kill(&self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }
}

struct Ready {
    ended: bool,
    pipes: [bool; 2],
}

struct Sender<'a> {
    channel: u32,
    flow: &'a Flow,
    outbox: &'a Outbox,
    buffer: Vec<u8>,
}

impl Sender<'_> {
    /// Moves one piece of output to the host; `false` if there was none. A pipe at its end is closed.
    fn pump(&mut self, (kind, slot): &mut (Kind, Option<OwnedFd>)) -> io::Result<bool> {
        let Some(pipe) = slot else {
            return Ok(false);
        };
        match rustix::io::read(pipe, &mut self.buffer) {
            Ok(0) => {
                *slot = None;
                Ok(false)
            }
            Ok(len) => {
                self.flow.spend(len);
                let bytes = self.buffer[..len].to_vec();
                self.outbox.send(&Frame::new(*kind, self.channel, bytes))?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }
}

/// A control group that is removed with its last process.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn make(parent: &Path, channel: u32) -> io::Result<Self> {
        let path = parent.join(format!("channel-{channel}"));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    fn procs(&self) -> io::Result<File> {
        File::options()
            .write(true)
            .open(self.path.join("cgroup.procs"))
    }

    fn kill(&self) {
        // An error means that there is nobody left, or a kernel before 5.14; the process group was killed anyway.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// Waits for the killed to be gone: `cgroup.events` announces each change by POLLPRI.
    fn wait_until_empty(&self) -> io::Result<()> {
        let path = self.path.join("cgroup.events");
        let file = File::open(&path)?;
        let limit = Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        while fs::read_to_string(&path)?.contains("populated 1") {
            if poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&limit))? == 0 {
                return Err(io::Error::other("killed processes did not go within 5 s"));
            }
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        let gone = self
            .wait_until_empty()
            .and_then(|()| fs::remove_dir(&self.path));
        if let Err(why) = gone {
            eprintln!("nested: {} stays: {why}", self.path.display());
        }
    }
}

impl Drop for Running {
    /// On the way out by an error nothing may stay behind.
    fn drop(&mut self) {
        self.kill();
        // Ends at once: the child was killed or waited for.
        let _ = self.child.wait();
    }
}
