//! `pincushion nested -- COMMAND`: the command runs in the nested machine as if it ran here.
//!
//! Our static programs are put into `/bin`, the files that the command line names to the same paths as here, and the working
//! directory is the same. Disks come back changed, and what `--bring-back` names. Output, exit code and signals
//! pass through; standard input is empty.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pincushion_abi::nested::INSIDE;

use super::args::{Access, Named, NestedArgs, inner_command, named_files, source_and_target};
use super::config::{Command, Ended, NestedConfig};
use super::error::{NestedError, host, host_file};
use super::image::{boot_files, find_agent};
use super::machine::NestedMachine;
use super::qemu::ensure_qemu;
use super::signals::Forwarder;
use crate::causes::with_causes;
use crate::config::design::spell_out;
use crate::exit_code;
use crate::program::complain;

/// Variables that are the same in there.
const ENVIRONMENT: [&str; 6] = [
    "RUST_LOG",
    "RUST_BACKTRACE",
    "NO_COLOR",
    "CLICOLOR_FORCE",
    "TERM",
    "COLUMNS",
];

/// Runs the command of `args` in a fresh nested machine and returns the exit code for this process. Trouble is printed.
#[must_use]
pub fn command(args: NestedArgs) -> u8 {
    run(&args).unwrap_or_else(|error| {
        if error.is_for_want_of_a_reader() {
            return exit_code::READER_GONE;
        }
        complain(format_args!("pincushion nested: {}", with_causes(&error)));
        error.exit_code()
    })
}

/// Whether this process runs in a nested machine.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn run(args: &NestedArgs) -> Result<u8, NestedError> {
    if is_inside() {
        return Err(NestedError::Inside);
    }
    let words = spell_out(utf8(&args.command)?)?;
    let progress = |line: &str| complain(format_args!("nested: {line}"));
    let signals = Forwarder::start()?;
    ensure_qemu(&progress)?;
    let (kernel, initrd) = boot_files(&find_agent()?, &progress)?;
    let config = NestedConfig {
        memory_mib: args.memory,
        vcpus: args.cpus,
        boot_limit: Duration::from_secs(args.boot_limit),
        log: args.log.clone(),
        ..NestedConfig::new(kernel, initrd)
    };
    let machine = NestedMachine::boot(&config, &progress)?;
    install_programs(&machine)?;
    let named = named_files(&words, Path::is_file);
    put_files(&machine, &named, &args.put)?;
    let command = Command {
        argv: inner_command(&words),
        env: ENVIRONMENT
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect(),
        cwd: Some(std::env::current_dir().map_err(host("find the working directory"))?),
        limit: args.limit.map(Duration::from_secs),
    };
    signals.aim(Some(machine.signaller()));
    let ended = machine.run(&command, &mut io::stdout(), &mut io::stderr());
    signals.aim(None);
    let ended = ended?;
    bring_back(&machine, &named, &args.bring_back)?;
    Ok(code_of(ended))
}

/// The exit code that tells how the command ended, as a shell does it.
fn code_of(ended: Ended) -> u8 {
    let byte = |code: i32| u8::try_from(code & 0xff).expect("eight bits are left");
    match ended {
        Ended::Exited(code) => byte(code),
        Ended::Killed(signal) => byte(128 + signal),
        Ended::LimitReached => {
            complain(format_args!(
                "pincushion nested: the command did not end within its limit (--limit)"
            ));
            exit_code::HANG
        }
    }
}

fn utf8(words: &[OsString]) -> Result<Vec<String>, NestedError> {
    let text = |word: &OsString| {
        word.clone()
            .into_string()
            .map_err(|word| NestedError::Refused(format!("{} is not UTF-8", word.display())))
    };
    words.iter().map(text).collect()
}

/// Puts Pincushion's own programs, which are static and lie beside the running one, into the machine's `/bin`.
///
/// # Errors
///
/// [`NestedError`] of the host's files or of the machine.
pub fn install_programs(machine: &NestedMachine) -> Result<(), NestedError> {
    let this = std::env::current_exe().map_err(host("find this program"))?;
    let dir = this.parent().unwrap_or(Path::new("/"));
    let entries = fs::read_dir(dir).map_err(host_file("list", dir))?;
    let mut programs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    programs.retain(|path| is_our_program(path));
    programs.sort();
    for program in programs {
        let name = program.file_name().unwrap_or_default();
        machine.put_if_changed(&program, &Path::new("/bin").join(name), 0o755)?;
    }
    Ok(())
}

/// Whether this is one of ours: by its name, and executable (Cargo leaves `pincushion.d` beside it).
fn is_our_program(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_named = name == "pincushion" || name.starts_with("pincushion-");
    is_named
        && fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn put_files(
    machine: &NestedMachine,
    named: &[Named],
    explicit: &[String],
) -> Result<(), NestedError> {
    for file in named {
        let inside = absolute(&file.path)?;
        put_with_mode(machine, &file.path, &inside)?;
    }
    for text in explicit {
        let (source, target) = source_and_target(text).map_err(host("resolve a path"))?;
        put_with_mode(machine, &source, &target)?;
    }
    Ok(())
}

fn put_with_mode(machine: &NestedMachine, from: &Path, inside: &Path) -> Result<(), NestedError> {
    let meta = fs::metadata(from).map_err(host_file("look at", from))?;
    machine.put(from, inside, meta.permissions().mode() & 0o7777)
}

fn bring_back(
    machine: &NestedMachine,
    named: &[Named],
    explicit: &[String],
) -> Result<(), NestedError> {
    for disk in named.iter().filter(|file| file.access == Access::Disk) {
        replace(machine, &absolute(&disk.path)?, &disk.path)?;
    }
    for text in explicit {
        let (inside, to) = source_and_target(text).map_err(host("resolve a path"))?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(host_file("make", parent))?;
        }
        machine.get(&inside, &to)?;
    }
    Ok(())
}

/// Brings the file `inside` back over the user's own, which stays whole until the new one is.
fn replace(machine: &NestedMachine, inside: &Path, to: &Path) -> Result<(), NestedError> {
    let to = fs::canonicalize(to).map_err(host_file("find", to))?;
    let meta = fs::metadata(&to).map_err(host_file("look at", &to))?;
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".from-nested");
    let temporary = to.with_file_name(name);
    let finish = || {
        machine.get(inside, &temporary)?;
        // The owner matters only to root; for others it is the same already.
        let _ = std::os::unix::fs::chown(&temporary, Some(meta.uid()), Some(meta.gid()));
        File::open(&temporary)
            .and_then(|file| file.sync_data())
            .and_then(|()| fs::rename(&temporary, &to))
            .map_err(host_file("replace", &to))
    };
    finish().inspect_err(|_| {
        // The error says what matters; the half file must not stay.
        let _ = fs::remove_file(&temporary);
    })
}

fn absolute(path: &Path) -> Result<PathBuf, NestedError> {
    std::path::absolute(path).map_err(host("resolve a path"))
}
