//! The scenarios that come with the program, and their parts. Embedded, so that an installed program has them; a test
//! compares the list with the directory.

use std::path::{Path, PathBuf};

use super::load::{LoadError, parse_all};
use super::model::Scenario;

macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $folder, $name, ".toml")))),*]
    };
}

/// Scenario files by name, in the order of `list`.
const SCENARIOS: &[(&str, &str)] = files!("":
    "ext4-fsync-remount" "writeback-while-held-sync" "writeback-while-held-libaio"
    "writeback-while-held-uring" "dma-under-writeback" "dma-under-writeback-traced" "dma-under-writeback-late"
    "dma-under-writeback-stable" "read-into-page-under-writeback"
    "read-into-page-under-writeback-stable" "cpu-store-under-writeback"
    "cpu-store-under-writeback-stable" "no-overlap" "direct-write-source-changed-early"
    "direct-write-source-changed-late" "read-error-while-held" "writeback-error-while-held"
    "truncate-while-held" "munmap-while-held" "fork-while-write-held" "fork-while-read-held"
    "reset-while-held" "reboot-while-held" "boot-1-cpu"
    "boot-2-cpu" "boot-4-cpu" "boot-bzimage" "control-socket" "balloon-inflate" "balloon-reporting"
    "freed-while-held" "proof" "selftest-freed-while-held" "honest-flush" "selftest-lying-flush"
    "selftest-touch-after-completion" "selftest-dropped-completion" "selftest-guest-panic"
    "fault-payloads" "fault-completions" "fault-duplicate" "fault-needs-reset" "fault-net"
    "selftest-guest-hang" "selftest-forgotten-gate" "selftest-no-kernel" "selftest-no-root"
    "dax-evict-while-held" "dax-truncate-unmapped-while-held" "dax-shared-page-never-pinned"
    "dax-wait-while-held"
    "dax-stays-while-held" "dax-no-overlap" "dax-wake-lost" "dax-device"
    "clone-while-held" "clone-meets-end-of-pins" "freeze-while-held" "pageout-while-held" "swap-file-while-held"
    "swap-out-while-held" "merge-while-held" "migrate-while-held" "soft-dirty-while-held"
    "seal-while-held" "registered-page-orphaned" "userfault-move-while-held"
    "longterm-pin-migrates" "end-of-file-tail" "vmsplice-after-fork"
    "writeback-while-held" "detached-while-held" "address-space-while-held"
    "longterm-pin-of-file" "sync-modes-while-held"
    "process-write-meets-fsync" "read-into-page-under-writeback-btrfs"
    "shared-page-never-swapped" "pin-count-overflow" "memory-offline-while-held"
    "poison-while-held" "xdp-receive-into-file" "udmabuf-keeps-pages" "zero-copy-send-held"
    "pin-cost" "fsync-cost-while-held" "random-races" "kernel-selftests" "fs-exercisers"
    "mixed-load" "pci-ext4" "mmio-ext4" "pci-pin" "pci-many-disks" "blk-queues"
    "net-loopback" "net-pattern" "net-receive-held"
    "net-xdp-transmit-held" "net-link-flap-while-held" "net-reset-while-held"
    "net-reboot-while-held" "net-tap-bulk" "net-tap-queues" "selftest-net-touch-after-completion"
    "selftest-net-freed-while-held" "console-pci" "mmio-devices"
    "three-promises" "unpinned-too-soon" "pin-mistakes" "pin-parameters" "pin-without-memory" "verity-while-held" "split-while-held"
    "power-cut" "selftest-power-cut-lying-flush" "power-cut-dax" "selftest-power-cut-lying-pmem"
);

/// Parts by name.
const PARTS: &[(&str, &str)] = files!("parts/":
    "fresh-page" "trace-cleaning" "traced-cleaning" "anonymous-page" "page-held" "dirtied-again" "device-bytes-arrive" "device-lets-go"
    "found-on-disk"
    "free-pages-reported"
    "pins-balanced" "exercise" "memory-cgroup" "file-page" "dax-mount-ext4" "dax-mount-xfs"
    "dax-full-ext4" "dax-full-xfs" "dax-page" "dax-dma" "dax-not-free-ext4"
    "dax-not-free-xfs" "dax-taken" "dax-wait" "dax-done-or-waits" "dax-clone-ext4" "dax-clone-xfs" "dax-end-ext4"
    "dax-end-xfs" "file-pinned" "pin-uring" "pin-xdp"
    "power-cut-load" "power-cut-stores"
);

/// All files, by name.
pub(super) fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCENARIOS.iter().copied()
}

/// The text of a part.
pub(super) fn part(name: &str) -> Option<&'static str> {
    PARTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// Names of all parts.
pub(super) fn part_names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|(name, _)| *name)
}

