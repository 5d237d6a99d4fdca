//! Kinds of things in steps, and what a field is where it is left out.

use serde::{Deserialize, Serialize};

/// Kind of mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// MAP_SHARED of a file.
    Shared,
    /// MAP_PRIVATE of a file.
    Private,
    /// MAP_PRIVATE | MAP_ANONYMOUS.
    Anonymous,
}

/// Direction of an asynchronous transfer, seen from the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoDirection {
    /// Disk to memory: the device writes the pages.
    Read,
    /// Memory to disk: the device reads the pages.
    Write,
}

pub(super) fn ten_seconds() -> u64 {
    10_000
}

pub(super) fn one() -> u32 {
    1
}

pub(super) fn ping_bytes() -> u64 {
    56
}

pub(super) fn two() -> u32 {
    2
}

pub(super) fn ether_type() -> u16 {
    super::ETHER_TYPE
}
