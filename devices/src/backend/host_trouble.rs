//! What a host does to an image: each trouble is an error that names its way out, or a failed transfer after which
//! the disk goes on. Nothing here is a clause for every [`Disk`](super::Disk): memory has no host.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::conformance::subject::{Subject, image, pattern, transfer};
use super::work::{Buffers, Work};
use super::{DiskOptions, Engine, FileOptions, OpenError, open_disk};

const BACKENDS: [Engine; 2] = [Engine::File, Engine::Uring];

fn options(path: &Path) -> FileOptions {
    FileOptions {
        path: path.into(),
        ..FileOptions::default()
    }
}

fn open(backend: Engine, file: FileOptions) -> Result<Subject, OpenError> {
    let disk = open_disk(&DiskOptions {
        engine: backend,
        file,
    })?;
    Ok(Subject { disk, _dir: None })
}

/// What a person reads.
fn refusal(file: FileOptions) -> String {
    match open(Engine::Auto, file) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_refusal_names_the_path_and_the_way_out() {
    let (dir, _) = image(512);
    let at = |name: &str| dir.path().join(name);
    File::create(at("empty")).unwrap();
    File::create(at("odd")).unwrap().set_len(1000).unwrap();
    let pipe = at("pipe");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (path, way_out) in [
        (at("missing"), "truncate -s 1G"),
        (dir.path().to_owned(), "name a file"),
        (at("empty"), "give it a size"),
        (at("odd"), "truncate -s 1024"),
        (pipe, "name a regular file"),
        (PathBuf::from("/dev/null"), "name a regular file"),
        (at("odd/below"), "open"),
    ] {
        let message = refusal(options(&path));
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.contains(way_out), "{message}");
    }
}

#[test]
fn a_file_that_may_only_be_read_is_offered_as_read_only() {
    let (_dir, path) = image(4096);
    std::fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    if OpenOptions::new().write(true).open(&path).is_ok() {
        eprintln!("skipped: root may write every file");
        return;
    }
    assert!(refusal(options(&path)).contains("add read-only"));
    std::fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    assert!(refusal(options(&path)).contains("no permission"));
}

#[test]
fn a_second_writer_is_refused_and_told_who_has_the_image() {
    let (_dir, path) = image(4096);
    let read_only = FileOptions {
        read_only: true,
        ..options(&path)
    };
    let first = open(Engine::File, options(&path)).unwrap();
    for second in [options(&path), read_only.clone()] {
        let error = open(Engine::Uring, second).err().expect("it is locked");
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.contains("same machine"), "{message}");
    }
    drop(first);
    let readers: Vec<_> = BACKENDS
        .map(|backend| open(backend, read_only.clone()).unwrap())
        .into();
    assert!(
        open(Engine::File, options(&path)).is_err(),
        "readers keep a writer out"
    );
    drop(readers);
    open(Engine::File, options(&path)).unwrap();
}

#[test]
fn another_process_is_named_by_its_pid() {
    let (_dir, path) = image(4096);
    let mut holder = std::process::Command::new("flock")
        .arg(&path)
        .args(["sh", "-c", "echo locked; read line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(holder) = &mut holder else {
        eprintln!("skipped: no flock program here");
        return;
    };
    let mut line = [0; 7];
    io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
    let message = refusal(options(&path));
    let pid = holder.id();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(
        message.contains(&format!("process {pid} (flock)")),
        "{message}"
    );
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    for backend in BACKENDS {
        let (_dir, path) = image(4096);
        let mut subject = open(
            backend,
            FileOptions {
                read_only: true,
                ..options(&path)
            },
        )
        .unwrap();
        let geometry = subject.disk.geometry();
        assert!(geometry.read_only && !geometry.discard && !geometry.write_zeroes);
        assert_eq!(
            subject.write(0, &[1; 512]).unwrap_err().kind(),
            io::ErrorKind::ReadOnlyFilesystem
        );
        for work in [Work::Discard, Work::WriteZeroes { unmap: true }] {
            let done = subject.run(transfer(work, 0, 512, Buffers::None));
            assert!(done.result.is_err(), "{work:?}");
        }
        assert!(subject.read(0, 512).unwrap() == [0; 512]);
        let flush = subject.run(transfer(Work::Flush, 0, 0, Buffers::None));
        flush.result.unwrap();
    }
}

#[test]
fn an_image_truncated_under_us_gives_errors_and_no_stale_data() {
    for backend in BACKENDS {
        let (_dir, path) = image(64 << 10);
        let mut subject = open(backend, options(&path)).unwrap();
        subject.write(0, &pattern(1, 64 << 10)).unwrap();
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        other.set_len(512).unwrap();
        for (offset, len) in [(4096, 512), (0, 1024)] {
            let error = subject.read(offset, len).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::UnexpectedEof,
                "{backend:?}: {error}"
            );
        }
        assert!(subject.read(0, 512).unwrap() == pattern(1, 64 << 10)[..512]);
        // A write brings the place back, and the disk goes on.
        subject.write(4096, &[7; 512]).unwrap();
        assert!(subject.read(4096, 512).unwrap() == [7; 512]);
    }
}

