//! The machine: boot it, run in it, bring back what it made.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use pincushion_abi::nested::{Hello, Request, SOURCES, VERSION};

use super::config::{Clock, NestedConfig};
use super::error::{NestedError, host};
use super::process::Process;
use super::session::{Channel, Session, Signaller, Silence, Trouble, read_hello};
use super::transfer::{self, Content, Stop};
use super::{qemu, tsc};
use crate::lock::lock;

/// How many machines are booted until one is well. Emulation has two rare accidents, both gone with a fresh boot: the kernel
/// calibrates its clock wrongly, or stumbles over code that it rewrote.
const BOOT_ATTEMPTS: u32 = 3;

/// How often a machine in which a command runs is asked whether it lives.
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// What the console shows of a kernel that gave up.
const PANIC: &str = "Kernel panic";

/// A booted machine. All methods take `&self` and may be called from several threads at once. Dropping it ends it, and all
/// that runs in it.
pub struct NestedMachine {
    session: Session,
    process: Mutex<Process>,
    hello: Hello,
    /// How long it may leave a question unanswered while a command runs, and how often it is asked.
    pub(super) silence_limit: Duration,
    pub(super) asked_every: Duration,
}

impl NestedMachine {
    /// Boots a machine and waits until it can make virtual machines. QEMU is expected to be installed
    /// ([`qemu::ensure_qemu`]). `progress` gets lines for the user.
    ///
    /// # Errors
    ///
    /// [`NestedError`]: QEMU missing or dead, limit reached, no KVM in there, a crash or a wrong clock several times in a row.
    pub fn boot(config: &NestedConfig, progress: &dyn Fn(&str)) -> Result<Self, NestedError> {
        let qemu = qemu::find_qemu()?;
        let begin = Instant::now();
        progress("booting the nested machine");
        for _ in 1..BOOT_ATTEMPTS {
            match Self::boot_once(&qemu, config) {
                Err(NestedError::Clock(trouble)) => {
                    progress(&format!("its clock is wrong, booting another: {trouble}"));
                }
                Err(NestedError::QemuDied { console, .. }) if console.contains(PANIC) => {
                    log::warn!("nested: crash during boot:\n{console}");
                    progress("its kernel crashed, booting another");
                }
                other => return other.inspect(|_| Self::tell_up(begin, progress)),
            }
        }
        Self::boot_once(&qemu, config).inspect(|_| Self::tell_up(begin, progress))
    }

    fn tell_up(begin: Instant, progress: &dyn Fn(&str)) {
        let seconds = begin.elapsed().as_secs_f32();
        progress(&format!("the nested machine is up after {seconds:.1} s"));
    }

    fn boot_once(qemu: &Path, config: &NestedConfig) -> Result<Self, NestedError> {
        let khz = match config.clock {
            Clock::Host => tsc::measure_khz().map_err(host("measure the clock"))?,
            Clock::Instructions => qemu::INSTRUCTIONS_KHZ,
        };
        let (ours, theirs) = UnixStream::pair().map_err(host("make a socket pair"))?;
        let args = qemu::command_line(config, khz);
        log::debug!("nested: {} {args:?}", qemu.display());
        let process = Process::start(qemu, args, theirs.into(), config.log.as_deref())?;
        let machine = Self::greet(ours, process, config.boot_limit)?;
        if let Some(trouble) = &machine.hello.kvm_trouble {
            return Err(NestedError::NoKvm(trouble.clone()));
        }
        match &machine.hello.tsc_trouble {
            Some(trouble) => Err(NestedError::Clock(trouble.clone())),
            None => Ok(machine),
        }
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
            Ok(hello) if hello.version == VERSION && hello.sources != SOURCES => {
                Err(NestedError::StaleAgent)
            }
            Ok(hello) if hello.version == VERSION => {
                for warning in &hello.warnings {
                    log::warn!("nested: {warning}");
                }
                Ok(Self {
                    session,
                    process: Mutex::new(process),
                    hello,
                    silence_limit: transfer::SILENCE_LIMIT,
                    asked_every: ASKED_EVERY,
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
        lock(&self.process).console()
    }

    /// A handle that sends signals to what runs here, for a signal handler's thread.
    #[must_use]
    pub fn signaller(&self) -> Signaller {
        self.session.signaller()
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

    pub(super) fn open(
        &self,
        request: &Request,
        doing: &dyn Fn() -> String,
    ) -> Result<Channel, NestedError> {
        self.check(self.session.open(request), doing)
    }

    pub(super) fn check<T, E: Into<Trouble>>(
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
    pub(super) fn explain(&self, trouble: Trouble, doing: &dyn Fn() -> String) -> NestedError {
        match trouble {
            Trouble::Wire(why) => NestedError::Wire(why),
            Trouble::Silence(Silence::Deadline) => NestedError::NotAnswering {
                doing: doing(),
                limit: self.silence_limit,
            },
            Trouble::Silence(Silence::Gone(why)) => {
                let mut process = lock(&self.process);
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
