//! What can go wrong with a nested machine, in words for people.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pincushion_abi::nested::WireError;

use super::image::AGENT;
use super::qemu::INSTALL_LINE;
use crate::exit_code;

/// Trouble with a nested machine, or on the way to one. A command that fails in there is no error: see [`super::Ended`].
#[derive(Debug, thiserror::Error)]
pub enum NestedError {
    /// No QEMU, and no right to install it.
    #[error("qemu-system-x86_64 is not installed; as root run: {INSTALL_LINE}")]
    QemuMissing,
    /// A process could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// QEMU ended before the machine could serve.
    #[error("QEMU ended ({status}) before the nested machine was up{}", said(.stderr, .console))]
    QemuDied {
        /// How it ended.
        status: String,
        /// Its standard error.
        stderr: String,
        /// The last lines of the machine's console.
        console: String,
    },
    /// The machine did not come up in time.
    #[error("the nested machine was not up within {} s (--boot-limit){}", .limit.as_secs(), said("", .console))]
    BootLimit {
        /// The limit.
        limit: Duration,
        /// The last lines of its console.
        console: String,
    },
    /// The agent in there is from another version of Pincushion.
    #[error(
        "the nested machine's agent speaks version {found}, this program speaks {expected}: build all programs anew with `cargo build`"
    )]
    Version {
        /// Of the agent.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The agent was built from other sources than this program.
    #[error(
        "{AGENT} beside this program was built from other sources than this program is: build all programs anew with `cargo build`"
    )]
    StaleAgent,
    /// KVM does not work in there.
    #[error("the nested machine cannot make virtual machines: {0}")]
    NoKvm(String),
    /// The kernel in there measured its clock wrongly.
    #[error(
        "the nested machine calibrated its clock wrongly, guests would hang in it: {0}; try again on a calmer host"
    )]
    Clock(String),
    /// The machine ended while it was in use.
    #[error("the nested machine ended while {doing}{}", said(.stderr, .console))]
    Gone {
        /// What was going on.
        doing: String,
        /// QEMU's standard error.
        stderr: String,
        /// The last lines of the machine's console.
        console: String,
    },
    /// The machine does not answer.
    #[error("the nested machine did not answer within {} s while {doing}", .limit.as_secs())]
    NotAnswering {
        /// What was going on.
        doing: String,
        /// How long it was waited.
        limit: Duration,
    },
    /// The agent could not do it; most often a command that is not there.
    #[error("nested machine: {0}")]
    Refused(String),
    /// The agent's stream makes no sense.
    #[error("the nested machine's answers make no sense")]
    Wire(#[from] WireError),
    /// A file on the host.
    #[error("cannot {action} {path}")]
    HostFile {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The command's output could not be passed on.
    #[error("cannot pass on the output of {program:?}")]
    Output {
        /// The command.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The machine's kernel or initramfs could not be made.
    #[error("cannot make the image of the nested machine")]
    Image(#[from] pincushion_image::Error),
    /// Our agent is not where it should be.
    #[error("{0} is missing: build it with `cargo build -p pincushion-agent`")]
    NoAgent(PathBuf),
    /// A nested machine in a nested machine would be too slow to be of use.
    #[error("this is the nested machine already: run the command without `pincushion nested --`")]
    Inside,
    /// The host refused something small: a thread, a socket, a clock.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl NestedError {
    /// Whether the command was stopped because nobody reads its output any more (`| head`).
    #[must_use]
    pub fn is_for_want_of_a_reader(&self) -> bool {
        matches!(self, Self::Output { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code of a program that ends by this: was something missing, or did it fail on the way?
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::QemuMissing
            | Self::Start { .. }
            | Self::QemuDied { .. }
            | Self::BootLimit { .. }
            | Self::Version { .. }
            | Self::StaleAgent
            | Self::Clock(_)
            | Self::Refused(_)
            | Self::HostFile { .. }
            | Self::Image(_)
            | Self::NoAgent(_)
            | Self::Inside => exit_code::SETUP_ERROR,
            Self::NoKvm(_) => exit_code::NO_USABLE_KVM,
            Self::Gone { .. }
            | Self::NotAnswering { .. }
            | Self::Wire(_)
            | Self::Output { .. }
            | Self::Host { .. } => exit_code::FAILED,
        }
    }
}

/// The last words of QEMU and of the machine, if there were any.
fn said(stderr: &str, console: &str) -> String {
    let part = |title: &str, text: &str| match text.trim() {
        "" => String::new(),
        text => format!("\n{title}:\n{text}"),
    };
    part("QEMU said", stderr) + &part("last lines of its console", console)
}

/// `map_err` for a file on the host.
pub(super) fn host_file(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> NestedError {
    let path = path.to_owned();
    move |source| NestedError::HostFile {
        action,
        path,
        source,
    }
}

/// `map_err` for what is not a file.
pub(super) fn host(action: &'static str) -> impl FnOnce(io::Error) -> NestedError {
    move |source| NestedError::Host { action, source }
}
