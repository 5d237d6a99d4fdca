//! A run's directory: the evidence. Everything that is needed to judge the run again is in it, and nothing else is asked.
//!
//! | file | written by | what |
//! | --- | --- | --- |
//! | `run.toml` | parent, child | [`RunInfo`]: scenario, seed, commit, kernel, digests; the child adds how the guest was booted |
//! | `scenario.toml` | parent | the scenario with all parts in their places |
//! | `plan.toml` | child | the fault plan with all names resolved |
//! | `events.jsonl` | child | the event log |
//! | `console.log` | child | the guest's console |
//! | `hvc0.log` | child | what the guest wrote to its virtio console, if it had one |
//! | `vcpus.txt` | child | where the vCPUs were, if the guest did not power off or reset by itself |
//! | `power-cut/` | child | of recorded disks and regions: the image before, and what changed |
//! | `child.log` | parent | what the child printed |
//! | `verdict.json` | parent | the judgement |
//! | `replay.txt` | parent | the one line that runs it again |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::verdict::Judgement;

/// The guest's serial console.
pub const CONSOLE_LOG: &str = "console.log";
/// What the guest wrote to its virtio console.
pub const VIRTIO_CONSOLE_LOG: &str = "hvc0.log";

/// What a run is, apart from what happens in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunInfo {
    /// The scenario's name.
    pub scenario: String,
    /// The scenario's file, where it is not one of ours, with `#` and the variant behind it where it has variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario_file: Option<PathBuf>,
    /// The kernel as the user named it.
    pub kernel: String,
    /// What `uname -r` says in it.
    pub kernel_release: String,
    /// The package that it came from, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_package: Option<String>,
    /// Words that this kernel needs on its command line, as a design of our own does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel_parameters: String,
    /// Digest of the guest image (kernel, modules and agent).
    pub image_digest: String,
    /// Names all random choices.
    pub seed: u64,
    /// The commit that the programs were built from, `-dirty` where the tree had changes; `unknown` for an installed program.
    pub commit: String,
    /// Where the machine ran: `host`, or one of [`crate::suite::NESTED`] and [`crate::suite::COUNTING`].
    pub place: String,
    /// Count of the same run in the suite, from 1; [`crate::suite::WARM_UP`] for one that only warms its machine up.
    pub repeat: u32,
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// How the guest came to its first step; unknown where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted: Option<Booted>,
}

/// How a guest came to its first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Booted {
    /// From its kernel.
    Fresh,
    /// From a snapshot of one that had booted.
    Restored,
}

/// A file of a run directory that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct RunDirError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The directory `path`, which must exist.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes a new directory with `run.toml`, `scenario.toml` and `replay.txt`.
    ///
    /// # Errors
    /// It exists already, or cannot be written.
    pub fn create(path: &Path, info: &RunInfo, scenario: &Scenario) -> Result<Self, RunDirError> {
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        fs::create_dir(path).map_err(failed("make", path))?;
        let dir = Self::at(path);
        dir.write_info(info)?;
        dir.write(
            "scenario.toml",
            &toml::to_string(scenario).expect("a scenario that was read is TOML"),
        )?;
        dir.write("replay.txt", &(replay_line(info) + "\n"))?;
        Ok(dir)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads `run.toml`.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn info(&self) -> Result<RunInfo, RunDirError> {
        let text = self.read("run.toml")?;
        toml::from_str(&text).map_err(|error| self.damaged("run.toml", error))
    }

    /// Reads `scenario.toml`.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn scenario(&self) -> Result<Scenario, RunDirError> {
        let text = self.read("scenario.toml")?;
        crate::scenario::parse(&text, &self.file("scenario.toml"))
            .map_err(|error| self.damaged("scenario.toml", error))
    }

    /// Reads `verdict.json`.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn judgement(&self) -> Result<Judgement, RunDirError> {
        let text = self.read("verdict.json")?;
        serde_json::from_str(&text).map_err(|error| self.damaged("verdict.json", error))
    }

    /// Writes `run.toml`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_info(&self, info: &RunInfo) -> Result<(), RunDirError> {
        let text = toml::to_string(info).expect("plain data is TOML");
        self.write("run.toml", &text)
    }

    /// Writes `verdict.json`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_judgement(&self, judgement: &Judgement) -> Result<(), RunDirError> {
        self.write(
            "verdict.json",
            &serde_json::to_string_pretty(judgement).expect("a judgement has string keys only"),
        )
    }

    /// Writes a file whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RunDirError> {
        let path = self.file(name);
        fs::write(&path, text).map_err(failed("write", &path))
    }

    fn read(&self, name: &str) -> Result<String, RunDirError> {
        let path = self.file(name);
        fs::read_to_string(&path).map_err(failed("read", &path))
    }

    fn damaged(&self, name: &str, error: impl ToString) -> RunDirError {
        failed("understand", &self.file(name))(io::Error::other(error.to_string()))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_owned();
    move |source| RunDirError {
        action,
        path,
        source,
    }
}

