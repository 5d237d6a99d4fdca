//! The machine: boot it, run in it, bring back what it made.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use pincushion_abi::nested::{Frame, Hello, Kind, Reply, Request, VERSION};
use rustix::process::Signal;

use super::error::{NestedError, host};
use super::process::Process;
use super::session::{Channel, Session, Silence, Trouble, read_hello, unexpected};
use super::transfer::{self, Content, Stop};
use super::{qemu, tsc};

pub use super::session::Signaller;

/// How often a machine with a wrong clock is thrown away for a fresh one.
const BOOT_ATTEMPTS: u32 = 2;

/// How long a command may take to end when its limit was reached and it was asked to, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// What the machine is made of.
#[derive(Clone, Debug)]
pub struct NestedConfig {
    /// Memory in MiB. Files that are put there live in it too.
    pub memory_mib: u32,
    /// Emulated CPUs; each can use one of the host's.
    pub vcpus: u32,
    /// The kernel, as an ELF `vmlinux` with a PVH note.
    pub kernel: PathBuf,
    /// The initramfs: the agent as `/init`, and the modules of KVM.
    pub initrd: PathBuf,
    /// How long it may take until the agent answers.
    pub boot_limit: Duration,
    /// Where the console goes; its last lines are kept for messages in any case.
    pub log: Option<PathBuf>,
}

impl NestedConfig {
    /// 3 GiB, two CPUs, two minutes to boot, no log.
    #[must_use]
    pub fn new(kernel: PathBuf, initrd: PathBuf) -> Self {
        Self {
            memory_mib: 3072,
            vcpus: 2,
            kernel,
            initrd,
            boot_limit: Duration::from_secs(120),
            log: None,
        }
    }
}

/// A command for the machine. Its standard input is empty.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The program, looked for in the machine's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Added to the agent's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory, made if it is missing; `None`: the root.
    pub cwd: Option<PathBuf>,
    /// After this time on the host's clock it is asked to end (SIGTERM), and a little later killed with all its processes.
    pub limit: Option<Duration>,
}

impl Command {
    /// A command without any extras.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    fn name(&self) -> String {
        self.argv.first().cloned().unwrap_or_default()
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// By its limit: it was still there when the time was over.
    LimitReached,
}

/// A booted machine. All methods take `&self` and may be called from several threads at once. Dropping it ends it, and all
/// that runs in it.
pub struct NestedMachine {
    session: Session,
    process: Mutex<Process>,
    hello: Hello,
}

impl NestedMachine {
    /// Boots a machine and waits until it can make virtual machines. QEMU is expected to be installed
    /// ([`qemu::ensure_qemu`]). `progress` gets lines for the user.
    ///
    /// # Errors
    ///
    /// [`NestedError`]: QEMU missing or dead, limit reached, no KVM in there, a wrong clock twice in a row.
    pub fn boot(config: &NestedConfig, progress: &dyn Fn(&str)) -> Result<Self, NestedError> {
        let qemu = qemu::find_qemu()?;
        for attempt in 1..=BOOT_ATTEMPTS {
            progress("booting the nested machine");
            let begin = Instant::now();
            let machine = Self::boot_once(&qemu, config)?;
            if let Some(trouble) = &machine.hello.kvm_trouble {
                return Err(NestedError::NoKvm(trouble.clone()));
            }
            let Some(trouble) = &machine.hello.tsc_trouble else {
                let seconds = begin.elapsed().as_secs_f32();
                progress(&format!("the nested machine is up after {seconds:.1} s"));
                return Ok(machine);
            };
            if attempt == BOOT_ATTEMPTS {
                return Err(NestedError::Clock(trouble.clone()));
            }
            progress("the nested machine calibrated its clock wrongly, booting another");
        }
        unreachable!("the last attempt returns")
    }

    fn boot_once(qemu: &Path, config: &NestedConfig) -> Result<Self, NestedError> {
        let khz = tsc::measure_khz().map_err(host("measure the clock"))?;
        let (ours, theirs) = UnixStream::pair().map_err(host("make a socket pair"))?;
        let args = qemu::command_line(config, khz);
        log::debug!("nested: {} {args:?}", qemu.display());
        let process = Process::start(qemu, args, theirs.into(), config.log.as_deref())?;
        Self::greet(ours, process, config.boot_limit)
    }

    /// Waits for the agent's first word on `stream`; `process` is whoever serves the other end.
    pub(super) fn greet(
        stream: UnixStream,
        mut process: Process,
        limit: Duration,
    ) -> Result<Self, NestedError> {
        let (session, greeting) = Session::begin(stream)?;
        let frame = greeting.recv_timeout(limit).map_err(|why| match why {
            mpsc::RecvTimeoutError::Timeout => NestedError::BootLimit {
                limit,
                console: process.end().console,
            },
            mpsc::RecvTimeoutError::Disconnected => {
                let words = process.wait();
                NestedError::QemuDied {
                    status: words.status,
                    stderr: words.stderr,
                    console: words.console,
                }
            }
        })?;
        match read_hello(&frame) {
            Ok(hello) if hello.version == VERSION => {
                for warning in &hello.warnings {
                    log::warn!("nested: {warning}");
                }
                Ok(Self {
                    session,
                    process: Mutex::new(process),
                    hello,
                })
            }
            Ok(hello) => Err(NestedError::Version {
                found: hello.version,
                expected: VERSION,
            }),
            Err(Trouble::Wire(why)) => Err(NestedError::Wire(why)),
            Err(Trouble::Silence(_)) => unreachable!("the frame is here"),
        }
    }

