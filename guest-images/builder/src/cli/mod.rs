//! The command line of `pincushion image`.

mod build;
mod inventory;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use pincushion_image::bzimage::extract_vmlinux;
use pincushion_image::{Error, KernelSpec, Store};

/// Something asked for was not as it should be, such as a damaged cache. The README has the table of all codes.
const FAILED: u8 = 1;
/// The command line is wrong.
const BAD_ARGUMENTS: u8 = 2;
/// Something that is needed is missing or unusable.
const SETUP_ERROR: u8 = 3;

const AFTER_HELP: &str = "\
The cache is $PINCUSHION_CACHE, else $XDG_CACHE_HOME/pincushion, else ~/.cache/pincushion; it can be deleted at any time.

Exit codes:
  0  done
  1  verify found damage
  2  bad arguments
  3  setup error: a kernel, package, module or file is missing or unusable";

/// Build guest images (a kernel, and an initramfs with PID 1 and modules) and look after their cache.
#[derive(Debug, Parser)]
#[command(name = "pincushion image", version, after_help = AFTER_HELP, arg_required_else_help = true)]
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
        /// `debian:6.12`, `debian:6.1`, `debian:<exact version>`, `host`, or the path of a vmlinux or bzImage
        kernel: KernelSpec,
    },
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

/// Parses the command line, does what it asks and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_timestamp(None)
        .init();
    match run(args.command) {
        Ok(code) => code,
        // A reader that went away (`| head`) is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pincushion image: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build(args) => build::build(&args),
        Command::List(args) => inventory::list(&Store::open_default()?, &args),
        Command::Fetch { kernel } => build::fetch(&kernel),
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
    eprintln!("{verb:>10} {object}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(
            Error::BadKernelSpec(_)
            | Error::BadImagePath { .. }
            | Error::NoEntry(_)
            | Error::ModulesNotWanted(_),
        ) => BAD_ARGUMENTS,
        Some(_) | None => SETUP_ERROR,
    }
}
