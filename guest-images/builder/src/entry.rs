//! One unpacked kernel in the cache: a directory with `vmlinux`, usually `vmlinuz` and `modules/`, and `manifest.json`.
//!
//! The manifest is written last and the directory gets its name last, so an entry that exists is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::apt::PackageId;
use crate::bzimage;
use crate::digest::{FileRecord, sha256};
use crate::error::{Error, IoContext as _};
use crate::modules::ModuleTree;
use crate::{FORMAT, deb};

pub(crate) const MANIFEST: &str = "manifest.json";
const VMLINUX: &str = "vmlinux";
const VMLINUZ: &str = "vmlinuz";
const MODULES: &str = "modules";

/// A kernel that is ready to be booted.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// How the user named it, such as `debian:6.12`.
    pub spec: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// The package that it came from, if it came from one.
    pub package: Option<PackageId>,
    /// Digest by which the cache knows it: of the package, or of the kernel's file.
    pub digest: String,
    /// As shipped by the distribution; absent for an ELF kernel built by hand.
    pub bzimage: Option<PathBuf>,
    /// The ELF file.
    pub vmlinux: PathBuf,
    /// Its modules.
    pub modules: ModuleTree,
    /// Words for its command line, without which it is not what was asked for; empty for most.
    pub parameters: String,
    /// How it was built, if it was built here.
    pub build: Option<BuildRecord>,
}

/// What `manifest.json` of a kernel's entry says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRecord {
    /// [`FORMAT`] of the builder that made the entry.
    pub format: u32,
    /// What `uname -r` says in it.
    pub release: String,
    /// The package that it came from, if any.
    pub package: Option<PackageId>,
    /// The file that it came from, if it came from no package.
    pub source: Option<PathBuf>,
    /// Every file of the entry, less the manifest.
    pub files: Vec<FileRecord>,
    /// How it was built, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildRecord>,
}

/// How a kernel of our own designs was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRecord {
    /// Digest of source, patches and configuration.
    pub recipe: String,
    /// Digest of what the patches do.
    pub series: String,
    /// Name of the binary in source.toml.
    pub binary: String,
    /// Name of the flavour.
    pub flavour: String,
    /// Designs that can be chosen when it boots.
    pub designs: Vec<String>,
    /// What the compiler and the linker said about themselves.
    pub compiler: String,
    /// When it was done, in seconds since 1970.
    pub built_unix_s: u64,
}

/// A kernel that a build has left, file by file.
pub(crate) struct BuiltFiles {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    /// The ELF file.
    pub(crate) vmlinux: Vec<u8>,
    /// Others, by their paths in the entry.
    pub(crate) others: Vec<(&'static str, Vec<u8>)>,
}

impl KernelRecord {
    /// Unpacks the package `deb` into the empty directory `dir`.
    pub(crate) fn make_from_deb(
        dir: &Path,
        deb: &[u8],
        package: &PackageId,
    ) -> Result<Self, Error> {
        let unpacked = deb::unpack_kernel(deb, dir).map_err(|source| Error::Deb {
            package: package.name.clone(),
            source,
        })?;
        let mut files = Vec::new();
        for (path, digest) in unpacked.files {
            files.push(FileRecord::of(dir, &path, digest)?);
        }
        let bzimage = dir.join(VMLINUZ);
        let bytes = fs::read(&bzimage).during("read", &bzimage)?;
        files.push(write_vmlinux(dir, &bytes, &bzimage)?);
        let record = Self {
            format: FORMAT,
            release: unpacked.release,
            package: Some(package.clone()),
            source: None,
            files,
            build: None,
        };
        write_json(&dir.join(MANIFEST), &record)?;
        Ok(record)
    }

    /// Puts the kernel `bytes`, which came from `source`, into the empty directory `dir`.
    pub(crate) fn make_from_file(dir: &Path, bytes: &[u8], source: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        let release = if bzimage::is_bzimage(bytes) {
            files.push(write_recorded(dir, VMLINUZ, bytes)?);
            files.push(write_vmlinux(dir, bytes, source)?);
            bzimage::kernel_release(bytes)
        } else if bzimage::is_x86_64_elf(bytes) {
            files.push(write_recorded(dir, VMLINUX, bytes)?);
            release_in_banner(bytes)
        } else {
            return Err(Error::NotAKernel {
                path: source.to_owned(),
            });
        };
        let release = release.unwrap_or_else(|| "unknown".to_owned());
        let record = Self {
            format: FORMAT,
            release,
            package: None,
            source: Some(source.to_owned()),
            files,
            build: None,
        };
        write_json(&dir.join(MANIFEST), &record)?;
        Ok(record)
    }