/// The text of a scenario's file, by the file's name or that of one of its variants.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    let (file, text) = file_of(name)?;
    let is_there = file == name || !named(name).ok()?.is_empty();
    is_there.then_some(text)
}

/// The file that this scenario is in, if there is such a scenario: of its name, or of the longest name before a `-`.
fn file_of(name: &str) -> Option<(&'static str, &'static str)> {
    let file = |name: &str| SCENARIOS.iter().find(|(known, _)| *known == name).copied();
    let cuts = name.rmatch_indices('-').map(|(at, _)| &name[..at]);
    file(name).or_else(|| cuts.filter_map(file).next())
}

/// A built-in scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Name of its file: the scenario's own, or what its variants share.
    pub file: &'static str,
    /// It.
    pub scenario: Scenario,
}

/// All scenarios, in order.
///
/// # Errors
/// A file is wrong: a bug of ours, told like any other wrong file.
pub fn all() -> Result<Vec<Listed>, LoadError> {
    let mut all = Vec::new();
    for (file, text) in SCENARIOS {
        let scenarios = parse_all(text, &path(file))?;
        all.extend(
            scenarios
                .into_iter()
                .map(|(_, scenario)| Listed { file, scenario }),
        );
    }
    Ok(all)
}

/// The scenarios of this name, or of the file of this name.
///
/// # Errors
/// As [`all`].
pub fn named(name: &str) -> Result<Vec<Scenario>, LoadError> {
    let Some((file, text)) = file_of(name) else {
        return Ok(Vec::new());
    };
    let scenarios = parse_all(text, &path(file))?.into_iter();
    Ok(scenarios
        .map(|(_, scenario)| scenario)
        .filter(|scenario| file == name || scenario.name == name)
        .collect())
}

fn path(name: &str) -> PathBuf {
    Path::new("tests/scenarios").join(format!("{name}.toml"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn names_in(folder: &str) -> BTreeSet<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("scenarios")
            .join(folder);
        let paths = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let toml = paths.filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        });
        toml.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn every_file_of_the_directory_is_in_the_catalogue() {
        let names = SCENARIOS.iter().map(|(name, _)| (*name).to_owned());
        assert_eq!(names.collect::<BTreeSet<_>>(), names_in(""));
        let parts = part_names().map(str::to_owned);
        assert_eq!(parts.collect::<BTreeSet<_>>(), names_in("parts"));
    }

    #[test]
    fn every_scenario_is_valid_and_named_like_its_file_and_like_no_other() {
        let mut names = BTreeSet::new();
        // A file is parsed whole for each name that is looked up: one of each file will do.
        let mut last_of_files = BTreeMap::new();
        for Listed { file, scenario } in all().unwrap_or_else(|error| panic!("{error}")) {
            let name = &scenario.name;
            assert!(
                name == file || name.starts_with(&format!("{file}-")),
                "{name} in {file}"
            );
            assert!(names.insert(name.clone()), "two are named {name}");
            last_of_files.insert(file, scenario);
        }
        for (file, scenario) in last_of_files {
            let name = &scenario.name;
            assert_eq!(text(name), text(file), "{name}");
            assert_eq!(
                named(name).unwrap(),
                std::slice::from_ref(&scenario),
                "{name}"
            );
        }
    }

    #[test]
    fn every_scenario_of_the_catalogue_has_its_family_and_says_what_it_aims_at_and_why() {
        let families = ["writeback", "anon", "longterm", "dax", "balloon"];
        for Listed { scenario, .. } in all().unwrap() {
            let has = |tag: &str| scenario.tags.iter().any(|known| known == tag);
            let is_numbered = scenario.number.is_some();
            // The catalogue is what any kernel is put through, not only ours.
            let mut kernels = scenario.kernels.iter();
            let is_for_designs = kernels.all(|kernel| kernel.starts_with("design:"));
            let is_listed = is_numbered && !is_for_designs;
            assert_eq!(has("catalogue"), is_listed, "{}", scenario.name);
            if is_numbered {
                assert!(
                    families.iter().any(|family| has(family)),
                    "{}",
                    scenario.name
                );
                let is_explained = scenario.why.is_some() && !scenario.aims_at.is_empty();
                assert!(is_explained, "{}", scenario.name);
            }
        }
    }

    #[test]
    fn every_scenario_says_what_it_expects_of_each_of_its_kernels() {
        for Listed { scenario, .. } in all().unwrap() {
            for kernel in &scenario.kernels {
                let name = &scenario.name;
                let expected = super::super::expected_for(&scenario.expect, kernel);
                assert!(expected.is_some(), "{name} on {kernel}");
                assert_eq!(scenario.why_not_for(kernel), None, "{name} on {kernel}");
            }
        }
    }
}
