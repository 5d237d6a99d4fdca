//! A mounted file system as a whole, and what it does to a whole file.

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
    /// `ioctl(FS_IOC_ENABLE_VERITY)` with SHA-256 and blocks of 4096 bytes: nothing may change the file any more, and what is read of it is
    /// compared with its hashes. The file is open for reading, and nobody has it open for writing.
    Verity { file: String },
}
