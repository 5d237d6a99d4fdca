//! What a step does on the host's side of the machine, and the looks at what is left when it has ended. Plain data, as `model.rs`.

use pincushion_abi::pattern::Pattern;
use serde::{Deserialize, Serialize};

/// The cable of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkStep {
    /// Name of the card.
    pub net: String,
    /// Plugged in.
    pub up: bool,
}

/// Frames that come in at a card whose wire is `loopback`, from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InjectStep {
    /// Name of the card.
    pub net: String,
    /// Bytes behind the Ethernet header; the frame is a broadcast that the agent's packet sockets hear.
    pub len: u16,
    /// Those bytes.
    pub pattern: Pattern,
    /// How many frames.
    #[serde(default = "super::awaited::one")]
    pub count: u32,
}

/// What the host does with the balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum BalloonAct {
    /// Asks the guest for a balloon of this size, with K, M or G.
    Target(String),
    /// Asks for the guest's statistics (`true`).
    Statistics(bool),
}

/// A look at a disk image after the machine has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum HostCheck {
    /// `e2fsck -fn`, or `xfs_repair -n` where the disk has xfs: fact `fsck`.
    Fsck {
        /// The disk.
        disk: String,
    },
    /// A file of the ext4 file system on it, read by debugfs: fact `found`.
    File {
        /// The disk.
        disk: String,
        /// Path in the file system.
        path: String,
        /// First byte that is looked at.
        #[serde(default)]
        offset: u64,
        /// How many bytes.
        len: u64,
        /// What must be there.
        pattern: Pattern,
        /// Name of the promise.
        promise: String,
    },
    /// Bytes of the image: fact `found`.
    Bytes {
        /// The disk.
        disk: String,
        /// First byte that is looked at.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// What must be there.
        pattern: Pattern,
        /// Name of the promise.
        promise: String,
    },
    /// The guest has written this to the virtio console; else a fact `step-failed`.
    Console {
        /// The text, within what was written.
        text: String,
    },
    /// The serial console, where the kernel's log goes, has each of these texts; else a fact `step-failed`.
    Said {
        /// Each within one line.
        texts: Vec<String>,
    },
    /// No line of the serial console, where warnings go, has one of these words; else a fact `step-failed`.
    Quiet {
        /// In lower case, wherever in the line.
        about: Vec<String>,
    },
    /// Hashes all that was flushed, for the oracle `lying-flush`: facts `image`.
    Flushed {
        /// The disk.
        disk: String,
    },
}
