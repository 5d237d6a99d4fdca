//! `pincushion NAME`: the program `pincushion-NAME` beside this one, or in the path.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use pincushion_devices::toml_error::nearest;

use crate::exit_code;
use crate::program::complain;

/// Commands that a mistyped name is compared with.
const KNOWN: [&str; 8] = [
    "run", "ctl", "top", "doctor", "nested", "test", "image", "help",
];

/// Becomes the program; returns only when that failed.
pub fn exec(argv: &[OsString]) -> u8 {
    let name = argv
        .first()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let program = format!("pincushion-{name}");
    let error = Command::new(beside(&program))
        .args(argv.iter().skip(1))
        .exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        complain(format_args!("pincushion: {}", unknown(&name)));
        return exit_code::BAD_ARGUMENTS;
    }
    complain(format_args!("pincushion: cannot run {program}: {error}"));
    exit_code::FAILED
}

/// The program beside this executable where there is one, else its bare name, for the path.
fn beside(program: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join(program)))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| program.into())
}

fn unknown(name: &str) -> String {
    match nearest(name, KNOWN.into_iter()) {
        Some("test" | "image") if KNOWN.contains(&name) => {
            format!(
                "pincushion-{name} is neither beside this program nor in the path: build it with `cargo build`"
            )
        }
        Some(near) if near != name => {
            format!("there is no command `{name}`; did you mean `{near}`?")
        }
        _ => format!(
            "there is no command `{name}`, and no program pincushion-{name} beside this one or in the path"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_gets_the_nearest_command() {
        assert!(unknown("dcotor").contains("did you mean `doctor`?"));
        assert!(unknown("test").contains("cargo build"));
        assert!(unknown("xyzzy").contains("pincushion-xyzzy"));
    }
}
