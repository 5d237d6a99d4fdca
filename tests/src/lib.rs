//! Scenarios, runner, timeline, oracles and reports.

pub mod cli;
pub mod guest;
pub mod oracle;
pub mod report;
pub mod rundir;
pub mod runner;
pub mod scenario;
pub mod suite;
pub mod timeline;
pub mod verdict;

/// An error with all its causes, in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let said = source.to_string();
        // Some errors repeat their cause in their own words.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = source.source();
    }
    text
}
