//! A file system that lost its power, looked at as the next boot would: its log is replayed, on a copy; then its checker must find nothing, and
//! its files are read.
//!
//! ext4: `e2fsck -p` replays, `e2fsck -fn` checks, debugfs reads, all without the kernel. xfs has no program that replays its log, so this
//! host's kernel mounts the image (as root, from a loop device) and unmounts it; then `xfs_repair -n` checks. That a mount can fail for the
//! host's reasons is not held against the image: an image that is whole was mounted first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::disks::tool;
use super::host_checks::file_on_ext4;

/// What an image holds.
pub(super) struct Seen {
    /// What the checker complained about.
    pub(super) damage: Option<String>,
    /// Contents by path; `None`: there is no such file. The empty path is the medium itself.
    pub(super) files: BTreeMap<String, Option<Vec<u8>>>,
}

/// Looks at an ext4 image, which it changes.
pub(super) fn look_at_ext4(image: &Path, paths: &BTreeSet<String>) -> Result<Seen, String> {
    let damage = check_ext4(image)?;
    let read = |path: &String| (path.clone(), file_on_ext4(image, path).ok());
    Ok(Seen {
        damage,
        files: named(paths).map(read).collect(),
    })
}

/// Looks at an xfs image, which it changes.
///
/// # Errors
/// A program of the host cannot be run, or does not unmount; in words.
pub(super) fn look_at_xfs(image: &Path, paths: &BTreeSet<String>) -> Result<Seen, String> {
    let mut files = BTreeMap::new();
    let damage = match Mounted::new(image)? {
        Ok(mounted) => {
            for path in named(paths) {
                files.insert(path.clone(), read_file(&mounted.at, path)?);
            }
            mounted.unmount()?;
            None
        }
        Err(complaint) => Some(format!("it cannot be mounted: {complaint}")),
    };
    let checked = run("xfs_repair", &["-n", "-o", "force_geometry"], image)?;
    // xfs_repair(8): 0 is no errors.
    let damage = match (damage, checked.status.code()) {
        (None, Some(0)) => None,
        (damage, _) => Some(first_lines(damage, [checked])),
    };
    Ok(Seen { damage, files })
}

/// Whether this host can mount xfs, tried with an image that is whole.
///
/// # Errors
/// Why not, in words.
pub(super) fn can_mount_xfs(whole: &Path) -> Result<(), String> {
    let tried = Mounted::new(whole)?.and_then(Mounted::unmount);
    tried.map_err(|why| format!("this host cannot mount xfs, which replays its log: {why}"))
}

/// Those that are files.
fn named(paths: &BTreeSet<String>) -> impl Iterator<Item = &String> {
    paths.iter().filter(|path| !path.is_empty())
}

/// What is wrong with an ext4 file system, after its journal was replayed.
fn check_ext4(image: &Path) -> Result<Option<String>, String> {
    // e2fsck(8): 1 and 2 mean that everything that it met was put right; from 4 on something is left.
    let replayed = run("e2fsck", &["-p"], image)?;
    let checked = run("e2fsck", &["-fn"], image)?;
    let is_well = replayed.status.code().is_some_and(|code| code < 4);
    if is_well && checked.status.code() == Some(0) {
        return Ok(None);
    }
    Ok(Some(first_lines(None, [replayed, checked])))
}

fn run(program: &str, flags: &[&str], last: &Path) -> Result<Output, String> {
    let output = tool(program).args(flags).arg(last).output();
    output.map_err(|error| format!("cannot run {program}: {error}"))
}

/// `before`, and what programs have said. The first lines say it all; a checker can say very much about one thing.
fn first_lines(before: Option<String>, outputs: impl IntoIterator<Item = Output>) -> String {
    let mut said = before.into_iter().collect::<Vec<_>>();
    for output in outputs {
        for bytes in [output.stdout, output.stderr] {
            let text = String::from_utf8_lossy(&bytes);
            said.extend(text.lines().map(str::to_owned));
        }
    }
    said.retain(|line| !line.trim().is_empty());
    said.truncate(24);
    said.join("\n")
}

/// A file below a directory; `None`: there is no such file. No link that a guest made is followed, in no part of the path, so nothing
/// of the host's is ever read.
fn read_file(root: &Path, path: &str) -> Result<Option<Vec<u8>>, String> {
    let told = |error: io::Error| format!("{path} below {}: {error}", root.display());
    let dir = File::open(root).map_err(told)?;
    let opened = openat2(
        &dir,
        path.trim_start_matches('/'),
        // What is no file must not make the reader wait.
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    );
    let mut file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
        // The image lies about its blocks (EUCLEAN is xfs's EFSCORRUPTED): what was promised is not there.
        Err(Errno::IO | Errno::UCLEAN) => return Ok(None),
        Err(error) => return Err(told(error.into())),
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    match file.read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::IO | Errno::UCLEAN)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(told(error)),
    }
}

