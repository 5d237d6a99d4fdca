//! What a run's directory holds for this: `power-cut/ID.base`, the image before the guest ran, and `power-cut/ID.log`, the record.

use std::io;
use std::path::{Path, PathBuf};

use super::history::{CACHE_LINE, History};
use super::record::LogReader;
use super::state::State;
use crate::timeline::Timeline;

/// Why no image can be made.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The record and the event log, or the place that was asked for, do not fit.
    #[error("{0}")]
    Mismatch(String),
}

/// Where the image before the guest ran is.
#[must_use]
pub fn base_path(run_dir: &Path, device: &str) -> PathBuf {
    run_dir.join("power-cut").join(format!("{device}.base"))
}

/// Where the record is.
#[must_use]
pub fn log_path(run_dir: &Path, device: &str) -> PathBuf {
    run_dir.join("power-cut").join(format!("{device}.log"))
}

/// Everything that is known of one medium of a run.
#[derive(Debug, Clone)]
pub struct Evidence {
    base: Vec<u8>,
    history: History,
}

impl Evidence {
    /// Reads what a run left of `device`.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn load(run_dir: &Path, timeline: &Timeline, device: &str) -> Result<Self, EvidenceError> {
        let read = |path: PathBuf| move |source| EvidenceError::Read { path, source };
        let base = base_path(run_dir, device);
        let base = std::fs::read(&base).map_err(read(base))?;
        let log = log_path(run_dir, device);
        let entries = LogReader::open(&log).map_err(read(log.clone()))?;
        let entries = entries.collect::<io::Result<Vec<_>>>().map_err(read(log))?;
        let history = History::of(timeline, device, entries).map_err(EvidenceError::Mismatch)?;
        Ok(Self { base, history })
    }

    /// What happened to it.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How many bytes in line arrive together: `atomic` of a disk, a cache line of a region.
    #[must_use]
    pub fn atomic(&self, atomic: u64) -> u64 {
        match self.history.unit {
            CACHE_LINE => CACHE_LINE as u64,
            _ => atomic,
        }
    }

    /// The medium just after event `cut`.
    ///
    /// # Errors
    /// [`EvidenceError::Mismatch`].
    pub fn at(&self, cut: u64) -> Result<State<'_>, EvidenceError> {
        State::at(&self.history, self.base.clone(), cut).map_err(EvidenceError::Mismatch)
    }
}