    /// Puts a kernel that was built from the source package `source` into the empty directory `dir`.
    pub(crate) fn make_from_build(
        dir: &Path,
        built: BuiltFiles,
        source: PackageId,
        build: BuildRecord,
    ) -> Result<Self, Error> {
        let mut files = vec![write_recorded(dir, VMLINUX, &built.vmlinux)?];
        for (path, bytes) in &built.others {
            let full = dir.join(path);
            let parent = full.parent().unwrap_or(dir);
            fs::create_dir_all(parent).during("create", parent)?;
            files.push(write_recorded(dir, path, bytes)?);
        }
        let record = Self {
            format: FORMAT,
            release: built.release,
            package: Some(source),
            source: None,
            files,
            build: Some(build),
        };
        write_json(&dir.join(MANIFEST), &record)?;
        Ok(record)
    }

    /// The kernel in the entry `dir`. Modules are those of the entry unless `modules` names a tree elsewhere.
    pub(crate) fn open(
        &self,
        dir: &Path,
        spec: String,
        modules: Option<&Path>,
    ) -> Result<Kernel, Error> {
        for record in self
            .files
            .iter()
            .filter(|record| [VMLINUX, VMLINUZ].contains(&record.path.as_str()))
        {
            record.check_quickly(dir)?;
        }
        let own_modules = dir.join(MODULES);
        let modules = match modules {
            Some(elsewhere) => ModuleTree::open(elsewhere)?,
            None if own_modules.is_dir() => {
                ModuleTree::open(&own_modules)?.guarded_by(dir, &self.files)
            }
            None => ModuleTree::none(),
        };
        let bzimage = dir.join(VMLINUZ);
        Ok(Kernel {
            spec,
            release: self.release.clone(),
            package: self.package.clone(),
            digest: dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            bzimage: bzimage.is_file().then_some(bzimage),
            vmlinux: dir.join(VMLINUX),
            modules,
            parameters: String::new(),
            build: self.build.clone(),
        })
    }
}

/// Reads the JSON file `path`; nothing if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Io {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::BadManifest {
            path: path.to_owned(),
            source,
        })
}

/// Writes `value` to `path`, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value).expect("manifests have string keys only");
    text.push(b'\n');
    static WRITES: AtomicU64 = AtomicU64::new(0);
    // Each write has its own temporary name: without a lock the last rename wins, and all of them are whole.
    let unique = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{unique}.tmp", std::process::id()));
    fs::write(&temporary, text).during("write", &temporary)?;
    fs::rename(&temporary, path).during("rename", &temporary)
}

/// Writes `bytes` to `path` below `dir` and records it.
pub(crate) fn write_recorded(dir: &Path, path: &str, bytes: &[u8]) -> Result<FileRecord, Error> {
    let full = dir.join(path);
    fs::write(&full, bytes).during("write", &full)?;
    FileRecord::of(dir, path, sha256(bytes))
}

fn write_vmlinux(dir: &Path, bzimage: &[u8], source: &Path) -> Result<FileRecord, Error> {
    let vmlinux = bzimage::extract_vmlinux(bzimage).map_err(|error| Error::BzImage {
        path: source.to_owned(),
        source: error,
    })?;
    write_recorded(dir, VMLINUX, &vmlinux)
}

/// The release in an ELF kernel's `linux_banner`.
fn release_in_banner(vmlinux: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let is_banner =
        |window: &[u8]| window.starts_with(BANNER) && window.get(BANNER.len()) != Some(&b'%');
    let start = vmlinux.windows(BANNER.len() + 1).position(is_banner)? + BANNER.len();
    let rest = vmlinux.get(start..)?;
    let end = rest
        .iter()
        .take(256)
        .position(|byte| matches!(byte, b' ' | 0))?;
    String::from_utf8(rest.get(..end)?.to_vec()).ok()
}
