//! Many processes that share the agent's memory and do nothing.

use serde::{Deserialize, Serialize};

/// `op = "crowd"`, by its `do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are plain")]
pub enum Crowd {
    /// Forks `count` children, at most 4096, that sleep until they are killed.
    Fork { crowd: String, count: u32 },
    /// Kills and reaps them.
    End { crowd: String },
}
