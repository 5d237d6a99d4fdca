//! Scenarios, runner, timeline, oracles and reports.

pub mod oracle;
pub mod timeline;
pub mod verdict;