#[test]
fn a_host_that_forbids_a_write_fails_the_write_and_nothing_else() {
    for backend in BACKENDS {
        let file = memfd_create("sealed", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.write_all_at(&pattern(2, 4096), 0).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let mut subject = open(backend, options(&path)).unwrap();
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        let error = subject.write(0, &[0; 512]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{backend:?}");
        let zeroes = transfer(Work::WriteZeroes { unmap: false }, 0, 512, Buffers::None);
        assert!(subject.run(zeroes).result.is_err());
        assert!(subject.read(0, 4096).unwrap() == pattern(2, 4096));
    }
}

/// A file system of `size` in memory that only its descriptor reaches. Needs root.
fn tiny_file_system(size: &str) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", size)?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}

#[test]
fn a_full_disk_fails_the_write_and_the_disk_goes_on() {
    for backend in BACKENDS {
        let mount = match tiny_file_system("128k") {
            Ok(mount) => mount,
            Err(errno) => {
                eprintln!("skipped: cannot mount a tiny file system: {errno}");
                return;
            }
        };
        let path = PathBuf::from(format!("/proc/self/fd/{}/disk.img", mount.as_raw_fd()));
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let mut subject = open(backend, options(&path)).unwrap();
        let error = subject.write(0, &pattern(1, 512 << 10)).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::StorageFull,
            "{backend:?}: {error}"
        );
        // Freed by a discard, the space is there again.
        assert!(subject.disk.geometry().discard);
        let discard = transfer(Work::Discard, 0, 1 << 20, Buffers::None);
        subject.run(discard).result.unwrap();
        subject.write(512 << 10, &pattern(2, 4096)).unwrap();
        assert!(subject.read(512 << 10, 4096).unwrap() == pattern(2, 4096));
        // This file system cannot zero a range; zeros are written, and only there.
        let zeroes = transfer(
            Work::WriteZeroes { unmap: false },
            512 << 10,
            1024,
            Buffers::None,
        );
        subject.run(zeroes).result.unwrap();
        let seen = subject.read(512 << 10, 4096).unwrap();
        assert!(seen[..1024] == [0; 1024] && seen[1024..] == pattern(2, 4096)[1024..]);
    }
}

#[test]
fn a_discard_gives_the_blocks_back_and_zeroes_without_unmap_keep_them() {
    for backend in BACKENDS {
        let (_dir, path) = image(1 << 20);
        let mut subject = open(backend, options(&path)).unwrap();
        let flush = || transfer(Work::Flush, 0, 0, Buffers::None);
        let blocks = || std::fs::metadata(&path).unwrap().blocks();
        subject.write(0, &pattern(1, 1 << 20)).unwrap();
        subject.run(flush()).result.unwrap();
        let full = blocks();
        let keep = transfer(
            Work::WriteZeroes { unmap: false },
            0,
            1 << 20,
            Buffers::None,
        );
        subject.run(keep).result.unwrap();
        assert!(blocks() >= full, "{backend:?}");
        if !subject.disk.geometry().discard {
            eprintln!("skipped: no holes on this file system");
            return;
        }
        let discard = transfer(Work::Discard, 0, 1 << 20, Buffers::None);
        subject.run(discard).result.unwrap();
        assert!(blocks() < full / 2, "{backend:?}: {} of {full}", blocks());
    }
}
