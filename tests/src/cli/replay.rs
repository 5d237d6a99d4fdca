//! `replay` and `judge`: a recorded run again, in the guest or from its log alone.

use std::path::PathBuf;

use clap::Args;
use pincushion_vmm::exit_code;
use pincushion_vmm::program::complain;

use super::Failure;
use super::reports::ReportArgs;
use super::run::{HowArgs, command_line, perform};
use crate::oracle;
use crate::report::About;
use crate::rundir::RunDir;
use crate::scenario::{Comparison, compare_on, verdict_word};
use crate::suite::Item;
use crate::verdict::{Certainty, Judgement};

/// Options of `replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The run's directory
    run_dir: PathBuf,
    /// On another kernel
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

pub(super) fn replay(args: &ReplayArgs) -> Result<u8, Failure> {
    let dir = RunDir::at(&args.run_dir);
    refuse_unless(&dir, "run.toml")?;
    let info = dir.info().map_err(Failure::usage)?;
    let scenario = dir.scenario().map_err(Failure::usage)?;
    let commit = crate::suite::workspace_commit();
    if commit != info.commit {
        complain(format_args!(
            "-- the run was recorded at commit {}, this is {commit}",
            info.commit
        ));
    }
    let item = Item {
        scenario,
        file: info.scenario_file,
        kernel: args.kernel.clone().unwrap_or(info.kernel),
        repeat: 1,
    };
    let about = About {
        title: "Replay".into(),
        command: command_line(),
        ..About::default()
    };
    perform(&[item], info.seed, &args.how, &args.reports, about, None)
}

/// Refuses a directory without the file that makes it a run's.
fn refuse_unless(dir: &RunDir, file: &str) -> Result<(), Failure> {
    if dir.file(file).exists() {
        return Ok(());
    }
    Err(Failure::usage(anyhow::anyhow!(
        "{} is no directory of a run, since it has no {file}; a run's directory is SCENARIO@KERNEL in the report directory",
        dir.path().display()
    )))
}

/// Options of `judge`.
#[derive(Debug, Args)]
pub(super) struct JudgeArgs {
    /// The run's directory
    run_dir: PathBuf,
    /// Print the judgement as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn judge(args: &JudgeArgs) -> Result<u8, Failure> {
    refuse_unless(&RunDir::at(&args.run_dir), "events.jsonl")?;
    let judgement = oracle::judge(&args.run_dir).map_err(Failure::usage)?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&judgement).map_err(Failure::setup)?
        );
    } else {
        print_judgement(&judgement);
    }
    let dir = RunDir::at(&args.run_dir);
    // A bare event log can be judged too; only its expectation is not known.
    let (Ok(info), Ok(scenario)) = (dir.info(), dir.scenario()) else {
        return Ok(exit_code::OK);
    };
    match compare_on(&scenario, &info.kernel, &judgement) {
        Comparison::Surprise(what) => {
            complain(format_args!("not as expected: {what}"));
            Ok(exit_code::SURPRISE)
        }
        Comparison::AsExpected => Ok(exit_code::OK),
    }
}

/// A judgement for people.
pub(super) fn print_judgement(judgement: &Judgement) {
    println!("{}: {}", verdict_word(judgement.verdict), judgement.reason);
    for finding in &judgement.findings {
        println!(
            "\n{} ({:?}, {}): {}\n{}",
            finding.oracle,
            finding.promise,
            match finding.certainty {
                Certainty::Certain => "certain",
                Certainty::Possible => "possible only",
            },
            finding.title,
            finding.text
        );
    }
}
