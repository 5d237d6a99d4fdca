//! What can go wrong while an image is made. Every message says what to do where something can be done.

use std::io;
use std::path::{Path, PathBuf};

use crate::bzimage::BzImageError;
use crate::deb::DebError;
use crate::kernel::KernelError;
use crate::modules::ModuleError;

/// Why a kernel or an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the host could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: "read", "write", "create", ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text names no kernel.
    #[error(
        "`{0}` names no kernel: write `debian:6.12`, `debian:6.1`, `debian:<exact version>`, `design:<name>`, `host`, \
         or the path of a vmlinux or bzImage"
    )]
    BadKernelSpec(String),
    /// The file at `path` is neither a bzImage nor an ELF kernel.
    #[error("{} is no kernel: neither a bzImage nor a 64-bit x86 ELF file", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// The kernel of the running host is not on its disk.
    #[error("the running host's kernel {release} has no file {} (containers and some clouds have none): use `debian:6.12`", path.display())]
    NoHostKernel {
        /// What `uname -r` says.
        release: String,
        /// Where the kernel was looked for.
        path: PathBuf,
    },
    /// Neither apt nor the cache has a package for the wish.
    #[error(
        "no kernel package for `debian:{wish}` in apt's lists or in the cache ({known}); {way_out}"
    )]
    PackageUnknown {
        /// Series or version that was asked for.
        wish: String,
        /// What apt knows instead.
        known: String,
        /// What to run.
        way_out: String,
    },
    /// A program of the host failed or is missing.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit code and last words.
        reason: String,
    },
    /// The init program needs a loader that the image has not, so the guest would panic.
    #[error("{} is no static program: it needs {loader}; build it with `-C target-feature=+crt-static`, or add its libraries", path.display())]
    InitNotStatic {
        /// The program.
        path: PathBuf,
        /// What it needs first.
        loader: String,
    },
    /// A package is known and cannot be fetched.
    #[error("cannot fetch {package}: {reason}; {way_out}")]
    Fetch {
        /// Name of the package.
        package: String,
        /// What apt said.
        reason: String,
        /// What to do.
        way_out: &'static str,
    },
    /// A download has another digest than is on record.
    #[error("{package} has the digest {got}, but {record} says {expected}: {way_out}")]
    WrongDigest {
        /// Name of the package, or the path of its file.
        package: String,
        /// Digest of what came.
        got: String,
        /// Who says which digest it has.
        record: &'static str,
        /// The digest that it should have.
        expected: String,
        /// What to do.
        way_out: &'static str,
    },
    /// A cached file is not what it was when it was made.
    #[error("the cached file {} has changed: run `pincushion image remove` for its entry, and it is made anew", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A manifest cannot be read.
    #[error("the record {} cannot be understood: remove its directory, and it will be made anew", path.display())]
    BadManifest {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Modules were given for a kernel that brings its own.
    #[error("`{0}` has its own modules: --modules is for a kernel given by its path")]
    ModulesNotWanted(String),
    /// An entry of the cache has no usable manifest.
    #[error("{} has no usable manifest: run `pincushion image remove` for it", path.display())]
    NoManifest {
        /// The entry's directory.
        path: PathBuf,
    },
    /// Another process kept the lock for too long.
    #[error("waited {seconds} s for another process that prepares the same files; if none runs, remove {}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// No directory for the cache is known.
    #[error("no place for the cache: set PINCUSHION_CACHE or HOME")]
    NoCacheDirectory,
    /// A path of the image is not usable.
    #[error("`{path}` cannot be a path in the image: {reason}")]
    BadImagePath {
        /// As the caller gave it.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A program that should go into the image is not installed.
    #[error("the program `{name}` is not installed: run `{line}`", line = crate::host_program::line_for(name))]
    NoProgram {
        /// Its name.
        name: String,
    },
    /// No cached kernel or image has this name.
    #[error("nothing in the cache is called `{0}`: see `pincushion image list`")]
    NoEntry(String),
    /// The kernel image cannot be unpacked.
    #[error("cannot take the vmlinux out of {}", path.display())]
    BzImage {
        /// The kernel.
        path: PathBuf,
        /// Why.
        source: BzImageError,
    },
    /// The package cannot be unpacked.
    #[error("cannot unpack {package}")]
    Deb {
        /// Name of the package.
        package: String,
        /// Why.
        source: DebError,
    },
    /// A kernel of our own designs cannot be named, built or found.
    #[error(transparent)]
    Design(#[from] KernelError),
    /// The program that would install something is not there: a host that is no Debian, or that has no cargo.
    #[error("cannot run `{0}`: install what it names by hand")]
    NoInstaller(String),
    /// The package manager could not install something.
    #[error("`{line}` ended with {status}; its last words:\n{output}")]
    Install {
        /// What was run.
        line: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// A module cannot be had.
    #[error(transparent)]
    Module(#[from] ModuleError),
}

/// Adds what was attempted, and on which file, to an I/O error.
pub(crate) trait IoContext<T> {
    /// `action` is a verb: "read", "create".
    fn during(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}
