//! What the cache holds: to list it, to check every byte of it, and to remove from it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::digest::FileRecord;
use crate::entry::{KernelRecord, MANIFEST, read_json};
use crate::error::{Error, IoContext as _};
use crate::image::Manifest;
use crate::lock;
use crate::progress::Progress;
use crate::store::{Store, entries, remove_if_there};

/// One entry of the cache.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Digest that names it.
    pub digest: String,
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of all its files, as recorded.
    pub size: u64,
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
}

/// What an entry's manifest says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", content = "manifest", rename_all = "lowercase")]
pub enum Content {
    /// An unpacked kernel.
    Kernel(Box<KernelRecord>),
    /// A guest image.
    Image(Box<Manifest>),
    /// Something whose manifest is missing or cannot be read, and why.
    Unreadable(String),
}

/// A file of the cache that is not what it was.
#[derive(Debug)]
pub struct Damage {
    /// The entry that it belongs to.
    pub digest: String,
    /// What is wrong.
    pub error: Error,
}

impl Entry {
    /// Whether the user's `name` means this entry: the first digits of its digest, a kernel's release, or its package's name.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        const SHORTEST_PREFIX: usize = 6;
        let by_kernel = match &self.content {
            Content::Kernel(record) => {
                record.release == name
                    || record
                        .package
                        .as_ref()
                        .is_some_and(|package| package.name == name)
            }
            Content::Image(_) | Content::Unreadable(_) => false,
        };
        by_kernel || (name.len() >= SHORTEST_PREFIX && self.digest.starts_with(name))
    }

    fn files(&self) -> &[FileRecord] {
        match &self.content {
            Content::Kernel(record) => &record.files,
            Content::Image(manifest) => std::slice::from_ref(&manifest.initrd),
            Content::Unreadable(_) => &[],
        }
    }
}

impl Store {
    /// Everything in the cache, kernels first.
    ///
    /// # Errors
    /// The cache cannot be listed. An entry that cannot be read is listed as such.
    pub fn list(&self) -> Result<Vec<Entry>, Error> {
        let mut list = Vec::new();
        for dir in entries(&self.root().join("kernels"))? {
            list.push(entry(&dir, |record| Content::Kernel(Box::new(record))));
        }
        for dir in entries(&self.root().join("images"))? {
            list.push(entry(&dir, |manifest| Content::Image(Box::new(manifest))));
        }
        Ok(list)
    }

    /// Reads every file of the cache and compares its digest with the record; gives what differs.
    ///
    /// # Errors
    /// The cache cannot be listed.
    pub fn verify(&self, progress: &mut dyn Progress) -> Result<Vec<Damage>, Error> {
        let mut damages = Vec::new();
        for entry in self.list()? {
            progress.step("verifying", &entry.path.display().to_string());
            if let Content::Unreadable(_) = entry.content {
                let error = Error::NoManifest {
                    path: entry.path.clone(),
                };
                damages.push(Damage {
                    digest: entry.digest.clone(),
                    error,
                });
            }
            for file in entry.files() {
                if let Err(error) = file.check_fully(&entry.path) {
                    damages.push(Damage {
                        digest: entry.digest.clone(),
                        error,
                    });
                }
            }
        }
        Ok(damages)
    }

    /// The entries that `name` means, see [`Entry::is_called`].
    ///
    /// # Errors
    /// The cache cannot be listed, or there is none.
    pub fn find(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let found: Vec<_> = self
            .list()?
            .into_iter()
            .filter(|entry| entry.is_called(name))
            .collect();
        if found.is_empty() {
            Err(Error::NoEntry(name.to_owned()))
        } else {
            Ok(found)
        }
    }

    /// Removes `entry` from the cache; it is made anew when it is wanted again. Who has it open keeps what is open.
    ///
    /// # Errors
    /// Another process is preparing the entry and does not end, or the disk refuses.
    pub fn remove(&self, entry: &Entry, progress: &mut dyn Progress) -> Result<(), Error> {
        let _lock = lock::take(&self.root().join("locks").join(&entry.digest), progress)?;
        // Out of sight first, so that nobody finds half an entry.
        let grave = self
            .root()
            .join("tmp")
            .join(format!("{}.removed", entry.digest));
        remove_if_there(&grave)?;
        let tmp = self.root().join("tmp");
        fs::create_dir_all(&tmp).during("create", &tmp)?;
        match fs::rename(&entry.path, &grave) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.during("remove", &entry.path)?,
        }
        remove_if_there(&grave)
    }
}

fn entry<T: serde::de::DeserializeOwned>(dir: &Path, content: impl FnOnce(T) -> Content) -> Entry {
    let content = match read_json(&dir.join(MANIFEST)) {
        Ok(Some(manifest)) => content(manifest),
        Ok(None) => Content::Unreadable("it has no manifest".to_owned()),
        Err(error) => Content::Unreadable(error.to_string()),
    };
    let digest = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut entry = Entry {
        digest,
        path: dir.to_owned(),
        size: 0,
        content,
    };
    entry.size = entry.files().iter().map(|file| file.size).sum();
    entry
}
