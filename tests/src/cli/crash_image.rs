//! `crash-image`: an image that a power cut may leave, as a file.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use pincushion_vmm::exit_code;

use super::Failure;
use crate::crash::{Choice, Evidence};
use crate::rundir::RunDir;
use crate::runner::write_image;
use crate::timeline::{Reader, Timeline};

/// Options of `crash-image`.
#[derive(Debug, Args)]
pub(super) struct CrashImageArgs {
    /// The run's directory
    run_dir: PathBuf,
    /// Name of the disk or region; may be left out where the scenario records one
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// The power goes just after this event of events.jsonl
    #[arg(long, value_name = "SEQ")]
    at: u64,
    /// Number of the image: 0 has nothing that is not settled, 1 all of it, others some
    #[arg(long, value_name = "K")]
    image: u32,
    /// What it is drawn from; by default the run's seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The file to write, which must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn crash_image(args: &CrashImageArgs) -> Result<u8, Failure> {
    let dir = RunDir::at(&args.run_dir);
    let scenario = dir.scenario().map_err(Failure::usage)?;
    let Some(table) = scenario.power_cut else {
        return Err(Failure::usage(anyhow!("the scenario has no [power-cut]")));
    };
    let recorded = table.devices;
    let device = match (&args.device, recorded.as_slice()) {
        (Some(device), _) if recorded.contains(device) => device,
        (None, [device]) => device,
        _ => {
            let known = recorded.join(", ");
            return Err(Failure::usage(anyhow!("say --device, one of: {known}")));
        }
    };
    let mut timeline = Timeline::default();
    for event in Reader::open(&dir.file("events.jsonl")).map_err(Failure::usage)? {
        timeline.feed(&event.map_err(Failure::usage)?);
    }
    let last = timeline.last.map_or(0, |last| last.seq);
    if args.at > last {
        return Err(Failure::usage(anyhow!(
            "--at {}: the log ends with event {last}",
            args.at
        )));
    }
    let evidence = Evidence::load(dir.path(), &timeline, device).map_err(Failure::setup)?;
    let state = evidence.at(args.at).map_err(Failure::setup)?;
    let choice = Choice {
        seed: match args.seed {
            Some(seed) => seed,
            None => dir.info().map_err(Failure::usage)?.seed,
        },
        device,
        cut: args.at,
        image: args.image,
        atomic: evidence.atomic(table.atomic),
    };
    if args.out.exists() {
        return Err(Failure::usage(anyhow!(
            "{} exists; name a new file",
            args.out.display()
        )));
    }
    let write = write_image(&args.out, &choice.make(&state));
    write
        .map_err(|error| Failure::setup(anyhow!("cannot write {}: {error}", args.out.display())))?;
    println!(
        "{}: {device} after event {}, image {} (seed {}); {} units may hold more than one thing",
        args.out.display(),
        args.at,
        args.image,
        choice.seed,
        state.open_units()
    );
    Ok(exit_code::OK)
}
