//! `designs`: the scenarios that tell pin-tracking designs apart, on each design and policy, and the table that comes of them.

mod chosen;
pub(super) mod earlier;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use pincushion_image::Store;
use pincushion_vmm::program::complain;

use self::chosen::{Chosen, kernel_by_kernel};
use self::earlier::{earlier, missing};
use super::reports::{self, ReportArgs};
use super::rest::flags;
use super::run::{Done, HowArgs, Wanted, conduct};
use super::{Failure, stop, suite_code};
use crate::designs::{self, Absent, Table};
use crate::report::{self, RunSummary};
use crate::rundir::quoted;
use crate::suite::{Item, Programs, WARM_UP};

/// Options of `designs`.
#[derive(Debug, Args)]
pub(super) struct DesignsArgs {
    /// A design; may be repeated [default: all that `pincushion image kernel list` shows]
    #[arg(long, value_name = "NAME")]
    design: Vec<String>,
    /// A policy of write-back; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Build the kernels that are missing, by `pincushion image kernel build`: 10 to 15 minutes for each binary on 2 idle CPUs
    #[arg(long)]
    build: bool,
    /// Run each so often: each time is a boot set, in which costs are compared
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Take what the runs of this report directory have said, and run only what is missing; may be repeated, and then the later one counts
    /// where both have a scenario on a kernel
    #[arg(long, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// Run nothing: make the page of what `--from` has
    #[arg(long, requires = "from", conflicts_with = "build")]
    no_runs: bool,
    /// Write the page as PREFIX.html, PREFIX.md and PREFIX.json [default: designs in the report directory]
    #[arg(long, value_name = "PREFIX")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

pub(super) fn designs(args: &DesignsArgs) -> Result<u8, Failure> {
    let chosen = Chosen::of(args).map_err(Failure::usage)?;
    let store = Store::open_default().map_err(Failure::setup)?;
    let earlier = earlier(&args.from, &chosen.baseline)
        .map_err(|error| Failure::usage(anyhow!("--from: {error}")))?;
    if args.build {
        build_kernels(&chosen.to_build(&store)?)?;
    }
    let (built, absent) = chosen.built(&store)?;
    if args.no_runs && earlier.is_empty() {
        return Err(Failure::usage(anyhow!(
            "--no-runs: no run is in the directories of --from"
        )));
    }
    if let Some(said) = not_built(&absent).filter(|_| !args.no_runs) {
        if built.is_empty() && earlier.is_empty() {
            return Err(Failure::setup(anyhow!(said)));
        }
        complain(format_args!("-- {said}"));
    }
    let (costs, scenarios) = if args.no_runs {
        (Vec::new(), Vec::new())
    } else {
        let all = chosen.items(&built, args.repeat).map_err(Failure::usage)?;
        let (costs, mut scenarios) = missing(all, &earlier);
        kernel_by_kernel(&mut scenarios);
        (chosen.warmed_up(costs), scenarios)
    };
    let is_wanted = |item: &&Item| item.repeat != WARM_UP;
    let total = costs.iter().chain(&scenarios).filter(is_wanted).count();
    // What is measured runs alone.
    let batches = [(&costs[..], 1), (&scenarios[..], args.how.jobs)];
    let mut done = (total > 0)
        .then(|| {
            let wanted = Wanted {
                seed: args.seed,
                how: &args.how,
                dir: args.reports.report_dir.as_deref(),
                until: None,
            };
            conduct(&batches, &wanted)
        })
        .transpose()?;
    if let Some(done) = &mut done {
        done.runs.retain(|run| run.repeat != WARM_UP);
        done.not_done.retain(|item| item.repeat != WARM_UP);
    }
    let dir = match &done {
        Some(done) => done.dir.clone(),
        None => reports::directory(args.reports.report_dir.as_deref())?,
    };
    let new = done.as_ref().map_or(&[][..], |done| &done.runs[..]);
    let runs = [earlier, new.to_vec()].concat();
    let made = done
        .as_ref()
        .map_or("no new runs".to_owned(), |done| done.made(total));
    let table = chosen.table(&runs, &made, absent).map_err(Failure::setup)?;
    let page = write(args, &dir, &table, &runs).map_err(Failure::setup)?;
    reports::say(&format!("\n{}", table.words.join("\n")));
    let signal = done.as_ref().and_then(|done| done.signal);
    if let (Some(signal), Some(done)) = (signal, &done) {
        reports::say(&go_on(args, signal, done));
    }
    reports::tell(&page);
    Ok(signal.map_or_else(|| suite_code(new), stop::code))
}

/// Builds the kernels of these designs, and shows what that shows.
fn build_kernels(designs: &[String]) -> Result<(), Failure> {
    if designs.is_empty() {
        return Ok(());
    }
    let note = |text: &str| complain(format_args!("-- {text}"));
    let programs = Programs::find(&note).map_err(Failure::setup)?;
    let mut command = std::process::Command::new(programs.image());
    command.args(["kernel", "build"]);
    for design in designs {
        command.args(["--design", design]);
    }
    let status = command
        .status()
        .map_err(|error| Failure::setup(anyhow!("cannot run pincushion-image: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::setup(anyhow!(
        "the kernels could not be built (--build): `pincushion image kernel build` ended with {status}; run this again to go on"
    )))
}

/// Which designs do not run, why, and the way out.
fn not_built(absent: &[Absent]) -> Option<String> {
    let [first, others @ ..] = absent else {
        return None;
    };
    if others.is_empty() {
        return Some(format!("{} does not run: {}", first.design, first.why));
    }
    let names: Vec<&str> = absent.iter().map(|absent| absent.design.as_str()).collect();
    Some(format!(
        "{} do not run; `--build` builds what is missing. Of the first: {}",
        names.join(", "),
        first.why
    ))
}

/// How to go on after a stop.
fn go_on(args: &DesignsArgs, signal: i32, done: &Done) -> String {
    let mut line = "pincushion test designs".to_owned();
    let mut add = |flag: &str, words: &[String]| {
        for word in words {
            line += &format!(" {flag} {}", quoted(word));
        }
    };
    add("--design", &args.design);
    add("--policy", &args.policy);
    add("--from", &[done.dir.display().to_string()]);
    if let Some(out) = &args.out {
        add("--out", &[out.display().to_string()]);
    }
    if args.build {
        line += " --build";
    }
    if args.repeat != 1 {
        line += &format!(" --repeat {}", args.repeat);
    }
    line += &flags(args.seed, &args.how);
    format!(
        "\nstopped by {}: {} runs were not done; what ran is kept, and this goes on:\n  {line}\n",
        stop::name(signal),
        done.not_done.len()
    )
}

/// Writes the page in three ways, and the ordinary report beside it. Gives the page for a browser.
fn write(
    args: &DesignsArgs,
    dir: &Path,
    table: &Table,
    runs: &[RunSummary],
) -> anyhow::Result<PathBuf> {
    let prefix = args.out.clone().unwrap_or_else(|| dir.join("designs"));
    let with = |ending: &str| {
        let mut path = prefix.clone().into_os_string();
        path.push(ending);
        PathBuf::from(path)
    };
    let json = serde_json::to_string_pretty(table)? + "\n";
    let files = [
        (with(".html"), designs::html(table)),
        (with(".md"), designs::markdown(table)),
        (with(".json"), json),
    ];
    for (path, text) in &files {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| anyhow!("cannot make {} (--out): {error}", parent.display()))?;
        }
        std::fs::write(path, text)
            .map_err(|error| anyhow!("cannot write {} (--out): {error}", path.display()))?;
    }
    let about = report::About {
        title: "The runs of the table of designs".into(),
        command: table.about.command.clone(),
        made: table.about.made.clone(),
        commit: table.about.commit.clone(),
    };
    reports::write(&args.reports, dir, runs, &about)?;
    let page = with(".html");
    Ok(std::path::absolute(&page).unwrap_or(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_told_in_one_line() {
        let absent = |design: &str| Absent {
            design: design.into(),
            why: format!("run it --design {design}"),
        };
        assert_eq!(not_built(&[]), None);
        let one = not_built(&[absent("tree")]).unwrap();
        assert_eq!(one, "tree does not run: run it --design tree");
        let two = not_built(&[absent("tree"), absent("aux")]).unwrap();
        assert!(two.starts_with("tree, aux do not run; `--build`"), "{two}");
        assert!(
            two.ends_with("--design tree") && !two.contains("--design aux"),
            "{two}"
        );
    }
}
