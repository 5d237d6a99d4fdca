//! Writes an initramfs: the kernel's `newc` cpio format, uncompressed, since a guest that is emulated unpacks slowly.
//!
//! Promises: the bytes depend on nothing but the given files. Entries are sorted by path, parents come before their
//! children, inode numbers are consecutive, owner is root, all times are 0.
//! The format is the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use cpio::newc;

use crate::error::Error;

const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

enum Node {
    Directory,
    Character { major: u32, minor: u32, mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
}

/// The tree that becomes an initramfs.
pub(crate) struct Initramfs {
    /// By path without the leading `/`. The order of a map is the order of the archive.
    nodes: BTreeMap<String, Node>,
}

impl Initramfs {
    /// The tree that every image has: mount points, and the two nodes without which a PID 1 dies before `main`.
    pub(crate) fn new() -> Self {
        let mut nodes = BTreeMap::new();
        for directory in ["dev", "mnt", "modules", "proc", "sys", "tmp"] {
            nodes.insert(directory.to_owned(), Node::Directory);
        }
        nodes.insert(
            "dev/console".to_owned(),
            Node::Character {
                major: 5,
                minor: 1,
                mode: 0o600,
            },
        );
        nodes.insert(
            "dev/null".to_owned(),
            Node::Character {
                major: 1,
                minor: 3,
                mode: 0o666,
            },
        );
        Self { nodes }
    }

    /// Adds a file, with the directories above it. `mode` has the permission bits only.
    pub(crate) fn add(&mut self, path: &str, mode: u32, bytes: Vec<u8>) -> Result<(), Error> {
        let path = normal_path(path)?;
        let bad = |reason| Error::BadImagePath {
            path: path.clone(),
            reason,
        };
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            match self
                .nodes
                .entry(parent.to_owned())
                .or_insert(Node::Directory)
            {
                Node::Directory => {}
                Node::Character { .. } | Node::File { .. } => {
                    return Err(bad("a directory above it is a file already"));
                }
            }
        }
        if self.nodes.contains_key(&path) {
            return Err(bad("the image has it already"));
        }
        self.nodes.insert(
            path,
            Node::File {
                mode: mode & 0o7777,
                bytes,
            },
        );
        Ok(())
    }

    /// The archive.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut archive = Vec::new();
        for (ino, (path, node)) in (1..).zip(&self.nodes) {
            let entry = newc::Builder::new(path).ino(ino).mtime(0).uid(0).gid(0);
            let (entry, bytes): (_, &[u8]) = match node {
                Node::Directory => (entry.mode(DIRECTORY | 0o755).nlink(2), &[]),
                Node::Character { major, minor, mode } => (
                    entry
                        .mode(CHARACTER | mode)
                        .nlink(1)
                        .rdev_major(*major)
                        .rdev_minor(*minor),
                    &[],
                ),
                Node::File { mode, bytes } => (entry.mode(REGULAR | mode).nlink(1), bytes),
            };
            let len = u32::try_from(bytes.len()).map_err(|_| {
                io::Error::other(format!(
                    "{path} is longer than the 4 GiB that cpio can hold"
                ))
            })?;
            let mut writer = entry.write(archive, len);
            io::Write::write_all(&mut writer, bytes)?;
            archive = writer.finish()?;
        }
        newc::trailer(archive)
    }
}

/// `path` without the leading `/`, refused if it has `..` or no name.
pub(crate) fn normal_path(path: &str) -> Result<String, Error> {
    let bad = |reason| Error::BadImagePath {
        path: path.to_owned(),
        reason,
    };
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => {
                parts.push(name.to_str().ok_or_else(|| bad("it is not UTF-8"))?)
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(bad("`..` is not allowed")),
        }
    }
    if parts.is_empty() {
        return Err(bad("it names no file"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (name, mode, ino, content) of each entry.
    fn read(archive: &[u8]) -> Vec<(String, u32, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut rest = archive;
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                return entries;
            }
            let mut content = Vec::new();
            rest = reader.to_writer(&mut content).unwrap();
            assert_eq!(
                (entry.mtime(), entry.uid(), entry.gid()),
                (0, 0, 0),
                "{}",
                entry.name()
            );
            entries.push((entry.name().to_owned(), entry.mode(), entry.ino(), content));
        }
    }

    #[test]
    fn the_order_in_which_files_are_added_changes_no_byte() {
        let files = [
            ("/init", 0o755, "i"),
            ("/bin/tool", 0o755, "t"),
            ("/etc/x", 0o600, "x"),
        ];
        let build = |order: &[usize]| {
            let mut tree = Initramfs::new();
            for &n in order {
                tree.add(files[n].0, files[n].1, files[n].2.into()).unwrap();
            }
            tree.to_bytes().unwrap()
        };
        assert_eq!(build(&[0, 1, 2]), build(&[2, 0, 1]));
    }

    #[test]
    fn every_parent_comes_before_its_children() {
        let mut tree = Initramfs::new();
        tree.add("/usr/lib/a-b/x", 0o644, b"x".into()).unwrap();
        tree.add("/usr/lib/a/x", 0o644, b"y".into()).unwrap();
        let entries = read(&tree.to_bytes().unwrap());
        for (n, (name, ..)) in entries.iter().enumerate() {
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(
                    entries[..n]
                        .iter()
                        .any(|(above, mode, ..)| above == parent && mode & DIRECTORY != 0),
                    "{name}"
                );
            }
        }
        let inos: Vec<_> = entries.iter().map(|entry| entry.2).collect();
        assert_eq!(
            inos,
            (1..=u32::try_from(entries.len()).unwrap()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_nodes_that_pid_1_needs_are_there() {
        let entries = read(&Initramfs::new().to_bytes().unwrap());
        let mode_of = |name: &str| {
            entries
                .iter()
                .find(|entry| entry.0 == name)
                .map(|entry| entry.1)
        };
        assert_eq!(mode_of("dev/console"), Some(CHARACTER | 0o600));
        assert_eq!(mode_of("dev/null"), Some(CHARACTER | 0o666));
        assert_eq!(mode_of("proc"), Some(DIRECTORY | 0o755));
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        let mut tree = Initramfs::new();
        tree.add("/init", 0o755, vec![]).unwrap();
        for path in ["/init", "init/x", "/a/../b", "/", "", "/dev/null", "/proc"] {
            assert!(
                matches!(
                    tree.add(path, 0o644, vec![]),
                    Err(Error::BadImagePath { .. })
                ),
                "{path}"
            );
        }
    }
}