    /// Release of the kernel in there.
    #[must_use]
    pub fn kernel_release(&self) -> &str {
        &self.hello.kernel
    }

    /// The last lines of the machine's console.
    #[must_use]
    pub fn console(&self) -> String {
        self.process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .console()
    }

    /// A handle that sends signals to what runs here, for a signal handler's thread.
    #[must_use]
    pub fn signaller(&self) -> Signaller {
        self.session.signaller()
    }

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
        loop {
            let frame = match channel.next(clock.deadline) {
                Ok(frame) => frame,
                Err(Silence::Deadline) => match clock.next_signal() {
                    Some(signal) => {
                        self.check(channel.signal(signal.as_raw()), &doing)?;
                        continue;
                    }
                    None => return Err(self.explain(Silence::Deadline.into(), &doing)),
                },
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

    /// Sends a file, to lie at the absolute path `inside` with the permission bits `mode`. Directories above it are made.
    ///
    /// # Errors
    ///
    /// [`NestedError`] of the host's file or of the machine.
    pub fn put(&self, from: &Path, inside: &Path, mode: u32) -> Result<(), NestedError> {
        self.put_content(from, inside, mode, Content::Fresh)
    }

    /// Like [`Self::put`], for files that nobody writes in there (programs, kernels): bytes that the machine has already, by
    /// whatever name, are not sent again.
    ///
    /// # Errors
    ///
    /// [`NestedError`] of the host's file or of the machine.
    pub fn put_if_changed(&self, from: &Path, inside: &Path, mode: u32) -> Result<(), NestedError> {
        self.put_content(from, inside, mode, Content::Stable)
    }

    fn put_content(
        &self,
        from: &Path,
        inside: &Path,
        mode: u32,
        content: Content,
    ) -> Result<(), NestedError> {
        let put = transfer::put(&self.session, from, inside, mode, content);
        self.finish(put, &|| format!("sending {}", from.display()))
    }

    /// Brings `inside`, a file or a directory with all below it, to `to` on the host. Files there are overwritten, holes stay holes.
    ///
    /// # Errors
    ///
    /// [`NestedError`] of the host's files or of the machine.
    pub fn get(&self, inside: &Path, to: &Path) -> Result<(), NestedError> {
        let got = transfer::get(&self.session, inside, to);
        self.finish(got, &|| format!("fetching {}", inside.display()))
    }

    /// Makes a directory in there, and those above it.
    ///
    /// # Errors
    ///
    /// [`NestedError`] of the machine.
    pub fn make_dir(&self, inside: &Path) -> Result<(), NestedError> {
        let path = inside.to_owned();
        let made = transfer::simple(&self.session, &Request::MakeDir { path });
        self.finish(made, &|| format!("making {}", inside.display()))
    }

    /// Removes a file in there, or a directory with all below it. What is not there is no error.
    ///
    /// # Errors
    ///
    /// [`NestedError`] of the machine.
    pub fn remove(&self, inside: &Path) -> Result<(), NestedError> {
        let path = inside.to_owned();
        let removed = transfer::simple(&self.session, &Request::Remove { path });
        self.finish(removed, &|| format!("removing {}", inside.display()))
    }

    fn open(&self, request: &Request, doing: &dyn Fn() -> String) -> Result<Channel, NestedError> {
        self.check(self.session.open(request), doing)
    }

    fn check<T, E: Into<Trouble>>(
        &self,
        result: Result<T, E>,
        doing: &dyn Fn() -> String,
    ) -> Result<T, NestedError> {
        result.map_err(|why| self.explain(why.into(), doing))
    }

    fn finish(
        &self,
        result: Result<(), Stop>,
        doing: &dyn Fn() -> String,
    ) -> Result<(), NestedError> {
        result.map_err(|stop| match stop {
            Stop::Trouble(trouble) => self.explain(trouble, doing),
            Stop::Error(error) => error,
        })
    }

    /// Adds to a trouble what QEMU and the console said.
    fn explain(&self, trouble: Trouble, doing: &dyn Fn() -> String) -> NestedError {
        match trouble {
            Trouble::Wire(why) => NestedError::Wire(why),
            Trouble::Silence(Silence::Deadline) => NestedError::NotAnswering {
                doing: doing(),
                limit: transfer::SILENCE_LIMIT,
            },
            Trouble::Silence(Silence::Gone(why)) => {
                let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
                let words = process.wait();
                NestedError::Gone {
                    doing: doing() + &why.map(|why| format!(": {why}")).unwrap_or_default(),
                    stderr: words.stderr,
                    console: words.console,
                }
            }
        }
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

    /// The next signal to send now that the deadline is over; `None` if nothing helped.
    fn next_signal(&mut self) -> Option<Signal> {
        self.is_over = true;
        let (signal, patience) = self.steps.next()?;
        self.deadline = Some(Instant::now() + patience);
        Some(signal)
    }
}
