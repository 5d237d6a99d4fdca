//! Who acts on the page, step by step after the kernel's own functions.

pub mod clone;
pub mod drivers;
pub mod fork;
pub mod gup;
pub mod reclaim;
pub mod truncate;
pub mod writeback;
