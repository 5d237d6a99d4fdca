//! The scenarios that come with the program, and their parts. Embedded, so that an installed program has them; a test
//! compares the list with the directory.

use std::path::{Path, PathBuf};

use super::load::{LoadError, parse};
use super::model::Scenario;

macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $folder, $name, ".toml")))),*]
    };
}

/// Scenario files by name, in the order of `list`.
const SCENARIOS: &[(&str, &str)] = files!("":
    "ext4-fsync-remount" "writeback-while-held-sync" "writeback-while-held-libaio"
    "writeback-while-held-uring" "dma-under-writeback" "dma-under-writeback-late"
    "dma-under-writeback-stable" "read-into-page-under-writeback"
    "read-into-page-under-writeback-stable" "cpu-store-under-writeback"
    "cpu-store-under-writeback-stable" "no-overlap" "direct-write-source-changed-early"
    "direct-write-source-changed-late" "read-error-while-held" "writeback-error-while-held"
    "truncate-while-held" "munmap-while-held" "fork-while-write-held" "fork-while-read-held"
    "fork-while-read-held-foll-get" "reset-while-held" "reboot-while-held" "boot-1-cpu"
    "boot-2-cpu" "boot-4-cpu" "boot-bzimage" "balloon-inflate" "balloon-reporting"
    "freed-while-held" "selftest-freed-while-held" "honest-flush" "selftest-lying-flush"
    "selftest-touch-after-completion" "selftest-dropped-completion" "selftest-guest-panic"
    "fault-payloads" "fault-completions" "fault-duplicate" "fault-needs-reset" "fault-net"
    "selftest-guest-hang" "selftest-forgotten-gate" "selftest-no-kernel" "selftest-no-root"
    "dax-evict-while-held" "dax-truncate-unmapped-while-held" "dax-truncate-while-held"
    "dax-collapse-while-held" "dax-fork-while-held" "dax-fsync-while-held"
    "dax-longterm-refused" "dax-madvise-while-held" "dax-no-overlap" "dax-punch-while-held"
    "dax-remount-ro-while-held" "dax-rename-over-while-held" "dax-truncate-interrupted"
    "dax-truncate-other-page-while-held" "dax-unlink-mapped-while-held" "dax-zero-while-held"
    "mixed-load" "pci-ext4" "mmio-ext4" "pci-pin" "pci-many-disks" "blk-queues"
    "net-loopback" "net-pattern" "net-receive-held"
    "net-xdp-transmit-held" "net-link-flap-while-held" "net-reset-while-held"
    "net-reboot-while-held" "net-tap-bulk" "net-tap-queues" "selftest-net-touch-after-completion"
    "selftest-net-freed-while-held" "console-pci" "mmio-devices"
);

/// Parts by name.
const PARTS: &[(&str, &str)] = files!("parts/":
    "file-page" "dax-page" "dax-dma" "dax-not-free" "dax-taken"
);

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

/// The text of a scenario's file.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    SCENARIOS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// Names of all scenarios, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|(name, _)| *name)
}

/// All scenarios, in order.
///
/// # Errors
/// A file is wrong: a bug of ours, told like any other wrong file.
pub fn all() -> Result<Vec<Scenario>, LoadError> {
    SCENARIOS
        .iter()
        .map(|(name, text)| parse(text, &path(name)))
        .collect()
}

fn path(name: &str) -> PathBuf {
    Path::new("tests/scenarios").join(format!("{name}.toml"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        assert_eq!(
            names().map(str::to_owned).collect::<BTreeSet<_>>(),
            names_in("")
        );
        assert_eq!(
            part_names().map(str::to_owned).collect::<BTreeSet<_>>(),
            names_in("parts")
        );
    }

    #[test]
    fn every_scenario_is_valid_and_named_like_its_file() {
        for (name, text) in SCENARIOS {
            let scenario = parse(text, &path(name)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, *name);
        }
    }

    #[test]
    fn every_scenario_says_what_it_expects_of_each_of_its_kernels() {
        for scenario in all().unwrap() {
            for kernel in &scenario.kernels {
                assert!(
                    super::super::expected_for(&scenario.expect, kernel).is_some(),
                    "{} on {kernel}",
                    scenario.name
                );
            }
        }
    }
}
