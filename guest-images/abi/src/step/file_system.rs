//! A mounted file system as a whole.

use serde::{Deserialize, Serialize};

/// `op = "file-system"`, by its `do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum FileSystem {
    /// `ioctl(FIFREEZE)`: everything is on disk, and nothing more is written until the thaw.
    Freeze { target: String },
    /// `ioctl(FITHAW)`.
    Thaw { target: String },
}
