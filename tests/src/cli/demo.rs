//! `demo`: the scenarios that show most, on the newest kernel, told step by step.

use clap::Args;

use super::Failure;
use super::reports::ReportArgs;
use super::run::{HowArgs, perform};
use crate::report::About;
use crate::suite::{PlaceChoice, Selection, select};

/// The kernel of the demo.
const KERNEL: &str = "debian:6.12";

/// Options of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Another kernel
    #[arg(long, value_name = "KERNEL", default_value = KERNEL)]
    kernel: String,
    /// Where guests run
    #[arg(long, value_name = "PLACE", default_value = "auto")]
    place: PlaceChoice,
    #[command(flatten)]
    reports: ReportArgs,
}

pub(super) fn demo(args: &DemoArgs) -> Result<u8, Failure> {
    let selection = Selection {
        tags: vec!["demo".into()],
        kernels: vec![args.kernel.clone()],
        ..Selection::default()
    };
    let items = select(&selection).map_err(Failure::usage)?;
    let about = About {
        title: "Pincushion demo".into(),
        command: "cargo demo".into(),
        ..About::default()
    };
    let how = HowArgs {
        jobs: 1,
        place: args.place,
        keep: false,
        fresh: false,
        verbose: true,
    };
    perform(&items, 0, &how, &args.reports, about, None)
}
