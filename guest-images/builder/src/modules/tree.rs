//! Which modules a kernel has, and what is built in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{ModuleError, normal, walk};
use crate::digest::{FileRecord, sha256};
use crate::unpack;

/// No module comes near this, in bytes.
const MAX_MODULE: u64 = 256 << 20;

/// A module ready to be put into an image.
#[derive(Debug, Clone)]
pub struct Module {
    /// Name as the kernel spells it, with `_`.
    pub name: String,
    /// The file that it came from.
    pub source: PathBuf,
    /// The ELF file, unpacked.
    pub bytes: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug, Clone, Default)]
pub struct ModuleTree {
    root: Option<PathBuf>,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    records: BTreeMap<PathBuf, FileRecord>,
}

impl ModuleTree {
    /// The tree of a kernel without modules: everything is taken to be built in.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens `lib/modules/RELEASE`, or a directory with exactly one such tree below it.
    ///
    /// # Errors
    /// The directory cannot be listed, or is no module tree.
    pub fn open(dir: &Path) -> Result<Self, ModuleError> {
        let root = find_root(dir)?;
        let mut files = BTreeMap::new();
        collect(&root, &mut files)?;
        let builtin = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
        let builtin = builtin
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        Ok(Self {
            root: Some(root),
            files,
            builtin,
            records: BTreeMap::new(),
        })
    }

    /// The same tree, each module of which must have the recorded digest when it is read. Paths in `records` are below `base`.
    pub(crate) fn guarded_by(mut self, base: &Path, records: &[FileRecord]) -> Self {
        self.records = records
            .iter()
            .map(|record| (base.join(&record.path), record.clone()))
            .collect();
        self
    }

    /// `lib/modules/RELEASE`, if this kernel has modules.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Whether `name` is part of the kernel image.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.root.is_none() || self.builtin.contains(&normal(name))
    }

    /// The modules called `names` and all that they need, in load order, less what is built in.
    ///
    /// # Errors
    /// A module is unknown, unreadable or no module; see [`ModuleError`].
    pub fn resolve(&self, names: &[&str]) -> Result<Vec<Module>, ModuleError> {
        walk::in_load_order(self, names)
    }

    /// Changes whenever a file of a tree outside the cache does; empty for a tree whose digests are recorded.
    pub(crate) fn fingerprint(&self) -> Result<String, ModuleError> {
        if self.records.is_empty() && self.root.is_some() {
            let mut text = String::new();
            for path in self.files.values() {
                let metadata = fs::metadata(path).map_err(|source| ModuleError::Read {
                    path: path.clone(),
                    source,
                })?;
                let (size, mtime, ns) = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
                text.push_str(&format!("{} {size} {mtime}.{ns}\n", path.display()));
            }
            return Ok(sha256(text.as_bytes()));
        }
        Ok(String::new())
    }

    /// The file of the module called `name`, spelled with `_`.
    pub(super) fn file_of(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(PathBuf::as_path)
    }

    /// The modules whose names end so, by name.
    pub(super) fn files_ending<'a>(
        &'a self,
        ending: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Path)> {
        let files = self.files.iter();
        files
            .filter(move |(name, _)| name.ends_with(ending))
            .map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// Reads, checks and unpacks one module.
    pub(super) fn read(&self, name: &str, path: &Path) -> Result<Module, ModuleError> {
        let failed = |source| ModuleError::Read {
            path: path.to_owned(),
            source,
        };
        let packed = fs::read(path).map_err(failed)?;
        if let Some(record) = self.records.get(path) {
            record
                .check_bytes(path, &packed)
                .map_err(|_| ModuleError::Changed {
                    path: path.to_owned(),
                })?;
        }
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = unpack::unpack(&file_name, &packed, MAX_MODULE).map_err(failed)?;
        Ok(Module {
            name: name.to_owned(),
            source: path.to_owned(),
            bytes,
        })
    }

    /// The error for a module that this kernel has not.
    pub(super) fn unknown(&self, name: &str, needed_by: Option<&String>) -> ModuleError {
        let known = self.files.keys().chain(&self.builtin);
        // Short names are part of too many others.
        let is_part = |short: &str, long: &str| short.len() > 3 && long.contains(short);
        let is_similar = |known: &&String| is_part(known, name) || is_part(name, known);
        let similar: Vec<_> = known.filter(is_similar).take(5).cloned().collect();
        ModuleError::Unknown {
            name: name.to_owned(),
            needed_by: needed_by
                .map(|by| format!(" (needed by {by})"))
                .unwrap_or_default(),
            similar: if similar.is_empty() {
                String::new()
            } else {
                format!("; similar: {}", similar.join(", "))
            },
        }
    }
}

fn find_root(dir: &Path) -> Result<PathBuf, ModuleError> {
    let is_tree = |dir: &Path| dir.join("modules.builtin").exists() || dir.join("kernel").is_dir();
    if is_tree(dir) {
        return Ok(dir.to_owned());
    }
    let not_a_tree = || ModuleError::NotATree {
        path: dir.to_owned(),
    };
    let entries = fs::read_dir(dir.join("lib/modules")).map_err(|_| not_a_tree())?;
    let mut trees: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_tree(path))
        .collect();
    match (trees.pop(), trees.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_) | None, _) => Err(not_a_tree()),
    }
}

fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), ModuleError> {
    let failed = |source| ModuleError::List {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // Not followed: `build` and `source` are links to whole kernel trees.
        if entry.file_type().map_err(failed)?.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `virtio_blk` for `.../virtio-blk.ko.xz`; nothing for files that are no modules.
pub(super) fn module_name(path: &Path) -> Option<String> {
    let (stem, ending) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".zst" | ".gz").then(|| normal(stem))
}
