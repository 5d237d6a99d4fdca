//! `pincushion doctor`.

use clap::Args;

use crate::doctor::{Health, examine};
use crate::exit_code;

/// Options of `pincushion doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object per check
    #[arg(long)]
    json: bool,
}

/// Prints every check; fails when something needed is missing.
pub fn doctor(args: &DoctorArgs) -> u8 {
    let checks = examine();
    for check in &checks {
        if args.json {
            println!(
                "{}",
                serde_json::to_string(check).expect("a check is plain data")
            );
            continue;
        }
        let mark = match check.health {
            Health::Good => "ok",
            Health::Fair => "note",
            Health::Missing => "MISSING",
        };
        println!("{mark:>7}  {:<18} {}", check.name, check.seen);
        if !check.advice.is_empty() {
            println!("{:>7}  {:<18} -> {}", "", "", check.advice);
        }
    }
    if checks.iter().any(|check| check.health == Health::Missing) {
        exit_code::SETUP_ERROR
    } else {
        exit_code::OK
    }
}
