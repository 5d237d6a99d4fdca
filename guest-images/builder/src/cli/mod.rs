//! The command line of `pincushion image`.

mod build;
mod inventory;
mod kernel;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pincushion_image::bzimage::extract_vmlinux;
use pincushion_image::kernel::KernelError;
use pincushion_image::program::{self, WithoutReader, complain, exit_code};
use pincushion_image::{Error, KernelSpec, Store};

fn after_help() -> String {
    let codes = exit_code::help(&[
        exit_code::OK,
        exit_code::FAILED,
        exit_code::BAD_ARGUMENTS,
        exit_code::SETUP_ERROR,
    ]);
    format!(
        "The cache is $PINCUSHION_CACHE, else $XDG_CACHE_HOME/pincushion, else ~/.cache/pincushion; it can be deleted at any time.\n\n{codes}"
    )
}

/// Build guest images (a kernel, and an initramfs with PID 1 and modules) and look after their cache.
#[derive(Debug, Parser)]
#[command(name = "pincushion image", version, after_help = after_help(), arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image, and print where its kernel and initramfs are
    Build(build::BuildArgs),
    /// List the kernels and images in the cache
    List(inventory::ListArgs),
    /// Fetch and unpack a kernel, and print where it is
    Fetch {
        /// `debian:6.12`, `debian:6.1`, `debian:<exact version>`, `design:<name>`, `host`, or the path of a vmlinux or bzImage
        kernel: KernelSpec,
    },
    /// Build, list and check kernels that carry our own pin-tracking designs
    #[command(subcommand)]
    Kernel(kernel::KernelCommand),
    /// Read every file in the cache and compare its digest with the record
    Verify,
    /// Remove kernels or images from the cache
    Remove(inventory::RemoveArgs),
    /// Print the manifest of an image or a kernel
    Show {
        /// First digits of its digest (at least 6), or a kernel's release or package
        name: String,
    },
    /// Take the ELF kernel out of a bzImage
    ExtractVmlinux {
        /// A kernel as distributions ship it
        bzimage: PathBuf,
        /// Where to write the ELF file
        out: PathBuf,
    },
}

impl Command {
    fn without_reader(&self) -> WithoutReader {
        match self {
            Self::List(_) | Self::Verify | Self::Show { .. } => WithoutReader::End,
            Self::Kernel(command) => command.without_reader(),
            Self::Build(_) | Self::Fetch { .. } | Self::Remove(_) | Self::ExtractVmlinux { .. } => {
                WithoutReader::GoOn
            }
        }
    }
}

/// Parses the command line, does what it asks and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    program::begin(args.command.without_reader());
    match run(args.command) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("pincushion image: {error:#}"));
            ExitCode::from(code_of(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build(args) => build::build(&args),
        Command::List(args) => inventory::list(&Store::open_default()?, &args),
        Command::Fetch { kernel } => build::fetch(&kernel),
        Command::Kernel(command) => kernel::run(&command),
        Command::Verify => inventory::verify(&Store::open_default()?),
        Command::Remove(args) => inventory::remove(&Store::open_default()?, &args),
        Command::Show { name } => inventory::show(&Store::open_default()?, &name),
        Command::ExtractVmlinux { bzimage, out } => {
            let bytes =
                fs::read(&bzimage).with_context(|| format!("cannot read {}", bzimage.display()))?;
            let vmlinux = extract_vmlinux(&bytes).with_context(|| bzimage.display().to_string())?;
            fs::write(&out, vmlinux).with_context(|| format!("cannot write {}", out.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Says on standard error what takes time.
pub(crate) fn progress(verb: &str, object: &str) {
    complain(format_args!("{verb:>10} {object}"));
}

fn code_of(error: &anyhow::Error) -> u8 {
    // A name that was looked up before anything was done.
    if let Some(KernelError::Unknown { .. }) = error.downcast_ref::<KernelError>() {
        return exit_code::BAD_ARGUMENTS;
    }
    match error.downcast_ref::<Error>() {
        Some(
            Error::BadKernelSpec(_)
            | Error::BadImagePath { .. }
            | Error::NoEntry(_)
            | Error::ModulesNotWanted(_)
            | Error::Design(KernelError::Unknown { .. }),
        ) => exit_code::BAD_ARGUMENTS,
        Some(_) | None => exit_code::SETUP_ERROR,
    }
}
