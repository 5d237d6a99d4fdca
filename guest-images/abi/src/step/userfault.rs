//! Page faults that a program handles itself: userfaultfd(2).

use serde::{Deserialize, Serialize};

use super::Pattern;

/// `op = "userfault"`, by its `do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum Userfault {
    /// `userfaultfd(2)` and `UFFDIO_API`; with `moves` the kernel must know `UFFDIO_MOVE` (Linux 6.8): EINVAL if not.
    Open {
        name: String,
        #[serde(default)]
        moves: bool,
    },
    /// `UFFDIO_REGISTER` of a whole mapping for missing pages: who touches one sleeps until it is filled.
    Register { name: String, map: String },
    /// `UFFDIO_COPY` of a pattern into missing pages, which wakes who sleeps there.
    Fill {
        name: String,
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `UFFDIO_MOVE`: pages of `from` become those of `map`, which must be missing there. Values: `moved` (bytes).
    Move {
        name: String,
        from: String,
        #[serde(default)]
        from_offset: u64,
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
    },
    /// Closes it: who sleeps goes on with zero pages.
    Close { name: String },
}
