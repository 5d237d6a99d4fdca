//! Pipes, and memory that is put into them without a copy.

use serde::{Deserialize, Serialize};

use super::Pattern;

/// `op = "pipe"`, by its `do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum Pipe {
    /// `pipe2(2)`; a child that is forked later has both ends too.
    Open { pipe: String },
    /// `vmsplice(2)`: the pipe gets the pages themselves, at most 16 of them. Values: `spliced` (bytes).
    Splice {
        pipe: String,
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
    },
    /// Reads from the pipe and compares. Values as [`super::Step::ReadVerify`].
    Verify {
        pipe: String,
        len: u64,
        pattern: Pattern,
    },
    /// Closes both ends.
    Close { pipe: String },
}
