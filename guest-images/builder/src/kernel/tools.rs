//! What a kernel is built with: programs and headers of the host, which come from the distribution where they are missing, and the
//! compiler's version, which is part of what a build is known by.

use std::path::{Path, PathBuf};

use super::KernelError;
use crate::command;
use crate::error::Error;
use crate::host_program::find;
use crate::install::{install, install_line};
use crate::progress::Progress;

/// A program's name or a header's path, and the Debian package that has it.
pub(super) type Needed = (&'static str, &'static str);

/// What a kernel needs.
const NEEDED: &[Needed] = &[
    ("gcc", "gcc"),
    ("make", "make"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("setpriv", "util-linux"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("/usr/include/gelf.h", "libelf-dev"),
    ("/usr/include/openssl/opensslv.h", "libssl-dev"),
];

/// What an installation says, which mostly begins with the word that stands before it here.
fn tell(progress: &mut dyn Progress, text: &str) {
    progress.step(
        "installing",
        text.strip_prefix("installing ").unwrap_or(text),
    );
}

/// The tools of this host.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    /// What the compiler and the linker say about themselves.
    pub(super) version: String,
    /// How make is called.
    pub(super) make: PathBuf,
    /// The compiler, as make gets it.
    pub(super) compiler: &'static str,
}

impl Tools {
    /// Finds them, and installs what is missing of them and of `more` if we are root.
    pub(super) fn ensure(more: &[Needed], progress: &mut dyn Progress) -> Result<Self, Error> {
        let missing = missing(more, is_there);
        if !missing.is_empty() {
            let (names, line) = told(&missing);
            if !rustix::process::geteuid().is_root() {
                return Err(KernelError::NoTools {
                    missing: names,
                    line,
                }
                .into());
            }
            let told = std::cell::RefCell::new(progress);
            install(&names, &line, &|text| tell(&mut **told.borrow_mut(), text))?;
        }
        let first_line = |program: &str| {
            let said = command::output(30, None, program, &["--version"])?;
            Ok::<_, Error>(said.lines().next().unwrap_or_default().to_owned())
        };
        Ok(Self {
            version: format!("{}; {}", first_line("gcc")?, first_line("ld")?),
            make: "make".into(),
            compiler: "gcc",
        })
    }

    /// The same, and the compiler is called by ccache, which is installed for root, as what needs compiling then comes back after a detour in
    /// no time. A build does without it, too.
    pub(super) fn with_ccache(self, progress: &mut dyn Progress) -> Self {
        if find("ccache").is_none() && rustix::process::geteuid().is_root() {
            let told = std::cell::RefCell::new(progress);
            let line = install_line(&["ccache"]);
            if let Err(why) = install("ccache", &line, &|text| {
                tell(&mut **told.borrow_mut(), text)
            }) {
                log::warn!("builds go on without ccache: {why}");
            }
        }
        let is_there = find("ccache").is_some();
        Self {
            compiler: if is_there {
                "ccache gcc"
            } else {
                self.compiler
            },
            ..self
        }
    }
}

fn is_there(needed: &str) -> bool {
    if needed.starts_with('/') {
        Path::new(needed).exists()
    } else {
        find(needed).is_some()
    }
}

/// The names of what is missing, and the line that installs it.
fn told(missing: &[Needed]) -> (String, String) {
    let (names, mut packages): (Vec<&str>, Vec<&str>) = missing.iter().copied().unzip();
    packages.dedup();
    (names.join(", "), install_line(&packages))
}

/// What is needed and not there.
fn missing(more: &[Needed], is_there: impl Fn(&str) -> bool) -> Vec<Needed> {
    let all = NEEDED.iter().chain(more).copied();
    all.filter(|(name, _)| !is_there(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_the_packages_that_have_it() {
        assert_eq!(missing(&[], |_| true), []);
        let found = missing(&[("x", "y")], |name| !matches!(name, "flex" | "x"));
        assert_eq!(found, [("flex", "flex"), ("x", "y")]);
        let (missing, line) = told(&missing(&[], |name| !matches!(name, "gcc" | "make")));
        assert_eq!(
            KernelError::NoTools { missing, line }.to_string(),
            "a kernel cannot be built here: gcc, make missing; as root run: apt-get install -y --no-install-recommends gcc make"
        );
    }
}
