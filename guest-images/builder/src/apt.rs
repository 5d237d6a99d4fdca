//! What apt knows about kernel packages, and fetching one.
//!
//! apt's lists are signed, so the SHA-256 that they record is the one to compare a package with. Neither asking nor
//! fetching needs root; only refreshing the lists does.

use std::cmp::Ordering;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command;
use crate::error::Error;

const PREFIX: &str = "linux-image-";
/// Debian's flavours for this architecture, as their names end; the last is the end of the others too. The first is meant where none is named.
const FLAVOURS: [&str; 3] = ["-cloud-amd64", "-rt-amd64", "-amd64"];
const LISTS: &str = "/var/lib/apt/lists";

/// One package, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageId {
    /// Name, such as `linux-image-6.12.117+deb12-cloud-amd64`.
    pub name: String,
    /// Debian version, such as `6.12.117-1~deb12u1`.
    pub version: String,
    /// Digest of the `.deb`.
    pub sha256: String,
}

impl PackageId {
    /// Whether this is what `debian:wish` asks for: the series, or exactly that version, of the flavour.
    #[must_use]
    pub(crate) fn satisfies(&self, wish: &str) -> bool {
        is_wished(&self.name, wish)
    }

    /// Older before newer.
    pub(crate) fn by_age(&self, other: &Self) -> Ordering {
        natural(&self.name, &other.name).then_with(|| natural(&self.version, &other.version))
    }
}

/// An archive of packages. There is one, apt's; tests have their own.
pub(crate) trait Archive {
    /// The newest kernel for amd64 that satisfies `wish`, if the archive's lists have one.
    fn find(&self, wish: &str) -> Result<Option<PackageId>, Error>;
    /// The versions that the lists have, newest first, for a message.
    fn known_versions(&self) -> Vec<String>;
    /// Changes whenever the lists do; nothing if there are no lists.
    fn lists_stamp(&self) -> Option<i64>;
    /// Whether this process may refresh the lists.
    fn may_update(&self) -> bool;
    /// Refreshes the lists.
    fn update(&self) -> Result<(), Error>;
    /// Fetches `package` into the empty directory `dir` and says where it is.
    fn download(&self, package: &PackageId, dir: &Path) -> Result<PathBuf, Error>;
}

/// The archive of this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apt;

impl Archive for Apt {
    fn find(&self, wish: &str) -> Result<Option<PackageId>, Error> {
        let names = kernel_names()?;
        let names = names.iter().map(String::as_str);
        let wanted: Vec<&str> = names.filter(|name| is_wished(name, wish)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut args = vec!["show", "--no-all-versions"];
        args.extend(&wanted);
        // Fails if none of the names is more than a mention in some other package's dependencies.
        let records = command::output(60, None, "apt-cache", &args).unwrap_or_default();
        Ok(records
            .split("\n\n")
            .filter_map(parse_record)
            .max_by(PackageId::by_age))
    }

    fn known_versions(&self) -> Vec<String> {
        let names = kernel_names().unwrap_or_default();
        let mut versions: Vec<_> = names
            .iter()
            .filter_map(|name| kernel_of(name))
            .map(|(version, flavour)| {
                let named = if flavour == FLAVOURS[0] { "" } else { flavour };
                format!("{version}{named}")
            })
            .collect();
        versions.sort_by(|a, b| natural(b, a));
        versions
    }

    fn lists_stamp(&self) -> Option<i64> {
        let metadata = fs::metadata(LISTS).ok()?;
        Some(
            metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec()),
        )
    }

