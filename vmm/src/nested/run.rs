//! One command in the machine: its output, its limit, its end; and whether the machine lives that long.

use std::io::Write;
use std::time::{Duration, Instant};

use pincushion_abi::nested::{Frame, Kind, Reply, Request};
use rustix::process::Signal;

use super::config::{Command, Ended};
use super::error::NestedError;
use super::machine::NestedMachine;
use super::session::{Channel, Silence, Trouble, unexpected};
use super::transfer;

/// How long a command may take to end when its limit was reached and it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

impl NestedMachine {
    /// Runs a command to its end. What it prints is passed on as it comes.
    ///
    /// # Errors
    ///
    /// [`NestedError::Refused`] if it cannot be started; [`NestedError::Output`] if one of the writers fails: the
    /// command is killed then. A command that fails by itself is no error.
    pub fn run(
        &self,
        command: &Command,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<Ended, NestedError> {
        let doing = || format!("running {:?}", command.name());
        let request = Request::Run {
            argv: command.argv.clone(),
            env: command.env.clone(),
            cwd: command.cwd.clone().unwrap_or_else(|| "/".into()),
        };
        let mut clock = Limits::new(command.limit);
        let mut channel = self.open(&request, &doing)?;
        let mut pulse = Pulse::new(self.asked_every);
        loop {
            let frame = match channel.next(Some(clock.sooner(pulse.next))) {
                Ok(frame) => frame,
                Err(Silence::Deadline) if clock.is_reached() => match clock.next_signal() {
                    Some(signal) => {
                        self.check(channel.signal(signal.as_raw()), &doing)?;
                        continue;
                    }
                    None => return Err(self.explain(Silence::Deadline.into(), &doing)),
                },
                Err(Silence::Deadline) => {
                    pulse.feel(self, &doing)?;
                    continue;
                }
                Err(gone) => return Err(self.explain(gone.into(), &doing)),
            };
            match frame.kind {
                Kind::Stdout => self.pass_on(&mut channel, &frame, stdout, command)?,
                Kind::Stderr => self.pass_on(&mut channel, &frame, stderr, command)?,
                Kind::Reply => {
                    let reply = self.check(channel.read_reply(&frame), &doing)?;
                    return match reply {
                        Reply::Failed { why } => Err(NestedError::Refused(why)),
                        _ if clock.is_over => Ok(Ended::LimitReached),
                        Reply::Exited { code } => Ok(Ended::Exited(code)),
                        Reply::Killed { signal } => Ok(Ended::Killed(signal)),
                        Reply::Send | Reply::Done => {
                            let why = format!("it answered {reply:?} to a command");
                            Err(NestedError::Refused(why))
                        }
                    };
                }
                Kind::Hello
                | Kind::Request
                | Kind::Data
                | Kind::End
                | Kind::Entry
                | Kind::Signal
                | Kind::Credit => return Err(self.explain(unexpected(&frame), &doing)),
            }
        }
    }

    fn pass_on(
        &self,
        channel: &mut Channel,
        frame: &Frame,
        to: &mut dyn Write,
        command: &Command,
    ) -> Result<(), NestedError> {
        to.write_all(&frame.payload)
            .and_then(|()| to.flush())
            .map_err(|source| NestedError::Output {
                program: command.name(),
                source,
            })?;
        self.check(channel.took(frame.payload.len()), &|| {
            format!("running {:?}", command.name())
        })
    }
}

/// Whether the machine itself is alive, which a command that says nothing does not tell. Its emulated CPU can be caught in interrupts
/// until nothing else runs; then no limit inside of it is of use.
struct Pulse {
    /// When to look next.
    next: Instant,
    asked: Option<(Channel, Instant)>,
}

impl Pulse {
    fn new(every: Duration) -> Self {
        Self {
            next: Instant::now() + every,
            asked: None,
        }
    }

    /// Takes the answer to the last question, and asks again.
    fn feel(
        &mut self,
        machine: &NestedMachine,
        doing: &dyn Fn() -> String,
    ) -> Result<(), NestedError> {
        let now = Instant::now();
        self.next = now + machine.asked_every;
        if let Some((channel, since)) = &mut self.asked {
            match channel.reply(now) {
                Ok(_) => self.asked = None,
                Err(Trouble::Silence(Silence::Deadline))
                    if since.elapsed() < machine.silence_limit =>
                {
                    return Ok(());
                }
                Err(trouble) => return Err(machine.explain(trouble, doing)),
            }
        }
        let channel = machine.open(&Request::Ping, doing)?;
        self.asked = Some((channel, now));
        Ok(())
    }
}

/// The steps that end a command: its limit, then some time to end by itself, then the kill.
struct Limits {
    deadline: Option<Instant>,
    steps: std::array::IntoIter<(Signal, Duration), 2>,
    is_over: bool,
}

impl Limits {
    fn new(limit: Option<Duration>) -> Self {
        Self {
            deadline: limit.map(|limit| Instant::now() + limit),
            steps: [
                (Signal::TERM, GRACE),
                (Signal::KILL, transfer::SILENCE_LIMIT),
            ]
            .into_iter(),
            is_over: false,
        }
    }

    fn is_reached(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn sooner(&self, other: Instant) -> Instant {
        self.deadline.map_or(other, |deadline| deadline.min(other))
    }

    /// The next signal to send now that the deadline is over; `None` if nothing helped.
    fn next_signal(&mut self) -> Option<Signal> {
        self.is_over = true;
        let (signal, patience) = self.steps.next()?;
        self.deadline = Some(Instant::now() + patience);
        Some(signal)
    }
}
