//! From the name of a kernel to its entry in the cache.
//!
//! A Debian kernel's digest is compared with apt's record when it comes; what the cache holds is compared with its own
//! record whenever it is used. apt is asked again only after its lists changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apt::{Apt, Archive, PackageId};
use crate::digest::sha256;
use crate::entry::{Kernel, KernelRecord, MANIFEST, read_json, write_json};
use crate::error::{Error, IoContext as _};
use crate::kernel::{self, KernelFiles};
use crate::progress::Progress;
use crate::spec::KernelSpec;
use crate::store::{Store, entries};

/// What the archive answered for a wish.
#[derive(Debug, Serialize, Deserialize)]
struct Resolved {
    package: PackageId,
    lists_stamp: Option<i64>,
}

/// A package that apt could not bring, and what it said.
struct Unfetched {
    package: PackageId,
    reason: String,
}

/// Fetches `package` into the new directory `dir` and gives its bytes, which have the digest that `record` says.
pub(crate) fn download_verified(
    archive: &dyn Archive,
    package: &PackageId,
    record: &'static str,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<u8>, Error> {
    progress.step("fetching", &format!("{} {}", package.name, package.version));
    fs::create_dir_all(dir).during("create", dir)?;
    let path = archive.download(package, dir)?;
    let deb = fs::read(&path).during("read", &path)?;
    let way_out = "remove it from any proxy's cache and try again";
    verify(&deb, package, &package.name, record, way_out)?;
    Ok(deb)
}

/// Compares the digest of the package's bytes, which came from `origin`, with the one that `record` says.
pub(crate) fn verify(
    deb: &[u8],
    package: &PackageId,
    origin: &str,
    record: &'static str,
    way_out: &'static str,
) -> Result<(), Error> {
    let got = sha256(deb);
    if got == package.sha256 {
        return Ok(());
    }
    Err(Error::WrongDigest {
        package: origin.to_owned(),
        got,
        record,
        way_out,
        expected: package.sha256.clone(),
    })
}

impl Store {
    /// The kernel that `spec` names, fetched and unpacked if it is not in the cache yet.
    ///
    /// A Debian series means the newest that apt knows; where apt knows none, the newest in the cache.
    ///
    /// # Errors
    /// Every way in which apt, the network, the disk or the kernel's file can fail has its variant of [`Error`].
    pub fn kernel(&self, spec: &KernelSpec, progress: &mut dyn Progress) -> Result<Kernel, Error> {
        match spec {
            KernelSpec::Debian(wish) => self.debian_kernel(&Apt, wish, progress),
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
            KernelSpec::Design(choice) => kernel::find_built(self, &KernelFiles::of(None), choice),
            KernelSpec::File { kernel, modules } => {
                self.file_kernel(spec, kernel, modules.as_deref(), progress)
            }
        }
    }

    pub(crate) fn debian_kernel(
        &self,
        archive: &dyn Archive,
        wish: &str,
        progress: &mut dyn Progress,
    ) -> Result<Kernel, Error> {
        let memo = self
            .root()
            .join("resolved")
            .join(format!("debian-{wish}.json"));
        let stamp = archive.lists_stamp();
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
        let package = self.resolve(archive, wish, progress)?;
        let kernel = match self.debian_package(archive, wish, &package, progress) {
            Err(Error::Command { reason, .. }) => {
                let failed = Unfetched { package, reason };
                return self.after_failed_fetch(archive, wish, failed, progress);
            }
            done => done?,
        };
        fs::create_dir_all(self.root().join("resolved")).during("create", &memo)?;
        // Asked anew: an `apt-get update` on the way has changed it.
        write_json(
            &memo,
            &Resolved {
                package,
                lists_stamp: archive.lists_stamp(),
            },
        )?;
        Ok(kernel)
    }

    fn resolve(
        &self,
        archive: &dyn Archive,
        wish: &str,
        progress: &mut dyn Progress,
    ) -> Result<PackageId, Error> {
        // No apt at all is like an apt that knows nothing: the cache may still have it.
        let (found, no_apt) = match archive.find(wish) {
            Ok(found) => (found, None),
            Err(error) => (None, Some(error)),
        };
        if let Some(package) = found {
            return Ok(package);
        }
        if let Some(package) = self.newest_in_cache(wish)? {
            progress.step(
                "using",
                &format!("{} from the cache, since apt knows no newer", package.name),
            );
            return Ok(package);
        }
        if let Some(error) = no_apt {
            let way_out =
                "name a kernel by its path, or prepare the cache on a Debian host".to_owned();
            return Err(Error::PackageUnknown {
                wish: wish.to_owned(),
                known: error.to_string(),
                way_out,
            });
        }
        if archive.may_update() {
            progress.step("updating", "apt's package lists");
            archive.update()?;
            if let Some(package) = archive.find(wish)? {
                return Ok(package);
            }
        }
        let known = archive.known_versions();
        let known = if known.is_empty() {
            "apt knows none".to_owned()
        } else {
            format!("apt knows {}", known.join(", "))
        };
        let way_out = if archive.may_update() {
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

    /// What can still be done when apt knows a package and cannot bring it: its lists may be old and the package gone
    /// from the archive, or there is no network and the cache has an older one.
    fn after_failed_fetch(
        &self,
        archive: &dyn Archive,
        wish: &str,
        failed: Unfetched,
        progress: &mut dyn Progress,
    ) -> Result<Kernel, Error> {
        if archive.may_update() {
            progress.step(
                "updating",
                "apt's package lists, since the package cannot be fetched",
            );
            // Without a network this fails like the fetch did; the first failure is the one to tell.
            if archive.update().is_ok()
                && let Some(newer) = archive.find(wish)?
                && newer != failed.package
            {
                return self.debian_package(archive, wish, &newer, progress);
            }
        }
        if let Some(older) = self.newest_in_cache(wish)? {
            let note = format!(
                "{} from the cache, since {} cannot be fetched",
                older.name, failed.package.name
            );
            progress.step("using", &note);
            return self.debian_package(archive, wish, &older, progress);
        }
        let way_out = if archive.may_update() {
            "check the network and /etc/apt/sources.list"
        } else {
            "check the network; if the archive has dropped this version, run `sudo apt-get update`"
        };
        Err(Error::Fetch {
            package: failed.package.name,
            reason: failed.reason,
            way_out,
        })
    }

    fn debian_package(
        &self,
        archive: &dyn Archive,
        wish: &str,
        package: &PackageId,
        progress: &mut dyn Progress,
    ) -> Result<Kernel, Error> {
        let dir = self.kernel_dir(&package.sha256);
        let record = self.prepare(&dir, progress, |temporary, progress| {
            let download = temporary.join("download");
            let deb = download_verified(archive, package, "apt's record", &download, progress)?;
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

    fn newest_in_cache(&self, wish: &str) -> Result<Option<PackageId>, Error> {
        let packages = self.cached_packages()?.into_iter();
        Ok(packages
            .filter(|package| package.satisfies(wish))
            .max_by(PackageId::by_age))
    }

    fn cached_packages(&self) -> Result<Vec<PackageId>, Error> {
        let mut packages = Vec::new();
        for dir in entries(&self.root().join("kernels"))? {
            // One unreadable entry must not hide the others.
            let record: Option<KernelRecord> = read_json(&dir.join(MANIFEST)).unwrap_or_default();
            packages.extend(record.and_then(|record| record.package));
        }
        Ok(packages)
    }
}
