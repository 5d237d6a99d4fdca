//! The kernel's source: a package of Debian's that is known by its digest, unpacked once.
//!
//! ```text
//! sources/<digest>/package.deb  as it came
//! sources/<digest>/tree/        unpacked, with the series applied (work_tree.rs), and the builds in it (build.rs)
//! sources/<digest>/selftests/   programs of the kernel's own selftests (selftests.rs)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::KernelError;
use super::catalogue::SourcePackage;
use super::make::says_full;
use crate::apt::Archive;
use crate::deb;
use crate::error::{Error, IoContext as _};
use crate::fetch::{download_verified, verify};
use crate::lock::{self, Lock};
use crate::progress::Progress;
use crate::store::{Store, entries, remove_if_there};

const RECORD: &str = "source.toml";
/// No kernel's source comes near this.
const MAX_UNPACKED: u64 = 8 << 30;
/// A file that a patch touches.
const MAX_FILE: u64 = 64 << 20;

/// Removes all sources from the cache, with the builds in them; waits for who is at work there.
///
/// # Errors
/// The cache cannot be listed, or the disk refuses.
pub fn remove_sources(store: &Store, progress: &mut dyn Progress) -> Result<Vec<PathBuf>, Error> {
    let all = entries(&store.root().join("sources"))?;
    for dir in &all {
        let _lock = lock_source(
            store,
            &dir.file_name().unwrap_or_default().to_string_lossy(),
            progress,
        )?;
        remove_if_there(dir)?;
    }
    Ok(all)
}

/// A source, its tree and the builds in it belong to one process at a time.
pub(super) fn lock_source(
    store: &Store,
    sha256: &str,
    progress: &mut dyn Progress,
) -> Result<Lock, Error> {
    lock::take(
        &store.root().join("locks").join(format!("source-{sha256}")),
        progress,
    )
}

/// A source package in the cache, or on its way there. Who makes it holds its lock.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) package: &'a SourcePackage,
    /// Where all of it lies.
    pub(super) dir: PathBuf,
}

impl<'a> Source<'a> {
    pub(super) fn new(store: &Store, package: &'a SourcePackage) -> Self {
        Self {
            package,
            dir: store.root().join("sources").join(&package.sha256),
        }
    }

    /// The unpacked source.
    pub(super) fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    fn deb(&self) -> PathBuf {
        self.dir.join("package.deb")
    }

    /// Sees to it that the package is in the cache: from the file `given`, else from the archive.
    pub(super) fn fetch(
        &self,
        archive: &dyn Archive,
        given: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let given = given.map(|file| self.read_given(file)).transpose()?;
        if self.deb().is_file() {
            return Ok(());
        }
        let bytes = match given {
            Some(bytes) => bytes,
            None => self.download(archive, progress)?,
        };
        // Whole or not at all.
        let temporary = self.dir.join("package.deb.tmp");
        fs::create_dir_all(&self.dir).during("create", &self.dir)?;
        fs::write(&temporary, bytes).during("write", &temporary)?;
        fs::rename(&temporary, self.deb()).during("rename", &temporary)
    }

    /// A file that is said to be the package. Whether that is true is asked also where the package is not needed any more.
    pub(super) fn read_given(&self, file: &Path) -> Result<Vec<u8>, Error> {
        let bytes = fs::read(file).during("read", file)?;
        let way_out = "give another file by --source, or leave it away and apt fetches the package";
        let origin = file.display().to_string();
        verify(&bytes, &self.package.id(), &origin, RECORD, way_out)?;
        Ok(bytes)
    }

    fn download(
        &self,
        archive: &dyn Archive,
        progress: &mut dyn Progress,
    ) -> Result<Vec<u8>, Error> {
        let package = self.package.id();
        let download = self.dir.join("download");
        let attempt = |progress: &mut dyn Progress| {
            remove_if_there(&download)?;
            download_verified(archive, &package, RECORD, &download, progress)
        };
        let result = match attempt(progress) {
            // The lists may be missing or older than the package.
            Err(Error::Command { .. })
                if archive.may_update() && {
                    progress.step(
                        "updating",
                        "apt's package lists, since the package cannot be fetched",
                    );
                    archive.update().is_ok()
                } =>
            {
                attempt(progress)
            }
            result => result,
        };
        remove_if_there(&download)?;
        result.map_err(|error| match error {
            Error::Command { reason, .. } if says_full(&reason) => KernelError::DiskFull {
                path: self.dir.clone(),
            }
            .into(),
            Error::Command { reason, .. } => Error::Fetch {
                package: format!("{} {}", package.name, package.version),
                reason,
                way_out: "check the network and apt's lists (`apt-get update`); if the archive has gone on to another version, get this one \
                          elsewhere and give its file by --source (its digest is checked)",
            },
            other => other,
        })
    }

