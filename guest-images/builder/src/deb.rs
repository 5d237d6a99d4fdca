//! Unpacks a kernel's Debian package without root and without dpkg.
//!
//! Only what a guest needs is taken: the bzImage, its configuration, the module tree. Ownership and permissions of
//! the package are ignored, nothing of it is executed, and no path of it leads out of the target directory.

use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use crate::digest::sha256;
use crate::unpack;

/// No Debian kernel comes near this; a package that does is refused before it fills the disk.
const MAX_UNPACKED: u64 = 4 << 30;

/// Why a package could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The file is no package, or is cut off.
    #[error("not a Debian package: {0}")]
    NotADeb(&'static str),
    /// The archive inside cannot be read.
    #[error("its data archive is damaged")]
    Archive(#[source] io::Error),
    /// An unpacked file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Path below the target directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The package holds no kernel.
    #[error("it has no boot/vmlinuz-*: is it a meta package?")]
    NoKernel,
    /// The package unpacks to more than any kernel.
    #[error("it unpacks to more than 4 GiB")]
    TooBig,
}

/// What came out of a package.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// What `uname -r` says in this kernel, from the name of the bzImage.
    pub(crate) release: String,
    /// Paths below the target directory, with the digest of each.
    pub(crate) files: Vec<(String, String)>,
}

/// Unpacks the kernel package `deb` into `target`: `vmlinuz`, `config` and `modules/...`.
pub(crate) fn unpack_kernel(deb: &[u8], target: &Path) -> Result<Unpacked, DebError> {
    let (name, data) = data_member(deb)?;
    let mut archive = tar::Archive::new(unpack::reader(name, data).map_err(DebError::Archive)?);
    let (mut release, mut files, mut budget) = (None, Vec::new(), MAX_UNPACKED);
    for entry in archive.entries().map_err(DebError::Archive)? {
        let mut entry = entry.map_err(DebError::Archive)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(DebError::Archive)?.into_owned();
        let Some(wanted) = place_of(&path) else {
            continue;
        };
        budget = budget.checked_sub(entry.size()).ok_or(DebError::TooBig)?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(DebError::Archive)?;
        write(target, &wanted.path, &bytes)?;
        files.push((wanted.path, sha256(&bytes)));
        release = release.or(wanted.release);
    }
    Ok(Unpacked {
        release: release.ok_or(DebError::NoKernel)?,
        files,
    })
}

struct Wanted {
    path: String,
    release: Option<String>,
}

/// Where a file of the package goes, if it is wanted.
fn place_of(path: &Path) -> Option<Wanted> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    // Debian 13 moved the modules below /usr.
    if parts.first() == Some(&"usr") {
        parts.remove(0);
    }
    match parts.as_slice() {
        ["boot", file] => {
            if let Some(release) = file.strip_prefix("vmlinuz-") {
                return Some(Wanted {
                    path: "vmlinuz".to_owned(),
                    release: Some(release.to_owned()),
                });
            }
            file.starts_with("config-").then(|| Wanted {
                path: "config".to_owned(),
                release: None,
            })
        }
        ["lib", "modules", _release, rest @ ..] if !rest.is_empty() => Some(Wanted {
            path: format!("modules/{}", rest.join("/")),
            release: None,
        }),
        _ => None,
    }
}

