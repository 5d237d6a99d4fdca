//! What comes from the distribution when it is needed: as root by itself, else the user gets the line to type; and programs of crates, which
//! are built into the cache.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::crate_program::CrateProgram;
use crate::error::Error;
use crate::host_program::{host_program, line_for};

/// How much of a failed installation is told.
const LAST_LINES: usize = 10;

/// Makes sure that these programs of the host are there, and installs their packages if they are not and we are root; what comes from a crate is
/// built by cargo for whoever asks. `progress` gets lines for the user.
///
/// # Errors
/// [`Error::NoProgram`] with the line to type for a user who is not root; [`Error::NoInstaller`] and [`Error::Install`] if that failed.
pub fn ensure_host_programs(names: &[&str], progress: &dyn Fn(&str)) -> Result<(), Error> {
    for name in names {
        let missing = match host_program(name) {
            Err(missing @ Error::NoProgram { .. }) => missing,
            found => {
                found?;
                continue;
            }
        };
        match CrateProgram::named(name) {
            Some(program) => build_crate(program, name, progress)?,
            None if rustix::process::geteuid().is_root() => {
                install(name, &line_for(name), progress)?;
            }
            None => return Err(missing),
        }
        host_program(name)?;
    }
    Ok(())
}

/// What installs these packages.
#[must_use]
pub fn install_line(packages: &[&str]) -> String {
    format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Runs one of our own `apt-get install` lines, and fetches the lists of packages first where it fails without them.
///
/// # Errors
/// [`Error::NoInstaller`] on a host that is no Debian, [`Error::Install`] if it failed.
pub fn install(what: &str, line: &str, progress: &dyn Fn(&str)) -> Result<(), Error> {
    progress(&format!("installing {what}: {line}"));
    // The lists may be missing (containers) or old: only then is the update worth its time.
    if apt_get(line, progress).is_err() {
        progress("that failed; fetching the package lists first: apt-get update");
        apt_get("apt-get update", progress)?;
        apt_get(line, progress)?;
    }
    Ok(())
}

/// Has cargo build a program of a crate.
fn build_crate(program: CrateProgram, name: &str, progress: &dyn Fn(&str)) -> Result<(), Error> {
    let line = program.line();
    progress(&format!("building {name}: {line}"));
    let mut command = Command::new("cargo");
    command.args(program.arguments()?);
    // A configuration of the directory that we were started in, and a target directory of another build, are not meant for it.
    command.current_dir("/").env_remove("CARGO_TARGET_DIR");
    run_told(command, &line, &["Compiling", "Installing"], progress)
}

/// Runs one of our own `apt-get` lines without any question to the user, who sees what is unpacked and set up.
fn apt_get(line: &str, progress: &dyn Fn(&str)) -> Result<(), Error> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    // Another apt-get may be at work: wait for it instead of failing.
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(words);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    run_told(command, line, &["Unpacking", "Setting up"], progress)
}

/// Runs `command`, which the user knows as `line`, and tells lines of its output that begin with one of `heads`.
fn run_told(
    mut command: Command,
    line: &str,
    heads: &[&str],
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Command {
        command: line.to_owned(),
        reason: error.to_string(),
    };
    let (output, sink) = io::pipe().map_err(failed)?;
    let errors = sink.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(sink).stderr(errors);
    let spawned = command.spawn();
    // It holds our ends of the pipe: without it the lines end with the program.
    drop(command);
    let mut child = spawned.map_err(|_| Error::NoInstaller(line.to_owned()))?;
    let mut last = VecDeque::new();
    for text in BufReader::new(output).lines().map_while(Result::ok) {
        if heads.iter().any(|head| text.trim_start().starts_with(head)) {
            progress(text.trim_start());
        }
        last.push_back(text);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Install {
        line: line.to_owned(),
        status: status.to_string(),
        output: Vec::from(last).join("\n"),
    })
}
