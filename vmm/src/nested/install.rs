//! What comes from the distribution when it is needed: as root by itself, else the user gets the line to type.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

use pincushion_image::{Error, host_program, package_of};

use super::error::{NestedError, host};

/// How much of a failed installation is told.
const LAST_LINES: usize = 10;

/// Makes sure that these programs of the host are there, and installs their packages if they are not and we are root.
/// `progress` gets lines for the user.
///
/// # Errors
///
/// [`NestedError::Image`] with the line to type for a user who is not root; [`NestedError::Install`] if that failed.
pub fn ensure_host_programs(names: &[&str], progress: &dyn Fn(&str)) -> Result<(), NestedError> {
    for name in names {
        match host_program(name) {
            Err(Error::NoProgram { .. }) if rustix::process::geteuid().is_root() => {
                let line = format!(
                    "apt-get install -y --no-install-recommends {}",
                    package_of(name)
                );
                install(name, &line, progress)?;
                host_program(name)?;
            }
            found => drop(found?),
        }
    }
    Ok(())
}

/// Runs one of our own `apt-get install` lines, and fetches the lists of packages first where it fails without them.
pub(super) fn install(what: &str, line: &str, progress: &dyn Fn(&str)) -> Result<(), NestedError> {
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
fn apt_get(line: &str, progress: &dyn Fn(&str)) -> Result<(), NestedError> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let (output, sink) = io::pipe().map_err(host("make a pipe"))?;
    let errors = sink.try_clone().map_err(host("share a pipe"))?;
    let mut child = Command::new(program)
        // Another apt-get may be at work: wait for it instead of failing.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(sink)
        .stderr(errors)
        .spawn()
        .map_err(|_| NestedError::NoAptGet(line.to_owned()))?;
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
    let status = child.wait().map_err(host("wait for apt-get"))?;
    if status.success() {
        return Ok(());
    }
    Err(NestedError::Install {
        line: line.to_owned(),
        status: status.to_string(),
        output: Vec::from(last).join("\n"),
    })
}
