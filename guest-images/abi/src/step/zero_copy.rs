//! UDP sends whose pages stay where they are until the card has sent them: MSG_ZEROCOPY.

use serde::{Deserialize, Serialize};

use super::kinds::ten_seconds;

/// `op = "zero-copy"`, by its `do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum ZeroCopy {
    /// A UDP socket with SO_ZEROCOPY, connected to an address with a port (`10.0.0.9:9`).
    Open { to: String, socket: String },
    /// `send(2)` with MSG_ZEROCOPY of a part of a mapping: one datagram. Values: `sent` (bytes).
    Send {
        socket: String,
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
    },
    /// Waits until the kernel has said of `count` sends that it needs their pages no more, at most `limit_ms`. Values: `done`, `copied` (of
    /// so many it says that it has copied the bytes after all).
    Wait {
        socket: String,
        count: u32,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Closes the socket, whatever is under way.
    Close { socket: String },
}
