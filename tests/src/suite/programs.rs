//! Our own programs: beside this one where they are installed, built now where cargo started us.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages whose programs are needed; this program's own is there already.
const PACKAGES: [&str; 3] = ["pincushion-agent", "pincushion-vmm", "pincushion-image"];
/// Their programs.
const PROGRAMS: [&str; 4] = [
    "pincushion",
    "pincushion-agent",
    "pincushion-image",
    "pincushion-nested-agent",
];

/// Where our programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    dir: PathBuf,
}

/// A program is missing and could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// cargo could not be run.
    #[error("cannot run cargo to build the guest's programs: {0}")]
    NoCargo(std::io::Error),
    /// cargo failed.
    #[error("`{line}` failed; run it to see why")]
    Build {
        /// What was run.
        line: String,
    },
    /// It is not there.
    #[error("{0} is missing: install all of pincushion's programs into one directory")]
    Missing(PathBuf),
}

impl Programs {
    /// Finds the programs; where this program lies in a cargo target directory, makes sure that they are built and fresh.
    ///
    /// # Errors
    /// `ProgramError`.
    pub fn find(progress: &dyn Fn(&str)) -> Result<Self, ProgramError> {
        let exe = std::env::current_exe().unwrap_or_default();
        let dir = program_dir(&exe);
        let are_fresh = || PROGRAMS.iter().all(|name| is_fresh(&dir.join(name)));
        if let (Some(target), Some(root)) = (target_dir(&dir), workspace_root())
            && !are_fresh()
        {
            build(&dir, &target, &root, progress)?;
        }
        let programs = Self { dir };
        let own = [
            programs.agent(),
            programs.nested_agent(),
            programs.image(),
            programs.test(),
        ];
        for program in own {
            if !program.is_file() {
                return Err(ProgramError::Missing(program));
            }
        }
        Ok(programs)
    }

    /// PID 1 of guests.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.dir.join("pincushion-agent")
    }

    /// PID 1 of the nested machine.
    #[must_use]
    pub fn nested_agent(&self) -> PathBuf {
        self.dir.join("pincushion-nested-agent")
    }

    /// What makes images and kernels.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.dir.join("pincushion-image")
    }

    /// This program.
    #[must_use]
    pub fn test(&self) -> PathBuf {
        self.dir.join("pincushion-test")
    }
}

/// Directory of the programs; cargo's tests lie one below it.
fn program_dir(exe: &Path) -> PathBuf {
    let dir = exe.parent().unwrap_or(Path::new("."));
    match dir.file_name() {
        Some(name) if name == "deps" || name == "examples" => {
            dir.parent().unwrap_or(dir).to_owned()
        }
        _ => dir.to_owned(),
    }
}

/// Cargo's target directory, if `dir` lies in one.
pub(super) fn target_dir(dir: &Path) -> Option<PathBuf> {
    dir.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file() && dir.join(".rustc_info.json").is_file())
        .map(Path::to_owned)
}

/// The target directory that this program lies in, if it lies in one.
pub(super) fn own_target_dir() -> Option<PathBuf> {
    target_dir(&program_dir(&std::env::current_exe().ok()?))
}

/// The source tree that this program was built from, if it is still there.
fn workspace_root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("Cargo.toml").is_file().then(|| root.to_owned())
}

/// Whether a program is at least as new as all sources that cargo's dependency file beside it names. Asking cargo instead would build
/// nearly everything once more: what it chooses for these packages alone differs from what it chose for the whole workspace.
fn is_fresh(program: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let Some(built) = modified(program) else {
        return false;
    };
    let Ok(rule) = std::fs::read_to_string(program.with_extension("d")) else {
        return false;
    };
    let Some((_, sources)) = rule.split_once(": ") else {
        return false;
    };
    // A name with a space in it is not found, and so the program is not fresh: cargo is asked then.
    sources
        .split_whitespace()
        .all(|source| modified(Path::new(source)).is_some_and(|changed| changed <= built))
}

fn build(
    dir: &Path,
    target: &Path,
    root: &Path,
    progress: &dyn Fn(&str),
) -> Result<(), ProgramError> {
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args([
        "build",
        "--quiet",
        "--locked",
        "--bins",
        "--profile",
        profile,
    ]);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    command.arg("--target-dir").arg(target);
    progress("building the guest's programs");
    let status = command.status().map_err(ProgramError::NoCargo)?;
    if status.success() {
        Ok(())
    } else {
        Err(ProgramError::Build {
            line: format!("{command:?}"),
        })
    }
}

/// The commit that the programs were built from: of the source tree where it is there, else what the packager said.
#[must_use]
pub fn workspace_commit() -> String {
    let said = || {
        option_env!("PINCUSHION_COMMIT")
            .unwrap_or("unknown")
            .to_owned()
    };
    let Some(root) = workspace_root() else {
        return said();
    };
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(&root)
            .args(args)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return said();
    };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    if changes.is_empty() {
        commit
    } else {
        commit + "-dirty"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_lie_beside_a_program_and_above_a_test() {
        assert_eq!(
            program_dir(Path::new("/opt/bin/pincushion-test")),
            Path::new("/opt/bin")
        );
        assert_eq!(
            program_dir(Path::new("/t/x/debug/deps/e2e-1")),
            Path::new("/t/x/debug")
        );
    }

    #[test]
    fn a_program_is_fresh_until_one_of_its_sources_changes_or_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(!is_fresh(&at("p")), "there is none");
        std::fs::write(at("a.rs"), "").unwrap();
        std::fs::write(at("p"), "").unwrap();
        assert!(!is_fresh(&at("p")), "nobody says what it was made of");
        let rule = format!("{}: {}\n", at("p").display(), at("a.rs").display());
        std::fs::write(at("p.d"), rule).unwrap();
        assert!(is_fresh(&at("p")));
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        let source = std::fs::File::options().write(true).open(at("a.rs"));
        source.unwrap().set_modified(later).unwrap();
        assert!(!is_fresh(&at("p")), "a source is newer");
        std::fs::remove_file(at("a.rs")).unwrap();
        assert!(!is_fresh(&at("p")), "a source is gone");
    }

    #[test]
    fn an_installed_program_has_no_target_directory() {
        assert_eq!(target_dir(Path::new("/usr/bin")), None);
    }
}
