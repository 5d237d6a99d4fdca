//! Runs make on the kernel's source, with the same environment wherever it runs, and tells how far it is.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::KernelError;
use super::tools::Tools;
use crate::error::{Error, IoContext as _};
use crate::lock::Lock;
use crate::progress::Progress;

/// How many lines of a failed build are told.
const TOLD: usize = 12;

/// One build: a source, and the directory that it is built in.
#[derive(Debug)]
pub(super) struct Make<'a> {
    pub(super) source: PathBuf,
    /// Directly below the source, so that the compiler sees `../mm/gup.c` wherever the cache lies, and ccache knows it again.
    pub(super) output: PathBuf,
    pub(super) tools: &'a Tools,
    pub(super) jobs: usize,
    /// Make holds it too, until its last process has ended.
    pub(super) lock: &'a Lock,
}

impl Make<'_> {
    /// Runs make with these words; its output goes to `log`, which is begun anew. `expected` is how many objects a build from
    /// nothing makes, if this is one.
    pub(super) fn run(
        &self,
        words: &[String],
        log: &Path,
        expected: Option<u32>,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let cannot = |error: io::Error| Error::Command {
            command: format!("make {}", words.join(" ")),
            reason: error.to_string(),
        };
        let mut file = File::create(log).during("create", log)?;
        let (output, sink) = io::pipe().map_err(cannot)?;
        let errors = sink.try_clone().map_err(cannot)?;
        // If we are killed, make is told to end, and tells its own children.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(&self.tools.make)
            .arg("-C")
            .arg(&self.source)
            .arg(format!("O={}", self.output.display()))
            .arg(format!("-j{}", self.jobs))
            .args([
                format!("CC={}", self.tools.compiler),
                format!("HOSTCC={}", self.tools.compiler),
            ])
            .args(words)
            .env_clear()
            .envs(environment())
            .stdin(self.lock.share().map_err(cannot)?)
            .stdout(sink)
            .stderr(errors)
            .spawn()
            .map_err(cannot)?;
        let mut meter = Meter::new(expected);
        let mut said = Said::default();
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        // The command held our ends of the pipe and was dropped: the lines end with make.
        while reader.read_until(b'\n', &mut line).map_err(cannot)? > 0 {
            file.write_all(&line).during("write", log)?;
            let text = String::from_utf8_lossy(&line);
            said.take(text.trim_end());
            if let Some(word) = meter.take(&text) {
                progress.advance("compiling", &word);
            }
            line.clear();
        }
        let status = child.wait().map_err(cannot)?;
        if status.success() {
            return Ok(());
        }
        Err(said.error(&self.output, log).into())
    }
}

/// What make and its children may see of ours, and what makes the same kernel everywhere.
fn environment() -> Vec<(&'static str, std::ffi::OsString)> {
    let mut all: Vec<(&'static str, std::ffi::OsString)> = [
        "PATH",
        "HOME",
        "TMPDIR",
        "CCACHE_DIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
    ]
    .into_iter()
    .filter_map(|name| Some((name, std::env::var_os(name)?)))
    .collect();
    for (name, value) in [
        ("LC_ALL", "C"),
        ("KBUILD_BUILD_TIMESTAMP", "2026-01-01 00:00:00 UTC"),
        ("KBUILD_BUILD_USER", "pincushion"),
        ("KBUILD_BUILD_HOST", "pincushion"),
        ("KBUILD_BUILD_VERSION", "1"),
        // Empty, but set: no `+` behind the version when the cache lies in somebody's git tree.
        ("LOCALVERSION", ""),
    ] {
        all.push((name, value.into()));
    }
    all
}

/// Counts what make says that it does.
#[derive(Debug)]
struct Meter {
    done: u32,
    expected: Option<u32>,
}

impl Meter {
    fn new(expected: Option<u32>) -> Self {
        Self { done: 0, expected }
    }

