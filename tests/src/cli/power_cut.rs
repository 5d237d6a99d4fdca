//! `power-cut`: other cuts of a recorded run, without booting anything.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use pincushion_devices::trace::event::{Event, EventKind, Seq};
use pincushion_vmm::exit_code;

use super::Failure;
use super::replay::print_judgement;
use crate::oracle::judge_events;
use crate::rundir::RunDir;
use crate::runner::look_at_power_cuts;
use crate::scenario::power_cut::CutAt;
use crate::timeline::Reader;
use crate::verdict::Verdict;

/// Options of `power-cut`.
#[derive(Debug, Args)]
pub(super) struct PowerCutArgs {
    /// The run's directory
    run_dir: PathBuf,
    /// Draw cuts and images from this; by default from the run's seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Images of each medium at each cut; by default as the scenario says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Cut at so many events by the seed, and nowhere else
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    random: Option<u32>,
    /// Cut just after this event, and nowhere else
    #[arg(long, value_name = "SEQ", conflicts_with = "random")]
    at: Option<u64>,
    /// Bytes in line that a disk never tears: 512 or 4096
    #[arg(long, value_name = "BYTES", value_parser = ["512", "4096"])]
    atomic: Option<String>,
}

pub(super) fn power_cut(args: &PowerCutArgs) -> Result<u8, Failure> {
    let dir = RunDir::at(&args.run_dir);
    let scenario = dir.scenario().map_err(Failure::usage)?;
    let Some(mut table) = scenario.power_cut.clone() else {
        return Err(Failure::usage(anyhow!("the scenario has no [power-cut]")));
    };
    if let Some(images) = args.images {
        table.images = images;
    }
    if let Some(atomic) = &args.atomic {
        table.atomic = atomic
            .parse()
            .map_err(|error: std::num::ParseIntError| Failure::usage(error))?;
    }
    let only = args.random.map(|random| CutAt {
        random: Some(random),
        ..CutAt::default()
    });
    let only = only.or(args.at.map(|seq| CutAt {
        seq: Some(seq),
        ..CutAt::default()
    }));
    if let Some(only) = only {
        table.most = only.random.unwrap_or(1);
        table.at = vec![only];
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => dir.info().map_err(Failure::usage)?.seed,
    };
    let facts = look_at_power_cuts(&dir, &scenario, &table, seed, &dir.file("power-cut"))
        .map_err(|error| Failure::setup(anyhow!(error)))?;
    let mut events = Vec::new();
    for event in Reader::open(&dir.file("events.jsonl")).map_err(Failure::usage)? {
        events.push(event.map_err(Failure::usage)?);
    }
    // What the run itself had found is told by `judge`.
    events.retain(|event| {
        !matches!(&event.kind, EventKind::Fact { key, .. } if key == "power-cut" || key == "crash-image")
    });
    for (key, value) in facts {
        let last = events
            .last()
            .map_or((0, 0), |event| (event.seq.0, event.time_ns));
        events.push(Event {
            seq: Seq(last.0 + 1),
            time_ns: last.1,
            kind: EventKind::Fact { key, value },
        });
    }
    let judgement = judge_events(&events);
    print_judgement(&judgement);
    for (name, count) in &judgement.counts {
        if name.starts_with("lost-after-power-cut.") {
            println!("{name}: {count}");
        }
    }
    Ok(match judgement.verdict {
        Verdict::Pass => exit_code::OK,
        _ => exit_code::SURPRISE,
    })
}