/// The one line that makes the same run again: the kernel by its exact version where it is known.
#[must_use]
pub fn replay_line(info: &RunInfo) -> String {
    let scenario = match &info.scenario_file {
        Some(path) => format!("--scenario {}", quoted(&path.to_string_lossy())),
        None => info.scenario.clone(),
    };
    let kernel = quoted(&exact_kernel(info));
    let commit = &info.commit;
    format!(
        "pincushion test run {scenario} --kernel {kernel} --seed {}  # at commit {commit}",
        info.seed
    )
}

/// The kernel so that it is the same next year: `debian:6.12.117+deb12` for `debian:6.12`.
fn exact_kernel(info: &RunInfo) -> String {
    let version = info.kernel_release.strip_suffix("-cloud-amd64");
    match (info.kernel.strip_prefix("debian:"), version) {
        (Some(wish), Some(version)) if version.starts_with(wish) => format!("debian:{version}"),
        _ => info.kernel.clone(),
    }
}

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:~=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::verdict::Verdict;

    fn info() -> RunInfo {
        RunInfo {
            scenario: "quiet".into(),
            kernel: "debian:6.12".into(),
            seed: 7,
            commit: "abc".into(),
            ..RunInfo::default()
        }
    }

    fn scenario() -> Scenario {
        let text = "name = 'quiet'\nsummary = 's'\n[expect.default]\nverdict = 'pass'\n[[step]]\nguest = { op = 'sync' }\n";
        crate::scenario::parse(text, Path::new("quiet.toml")).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/run");
        let run = RunDir::create(&path, &info(), &scenario()).unwrap();
        assert_eq!(run.info().unwrap(), info());
        assert_eq!(run.scenario().unwrap(), scenario());
        let judgement = Judgement {
            verdict: Verdict::Pass,
            reason: "r".into(),
            findings: vec![],
            counts: BTreeMap::new(),
        };
        run.write_judgement(&judgement).unwrap();
        assert_eq!(RunDir::at(&path).judgement().unwrap(), judgement);
    }

    #[test]
    fn a_directory_that_exists_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let said = RunDir::create(dir.path(), &info(), &scenario())
            .unwrap_err()
            .to_string();
        assert!(said.starts_with("cannot make "), "{said}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run.toml"), "seed = 'x'").unwrap();
        let said = RunDir::at(dir.path()).info().unwrap_err().to_string();
        assert!(said.contains("run.toml"), "{said}");
    }

    #[test]
    fn one_line_runs_it_again() {
        assert_eq!(
            replay_line(&info()),
            "pincushion test run quiet --kernel debian:6.12 --seed 7  # at commit abc"
        );
        let booted = RunInfo {
            kernel_release: "6.12.117+deb12-cloud-amd64".into(),
            ..info()
        };
        assert!(replay_line(&booted).contains("--kernel debian:6.12.117+deb12 "));
        let own = RunInfo {
            scenario_file: Some("/my files/x.toml".into()),
            ..info()
        };
        assert!(replay_line(&own).contains("--scenario '/my files/x.toml'"));
    }
}
