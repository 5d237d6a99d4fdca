//! Scenarios, runner, timeline, oracles and reports.

pub mod cli;
pub mod crash;
pub mod designs;
pub mod guest;
pub mod oracle;
pub mod report;
pub mod rundir;
pub mod runner;
pub mod scenario;
pub mod suite;
pub mod timeline;
pub mod verdict;

pub(crate) use pincushion_vmm::causes::with_causes as words;

/// Each name once, in the order in which they are met first.
pub(crate) fn each_once<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let mut met = Vec::new();
    for name in names {
        if !met.contains(&name) {
            met.push(name);
        }
    }
    met
}
