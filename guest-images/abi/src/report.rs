//! What the agent tells the host.

use serde::{Deserialize, Serialize};

/// One message from the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// The first message after boot: the agent runs and its modules are loaded.
    Hello {
        /// [`crate::VERSION`] of the agent.
        version: u32,
        /// `uname -r` of the guest.
        release: String,
        /// Modules that could not be loaded, with the reason.
        module_errors: Vec<String>,
    },
    /// A step has ended. Sent after the step's end mark.
    Done {
        /// [`crate::Request::id`].
        id: u32,
        /// What came of it.
        outcome: Outcome,
        /// Guest `CLOCK_MONOTONIC` when the step began, in nanoseconds (a hint: guest clocks drift).
        began_ns: u64,
        /// The same when it had ended.
        ended_ns: u64,
    },
    /// A request that was not a valid step.
    Refused {
        /// Its id, where that much could be read.
        id: Option<u32>,
        /// Why.
        reason: String,
    },
    /// Free text for the log.
    Note {
        /// The text.
        text: String,
    },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it was asked; what it found out, by name.
    Ok(std::collections::BTreeMap<String, Value>),
    /// A system call failed.
    Failed(Fault),
}

/// A failed system call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The call, for example `pread64`.
    pub call: String,
    /// The error number, 0 where the fault is not an errno (a short transfer, a missing name).
    pub errno: i32,
    /// The symbolic name (`EIO`) or a sentence.
    pub name: String,
}

/// A value that a step found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A yes or no.
    Bool(bool),
    /// A count, an address, a number of bytes.
    Number(u64),
    /// A text.
    Text(String),
    /// Several numbers, for example frame addresses.
    Numbers(Vec<u64>),
    /// Several texts, for example the lines of a kernel stack.
    Texts(Vec<String>),
}
