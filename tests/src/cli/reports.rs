//! Writes the reports of a suite.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::report::{About, RunSummary, html, json_lines, junit};

/// Where which report goes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ReportArgs {
    /// Directory for runs and reports: new or empty [default: DATE-N below $PINCUSHION_RUNS, cargo's target directory or ./pincushion-runs]
    #[arg(long, value_name = "DIR")]
    pub(super) report_dir: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write one JSON object per run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page here [default: report.html in the report directory]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Writes all that was asked for, and the page in any case. Gives the page's path.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write(
    args: &ReportArgs,
    dir: &Path,
    runs: &[RunSummary],
    about: &About,
) -> anyhow::Result<PathBuf> {
    let put = |path: &Path, text: &str| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(&dir.join("runs.jsonl"), &json_lines(runs))?;
    if let Some(path) = &args.json {
        put(path, &json_lines(runs))?;
    }
    if let Some(path) = &args.junit {
        put(path, &junit(runs))?;
    }
    let page = args.html.clone().unwrap_or_else(|| dir.join("report.html"));
    put(&page, &html(runs, about))?;
    Ok(std::path::absolute(&page).unwrap_or(page))
}
