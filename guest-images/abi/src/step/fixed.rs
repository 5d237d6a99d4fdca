//! A transfer by a fixed buffer of io_uring.

use serde::{Deserialize, Serialize};

use super::kinds::IoDirection;

/// READ_FIXED or WRITE_FIXED between a file and the first buffer of a [`super::Step::UringRegister`] (in its first ring), to its end. It uses the
/// pinned pages, whatever the mapping has by now. Values as [`super::Step::UringWait`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UringFixed {
    /// Tag of the registration.
    pub registered: String,
    /// Of the transfer.
    pub direction: IoDirection,
    /// The other end.
    pub file: String,
    /// First byte there.
    pub offset: u64,
    /// First byte of the buffer.
    #[serde(default)]
    pub buffer_offset: u64,
    /// How many bytes.
    pub len: u64,
}
