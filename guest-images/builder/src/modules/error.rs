//! Why modules cannot be had.

use std::io;
use std::path::PathBuf;

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
