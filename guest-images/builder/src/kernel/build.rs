//! Builds a kernel of our own designs, or checks all that can be checked without building one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::KernelError;
use super::apply::apply;
use super::catalogue::Catalogue;
use super::files::KernelFiles;
use super::make::Make;
use super::recipe::Recipe;
use super::source::{Source, lock_source};
use super::tools::Tools;
use super::work_tree::WorkTree;
use crate::apt::Apt;
use crate::digest::sha256;
use crate::entry::{BuildRecord, BuiltFiles, Kernel, KernelRecord};
use crate::error::{Error, IoContext as _};
use crate::progress::{Progress, Silent};
use crate::store::Store;
use crate::strip::strip;

/// What to build, and from what.
#[derive(Debug, Clone)]
pub struct BuildOrder<'a> {
    /// Patches and configuration.
    pub files: &'a KernelFiles,
    /// A design that the kernel shall have; others may be in the same binary.
    pub design: &'a str,
    /// Name of a flavour.
    pub flavour: &'a str,
    /// Compilers at once.
    pub jobs: usize,
    /// The source package's file, if it shall not come from apt.
    pub source: Option<&'a Path>,
}

/// A kernel that has been built, now or before.
#[derive(Debug)]
pub struct Built {
    /// It.
    pub kernel: Kernel,
    /// Whether it was there already.
    pub was_cached: bool,
}

/// What was found by [`check`].
#[derive(Debug)]
pub struct Checked {
    /// Name and version of the source package.
    pub source: String,
    /// Patches in the series.
    pub patches: usize,
    /// Files that they touch.
    pub files: usize,
    /// Hunks that fit at another line.
    pub moved: Vec<String>,
}

/// Builds the kernel, unless it has been built before.
///
/// # Errors
/// A name is unknown, the source cannot be had, a patch does not apply, the configuration does not take a line, a tool is missing, or the
/// build fails: see [`KernelError`].
pub fn build(
    store: &Store,
    order: &BuildOrder<'_>,
    progress: &mut dyn Progress,
) -> Result<Built, Error> {
    let recipe = Recipe::read(order.files, order.design, order.flavour)?;
    let tools = Tools::ensure(&[], progress)?;
    let digest = sha256(format!("{}\n{}\n", recipe.digest(), tools.version).as_bytes());
    let was_cached = store.kernel_record(&digest)?.is_some();
    if !was_cached {
        let tools = tools.with_ccache(progress);
        make_kernel(store, order, &recipe, &tools, &digest, progress).map_err(full_disk)?;
    } else if let Some(given) = order.source {
        Source::new(store, &recipe.source).read_given(given)?;
    }
    let dir = store.kernel_dir(&digest);
    let record = store
        .kernel_record(&digest)?
        .ok_or_else(|| Error::NoManifest { path: dir.clone() })?;
    let kernel = record.open(&dir, format!("design:{}", order.design), None)?;
    Ok(Built { kernel, was_cached })
}

