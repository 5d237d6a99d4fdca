//! The cache: a directory outside the repository that every checkout of a user shares.
//!
//! ```text
//! kernels/<digest>/   an unpacked kernel, see entry.rs; <digest> is that of the package, or of the kernel's file
//! images/<digest>/    initrd, manifest.json; <digest> is that of everything that went in
//! resolved/<wish>     what apt answered last, so that an unchanged question costs no second
//! locks/, tmp/        who prepares what, and what is not finished
//! ```
//!
//! An entry is prepared in `tmp/` under its lock and renamed into place, so half an entry is never seen. What a killed
//! run left in `tmp/` is removed by the next that takes the same lock.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apt::{self, PackageId};
use crate::digest::sha256;
use crate::entry::{Kernel, KernelRecord, MANIFEST, read_json, write_json};
use crate::error::{Error, IoContext as _};
use crate::image::Manifest;
use crate::lock;
use crate::progress::Progress;
use crate::spec::KernelSpec;

/// The cache of kernels and images.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One entry of the cache.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Listing {
    /// An unpacked kernel.
    Kernel {
        /// Digest that names the entry.
        digest: String,
        /// Its directory.
        path: PathBuf,
        /// Bytes of all its files.
        size: u64,
        /// What its manifest says.
        record: KernelRecord,
    },
    /// A guest image.
    Image {
        /// Digest that names the entry.
        digest: String,
        /// Its directory.
        path: PathBuf,
        /// Bytes of its initramfs.
        size: u64,
        /// What its manifest says.
        manifest: Box<Manifest>,
    },
}

