//! Writes the reports of a suite.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pincushion_vmm::program;

use super::Failure;
use crate::report::{About, Card, RunSummary, card_markdown, html, json_lines, junit, ktap};
use crate::suite::{suite_dir, today};

/// Where which report goes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ReportArgs {
    /// Directory for runs and reports: new or empty [default: DATE-N below $PINCUSHION_RUNS, cargo's target directory or ./pincushion-runs]
    #[arg(long, value_name = "DIR")]
    pub(super) report_dir: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the runs in the kernel's test format, KTAP
    #[arg(long, value_name = "FILE")]
    ktap: Option<PathBuf>,
    /// Write one JSON object per run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report card as Markdown, with date, kernels and commit
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Write the page here [default: report.html in the report directory]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The directory of a suite's runs and reports: a new one where none is named.
pub(super) fn directory(named: Option<&Path>) -> Result<PathBuf, Failure> {
    suite_dir(named).map_err(|error| {
        let named = named.map_or(String::new(), |dir| format!(" {}", dir.display()));
        Failure::setup(anyhow::anyhow!(
            "cannot make the report directory{named} (--report-dir): {error}"
        ))
    })
}

/// Writes all that was asked for, and the page in any case. Gives the page's path, absolute.
///
/// # Errors
/// Files that cannot be written; the others are written then.
pub(super) fn write(
    args: &ReportArgs,
    dir: &Path,
    runs: &[RunSummary],
    about: &About,
) -> anyhow::Result<PathBuf> {
    let lines = json_lines(runs);
    let page = args.html.clone().unwrap_or_else(|| dir.join("report.html"));
    let mut files = vec![(dir.join("runs.jsonl"), lines.clone())];
    files.extend(args.json.clone().map(|path| (path, lines)));
    files.extend(args.junit.clone().map(|path| (path, junit(runs))));
    files.extend(args.ktap.clone().map(|path| (path, ktap(runs))));
    let card = |path| (path, card_markdown(runs, about, &today()));
    files.extend(args.card.clone().map(card));
    let card = serde_json::to_string_pretty(&Card::of(runs));
    files.push((
        dir.join("card.json"),
        card.expect("a card is plain data") + "\n",
    ));
    files.push((page.clone(), html(runs, about)));
    let failed: Vec<String> = files
        .iter()
        .filter_map(|(path, text)| {
            let error = std::fs::write(path, text).err()?;
            Some(format!("cannot write {}: {error}", path.display()))
        })
        .collect();
    if failed.is_empty() {
        Ok(std::path::absolute(&page).unwrap_or(page))
    } else {
        Err(anyhow::anyhow!(failed.join("; ")))
    }
}

/// Says where the page is: as an address for a browser, and, on the last line, as a path.
pub(super) fn tell(page: &Path) {
    say(&format!(
        "\nreport, for a browser and as a file:\n{}\n{}",
        file_url(page),
        page.display()
    ));
}

/// Prints on standard output. The runs are done and their reports are files, so a full or broken output fails nothing.
pub(super) fn say(text: &str) {
    if let Err(error) = program::tell(text) {
        program::complain(format_args!(
            "pincushion test: cannot print what was seen: {error}"
        ));
    }
}

/// The address of an absolute path.
fn file_url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                url.push(char::from(*byte));
            }
            byte => url += &format!("%{byte:02X}"),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RunSummary;

    #[test]
    fn an_address_keeps_spaces_and_letters_of_any_kind() {
        assert_eq!(
            file_url(Path::new("/my runs/ä/report.html")),
            "file:///my%20runs/%C3%A4/report.html"
        );
    }

    #[test]
    fn a_report_that_cannot_be_written_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let args = ReportArgs {
            junit: Some(dir.path().join("missing/junit.xml")),
            ..ReportArgs::default()
        };
        let none: [RunSummary; 0] = [];
        let said = write(&args, dir.path(), &none, &About::default()).unwrap_err();
        assert!(said.to_string().contains("missing/junit.xml"), "{said}");
        assert!(dir.path().join("report.html").is_file());
    }
}