    /// How far it is, if the line (`  CC      mm/gup.o`) says that something is compiled or linked.
    fn take(&mut self, line: &str) -> Option<String> {
        let mut words = line.strip_prefix("  ")?.split_whitespace();
        let what = words.next()?;
        let object = words.last()?;
        if matches!(what, "CC" | "AS" | "HOSTCC") {
            self.done += 1;
        } else if !matches!(
            what,
            "LD" | "AR" | "KSYMS" | "OBJTOOL" | "SORTTAB" | "GEN" | "NM"
        ) {
            return None;
        }
        let done = self.done;
        Some(match self.expected.filter(|expected| *expected > 0) {
            Some(expected) => {
                // The number is a guess: what is linked at the end is not over 100 %.
                let percent = (u64::from(done) * 100 / u64::from(expected)).min(99);
                format!("{percent:>2} %  {done} of about {expected}  {object}")
            }
            None => format!("{done}  {object}"),
        })
    }
}

/// Whether a program that we have called says that the disk is full, or our share of it.
pub(super) fn says_full(text: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"]
        .iter()
        .any(|words| text.contains(words))
}

/// What make says, as far as it matters when it fails.
#[derive(Debug, Default)]
struct Said {
    errors: Vec<String>,
    last: std::collections::VecDeque<String>,
    disk_full: bool,
}

impl Said {
    fn take(&mut self, line: &str) {
        self.disk_full |= says_full(line);
        // `***` is how make begins its own.
        let is_error = [" error: ", "undefined reference", "*** ", "fatal error"]
            .iter()
            .any(|mark| line.contains(mark));
        if is_error && self.errors.len() < TOLD {
            self.errors.push(line.to_owned());
        }
        self.last.push_back(line.to_owned());
        if self.last.len() > TOLD {
            self.last.pop_front();
        }
    }

    fn error(self, output: &Path, log: &Path) -> KernelError {
        if self.disk_full {
            return KernelError::DiskFull {
                path: output.to_owned(),
            };
        }
        let lines = if self.errors.is_empty() {
            Vec::from(self.last)
        } else {
            self.errors
        };
        KernelError::Build {
            log: log.to_owned(),
            errors: lines.join("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_is_counted_and_what_is_linked_is_told() {
        let mut meter = Meter::new(Some(200));
        assert_eq!(meter.take("make[1]: Entering directory\n"), None);
        assert_eq!(
            meter.take("  CC      mm/gup.o\n").unwrap(),
            " 0 %  1 of about 200  mm/gup.o"
        );
        assert_eq!(
            meter.take("  AS      a.o\n").unwrap(),
            " 1 %  2 of about 200  a.o"
        );
        assert_eq!(meter.take("  UPD     include/x.h\n"), None);
        for _ in 0..400 {
            meter.take("  CC      x.o\n");
        }
        assert_eq!(
            meter.take("  LD      vmlinux.o\n").unwrap(),
            "99 %  402 of about 200  vmlinux.o"
        );
        assert_eq!(
            Meter::new(None).take("  CC      mm/gup.o").unwrap(),
            "1  mm/gup.o"
        );
    }

    #[test]
    fn a_full_disk_and_an_error_in_the_code_are_told_apart() {
        let error = |lines: &[&str]| {
            let mut said = Said::default();
            for line in lines {
                said.take(line);
            }
            said.error(Path::new("out"), Path::new("build.log"))
                .to_string()
        };
        let told = error(&[
            "  CC mm/a.o",
            "../mm/a.c:3:1: error: expected ';'",
            "more",
            "make: *** [Makefile:224: __sub-make] Error 2",
        ]);
        assert!(
            told.contains("build.log")
                && told.contains("../mm/a.c:3:1: error: expected ';'\nmake: ***"),
            "{told}"
        );
        for why in ["No space left on device", "Disk quota exceeded"] {
            let told = error(&[&format!(
                "/tmp/cc.s: Fatal error: can't close mm/a.o: {why}"
            )]);
            assert!(
                told.contains("the disk of out is full")
                    && told.contains("goes on with what is built"),
                "{told}"
            );
        }
        assert!(error(&["words"]).contains("words"));
    }
}
