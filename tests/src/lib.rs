//! Scenarios, runner, timeline, oracles and reports.

pub mod verdict;
