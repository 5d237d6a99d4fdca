//! The modules of one kernel: which exist, what each needs, and in which order to load them.
//!
//! Packages come without `modules.dep` (depmod would write it on installation), so the `depends=` of each module's
//! `.modinfo` is read. Load order is post-order: what a module needs comes before it, and so does what it
//! would like to have (`softdep=pre:`) if the kernel has it. Modules that the kernel would ask user space for later by an alias are not looked for.
//!
//! Names are compared as the kernel does: `-` and `_` are the same.

mod error;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

pub use error::ModuleError;
pub use tree::{Module, ModuleTree};

/// A module's name as the kernel compares it.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}
