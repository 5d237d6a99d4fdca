//! What comes from the distribution when it is needed: as root by itself, else the user gets the line to type.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::host_program::{host_program, package_of};

/// How much of a failed installation is told.
const LAST_LINES: usize = 10;

/// Makes sure that these programs of the host are there, and installs their packages if they are not and we are root.
/// `progress` gets lines for the user.
///
/// # Errors
/// [`Error::NoProgram`] with the line to type for a user who is not root; [`Error::Install`] if that failed.
pub fn ensure_host_programs(names: &[&str], progress: &dyn Fn(&str)) -> Result<(), Error> {
    for name in names {
        match host_program(name) {
            Err(Error::NoProgram { .. }) if rustix::process::geteuid().is_root() => {
                install(name, &install_line(&[package_of(name)]), progress)?;
                host_program(name)?;
            }
            found => drop(found?),
        }
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
/// [`Error::NoAptGet`] on a host that is no Debian, [`Error::Install`] if it failed.
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

/// Runs one of our own `apt-get` lines without any question to the user, who sees what is unpacked and set up.
fn apt_get(line: &str, progress: &dyn Fn(&str)) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Command {
        command: line.to_owned(),
        reason: error.to_string(),
    };
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let (output, sink) = io::pipe().map_err(failed)?;
    let errors = sink.try_clone().map_err(failed)?;
    let mut child = Command::new(program)
        // Another apt-get may be at work: wait for it instead of failing.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(sink)
        .stderr(errors)
        .spawn()
        .map_err(|_| Error::NoAptGet(line.to_owned()))?;
    let mut last = VecDeque::new();
    // The command held our ends of the pipe and was dropped: the lines end with apt-get.
    for text in BufReader::new(output).lines().map_while(Result::ok) {
        if text.starts_with("Unpacking") || text.starts_with("Setting up") {
            progress(&text);
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
