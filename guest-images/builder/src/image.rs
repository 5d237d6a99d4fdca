//! A guest image: a kernel from the cache and an initramfs built for it.
//!
//! In the initramfs, `/init` is the given program and `/modules/NN-name.ko` are the modules, unpacked; `/modules/load` has
//! one path per line in the order in which to load them at boot. Modules on demand are there, but not in that list. The
//! image's digest is that of everything that goes in, so an unchanged request is answered from the cache, and a changed agent gives a new image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FORMAT;
use crate::apt::PackageId;
use crate::digest::{FileRecord, sha256};
use crate::entry::{Kernel, MANIFEST, read_json, write_json, write_recorded};
use crate::error::{Error, IoContext as _};
use crate::host_program::{host_program, loader};
use crate::initramfs::{Initramfs, normal_path};
use crate::modules::Module;
use crate::progress::Silent;
use crate::store::Store;
use crate::strip::strip;

const INITRD: &str = "initrd";

/// A file of the host that goes into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it goes in the image; the directories above are made.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

/// What an image should hold.
#[derive(Debug, Clone)]
pub struct ImageSpec<'a> {
    /// A static program of the host, which becomes `/init`.
    pub init: &'a Path,
    /// Modules by name; what they need comes with them, and what is built in is skipped.
    pub modules: &'a [&'a str],
    /// Modules that are in the image, where the kernel has them, but are loaded only when a step of the guest asks for them.
    pub on_demand: &'a [&'a str],
    /// Anything else.
    pub files: Vec<ExtraFile>,
}

impl ImageSpec<'_> {
    /// Adds a program of the host with its libraries, at the paths that they have here.
    ///
    /// # Errors
    /// The program is not installed, or its libraries cannot be told.
    pub fn add_host_program(&mut self, name: &str) -> Result<(), Error> {
        self.add_files(host_program(name)?);
        Ok(())
    }

    /// Adds files, but for those that are there: two programs share their libraries.
    pub fn add_files(&mut self, files: Vec<ExtraFile>) {
        for file in files {
            if !self.files.iter().any(|known| known.path == file.path) {
                self.files.push(file);
            }
        }
    }
}

/// An image that is ready to be booted.
#[derive(Debug, Clone)]
pub struct Image {
    /// The ELF kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Digest of everything that went in; also the name of the cache entry.
    pub digest: String,
    /// The record beside the initramfs.
    pub manifest: Manifest,
}

/// A file in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Its path in the image.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Digest of its content.
    pub sha256: String,
}

/// What `manifest.json` of an image says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`] of the builder that made the image.
    pub format: u32,
    /// Name of the kernel's cache entry.
    pub kernel: String,
    /// How the user named the kernel when the image was built.
    pub kernel_spec: String,
    /// What `uname -r` says in the kernel.
    pub release: String,
    /// The kernel's package, if it came from one.
    pub package: Option<PackageId>,
    /// Digest of `/init`.
    pub init_sha256: String,
    /// The modules in load order, those on demand last.
    pub modules: Vec<FileDigest>,
    /// Modules that were asked for and are built in (or taken to be, for a kernel without a module tree).
    pub builtin: Vec<String>,
    /// The extra files.
    pub files: Vec<FileDigest>,
    /// The initramfs itself.
    pub initrd: FileRecord,
}

/// Raised when other modules are found for the same names, so that no image of before is taken for what would be built now.
const RESOLVER: u32 = 2;

/// What decides an image's bytes. Its digest names the image.
#[derive(Serialize)]
struct Inputs<'a> {
    format: u32,
    /// [`RESOLVER`].
    resolver: u32,
    kernel: &'a str,
    module_tree: String,
    modules: &'a [&'a str],
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    on_demand: &'a [&'a str],
    init_sha256: &'a str,
    files: &'a [FileDigest],
}

/// Everything read once, so that what is hashed is what is packed.
struct Contents {
    init: Vec<u8>,
    init_sha256: String,
    files: Vec<(FileDigest, Vec<u8>)>,
}

impl Store {
    /// The image for `spec` with `kernel`, built if it is not in the cache yet.
    ///
    /// # Errors
    /// A module is unknown, a file cannot be read, or the cache cannot be written.
    pub fn guest_image(&self, kernel: &Kernel, spec: &ImageSpec<'_>) -> Result<Image, Error> {
        let contents = Contents::read(spec)?;
        let files: Vec<FileDigest> = contents
            .files
            .iter()
            .map(|(digest, _)| digest.clone())
            .collect();
        let inputs = Inputs {
            format: FORMAT,
            resolver: RESOLVER,
            kernel: &kernel.digest,
            module_tree: kernel.modules.fingerprint()?,
            modules: spec.modules,
            on_demand: spec.on_demand,
            init_sha256: &contents.init_sha256,
            files: &files,
        };
        let digest = sha256(&serde_json::to_vec(&inputs).expect("inputs have string keys only"));
        let dir = self.image_dir(&digest);
        if read_json::<Manifest>(&dir.join(MANIFEST))?.is_none() {
            self.make_entry(&dir, &mut Silent, |temporary, _| {
                build(temporary, kernel, spec, contents)
            })?;
        }
        let manifest: Manifest =
            read_json(&dir.join(MANIFEST))?.ok_or_else(|| Error::NoEntry(digest.clone()))?;
        manifest.initrd.check_quickly(&dir)?;
        Ok(Image {
            kernel: kernel.vmlinux.clone(),
            initrd: dir.join(INITRD),
            digest,
            manifest,
        })
    }
}

