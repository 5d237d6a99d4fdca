//! Finds kernels of our own designs that have been built. Needs neither the source nor a compiler: where the cache is, they run.

use super::KernelError;
use super::choice::DesignChoice;
use super::files::KernelFiles;
use super::recipe::Recipe;
use crate::entry::{BuildRecord, Kernel, KernelRecord, MANIFEST, read_json};
use crate::error::Error;
use crate::store::{Store, entries};

/// Whether a design's kernel is in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuiltState {
    /// Under this digest.
    Yes(String),
    /// Only from other patches or another configuration: so many.
    OfOtherSeries(usize),
    /// Never.
    No,
}

/// The kernel that `choice` names, with its boot parameters.
///
/// # Errors
/// It has not been built from the series as it is now: the message has the command.
pub fn find_built(
    store: &Store,
    files: &KernelFiles,
    choice: &DesignChoice,
) -> Result<Kernel, Error> {
    match state(store, files, &choice.design, &choice.flavour)? {
        BuiltState::Yes(digest) => {
            let dir = store.kernel_dir(&digest);
            let record = store
                .kernel_record(&digest)?
                .ok_or_else(|| Error::NoManifest { path: dir.clone() })?;
            let kernel = record.open(&dir, choice.to_string(), None)?;
            Ok(Kernel {
                parameters: choice.parameters(),
                ..kernel
            })
        }
        other => Err(not_built(choice, &other).into()),
    }
}

fn not_built(choice: &DesignChoice, state: &BuiltState) -> KernelError {
    let (flavour, flags) = match choice.flavour.as_str() {
        "guest" => (String::new(), String::new()),
        flavour => (format!("{flavour} "), format!(" --flavour {flavour}")),
    };
    KernelError::NotBuilt {
        design: choice.design.clone(),
        flavour,
        others: match state {
            BuiltState::OfOtherSeries(count) => {
                format!(
                    " from the series as it is now ({count} of other patches or configurations in the cache)"
                )
            }
            BuiltState::Yes(_) | BuiltState::No => String::new(),
        },
        flags,
    }
}

/// Looks for the design's kernel; the newest, if compilers have changed.
///
/// # Errors
/// A name is unknown, or the cache cannot be read.
pub fn state(
    store: &Store,
    files: &KernelFiles,
    design: &str,
    flavour: &str,
) -> Result<BuiltState, Error> {
    let recipe = Recipe::read(files, design, flavour)?;
    let wanted = recipe.digest();
    let (mut newest, mut others) = (None, 0);
    for (digest, build) in builds(store)? {
        if build.recipe == wanted {
            newest = newest.max(Some((build.built_unix_s, digest)));
        } else if (build.binary.as_str(), build.flavour.as_str())
            == (&recipe.binary, &recipe.flavour)
        {
            others += 1;
        }
    }
    Ok(match (newest, others) {
        (Some((_, digest)), _) => BuiltState::Yes(digest),
        (None, 0) => BuiltState::No,
        (None, count) => BuiltState::OfOtherSeries(count),
    })
}

/// All that were built here, with the digests of their entries.
fn builds(store: &Store) -> Result<Vec<(String, BuildRecord)>, Error> {
    let mut found = Vec::new();
    for dir in entries(&store.root().join("kernels"))? {
        // One unreadable entry must not hide the others.
        let record: Option<KernelRecord> = read_json(&dir.join(MANIFEST)).unwrap_or_default();
        let name = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        found.extend(
            record
                .and_then(|record| record.build)
                .map(|build| (name, build)),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::recipe::tests::tree;
    use super::*;
    use crate::entry::BuiltFiles;
    use crate::progress::Silent;
    use crate::test_support::elf_of_len;

    /// Puts a kernel into the cache as a build does.
    fn put(store: &Store, files: &KernelFiles, compiler: &str, built_unix_s: u64) {
        let recipe = Recipe::read(files, "bias", "guest").unwrap();
        let build = BuildRecord {
            recipe: recipe.digest(),
            series: recipe.series_digest(),
            binary: recipe.binary.clone(),
            flavour: recipe.flavour.clone(),
            designs: recipe.designs.clone(),
            compiler: compiler.to_owned(),
            built_unix_s,
        };
        let built = BuiltFiles {
            release: "6.12.1-pin".to_owned(),
            vmlinux: elf_of_len(200),
            others: vec![(
                "modules/modules.builtin",
                b"kernel/fs/ext4/ext4.ko\n".to_vec(),
            )],
        };
        let dir = store.kernel_dir(&crate::digest::sha256(compiler.as_bytes()));
        let make = |temporary: &std::path::Path, _: &mut dyn crate::progress::Progress| {
            KernelRecord::make_from_build(temporary, built, recipe.source.id(), build).map(drop)
        };
        store.make_entry(&dir, &mut Silent, make).unwrap();
    }

    fn choice(design: &str, policy: &str) -> DesignChoice {
        DesignChoice::for_test(design, policy)
    }

    #[test]
    fn a_built_kernel_serves_all_designs_of_its_binary_each_with_its_parameters() {
        let dir = tree();
        let files = KernelFiles::Directory(dir.path().to_owned());
        let store = Store::at(&dir.path().join("cache")).unwrap();
        let told = find_built(&store, &files, &choice("bias", "none"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            told,
            "no kernel with the design `bias` has been built: run `pincushion image kernel build --design bias`"
        );
        put(&store, &files, "gcc 1", 1);
        put(&store, &files, "gcc 2", 2);
        let kernel = find_built(&store, &files, &choice("flag+ext", "bounce")).unwrap();
        assert_eq!(kernel.parameters, "pin_tracking=flag+ext pin_policy=bounce");
        assert_eq!(kernel.spec, "design:flag+ext+bounce");
        assert_eq!(
            kernel.build.as_ref().unwrap().compiler,
            "gcc 2",
            "the newest"
        );
        assert!(kernel.modules.is_builtin("ext4") && !kernel.modules.is_builtin("btrfs"));
        // The other binary.
        assert!(find_built(&store, &files, &choice("field", "none")).is_err());
    }

    #[test]
    fn a_kernel_of_another_series_is_not_taken_for_the_one_of_now() {
        let dir = tree();
        let files = KernelFiles::Directory(dir.path().to_owned());
        let store = Store::at(&dir.path().join("cache")).unwrap();
        put(&store, &files, "gcc 1", 1);
        fs::write(dir.path().join("config/guest.config"), "CONFIG_B=y\n").unwrap();
        let told = find_built(&store, &files, &choice("bias", "none"))
            .unwrap_err()
            .to_string();
        assert!(
            told.contains(
                "from the series as it is now (1 of other patches or configurations in the cache)"
            ),
            "{told}"
        );
    }
}
