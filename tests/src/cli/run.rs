//! `run`: a selection of scenarios, and reports about them.

use std::path::{Path, PathBuf};

use clap::Args;
use pincushion_vmm::signals::OnSignal;

use super::bisect::{self, Until};
use super::progress::{Detail, ToStderr};
use super::reports::{self, ReportArgs};
use super::rest::rest;
use super::{Failure, stop, suite_code};
use crate::report::{About, Card, RunSummary, card_text, shown, surprises, terminal};
use crate::rundir::quoted;
use crate::suite::{Item, Place, PlaceChoice, Programs, Selection, Suite, select};

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Scenarios by name
    names: Vec<String>,
    /// Scenarios with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// A scenario file of your own; may be repeated
    #[arg(long, value_name = "FILE")]
    scenario: Vec<PathBuf>,
    /// Run on this kernel (`debian:6.12`, `design:bias+bounce`, `host`, or a path) instead of the scenario's; may be repeated
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// Run each so often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Only this scenario, whose promise is asked for
    #[arg(long, value_name = "NAME", requires = "until", conflicts_with_all = ["names", "tag", "scenario"])]
    only: Option<String>,
    /// Run it again, at most `--repeat` times, until the kernel has broken a promise: then exit with 20, with 0 where every run
    /// kept it, with 125 where the runs do not tell. That is what `git bisect run` wants; what the scenario expects does not matter
    #[arg(long, value_name = "WHEN", requires = "only")]
    until: Option<Until>,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

/// How runs are done; shared by all commands that run.
#[derive(Debug, Clone, Args)]
pub(super) struct HowArgs {
    /// So many runs at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jobs: u32,
    /// Where guests run
    #[arg(long, value_name = "PLACE", default_value = "auto")]
    pub(super) place: PlaceChoice,
    /// Keep the disks' images in the run directories
    #[arg(long)]
    pub(super) keep: bool,
    /// Boot every guest: without this, guests go on from a snapshot of one like them that has booted in this suite
    #[arg(long)]
    pub(super) fresh: bool,
    /// Print a line per step
    #[arg(long, short)]
    pub(super) verbose: bool,
}

pub(super) fn run(args: &RunArgs) -> Result<u8, Failure> {
    let selection = Selection {
        names: args.only.iter().chain(&args.names).cloned().collect(),
        tags: args.tag.clone(),
        files: args.scenario.clone(),
        kernels: args.kernel.clone(),
        repeat: args.repeat,
    };
    let items = select(&selection).map_err(Failure::usage)?;
    let about = About {
        title: "Scenarios".into(),
        command: command_line(),
        ..About::default()
    };
    perform(
        &items,
        args.seed,
        &args.how,
        &args.reports,
        about,
        args.until,
    )
}

/// Runs items and reports. Gives the exit code.
pub(super) fn perform(
    items: &[Item],
    seed: u64,
    how: &HowArgs,
    reports: &ReportArgs,
    about: About,
    until: Option<Until>,
) -> Result<u8, Failure> {
    let wanted = Wanted {
        seed,
        how,
        dir: reports.report_dir.as_deref(),
        until,
    };
    let done = conduct(&[(items, how.jobs)], &wanted)?;
    let (runs, signal) = (&done.runs, done.signal);
    let about = About {
        made: done.made(items.len()),
        commit: done.commit.clone(),
        ..about
    };
    let mut said = format!("\n{}", table(runs));
    if let Some(sentence) = shown(runs) {
        said += &format!("\n{sentence}\n");
    }
    if let Some(signal) = signal {
        said += &format!("\nstopped by {}\n", stop::name(signal));
        let not_done: Vec<&Item> = done.not_done.iter().collect();
        said += &tell_rest(&not_done, &rest(&not_done, seed, how));
    }
    reports::say(said.trim_end_matches('\n'));
    let page = reports::write(reports, &done.dir, runs, &about).map_err(Failure::setup)?;
    reports::tell(&page);
    Ok(match (signal, until) {
        (Some(signal), _) => stop::code(signal),
        (None, Some(Until::Broken)) => bisect::code(runs),
        (None, None) => suite_code(runs),
    })
}