fn make_kernel(
    store: &Store,
    order: &BuildOrder<'_>,
    recipe: &Recipe,
    tools: &Tools,
    digest: &str,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let source = Source::new(store, &recipe.source);
    let lock = lock_source(store, &recipe.source.sha256, progress)?;
    if store.kernel_record(digest)?.is_some() {
        return Ok(());
    }
    source.fetch(&Apt, order.source, progress)?;
    source.unpack(progress)?;
    order.files.tell_unnamed(progress)?;
    progress.step("patching", &format!("{} patches", recipe.series.len()));
    let changes = WorkTree::in_dir(&source.dir).bring_to(&recipe.series)?;
    for moved in &changes.moved {
        progress.step("note", moved);
    }
    let tree = source.tree();
    let make = Make {
        output: tree.join(format!("build-{}-{}", recipe.binary, recipe.flavour)),
        source: tree,
        tools,
        jobs: order.jobs,
        lock: &lock,
    };
    let config = configure(&make, recipe, progress)?;
    let what = format!(
        "{}, flavour {}, with `{}`",
        recipe.binary, recipe.flavour, tools.compiler
    );
    progress.step(
        "building",
        &format!("{what}; {} files of the source changed", changes.files),
    );
    let is_first = !make.output.join("vmlinux.o").exists();
    let expected = is_first.then_some(recipe.source.objects);
    make.run(
        &["vmlinux".to_owned()],
        &make.output.join("build.log"),
        expected,
        progress,
    )?;
    let files = collect(&make.output, config)?;
    store.make_entry(&store.kernel_dir(digest), progress, |temporary, _| {
        let record = BuildRecord {
            recipe: recipe.digest(),
            series: recipe.series_digest(),
            binary: recipe.binary.clone(),
            flavour: recipe.flavour.clone(),
            designs: recipe.designs.clone(),
            compiler: tools.version.clone(),
            built_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        KernelRecord::make_from_build(temporary, files, recipe.source.id(), record).map(drop)
    })
}

/// Makes the configuration and compares it with what was asked for; gives its text.
fn configure(
    make: &Make<'_>,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<String, Error> {
    progress.step(
        "configuring",
        &format!("{} {}", recipe.binary, recipe.flavour),
    );
    let output: &Path = &make.output;
    fs::create_dir_all(output).during("create", output)?;
    let wanted = output.join("wanted.config");
    fs::write(&wanted, recipe.config.to_text()).during("write", &wanted)?;
    let words = [
        format!("KCONFIG_ALLCONFIG={}", wanted.display()),
        "allnoconfig".to_owned(),
    ];
    make.run(&words, &output.join("configure.log"), None, &mut Silent)?;
    let path = output.join(".config");
    let text = fs::read_to_string(&path).during("read", &path)?;
    recipe.config.check(&text)?;
    Ok(text)
}

/// Reads what the build has left.
fn collect(output: &Path, config: String) -> Result<BuiltFiles, Error> {
    let read = |name: &str| {
        let path = output.join(name);
        fs::read(&path).during("read", &path)
    };
    let release = String::from_utf8_lossy(&read("include/config/kernel.release")?)
        .trim()
        .to_owned();
    Ok(BuiltFiles {
        release,
        vmlinux: strip(read("vmlinux")?),
        others: vec![
            ("System.map", read("System.map")?),
            ("config", config.into_bytes()),
            // All of it is built in, and what asks for a module has to be told so.
            ("modules/modules.builtin", read("modules.builtin")?),
        ],
    })
}

/// Fetches and verifies the source, and applies the series in memory; nothing is compiled and no tree is changed.
///
/// # Errors
/// As [`build`], less what only a build finds.
pub fn check(
    store: &Store,
    files: &KernelFiles,
    given: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<Checked, Error> {
    let catalogue = Catalogue::read(files)?;
    files.tell_unnamed(progress)?;
    for design in &catalogue.designs {
        for flavour in &catalogue.flavours {
            Recipe::read(files, &design.name, &flavour.name)?;
        }
    }
    let recipe = Recipe::read(
        files,
        &catalogue.designs[0].name,
        &catalogue.flavours[0].name,
    )?;
    let source = Source::new(store, &recipe.source);
    let _lock = lock_source(store, &recipe.source.sha256, progress)?;
    source.fetch(&Apt, given, progress).map_err(full_disk)?;
    let tree = WorkTree::in_dir(&source.dir);
    progress.step(
        "patching",
        &format!("{} patches, in memory", recipe.series.len()),
    );
    let outcome = if tree.is_there() {
        tree.preview(&recipe.series)?
    } else {
        let all = recipe.series.iter().flat_map(|patch| &patch.files);
        let wanted: BTreeSet<String> = all.map(|file| file.path.clone()).collect();
        let originals = source.files(&wanted)?;
        apply(&recipe.series, |path| Ok(originals.get(path).cloned()))?
    };
    Ok(Checked {
        source: format!("{} {}", recipe.source.package, recipe.source.version),
        patches: recipe.series.len(),
        files: outcome.files.len(),
        moved: outcome.moved,
    })
}

/// A disk that is full is told with the way out, whoever met it.
pub(super) fn full_disk(error: Error) -> Error {
    match error {
        Error::Io { path, source, .. }
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) =>
        {
            KernelError::DiskFull { path }.into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::recipe::tests::tree;
    use super::*;
    use crate::test_support::{deb, elf_of_len, tar, xz};

    /// A package whose source has the one file that the series changes; and a tree that pins its digest.
    fn world(source: &[u8]) -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tree();
        let inner = xz(&tar(&[
            ("linux-source-6.12/mm/a.c", source),
            ("linux-source-6.12/Makefile", b"x\n"),
        ]));
        let package = deb(&[("./usr/src/linux-source-6.12.tar.xz", &inner)]);
        let file = dir.path().join("source.deb");
        fs::write(&file, &package).unwrap();
        let toml = dir.path().join("source.toml");
        let text = fs::read_to_string(&toml).unwrap();
        let (before, after) = text.split_once("sha256 = '").unwrap();
        let pinned = format!("{before}sha256 = '{}{}", sha256(&package), &after[64..]);
        fs::write(&toml, pinned).unwrap();
        let store = Store::at(&dir.path().join("cache")).unwrap();
        (dir, store, file)
    }

    #[test]
    fn a_series_is_checked_against_the_package_before_and_after_it_is_unpacked() {
        let (dir, store, file) = world(b"a\n");
        let files = KernelFiles::Directory(dir.path().to_owned());
        let checked = check(&store, &files, Some(&file), &mut Silent).unwrap();
        assert_eq!(
            (checked.patches, checked.files, checked.source.as_str()),
            (1, 1, "linux-source-6.12 6.12.1-1")
        );
        // From now on it is in the cache.
        let recipe = Recipe::read(&files, "bias", "guest").unwrap();
        let source = Source::new(&store, &recipe.source);
        source.unpack(&mut Silent).unwrap();
        assert_eq!(fs::read(source.tree().join("mm/a.c")).unwrap(), b"a\n");
        WorkTree::in_dir(&source.dir)
            .bring_to(&recipe.series)
            .unwrap();
        assert_eq!(fs::read(source.tree().join("mm/a.c")).unwrap(), b"b\n");
        assert_eq!(check(&store, &files, None, &mut Silent).unwrap().files, 1);
        let removed = super::super::remove_sources(&store, &mut Silent).unwrap();
        assert!(removed == [source.dir.clone()] && !source.dir.exists());
    }

    #[test]
    fn a_source_that_the_series_is_not_for_is_told_with_patch_and_hunk() {
        let (dir, store, file) = world(b"other\n");
        let files = KernelFiles::Directory(dir.path().to_owned());
        let told = check(&store, &files, Some(&file), &mut Silent)
            .unwrap_err()
            .to_string();
        assert_eq!(
            told,
            "1.patch does not apply: mm/a.c, hunk 1 (line 5 of the patch): line 1 should be `a` and is `other`"
        );
    }

    #[test]
    fn a_package_of_another_digest_is_refused_and_not_kept() {
        let (dir, store, file) = world(b"a\n");
        let files = KernelFiles::Directory(dir.path().to_owned());
        let mut bytes = fs::read(&file).unwrap();
        bytes.push(b'\n');
        fs::write(&file, bytes).unwrap();
        let told = check(&store, &files, Some(&file), &mut Silent)
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("/source.deb has the digest")
                && told.contains("but source.toml says")
                && told.contains("--source"),
            "{told}"
        );
        let recipe = Recipe::read(&files, "bias", "guest").unwrap();
        assert!(
            !Source::new(&store, &recipe.source)
                .dir
                .join("package.deb")
                .exists()
        );
    }

    #[test]
    fn a_package_without_a_source_is_told() {
        let (dir, store, file) = world(b"a\n");
        let files = KernelFiles::Directory(dir.path().to_owned());
        let toml = dir.path().join("source.toml");
        let text = fs::read_to_string(&toml).unwrap();
        fs::write(
            &toml,
            text.replace("linux-source-6.12", "linux-source-6.99"),
        )
        .unwrap();
        let told = check(&store, &files, Some(&file), &mut Silent)
            .unwrap_err()
            .to_string();
        assert_eq!(
            told,
            "linux-source-6.99 holds no usr/src/linux-source-6.99.tar.xz"
        );
    }

    /// A make that configures, and then compiles one object at a time until there is no room.
    const MAKE: &str = r#"#!/bin/sh
here=$(dirname "$0")
for word; do
    case $word in
    O=*) out=${word#O=} ;;
    KCONFIG_ALLCONFIG=*) wanted=${word#KCONFIG_ALLCONFIG=} ;;
    vmlinux) kernel=yes ;;
    esac
done
[ -n "$kernel" ] || { cp "$wanted" "$out/.config"; exit; }
[ -f "$out/a.o" ] || { echo '  CC      a.o'; touch "$out/a.o"; echo a >>"$here/compiled"; }
[ -f "$here/room" ] || { echo "cannot write b.o: No space left on device"; exit 2; }
echo '  CC      b.o'; echo b >>"$here/compiled"
mkdir -p "$out/include/config"
echo 6.12.1-pin >"$out/include/config/kernel.release"
touch "$out/System.map" "$out/modules.builtin"
cp "$here/elf" "$out/vmlinux"
"#;

    #[test]
    fn a_build_that_has_filled_the_disk_goes_on_where_it_was() {
        let (dir, store, file) = world(b"a\n");
        let files = KernelFiles::Directory(dir.path().to_owned());
        let (text, make) = (dir.path().join("make.sh"), dir.path().join("make"));
        fs::write(&text, MAKE).unwrap();
        // By a process of its own: while a test beside this one forks, its child has what is open for writing here, and that cannot be run.
        let install = std::process::Command::new("install")
            .args(["-m", "755"])
            .args([&text, &make])
            .status()
            .unwrap();
        assert!(install.success());
        fs::write(dir.path().join("elf"), elf_of_len(4096)).unwrap();
        let tools = Tools {
            version: "gcc 0".into(),
            make,
            compiler: "gcc",
        };
        let order = BuildOrder {
            files: &files,
            design: "bias",
            flavour: "guest",
            source: Some(&file),
            jobs: 1,
        };
        let recipe = Recipe::read(&files, "bias", "guest").unwrap();
        let digest = "d".repeat(64);
        let attempt = || {
            let mut steps = Vec::new();
            let mut tell = |verb: &str, _: &str| steps.push(verb.to_owned());
            let made = make_kernel(&store, &order, &recipe, &tools, &digest, &mut tell);
            (made.map_err(full_disk), steps)
        };
        // A source that was being unpacked when the disk was full is none.
        let half = Source::new(&store, &recipe.source).dir.join("tree.tmp");
        fs::create_dir_all(half.join("mm")).unwrap();
        let (made, steps) = attempt();
        let told = made.unwrap_err().to_string();
        assert!(
            told.contains("is full") && told.contains("run the same command again"),
            "{told}"
        );
        assert!(steps.contains(&"unpacking".to_owned()), "{steps:?}");
        assert!(!half.exists() && store.kernel_record(&digest).unwrap().is_none());
        fs::write(dir.path().join("room"), "").unwrap();
        let (made, steps) = attempt();
        made.unwrap();
        assert!(!steps.contains(&"unpacking".to_owned()), "{steps:?}");
        assert_eq!(
            fs::read_to_string(dir.path().join("compiled")).unwrap(),
            "a\nb\n"
        );
        let record = store.kernel_record(&digest).unwrap().unwrap();
        assert_eq!(record.release, "6.12.1-pin");
    }

    #[test]
    fn a_full_disk_is_told_with_the_way_out() {
        let error = Error::Io {
            action: "write",
            path: "x".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert!(
            full_disk(error)
                .to_string()
                .contains("run the same command again")
        );
    }
}