fn write(target: &Path, path: &str, bytes: &[u8]) -> Result<(), DebError> {
    let full = target.join(path);
    let parent = full.parent().unwrap_or(target);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&full, bytes))
        .map_err(|source| DebError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Gives `take` what is packed in the package's file `wanted` (a path without a leading `./`), as a stream; nothing if it has no such file.
pub(crate) fn with_packed_member<T>(
    deb: &[u8],
    wanted: &str,
    take: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Result<Option<T>, DebError> {
    let (name, data) = data_member(deb)?;
    let mut archive = tar::Archive::new(unpack::reader(name, data).map_err(DebError::Archive)?);
    for entry in archive.entries().map_err(DebError::Archive)? {
        let entry = entry.map_err(DebError::Archive)?;
        let path = entry.path().map_err(DebError::Archive)?.into_owned();
        if path.strip_prefix(".").unwrap_or(&path) == Path::new(wanted) {
            // The decoder reads byte by byte.
            let packed = BufReader::with_capacity(1 << 20, entry);
            let mut unpacked = unpack::stream(wanted, packed).map_err(DebError::Archive)?;
            return take(&mut unpacked).map(Some).map_err(DebError::Archive);
        }
    }
    Ok(None)
}

/// Finds `data.tar*` in the `ar` archive that a package is (deb(5), ar(5)).
fn data_member(deb: &[u8]) -> Result<(&str, &[u8]), DebError> {
    const HEADER: usize = 60;
    let mut rest = deb
        .strip_prefix(b"!<arch>\n")
        .ok_or(DebError::NotADeb("the archive's magic is absent"))?;
    while !rest.is_empty() {
        let header = rest
            .get(..HEADER)
            .ok_or(DebError::NotADeb("a member's header is cut off"))?;
        let text = std::str::from_utf8(header)
            .map_err(|_| DebError::NotADeb("a member's header is no text"))?;
        let field = |from: usize, to: usize| text.get(from..to).map(str::trim).unwrap_or_default();
        let len: usize = field(48, 58)
            .parse()
            .map_err(|_| DebError::NotADeb("a member has no length"))?;
        let end = HEADER
            .checked_add(len)
            .ok_or(DebError::NotADeb("a member's length overflows"))?;
        let body = rest
            .get(HEADER..end)
            .ok_or(DebError::NotADeb("it is cut off"))?;
        let name = field(0, 16).trim_end_matches('/');
        if name.starts_with("data.tar") {
            return Ok((name, body));
        }
        // Members begin at even offsets.
        rest = rest.get(end.next_multiple_of(2)..).unwrap_or_default();
    }
    Err(DebError::NotADeb("it has no data.tar"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{ar, deb};

    #[test]
    fn kernel_config_and_modules_come_out_and_the_rest_stays() {
        let package = deb(&[
            ("./boot/vmlinuz-6.12.1-test", b"kernel"),
            ("./boot/config-6.12.1-test", b"CONFIG_X=y"),
            ("./boot/System.map-6.12.1-test", b"map"),
            ("./lib/modules/6.12.1-test/kernel/fs/a.ko", b"a"),
            ("./usr/lib/modules/6.12.1-test/kernel/fs/b.ko", b"b"),
            ("./usr/share/doc/copyright", b"c"),
        ]);
        let target = tempfile::tempdir().unwrap();
        let unpacked = unpack_kernel(&package, target.path()).unwrap();
        assert_eq!(unpacked.release, "6.12.1-test");
        let paths: Vec<_> = unpacked
            .files
            .iter()
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(
            paths,
            [
                "vmlinuz",
                "config",
                "modules/kernel/fs/a.ko",
                "modules/kernel/fs/b.ko"
            ]
        );
        assert_eq!(
            fs::read(target.path().join("modules/kernel/fs/b.ko")).unwrap(),
            b"b"
        );
        assert_eq!(unpacked.files[0].1, sha256(b"kernel"));
    }

    #[test]
    fn paths_that_lead_out_are_left_out() {
        let package = deb(&[
            ("./boot/vmlinuz-1", b"kernel"),
            ("./lib/modules/1/../../../../escape", b"evil"),
            ("/lib/modules/1/absolute", b"evil"),
        ]);
        let target = tempfile::tempdir().unwrap();
        let unpacked = unpack_kernel(&package, target.path()).unwrap();
        assert_eq!(unpacked.files.len(), 1, "{:?}", unpacked.files);
    }

    #[test]
    fn a_meta_package_and_other_files_are_named() {
        let target = tempfile::tempdir().unwrap();
        let meta = deb(&[("./usr/share/doc/x", b"x")]);
        assert!(matches!(
            unpack_kernel(&meta, target.path()),
            Err(DebError::NoKernel)
        ));
        assert!(matches!(
            unpack_kernel(b"", target.path()),
            Err(DebError::NotADeb(_))
        ));
        let no_data = ar(&[("debian-binary", b"2.0\n")]);
        assert!(matches!(
            unpack_kernel(&no_data, target.path()),
            Err(DebError::NotADeb("it has no data.tar"))
        ));
    }

    #[test]
    fn a_package_cut_anywhere_is_an_error() {
        let package = deb(&[("./boot/vmlinuz-1", b"kernel")]);
        let target = tempfile::tempdir().unwrap();
        for len in 0..package.len() - 1 {
            assert!(
                unpack_kernel(&package[..len], target.path()).is_err(),
                "cut at {len}"
            );
        }
    }
}
