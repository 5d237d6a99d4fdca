//! The command line of `pincushion`.
//!
//! `pincushion NAME ...` is one of the commands below, or the program `pincushion-NAME` beside this one, as with cargo and git:
//! so `pincushion test` is `pincushion-test` and `pincushion image` is `pincushion-image`.

mod ctl;
mod doctor;
mod external;
mod kvm_limits;
mod run;
mod run_args;
mod show;
mod table;
mod top;
mod top_view;

pub use top::top_screen;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit_code;
use crate::program::{self, WithoutReader};

/// A KVM machine monitor whose devices hold guest pages, to show what the kernel's page pinning really promises.
#[derive(Debug, Parser)]
#[command(name = "pincushion", version, after_help = after_help(), subcommand_required = true, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a guest
    Run(Box<run_args::RunArgs>),
    /// Say what this host can do, and what to do about the rest
    Doctor(doctor::DoctorArgs),
    /// Talk to a running machine over its control socket: holds, gates, plan, metrics, events, pause
    Ctl(ctl::CtlArgs),
    /// Watch a running machine's queues and held pages in the terminal
    Top(top::TopArgs),
    /// Run a pincushion command inside the nested machine: `pincushion nested -- run --kernel vmlinuz ...`
    Nested(crate::nested::NestedArgs),
    #[command(external_subcommand)]
    External(Vec<OsString>),
}

fn after_help() -> String {
    let codes = exit_code::help_all();
    format!(
        "Programs beside this one:\n  test   List, run, judge and replay scenarios (pincushion-test)\n  \
         image  Build and list guest images (pincushion-image)\n\n{codes}"
    )
}

impl Command {
    fn without_reader(&self) -> WithoutReader {
        match self {
            Self::Doctor(_) | Self::Ctl(_) => WithoutReader::End,
            // It has to put the terminal in order.
            Self::Top(_) => WithoutReader::GoOn,
            // A program beside this one decides for itself.
            Self::Run(_) | Self::Nested(_) | Self::External(_) => WithoutReader::GoOn,
        }
    }
}

/// Parses the command line, does what it asks and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    program::begin(args.command.without_reader());
    let code = match args.command {
        Command::Run(args) => run::run(*args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Ctl(args) => ctl::ctl(&args),
        Command::Top(args) => top::top(&args),
        Command::Nested(args) => crate::nested::command(args),
        Command::External(argv) => external::exec(&argv),
    };
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn help_lists_every_exit_code() {
        let help = Args::command().render_help().to_string();
        for (code, meaning) in exit_code::TABLE {
            assert!(help.contains(&format!("{code:>3}  {meaning}")), "{code}");
        }
    }
}