/// What apt answered for a wish.
#[derive(Debug, Serialize, Deserialize)]
struct Resolved {
    package: PackageId,
    lists_stamp: Option<i64>,
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
        Ok(Self { root })
    }

    /// The directory of this cache.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernel that `spec` names, fetched and unpacked if it is not in the cache yet.
    ///
    /// A Debian series means the newest that apt knows; where apt knows none, the newest in the cache.
    ///
    /// # Errors
    /// Every way in which apt, the network, the disk or the kernel's file can fail has its variant of [`Error`].
    pub fn kernel(&self, spec: &KernelSpec, progress: &mut dyn Progress) -> Result<Kernel, Error> {
        match spec {
            KernelSpec::Debian(wish) => self.debian_kernel(wish, progress),
            KernelSpec::Host => {
                let proc = Path::new("/proc/sys/kernel/osrelease");
                let release = fs::read_to_string(proc)
                    .during("read", proc)?
                    .trim()
                    .to_owned();
                let path = PathBuf::from(format!("/boot/vmlinuz-{release}"));
                if !path.exists() {
                    return Err(Error::NoHostKernel { release, path });
                }
                let modules = PathBuf::from(format!("/lib/modules/{release}"));
                self.file_kernel(
                    spec,
                    &path,
                    modules.is_dir().then_some(modules.as_path()),
                    progress,
                )
            }
            KernelSpec::File { kernel, modules } => {
                self.file_kernel(spec, kernel, modules.as_deref(), progress)
            }
        }
    }

    fn debian_kernel(&self, wish: &str, progress: &mut dyn Progress) -> Result<Kernel, Error> {
        let memo = self
            .root
            .join("resolved")
            .join(format!("debian-{wish}.json"));
        let stamp = apt::lists_stamp();
        // A memo that cannot be read is as good as none.
        if let Ok(Some(Resolved {
            package,
            lists_stamp,
        })) = read_json(&memo)
            && lists_stamp == stamp
            && let Some(record) = self.kernel_record(&package.sha256)?
        {
            return record.open(
                &self.kernel_dir(&package.sha256),
                format!("debian:{wish}"),
                None,
            );
        }
        let package = self.resolve(wish, progress)?;
        let kernel = self.debian_package(wish, &package, progress)?;
        fs::create_dir_all(self.root.join("resolved")).during("create", &memo)?;
        // Asked anew: an `apt-get update` on the way has changed it.
        write_json(
            &memo,
            &Resolved {
                package,
                lists_stamp: apt::lists_stamp(),
            },
        )?;
        Ok(kernel)
    }

    fn resolve(&self, wish: &str, progress: &mut dyn Progress) -> Result<PackageId, Error> {
        // No apt at all is the same as an apt that knows nothing: the cache may still have it.
        let found = apt::find(wish).unwrap_or_else(|error| {
            log::debug!("apt cannot be asked: {error}");
            None
        });
        if let Some(package) = found {
            return Ok(package);
        }
        let cached = self
            .cached_packages()?
            .into_iter()
            .filter(|package| package.satisfies(wish));
        if let Some(package) = cached.max_by(PackageId::by_age) {
            progress.step(
                "using",
                &format!("{} from the cache, since apt knows no newer", package.name),
            );
            return Ok(package);
        }
        if apt::may_update() {
            progress.step("updating", "apt's package lists");
            apt::update()?;
            if let Some(package) = apt::find(wish)? {
                return Ok(package);
            }
        }
        let known = apt::known_versions();
        let known = if known.is_empty() {
            "apt knows none".to_owned()
        } else {
            format!("apt knows {}", known.join(", "))
        };
        let way_out = if apt::may_update() {
            "the lists are fresh: choose another version, or add the archive that has it to /etc/apt/sources.list"
        } else {
            "run `sudo apt-get update` and try again"
        };
        Err(Error::PackageUnknown {
            wish: wish.to_owned(),
            known,
            way_out: way_out.to_owned(),
        })
    }

    fn debian_package(
        &self,
        wish: &str,
        package: &PackageId,
        progress: &mut dyn Progress,
    ) -> Result<Kernel, Error> {
        let dir = self.kernel_dir(&package.sha256);
        let record = self.prepare(&dir, progress, |temporary, progress| {
            progress.step("fetching", &format!("{} {}", package.name, package.version));
            let download = temporary.join("download");
            fs::create_dir_all(&download).during("create", &download)?;
            let path = apt::download(package, &download)?;
            let deb = fs::read(&path).during("read", &path)?;
            let got = sha256(&deb);
            if got != package.sha256 {
                return Err(Error::WrongDigest {
                    package: package.name.clone(),
                    got,
                    expected: package.sha256.clone(),
                });
            }
            fs::remove_dir_all(&download).during("remove", &download)?;
            progress.step("unpacking", &package.name);
            KernelRecord::make_from_deb(temporary, &deb, package)
        })?;
        record.open(&dir, format!("debian:{wish}"), None)
    }

    fn file_kernel(
        &self,
        spec: &KernelSpec,
        path: &Path,
        modules: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Kernel, Error> {
        let bytes = fs::read(path).during("read", path)?;
        let dir = self.kernel_dir(&sha256(&bytes));
        let record = self.prepare(&dir, progress, |temporary, progress| {
            progress.step("unpacking", &path.display().to_string());
            KernelRecord::make_from_file(temporary, &bytes, path)
        })?;
        record.open(&dir, spec.to_string(), modules)
    }

    /// The record of the kernel entry `dir`, made by `make` in a temporary directory if there is none.
    fn prepare(
        &self,
        dir: &Path,
        progress: &mut dyn Progress,
        make: impl FnOnce(&Path, &mut dyn Progress) -> Result<KernelRecord, Error>,
    ) -> Result<KernelRecord, Error> {
        let manifest = dir.join(MANIFEST);
        if let Some(record) = read_json(&manifest)? {
            return Ok(record);
        }
        self.make_entry(dir, progress, |temporary, progress| {
            make(temporary, progress).map(drop)
        })?;
        read_json(&manifest)?.ok_or_else(|| Error::NoEntry(dir.display().to_string()))
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

    fn kernel_record(&self, digest: &str) -> Result<Option<KernelRecord>, Error> {
        read_json(&self.kernel_dir(digest).join(MANIFEST))
    }

    fn kernel_dir(&self, digest: &str) -> PathBuf {
        self.root.join("kernels").join(digest)
    }

    pub(crate) fn image_dir(&self, digest: &str) -> PathBuf {
        self.root.join("images").join(digest)
    }

    fn cached_packages(&self) -> Result<Vec<PackageId>, Error> {
        let mut packages = Vec::new();
        for dir in entries(&self.root.join("kernels"))? {
            let record: Option<KernelRecord> = read_json(&dir.join(MANIFEST))?;
            packages.extend(record.and_then(|record| record.package));
        }
        Ok(packages)
    }
}

/// The directories in `dir`, by name; none if `dir` is absent.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
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

fn remove_if_there(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: dir.to_owned(),
            source: error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}