/// An image that is mounted beside itself.
struct Mounted {
    at: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// The inner error is what mount(8) says of the image.
    fn new(image: &Path) -> Result<Result<Self, String>, String> {
        let at = image.with_extension("mnt");
        let made = match fs::create_dir(&at) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        made.map_err(|error| format!("cannot make {}: {error}", at.display()))?;
        // nouuid: many images are copies of one.
        let flags = ["-t", "xfs", "-o", "loop,nouuid,nodev,nosuid,noexec"];
        let output = tool("mount").args(flags).arg(image).arg(&at).output();
        let output = output.map_err(|error| format!("cannot run mount: {error}"))?;
        Ok(if output.status.success() {
            Ok(Self {
                at,
                is_mounted: true,
            })
        } else {
            let _ = fs::remove_dir(&at);
            Err(first_lines(None, [output]))
        })
    }

    fn unmount(mut self) -> Result<(), String> {
        let output = run("umount", &[], &self.at)?;
        if !output.status.success() {
            return Err(first_lines(None, [output]));
        }
        self.is_mounted = false;
        fs::remove_dir(&self.at)
            .map_err(|error| format!("cannot remove {}: {error}", self.at.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            // Somebody has told an error already.
            let _ = run("umount", &["--lazy"], &self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path, program: &str, flags: &[&str], bytes: u64) -> PathBuf {
        let image = dir.join("a.img");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        assert!(run(program, flags, &image).unwrap().status.success());
        image
    }

    #[test]
    fn a_fresh_file_system_is_whole_and_one_without_its_root_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let flags = ["-q", "-F", "-t", "ext4", "-b", "4096"];
        let image = made(dir.path(), "mke2fs", &flags, 16 << 20);
        assert_eq!(check_ext4(&image).unwrap(), None);
        let set = run("debugfs", &["-w", "-R", "clri <2>"], &image).unwrap();
        assert!(set.status.success());
        assert!(check_ext4(&image).unwrap().is_some());
    }

    #[test]
    fn no_link_leads_out_of_an_image_and_nothing_that_is_no_file_is_read() {
        let (image, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(host.path().join("secret"), "of the host").unwrap();
        fs::write(image.path().join("data"), "bytes").unwrap();
        let link = |to: &Path, name| std::os::unix::fs::symlink(to, image.path().join(name));
        link(host.path(), "dir").unwrap();
        link(&host.path().join("secret"), "file").unwrap();
        let read = |path| read_file(image.path(), path).unwrap();
        assert_eq!(read("/data").as_deref(), Some(&b"bytes"[..]));
        for path in ["/dir/secret", "/file", "/none", "/data/none", "/dir", "/."] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    #[test]
    fn an_xfs_image_is_mounted_read_and_checked_and_a_torn_one_is_told() {
        let is_root = rustix::process::geteuid().is_root();
        let has_program = tool("mkfs.xfs").arg("-V").output().is_ok();
        if !is_root || !has_program {
            eprintln!("skipped: this needs root and mkfs.xfs");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let flags = ["-q", "--unsupported", "-d", "agcount=1"];
        let image = made(dir.path(), "mkfs.xfs", &flags, 32 << 20);
        if let Err(why) = can_mount_xfs(&image) {
            eprintln!("skipped: {why}");
            return;
        }
        let mounted = Mounted::new(&image).unwrap().unwrap();
        fs::write(mounted.at.join("data"), "bytes").unwrap();
        mounted.unmount().unwrap();
        let paths = BTreeSet::from(["/data".into(), "/none".into(), String::new()]);
        let seen = look_at_xfs(&image, &paths).unwrap();
        assert_eq!(seen.damage, None);
        assert_eq!(seen.files["/data"].as_deref(), Some(&b"bytes"[..]));
        assert_eq!(seen.files["/none"], None);
        assert_eq!(seen.files.len(), 2);
        // The headers of the first allocation group, in sectors 1 to 3.
        let file = File::options().write(true).open(&image).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0x55; 1536], 512).unwrap();
        assert!(look_at_xfs(&image, &paths).unwrap().damage.is_some());
        assert!(!dir.path().join("a.mnt").exists());
    }
}
