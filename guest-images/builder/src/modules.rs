//! The modules of one kernel: which exist, what each needs, and in which order to load them.
//!
//! Packages come without `modules.dep` (depmod would write it on installation), so the `depends=` of each module's
//! `.modinfo` is read. Load order is post-order: what a module needs comes before it. Soft dependencies are
//! ignored, and so are the modules that the kernel would ask user space for later by an alias.
//!
//! Names are compared as the kernel does: `-` and `_` are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSection as _};

use crate::digest::{FileRecord, sha256};
use crate::unpack;

/// No module comes near this, in bytes.
const MAX_MODULE: u64 = 256 << 20;

/// Why the modules that were asked for cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The tree cannot be listed.
    #[error("cannot list the modules in {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is not what `make modules_install` leaves.
    #[error("{} is no module tree: expected lib/modules/RELEASE with modules.builtin or kernel/ in it", path.display())]
    NotATree {
        /// The directory.
        path: PathBuf,
    },
    /// Neither a module nor built in.
    #[error(
        "this kernel has no module `{name}`{needed_by}, and it is not built in either (modules.builtin){similar}"
    )]
    Unknown {
        /// The module.
        name: String,
        /// " (needed by ...)", or nothing.
        needed_by: String,
        /// "; similar: ...", or nothing.
        similar: String,
    },
    /// The module's file cannot be read or unpacked.
    #[error("cannot read the module {}", path.display())]
    Read {
        /// The module.
        path: PathBuf,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// The module's file is no ELF file, or has no `.modinfo`.
    #[error("{} is no kernel module: {reason}", path.display())]
    NotAModule {
        /// The module.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The module is not what it was when its package was unpacked.
    #[error("the cached module {} has changed: run `pincushion image remove` for its kernel, and it will be unpacked anew", path.display())]
    Changed {
        /// The module.
        path: PathBuf,
    },
    /// Modules need each other in a circle, which no kernel can load.
    #[error("the modules {0} need each other in a circle")]
    Circle(String),
}

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
        let mut walk = Walk {
            tree: self,
            done: BTreeSet::new(),
            path: Vec::new(),
            order: Vec::new(),
        };
        for name in names {
            walk.visit(&normal(name))?;
        }
        Ok(walk.order)
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

    fn read(&self, name: &str, path: &Path) -> Result<Module, ModuleError> {
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

    fn unknown(&self, name: &str, needed_by: Option<&String>) -> ModuleError {
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

/// A depth-first walk over `depends=`.
struct Walk<'a> {
    tree: &'a ModuleTree,
    done: BTreeSet<String>,
    /// The modules between the one asked for and the one visited now.
    path: Vec<String>,
    order: Vec<Module>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str) -> Result<(), ModuleError> {
        if self.done.contains(name) || self.tree.is_builtin(name) {
            return Ok(());
        }
        if self.path.iter().any(|above| above == name) {
            return Err(ModuleError::Circle(format!(
                "{} -> {name}",
                self.path.join(" -> ")
            )));
        }
        let Some(path) = self.tree.files.get(name) else {
            return Err(self.tree.unknown(name, self.path.last()));
        };
        let module = self.tree.read(name, path)?;
        let depends = depends(&module)?;
        self.path.push(name.to_owned());
        for needed in &depends {
            self.visit(needed)?;
        }
        self.path.pop();
        self.done.insert(name.to_owned());
        self.order.push(module);
        Ok(())
    }
}

/// The `depends=` of a module's `.modinfo`, a section of NUL-terminated `key=value` texts.
fn depends(module: &Module) -> Result<Vec<String>, ModuleError> {
    let wrong = |reason: String| ModuleError::NotAModule {
        path: module.source.clone(),
        reason,
    };
    let elf =
        object::File::parse(module.bytes.as_slice()).map_err(|source| wrong(source.to_string()))?;
    let section = elf
        .section_by_name(".modinfo")
        .ok_or_else(|| wrong("it has no .modinfo".to_owned()))?;
    let data = section.data().map_err(|source| wrong(source.to_string()))?;
    let lists = data
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="));
    Ok(lists
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| normal(&String::from_utf8_lossy(name)))
        .collect())
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
fn module_name(path: &Path) -> Option<String> {
    let (stem, ending) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".zst" | ".gz").then(|| normal(stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{gzip, module, xz, zstd};

    /// A tree of (file name, depends), all plain.
    fn tree(modules: &[(&str, &str)], builtin: &str) -> (tempfile::TempDir, ModuleTree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kernel")).unwrap();
        for (file, depends) in modules {
            let name = module_name(Path::new(file)).unwrap();
            fs::write(dir.path().join("kernel").join(file), module(&name, depends)).unwrap();
        }
        fs::write(dir.path().join("modules.builtin"), builtin).unwrap();
        let tree = ModuleTree::open(dir.path()).unwrap();
        (dir, tree)
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let (_dir, tree) = tree(
            &[
                ("virtio_blk.ko", "virtio,virtio_ring"),
                ("virtio.ko", "virtio_ring"),
                ("virtio_ring.ko", ""),
                ("virtio-mmio.ko", "virtio_ring,virtio"),
            ],
            "",
        );
        let order = tree.resolve(&["virtio_mmio", "virtio-blk"]).unwrap();
        assert_eq!(
            names(&order),
            ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk"]
        );
    }

    #[test]
    fn built_in_modules_are_skipped_also_as_a_dependency() {
        let (_dir, tree) = tree(
            &[("a.ko", "ext4,b"), ("b.ko", "")],
            "kernel/fs/ext4/ext4.ko\n",
        );
        assert_eq!(names(&tree.resolve(&["ext4", "a"]).unwrap()), ["b", "a"]);
        assert!(tree.is_builtin("ext4"));
    }

    #[test]
    fn packed_modules_come_out_unpacked() {
        let (dir, _) = tree(&[], "");
        let elf = module("m", "");
        for (file, packed) in [
            ("x.ko.xz", xz(&elf)),
            ("z.ko.zst", zstd(&elf)),
            ("g.ko.gz", gzip(&elf)),
        ] {
            fs::write(dir.path().join("kernel").join(file), packed).unwrap();
        }
        let tree = ModuleTree::open(dir.path()).unwrap();
        let modules = tree.resolve(&["x", "z", "g"]).unwrap();
        assert!(modules.iter().all(|module| module.bytes == elf));
    }

    #[test]
    fn an_unknown_module_is_named_with_the_one_that_needs_it() {
        let (_dir, tree) = tree(&[("a.ko", "gone"), ("virtio_blk.ko", "")], "");
        let message = tree.resolve(&["a"]).unwrap_err().to_string();
        assert!(message.contains("`gone` (needed by a)"), "{message}");
        let message = tree.resolve(&["virtio"]).unwrap_err().to_string();
        assert!(message.contains("similar: virtio_blk"), "{message}");
    }

    #[test]
    fn a_circle_and_a_file_that_is_no_module_are_errors() {
        let (dir, tree) = tree(&[("a.ko", "b"), ("b.ko", "a")], "");
        assert!(
            matches!(tree.resolve(&["a"]), Err(ModuleError::Circle(path)) if path == "a -> b -> a")
        );
        fs::write(dir.path().join("kernel/t.ko"), "text").unwrap();
        let tree = ModuleTree::open(dir.path()).unwrap();
        assert!(matches!(
            tree.resolve(&["t"]),
            Err(ModuleError::NotAModule { .. })
        ));
    }

    #[test]
    fn a_kernel_without_a_tree_has_everything_built_in() {
        assert!(
            ModuleTree::none()
                .resolve(&["virtio_blk"])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn the_tree_is_found_below_an_install_mod_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lib/modules/6.12.0");
        fs::create_dir_all(root.join("kernel")).unwrap();
        assert_eq!(
            ModuleTree::open(dir.path()).unwrap().root(),
            Some(root.as_path())
        );
        assert!(matches!(
            ModuleTree::open(&dir.path().join("lib")),
            Err(ModuleError::NotATree { .. })
        ));
    }
}