    fn may_update(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn update(&self) -> Result<(), Error> {
        command::output(300, None, "apt-get", &["-q", "update"]).map(drop)
    }

    fn download(&self, package: &PackageId, dir: &Path) -> Result<PathBuf, Error> {
        let exact = format!("{}={}", package.name, package.version);
        // As root apt would drop to a user who cannot write here, and warn about it.
        let sandbox = "APT::Sandbox::User=root";
        let args = [
            "-q",
            "-o",
            sandbox,
            "-o",
            "Acquire::Retries=3",
            "download",
            &exact,
        ];
        command::output(900, Some(dir), "apt-get", &args)?;
        let mut found = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        found
            .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
            .ok_or_else(|| Error::Command {
                command: format!("apt-get download {exact}"),
                reason: "it left no file".to_owned(),
            })
    }
}

fn kernel_names() -> Result<Vec<String>, Error> {
    let names = command::output(60, None, "apt-cache", &["pkgnames", PREFIX])?;
    Ok(names
        .lines()
        .filter(|name| kernel_of(name).is_some())
        .map(str::to_owned)
        .collect())
}

/// `6.12.117+deb12` and `-cloud-amd64` for `linux-image-6.12.117+deb12-cloud-amd64`; nothing for meta packages, whose version is only a series.
fn kernel_of(name: &str) -> Option<(&str, &'static str)> {
    let (version, flavour) = split_flavour(name.strip_prefix(PREFIX)?)?;
    (version.split('.').count() > 2).then_some((version, flavour))
}

fn split_flavour(release: &str) -> Option<(&str, &'static str)> {
    let mut flavours = FLAVOURS.into_iter();
    flavours.find_map(|flavour| Some((release.strip_suffix(flavour)?, flavour)))
}

/// Whether the package `name` is what `debian:wish` asks for: `6.12`, `6.12.117+deb12`, and each of them with a flavour, as `uname -r` has it.
fn is_wished(name: &str, wish: &str) -> bool {
    let (wished, flavour) = split_flavour(wish).unwrap_or((wish, FLAVOURS[0]));
    kernel_of(name).is_some_and(|(version, its)| its == flavour && matches_wish(version, wished))
}

fn matches_wish(version: &str, wish: &str) -> bool {
    version
        .strip_prefix(wish)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+', '-']))
}

fn parse_record(record: &str) -> Option<PackageId> {
    let field = |key: &str| {
        record
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim().to_owned())
    };
    let (name, version, sha256) = (field("Package:")?, field("Version:")?, field("SHA256:")?);
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(PackageId {
        name,
        version,
        sha256,
    })
}

/// Compares texts so that runs of digits count as numbers: `6.1.0-9` is before `6.1.0-56`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, text_b) = (run(&mut a, false), run(&mut b, false));
        let (number_a, number_b) = (run(&mut a, true), run(&mut b, true));
        let by_value = |digits: &str| {
            (
                digits.trim_start_matches('0').len(),
                digits.trim_start_matches('0').to_owned(),
            )
        };
        let order = text_a
            .cmp(text_b)
            .then_with(|| by_value(number_a).cmp(&by_value(number_b)));
        if order != Ordering::Equal || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

/// Takes the leading run of digits, or of anything else, off `text`.
fn run<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_does_not_match_the_one_it_is_a_prefix_of() {
        assert!(matches_wish("6.1.0-56", "6.1") && matches_wish("6.12.117+deb12", "6.12"));
        assert!(
            matches_wish("6.12.117+deb12", "6.12.117+deb12")
                && matches_wish("6.12.117+deb12", "6.12.117")
        );
        assert!(!matches_wish("6.12.117+deb12", "6.1"));
        assert!(!matches_wish("6.12.117+deb12", "6.12.11"));
    }

    #[test]
    fn meta_and_unsigned_packages_are_no_kernels() {
        assert_eq!(
            kernel_of("linux-image-6.1.0-56-cloud-amd64"),
            Some(("6.1.0-56", "-cloud-amd64"))
        );
        for name in [
            "linux-image-cloud-amd64",
            "linux-image-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-arm64",
        ] {
            assert_eq!(kernel_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_cloud_flavour_is_meant_where_none_is_named() {
        let cloud = "linux-image-6.12.117+deb12-cloud-amd64";
        let full = "linux-image-6.12.117+deb12-amd64";
        let rt = "linux-image-6.12.117+deb12-rt-amd64";
        for (wish, wished) in [
            ("6.12", cloud),
            ("6.12-cloud-amd64", cloud),
            ("6.12.117+deb12", cloud),
            ("6.12-amd64", full),
            ("6.12.117+deb12-amd64", full),
            ("6.12-rt-amd64", rt),
        ] {
            for name in [cloud, full, rt] {
                assert_eq!(is_wished(name, wish), name == wished, "{name} for {wish}");
            }
        }
    }

    #[test]
    fn numbers_in_versions_count_as_numbers() {
        assert_eq!(natural("6.1.0-9", "6.1.0-56"), Ordering::Less);
        assert_eq!(
            natural("6.12.117+deb12", "6.12.99+deb12"),
            Ordering::Greater
        );
        assert_eq!(natural("6.12.1", "6.12.1"), Ordering::Equal);
        assert_eq!(natural("6.12", "6.12.1"), Ordering::Less);
        assert_eq!(natural("6.12.117-1", "6.12.117-1"), Ordering::Equal);
    }

    #[test]
    fn a_record_without_a_digest_is_not_believed() {
        let record = format!(
            "Package: p\nVersion: 1\nDepends: x\nSHA256: {}",
            "a".repeat(64)
        );
        assert_eq!(parse_record(&record).unwrap().version, "1");
        assert_eq!(parse_record("Package: p\nVersion: 1"), None);
        assert_eq!(
            parse_record("Package: p\nVersion: 1\nSHA256: ../../etc"),
            None
        );
    }
}