impl Contents {
    fn read(spec: &ImageSpec<'_>) -> Result<Self, Error> {
        let init = strip(fs::read(spec.init).during("read the init program", spec.init)?);
        // Sorted by path and free of doubles, so that the order in which a caller lists files changes nothing.
        let mut files = BTreeMap::new();
        for file in &spec.files {
            let path = format!("/{}", normal_path(&file.path)?);
            let bytes = fs::read(&file.source).during("read", &file.source)?;
            let digest = FileDigest {
                path: path.clone(),
                mode: file.mode & 0o7777,
                sha256: sha256(&bytes),
            };
            if files.insert(path, (digest, bytes)).is_some() {
                return Err(Error::BadImagePath {
                    path: file.path.clone(),
                    reason: "it is given twice",
                });
            }
        }
        if let Some(loader) = loader(&init)
            && !files.contains_key(&loader)
        {
            return Err(Error::InitNotStatic {
                path: spec.init.to_owned(),
                loader,
            });
        }
        Ok(Self {
            init_sha256: sha256(&init),
            init,
            files: files.into_values().collect(),
        })
    }
}

/// Builds the image into the empty directory `dir`.
fn build(
    dir: &Path,
    kernel: &Kernel,
    spec: &ImageSpec<'_>,
    contents: Contents,
) -> Result<(), Error> {
    let at_boot = kernel.modules.resolve(spec.modules)?.len();
    // A kernel without one of these is no reason not to boot it: the step that asks for it says so.
    let there = |name: &&&str| kernel.modules.resolve(&[**name]).is_ok();
    let on_demand = spec.on_demand.iter().filter(there).copied();
    // What is loaded at boot comes first, in the same order as without the others.
    let names: Vec<&str> = spec.modules.iter().copied().chain(on_demand).collect();
    let modules = kernel.modules.resolve(&names)?;
    if kernel.modules.root().is_none() && !spec.modules.is_empty() {
        log::warn!(
            "{} comes without modules: {} must be built in",
            kernel.spec,
            spec.modules.join(", ")
        );
    }
    let mut tree = Initramfs::new();
    tree.add("/init", 0o755, contents.init)?;
    let modules = add_modules(&mut tree, modules, at_boot)?;
    let wanted = spec.modules.iter().chain(spec.on_demand);
    let builtin: Vec<String> = wanted
        .filter(|name| kernel.modules.is_builtin(name))
        .map(|name| (*name).to_owned())
        .collect();
    tree.add("/modules/builtin", 0o644, builtin.join("\n").into_bytes())?;
    let mut files = Vec::new();
    for (digest, bytes) in contents.files {
        tree.add(&digest.path, digest.mode, bytes)?;
        files.push(digest);
    }
    let initrd = tree.to_bytes().during("build", dir)?;
    let manifest = Manifest {
        format: FORMAT,
        kernel: kernel.digest.clone(),
        kernel_spec: kernel.spec.clone(),
        release: kernel.release.clone(),
        package: kernel.package.clone(),
        init_sha256: contents.init_sha256,
        modules,
        builtin,
        files,
        initrd: write_recorded(dir, INITRD, &initrd)?,
    };
    write_json(&dir.join(MANIFEST), &manifest)
}

/// Adds `/modules/NN-name.ko` in load order, and `/modules/load`, which lists the first `at_boot` of them.
fn add_modules(
    tree: &mut Initramfs,
    modules: Vec<Module>,
    at_boot: usize,
) -> Result<Vec<FileDigest>, Error> {
    let mut digests = Vec::new();
    let mut list = String::new();
    for (n, module) in modules.into_iter().enumerate() {
        let path = format!("/modules/{n:02}-{}.ko", module.name);
        if n < at_boot {
            list.push_str(&path);
            list.push('\n');
        }
        digests.push(FileDigest {
            path: path.clone(),
            mode: 0o644,
            sha256: sha256(&module.bytes),
        });
        tree.add(&path, 0o644, module.bytes)?;
    }
    tree.add("/modules/load", 0o644, list.into_bytes())?;
    Ok(digests)
}