/// How a suite is to run.
pub(super) struct Wanted<'a> {
    pub(super) seed: u64,
    pub(super) how: &'a HowArgs,
    /// New or empty; `None`: one is made.
    pub(super) dir: Option<&'a Path>,
    pub(super) until: Option<Until>,
}

/// What came of it.
pub(super) struct Done {
    /// Of the suite.
    pub(super) dir: PathBuf,
    pub(super) runs: Vec<RunSummary>,
    /// What a stop left.
    pub(super) not_done: Vec<Item>,
    /// The signal that stopped it.
    pub(super) signal: Option<i32>,
    /// Ours, when it began.
    pub(super) commit: String,
    /// Where guests ran.
    pub(super) place: &'static str,
    /// Until the reports are written, a second Ctrl-C leaves at once.
    _signals: OnSignal,
}

impl Done {
    /// How many of `all` runs, and where.
    pub(super) fn made(&self, all: usize) -> String {
        let stopped = self.signal.map_or(String::new(), |signal| {
            format!(" of {all}, stopped by {}", stop::name(signal))
        });
        let count = self.runs.len();
        format!("{count} runs{stopped}, guests ran on: {}", self.place)
    }
}

/// Runs batches of items one after the other, each so many at a time.
pub(super) fn conduct(batches: &[(&[Item], u32)], wanted: &Wanted<'_>) -> Result<Done, Failure> {
    let how = wanted.how;
    let detail = if how.verbose {
        Detail::Steps
    } else {
        Detail::Runs
    };
    let progress = ToStderr {
        detail,
        is_mixed: how.jobs > 1,
    };
    let note = |text: &str| crate::suite::Progress::note(&progress, text);
    let dir = reports::directory(wanted.dir)?;
    // Of now: who waits for runs goes on working.
    let commit = crate::suite::workspace_commit();
    let seed = wanted.seed;
    note(&format!(
        "seed {seed}, commit {commit}, runs in {}",
        dir.display()
    ));
    let programs = Programs::find(&note).map_err(Failure::setup)?;
    let place = Place::choose(how.place, dir.join("nested-console.log"), &note);
    let where_ = place.name(false);
    let mut suite = Suite::new(programs, place, dir.clone(), how.jobs as usize);
    let until = wanted.until;
    suite.enough = until.map(|Until::Broken| bisect::is_enough as fn(&RunSummary) -> bool);
    (suite.seed, suite.keep, suite.fresh) = (seed, how.keep, how.fresh);
    let signals = stop::on_signal(suite.stop())?;
    let (mut runs, mut not_done) = (Vec::new(), Vec::new());
    for (items, jobs) in batches {
        let ended = suite.run_all(items, *jobs as usize, &progress);
        for (item, summary) in std::iter::zip(*items, ended) {
            match summary {
                Some(summary) => runs.push(summary),
                None => not_done.push(item.clone()),
            }
        }
    }
    Ok(Done {
        dir,
        runs,
        not_done,
        signal: suite.stop().wished(),
        commit,
        place: where_,
        _signals: signals,
    })
}

/// The verdicts: a line per run; where a scenario ran on several kernels, or again and again, the report card and the surprises.
pub(super) fn table(runs: &[RunSummary]) -> String {
    let card = Card::of(runs);
    if card.says_more_than(runs) {
        format!("{}{}", card_text(&card), surprises(runs))
    } else {
        terminal(runs)
    }
}

/// Which runs were not done, and how to do them.
fn tell_rest(not_done: &[&Item], lines: &[String]) -> String {
    if not_done.is_empty() {
        return "every run was done by then\n".into();
    }
    let runs = not_done
        .iter()
        .map(|item| format!("  {} on {}\n", item.scenario.name, item.kernel));
    let lines = lines.iter().map(|line| format!("  {line}\n"));
    format!(
        "not done:\n{}the rest:\n{}",
        runs.collect::<String>(),
        lines.collect::<String>()
    )
}

/// What the user typed, for the report.
pub(super) fn command_line() -> String {
    let words = std::env::args().skip(1).map(|word| quoted(&word));
    std::iter::once("pincushion test".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}
