//! `report`: the reports of runs that were made before, of several suites together.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::designs::earlier::{earlier, made_by};
use super::reports::{self, ReportArgs};
use super::run::{command_line, table};
use super::{Failure, suite_code};
use crate::report::About;
use crate::suite::workspace_commit;

/// Options of `report`.
#[derive(Debug, Args)]
pub(super) struct ReportOfArgs {
    /// Report directories of `test run` and `test designs`; of a scenario on a kernel the runs of the last one that has it count
    #[arg(required = true, value_name = "DIR")]
    from: Vec<PathBuf>,
    #[command(flatten)]
    reports: ReportArgs,
}

pub(super) fn report(args: &ReportOfArgs) -> Result<u8, Failure> {
    let runs = earlier(&args.from, "").map_err(Failure::usage)?;
    if runs.is_empty() {
        let dirs: Vec<String> = args
            .from
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        return Err(Failure::usage(anyhow!("no run is in {}", dirs.join(", "))));
    }
    let dir = reports::directory(args.reports.report_dir.as_deref())?;
    let about = About {
        title: "Runs of several suites".into(),
        command: command_line(),
        made: made_by(&runs).0.join("; "),
        commit: workspace_commit(),
    };
    reports::say(format!("\n{}", table(&runs)).trim_end_matches('\n'));
    let page = reports::write(&args.reports, &dir, &runs, &about).map_err(Failure::setup)?;
    reports::tell(&page);
    Ok(suite_code(&runs))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use pincushion_vmm::exit_code;

    use super::*;
    use crate::report::{example, json_lines};
    use crate::verdict::Verdict;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ReportOfArgs,
    }

    fn report_of(words: &[&Path]) -> Result<u8, Failure> {
        let line = std::iter::once(Path::new("report")).chain(words.iter().copied());
        report(&Line::parse_from(line).args)
    }

    #[test]
    fn suites_are_told_together_and_the_later_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut other = example(Verdict::Finding, true);
        other.kernel = "debian-6.1".into();
        let suites = [
            ("first", vec![example(Verdict::Hang, false), other]),
            ("second", vec![example(Verdict::Finding, true)]),
            ("empty", vec![]),
        ];
        for (name, runs) in suites {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("runs.jsonl"), json_lines(&runs)).unwrap();
        }
        let to = [
            Path::new("--report-dir"),
            &at("out"),
            Path::new("--card"),
            &at("card.md"),
        ];
        let code = report_of(&[&[&*at("first"), &at("second")][..], &to].concat()).unwrap();
        assert_eq!(code, exit_code::OK);
        let card = std::fs::read_to_string(at("card.md")).unwrap();
        assert!(
            card.contains("debian-6.1 |") && card.contains("**broken**"),
            "{card}"
        );
        let none = report_of(&[&at("empty")]).unwrap_err();
        assert_eq!(none.code, exit_code::BAD_ARGUMENTS);
        assert!(none.said.contains("no run is in"), "{}", none.said);
    }
}
