//! Runs a program of the host, with a limit, and gives its output or its last words.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;

/// Standard output of `program args`, run in `dir` if given; `timeout` (coreutils) ends it after `limit_s` seconds.
pub(crate) fn output(
    limit_s: u32,
    dir: Option<&Path>,
    program: &str,
    args: &[&str],
) -> Result<String, Error> {
    let failed = |reason: String| Error::Command {
        command: format!("{program} {}", args.join(" ")),
        reason,
    };
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(limit_s.to_string())
        .arg(program)
        .args(args);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let output = command
        .output()
        .map_err(|source| failed(source.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing")
        .trim()
        .to_owned();
    Err(failed(match output.status.code() {
        Some(124 | 137) => format!("no end after {limit_s} s"),
        Some(127) => format!("{program} is not installed"),
        Some(code) => format!("exit code {code}: {said}"),
        None => "killed by a signal".to_owned(),
    }))
}