    /// Unpacks the source, unless it is there.
    pub(super) fn unpack(&self, progress: &mut dyn Progress) -> Result<(), Error> {
        if self.tree().is_dir() {
            return Ok(());
        }
        progress.step("unpacking", &format!("{} (1.7 GB)", self.package.package));
        let temporary = self.dir.join("tree.tmp");
        remove_if_there(&temporary)?;
        fs::create_dir_all(&temporary).during("create", &temporary)?;
        let mut budget = MAX_UNPACKED;
        let mut written = Ok(());
        self.each_entry(|entry, _| {
            let Some(left) = budget.checked_sub(entry.size()) else {
                return Err(io::Error::other("it unpacks to more than 8 GiB"));
            };
            budget = left;
            // Paths that lead out are left out by it. What the disk refuses is no fault of the archive.
            if let Err(error) = entry.unpack_in(&temporary) {
                written = Err(error);
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(true)
        })
        .or_else(|error| written.during("unpack into", &temporary).and(Err(error)))?;
        // All of it lies in one directory of the version's name.
        let mut tops = fs::read_dir(&temporary)
            .during("list", &temporary)?
            .flatten();
        let top = tops
            .next()
            .map(|entry| entry.path())
            .ok_or_else(|| self.no_source())?;
        fs::rename(&top, self.tree()).during("rename", &top)?;
        remove_if_there(&temporary)
    }

    /// Some files of the untouched source, straight from the package; those that it lacks are left out.
    pub(super) fn files(
        &self,
        wanted: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut found = BTreeMap::new();
        self.each_entry(|entry, path| {
            if wanted.contains(path) {
                let mut bytes = Vec::new();
                entry.take(MAX_FILE).read_to_end(&mut bytes)?;
                found.insert(path.to_owned(), bytes);
            }
            Ok(found.len() < wanted.len())
        })?;
        Ok(found)
    }

    /// Goes over the files of the source: each with its path below the source's top. Ends when `look` gives false.
    fn each_entry(
        &self,
        mut look: impl FnMut(&mut tar::Entry<'_, &mut dyn Read>, &str) -> io::Result<bool>,
    ) -> Result<(), Error> {
        let path = self.deb();
        let deb = fs::read(&path).during("read", &path)?;
        let (path, way_out) = (
            self.deb().display().to_string(),
            "remove that file and try again",
        );
        verify(&deb, &self.package.id(), &path, RECORD, way_out)?;
        let member = format!("usr/src/{}.tar.xz", self.package.package);
        let walked = deb::with_packed_member(&deb, &member, |stream| {
            for entry in tar::Archive::new(stream).entries()? {
                let mut entry = entry?;
                let path = entry.path()?.into_owned();
                let mut parts = path.components();
                parts.next();
                let below = parts.as_path().to_string_lossy().into_owned();
                if !look(&mut entry, &below)? {
                    break;
                }
            }
            Ok(())
        });
        walked
            .map_err(|source| Error::Deb {
                package: self.package.package.clone(),
                source,
            })?
            .ok_or_else(|| self.no_source().into())
    }

    fn no_source(&self) -> KernelError {
        KernelError::NoSource {
            package: self.package.package.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::Apt;
    use crate::digest::sha256;
    use crate::progress::Silent;

    #[test]
    fn a_given_file_with_another_digest_is_refused_also_where_the_package_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path()).unwrap();
        let package = SourcePackage {
            package: "linux-source".into(),
            version: "1".into(),
            sha256: sha256(b"right"),
            objects: 1,
        };
        let source = Source::new(&store, &package);
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let (right, wrong) = (file("right.deb", b"right"), file("wrong.deb", b"wrong"));
        let fetch = |given: &Path| source.fetch(&Apt, Some(given), &mut Silent);
        for is_cached in [false, true] {
            let error = fetch(&wrong).unwrap_err();
            assert!(
                matches!(error, Error::WrongDigest { .. }),
                "{is_cached}: {error}"
            );
            fetch(&right).unwrap();
        }
    }
}
