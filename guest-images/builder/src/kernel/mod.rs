//! Kernels that carry our own pin-tracking designs: Debian's source package, our patches and configuration, and the host's compiler.
//!
//! ```text
//! source.toml, patches, fragments -> Recipe -> its digest -----------------------> find_built: design:bias, from the cache
//!        (files.rs)                    |
//!                                      v
//! package by digest -> tree -> series applied -> .config checked -> make -> kernels/<digest of recipe and compiler>
//!    (source.rs)      (work_tree.rs)  (apply.rs)    (config.rs)   (make.rs)            (build.rs)
//! ```
//!
//! Promises: the same recipe and compiler are built once; a patch that does not fit changes nothing and is told with file and hunk; every
//! line of the fragments is in the kernel's configuration, or the build fails; what was built before a kill or a full disk is used by the
//! next run. Does not promise: that files which somebody changes in the cache's source tree are noticed.

mod apply;
mod build;
mod built;
mod catalogue;
mod choice;
mod config;
mod error;
mod files;
mod make;
mod patch;
mod recipe;
mod selftests;
mod source;
mod tools;
mod work_tree;

pub use build::{BuildOrder, Built, Checked, build, check};
pub use built::{BuiltState, find_built, state};
pub use catalogue::{Catalogue, Design, Part, SourcePackage};
pub use choice::DesignChoice;
pub use error::KernelError;
pub use files::{KernelFiles, TREE_VARIABLE};
pub use selftests::{Selftests, build_selftests, find_selftests};
pub use source::remove_sources;
