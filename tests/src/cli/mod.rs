//! The command line of `pincushion-test`, which users call as `pincushion test`.

mod bisect;
mod crash_image;
mod demo;
mod designs;
mod explain;
mod list;
mod model;
mod power_cut;
mod progress;
mod replay;
mod report;
mod reports;
mod rest;
mod run;
mod show;
mod stop;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pincushion_vmm::exit_code;
use pincushion_vmm::program::{self, WithoutReader, complain};

use crate::report::RunSummary;
use crate::runner;
use crate::verdict::Verdict;

/// Lists, runs, replays and judges scenarios.
#[derive(Debug, Parser)]
#[command(
    name = "pincushion test",
    bin_name = "pincushion test",
    version,
    arg_required_else_help = true,
    after_help = after_help()
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which scenarios there are, what each does and what is expected of it
    List(list::ListArgs),
    /// Say in words what a scenario does, what judges it, and what is expected where and why; or print its file
    Show(show::ShowArgs),
    /// Check a scenario file without running it
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say in words what a fault plan will do, rule by rule: of a plan, a scenario or a flag
    Explain(explain::ExplainArgs),
    /// Run scenarios: those named, those with a tag, or all
    Run(run::RunArgs),
    /// Run a recorded run again, from the scenario, seed and kernel in its directory
    Replay(replay::ReplayArgs),
    /// Judge a recorded run again, from its event log
    Judge(replay::JudgeArgs),
    /// Write the report card and the other reports of runs that were made before, of several suites together
    Report(report::ReportOfArgs),
    /// Look at other power cuts of a recorded run, without booting anything
    PowerCut(power_cut::PowerCutArgs),
    /// Write an image that a power cut may leave of a run's disk or region
    CrashImage(crash_image::CrashImageArgs),
    /// Search the small models of pin-tracking designs for the races that history found, without booting anything
    Model(model::ModelArgs),
    /// The table of designs: what each kernel of our own designs keeps, with each policy, and what its pins cost, on one page
    Designs(designs::DesignsArgs),
    /// The scenarios that show most, with a progress line per step, a table and a page
    Demo(demo::DemoArgs),
    /// One run, as a child of the others
    #[command(hide = true)]
    RunOne(runner::Order),
}

fn after_help() -> String {
    let codes = exit_code::help(&[
        exit_code::OK,
        exit_code::BAD_ARGUMENTS,
        exit_code::SETUP_ERROR,
        exit_code::SURPRISE,
        exit_code::INCONCLUSIVE,
        exit_code::CANNOT_TELL,
        exit_code::INTERRUPTED,
        exit_code::TERMINATED,
    ]);
    format!("Begin with:\n  pincushion test demo\n  pincushion test run --tag quick\n\n{codes}")
}

impl Command {
    fn without_reader(&self) -> WithoutReader {
        match self {
            Self::List(_)
            | Self::Show(_)
            | Self::Check { .. }
            | Self::Explain(_)
            | Self::Model(_)
            | Self::Judge(_)
            | Self::PowerCut(_)
            | Self::CrashImage(_) => WithoutReader::End,
            Self::Run(_)
            | Self::Replay(_)
            | Self::Report(_)
            | Self::Designs(_)
            | Self::Demo(_)
            | Self::RunOne(_) => WithoutReader::GoOn,
        }
    }
}

/// Parses the command line, does what it asks and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    program::begin(args.command.without_reader());
    let result = match args.command {
        Command::List(args) => list::list(&args),
        Command::Show(args) => show::show(&args),
        Command::Check { files } => list::check(&files),
        Command::Explain(args) => explain::explain(&args),
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Judge(args) => replay::judge(&args),
        Command::Report(args) => report::report(&args),
        Command::PowerCut(args) => power_cut::power_cut(&args),
        Command::CrashImage(args) => crash_image::crash_image(&args),
        Command::Model(args) => model::model(&args),
        Command::Designs(args) => designs::designs(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::RunOne(order) => runner::run_one(&order)
            .map(|()| exit_code::OK)
            .map_err(Failure::setup),
    };
    ExitCode::from(result.unwrap_or_else(|failure| {
        complain(format_args!("pincushion test: {}", failure.said));
        failure.code
    }))
}

/// Why a command could not do what it was asked, and the exit code for it.
#[derive(Debug)]
struct Failure {
    code: u8,
    said: String,
}

impl Failure {
    /// The user asked for something that makes no sense.
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: exit_code::BAD_ARGUMENTS,
            said: crate::words(error.into().as_ref()),
        }
    }

    /// Something needed is missing.
    fn setup(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: exit_code::SETUP_ERROR,
            said: crate::words(error.into().as_ref()),
        }
    }
}

/// The exit code of a suite that came to its end: the worst of what was not expected.
fn suite_code(runs: &[RunSummary]) -> u8 {
    let unexpected = || {
        runs.iter()
            .filter(|run| !run.as_expected)
            .map(|run| run.judgement.verdict)
    };
    if unexpected().count() == 0 {
        return exit_code::OK;
    }
    let all = |wanted: Verdict| unexpected().all(|verdict| verdict == wanted);
    if all(Verdict::SetupError) {
        exit_code::SETUP_ERROR
    } else if all(Verdict::Inconclusive) {
        exit_code::INCONCLUSIVE
    } else {
        exit_code::SURPRISE
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::verdict::{Expectation, Judgement};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    fn run(verdict: Verdict, as_expected: bool) -> RunSummary {
        RunSummary {
            scenario: String::new(),
            repeat: 1,
            summary: String::new(),
            about: Default::default(),
            kernel: String::new(),
            kernel_release: String::new(),
            run_dir: PathBuf::new(),
            judgement: Judgement {
                verdict,
                reason: String::new(),
                findings: vec![],
                counts: Default::default(),
            },
            expectation: Expectation {
                verdict,
                oracles: vec![],
            },
            as_expected,
            seconds: 0.0,
            replay: String::new(),
        }
    }

    #[test]
    fn a_suite_that_sees_what_it_expects_is_green_also_with_findings() {
        assert_eq!(suite_code(&[]), exit_code::OK);
        assert_eq!(
            suite_code(&[run(Verdict::Finding, true), run(Verdict::SetupError, true)]),
            exit_code::OK
        );
    }

    #[test]
    fn a_surprise_outweighs_what_could_not_be_established() {
        let setup = run(Verdict::SetupError, false);
        let inconclusive = run(Verdict::Inconclusive, false);
        assert_eq!(
            suite_code(std::slice::from_ref(&setup)),
            exit_code::SETUP_ERROR
        );
        assert_eq!(
            suite_code(std::slice::from_ref(&inconclusive)),
            exit_code::INCONCLUSIVE
        );
        assert_eq!(
            suite_code(&[setup, inconclusive, run(Verdict::Pass, false)]),
            exit_code::SURPRISE
        );
    }
}
