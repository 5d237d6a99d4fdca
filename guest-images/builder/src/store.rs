//! The cache: a directory outside the repository that every checkout of a user shares.
//!
//! All of it lies in `v<FORMAT>/`, so that builders of different versions do not meet.
//!
//! ```text
//! kernels/<digest>/   an unpacked kernel, see entry.rs; <digest> is that of the package, or of the kernel's file
//! images/<digest>/    initrd, manifest.json; <digest> is that of everything that went in
//! resolved/<wish>     what apt answered last, so that an unchanged question costs no second
//! programs/<name>/    programs that cargo has built of a crate, see crate_program.rs
//! locks/, tmp/        who prepares what, and what is not finished
//! ```
//!
//! An entry is prepared in `tmp/` under its lock and renamed into place, so half an entry is never seen. What a killed
//! run left in `tmp/` is removed by the next that takes the same lock.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::FORMAT;
use crate::entry::{KernelRecord, MANIFEST, read_json};
use crate::error::{Error, IoContext as _};
use crate::lock;
use crate::progress::Progress;

/// The cache of kernels and images.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The user's cache: `$PINCUSHION_CACHE`, else `$XDG_CACHE_HOME/pincushion`, else `~/.cache/pincushion`.
    ///
    /// # Errors
    /// None of these variables is set, or the directory cannot be made.
    pub fn open_default() -> Result<Self, Error> {
        let variable = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = variable("PINCUSHION_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("pincushion")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/pincushion")))
            .ok_or(Error::NoCacheDirectory)?;
        Self::at(&root)
    }

    /// The cache in `root`, which is made if need be.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn at(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).during("create", root)?;
        // Absolute, since the paths given out outlive a change of directory.
        let root = fs::canonicalize(root).during("find", root)?;
        Ok(Self {
            root: root.join(format!("v{FORMAT}")),
        })
    }

    /// The directory of this cache's entries, one per version of their format.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the entry `dir` by `make` in a temporary directory, unless another process was faster.
    pub(crate) fn make_entry(
        &self,
        dir: &Path,
        progress: &mut dyn Progress,
        make: impl FnOnce(&Path, &mut dyn Progress) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let name = dir.file_name().unwrap_or_default();
        let _lock = lock::take(&self.root.join("locks").join(name), progress)?;
        if dir.join(MANIFEST).exists() {
            return Ok(());
        }
        let temporary = self.root.join("tmp").join(name);
        remove_if_there(&temporary)?;
        fs::create_dir_all(&temporary).during("create", &temporary)?;
        if let Err(error) = make(&temporary, progress) {
            // The first error is the one to tell; the next run removes what this one could not.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        let parent = dir.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).during("create", parent)?;
        // A directory without a manifest cannot come from here, but it would make the rename fail for ever.
        remove_if_there(dir)?;
        fs::rename(&temporary, dir).during("rename", &temporary)
    }

    pub(crate) fn kernel_record(&self, digest: &str) -> Result<Option<KernelRecord>, Error> {
        read_json(&self.kernel_dir(digest).join(MANIFEST))
    }

    pub(crate) fn kernel_dir(&self, digest: &str) -> PathBuf {
        self.root.join("kernels").join(digest)
    }

    pub(crate) fn image_dir(&self, digest: &str) -> PathBuf {
        self.root.join("images").join(digest)
    }
}

/// The directories in `dir`, by name; none if `dir` is absent.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            return Err(Error::Io {
                action: "list",
                path: dir.to_owned(),
                source,
            });
        }
    };
    paths.sort();
    Ok(paths)
}

pub(crate) fn remove_if_there(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: dir.to_owned(),
            source: error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}
