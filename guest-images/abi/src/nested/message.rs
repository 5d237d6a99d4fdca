//! The messages: what the host asks for, and what the agent answers. JSON in a frame.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// First word of the agent, on channel 0: it is ready, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::VERSION`] of the agent.
    pub version: u32,
    /// [`super::SOURCES`] of the agent; empty in one from before there was such a thing.
    #[serde(default)]
    pub sources: String,
    /// Release of the nested machine's kernel.
    pub kernel: String,
    /// Why no virtual machine can be made there: `None` if `/dev/kvm` opens and makes a VM with a vCPU.
    pub kvm_trouble: Option<String>,
    /// Line of the kernel's log that tells of a wrong TSC calibration, with which guests hang when
    /// they go idle. The cure is a fresh boot.
    pub tsc_trouble: Option<String>,
    /// Other complaints of the start, for the log.
    pub warnings: Vec<String>,
}

/// What the host asks for; each opens a channel of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run a command with empty standard input, in a process group (and, where the kernel has it, a control group) of its own.
    /// Answers: `Stdout`, `Stderr`, then [`Reply::Exited`], [`Reply::Killed`] or [`Reply::Failed`].
    Run {
        /// Program (looked for in `PATH`) and its arguments.
        argv: Vec<String>,
        /// Added to the agent's own environment.
        env: BTreeMap<String, String>,
        /// Working directory, made if it is missing.
        cwd: PathBuf,
    },
    /// Write a file. Answers [`Reply::Done`] at once if the machine has these bytes already,
    /// else [`Reply::Send`]; then `Data` and `End` are expected, and `Done` follows.
    Put {
        /// Absolute path; its directories are made.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Length in bytes.
        len: u64,
        /// Digest of the content. It is a name and never checked; two files of one digest are one.
        digest: Option<String>,
    },
    /// Read a file, or a directory with all below it. Answers: `Entry` and `Data`, then [`Reply::Done`].
    Get {
        /// Absolute path.
        path: PathBuf,
    },
    /// Make a directory, and those above it.
    MakeDir {
        /// Absolute path.
        path: PathBuf,
    },
    /// Remove a file, or a directory with all below it. What is not there is no error.
    Remove {
        /// Absolute path.
        path: PathBuf,
    },
    /// Say [`Reply::Done`]: a machine that is well does so at once, whatever else runs in it.
    Ping,
    /// Switch the machine off. Nothing answers.
    PowerOff,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// The bytes of the file are wanted. Not the last word.
    Send,
    /// It is done.
    Done,
    /// The command ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// The command was ended by a signal.
    Killed {
        /// Number of the signal.
        signal: i32,
    },
    /// It could not be done.
    Failed {
        /// What was tried, and what the kernel said.
        why: String,
    },
}

/// One thing found by [`Request::Get`]. A directory comes before what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path relative to what was asked for; empty for that itself.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: EntryKind,
}

/// What an [`Entry`] is. Sockets, pipes and devices are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A file of this many bytes; its data follows, without the holes.
    File {
        /// Length in bytes.
        len: u64,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
    },
}
