//! What can go wrong with a kernel of our own designs. Every message says which patch, hunk, fragment or package, and the way out.

use std::path::PathBuf;

/// Why a kernel of our own designs could not be named, built or found.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A name that source.toml does not have.
    #[error("there is no {what} `{name}`{guess}; known: {known}")]
    Unknown {
        /// "design", "policy" or "flavour".
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The nearest, as half a sentence.
        guess: String,
        /// All of them.
        known: String,
    },
    /// A file of the tree that is named and not there.
    #[error("{tree} has no {path}{needed_by}")]
    NoFile {
        /// Which tree.
        tree: String,
        /// The file in it.
        path: String,
        /// Who names it, as half a sentence.
        needed_by: String,
    },
    /// source.toml is wrong.
    #[error("{path}: {why}")]
    BadCatalogue {
        /// The file.
        path: String,
        /// What is wrong with it, and where.
        why: String,
    },
    /// A line of a configuration fragment that is none.
    #[error(
        "{fragment}:{line}: `{text}` is neither `CONFIG_NAME=value` nor `# CONFIG_NAME is not set`"
    )]
    BadFragment {
        /// The file.
        fragment: String,
        /// From 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A patch that cannot be understood.
    #[error("{patch}:{line}: {why}")]
    BadPatch {
        /// The file.
        patch: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A patch that does not fit the source.
    #[error("{patch} does not apply: {file}, hunk {hunk} (line {line} of the patch): {why}")]
    DoesNotApply {
        /// The patch.
        patch: String,
        /// The file of the source.
        file: String,
        /// From 1.
        hunk: usize,
        /// Where the hunk is in the patch, from 1.
        line: usize,
        /// What is there in place of what the patch expects.
        why: String,
    },
    /// The configuration lacks what the fragments ask for.
    #[error(
        "the configuration did not take {} of the fragments' lines: {}; the option is unknown to this kernel, or lacks what it depends on",
        lines.len(), lines.join("; ")
    )]
    ConfigNotTaken {
        /// Each line, where it stands, and what became of it.
        lines: Vec<String>,
    },
    /// Programs or headers for a build are missing, and we are not root.
    #[error("a kernel cannot be built here: {missing} missing; as root run: {line}")]
    NoTools {
        /// What is missing.
        missing: String,
        /// What to type.
        line: String,
    },
    /// make failed.
    #[error("the build failed; what is built stays for the next time; all of its output is in {}, the first errors are:\n{errors}", log.display())]
    Build {
        /// All of make's output.
        log: PathBuf,
        /// The lines that matter.
        errors: String,
    },
    /// No space left.
    #[error(
        "the disk of {} is full (a build needs about 4 GB): free some space and run the same command again, it goes on with what is built",
        path.display()
    )]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// The source package holds no source.
    #[error("{package} holds no usr/src/{package}.tar.xz")]
    NoSource {
        /// Its name.
        package: String,
    },
    /// The kernel's own selftests have not been built.
    #[error(
        "the kernel's own selftests have not been built: run `pincushion image kernel selftests`"
    )]
    NoSelftests,
    /// Nothing built for this name.
    #[error(
        "no {flavour}kernel with the design `{design}` has been built{others}: run `pincushion image kernel build --design {design}{flags}`"
    )]
    NotBuilt {
        /// The design.
        design: String,
        /// `debug `, or nothing for the flavour that scenarios run on.
        flavour: String,
        /// What the cache has in its place, as half a sentence.
        others: String,
        /// More flags of the command.
        flags: String,
    },
}
