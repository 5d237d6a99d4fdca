//! The disks of a run: image files with the content that the scenario asks for.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use pincushion_abi::pattern::Pattern;
use pincushion_devices::backend::{self, DiskOptions, FileOptions};
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_vmm::config::units::parse_size;

use super::volatile_disk::VolatileDisk;
use crate::crash::{Recorded, SharedLog};
use crate::scenario::Values;
use crate::scenario::model::{Backend, Content, Disk, DiskFile};

/// What went wrong with a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host refused.
    #[error("disk {disk}: cannot {attempt}: {source}")]
    Host {
        /// Its name.
        disk: String,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A program of e2fsprogs or xfsprogs failed.
    #[error("disk {disk}: `{line}` failed: {said}")]
    Program {
        /// Its name.
        disk: String,
        /// What was run.
        line: String,
        /// What it said.
        said: String,
    },
    /// The image cannot be opened by a device.
    #[error("disk {disk}: {source}")]
    Open {
        /// Its name.
        disk: String,
        /// Why not.
        source: backend::OpenError,
    },
}

fn host(disk: &Disk, attempt: &'static str) -> impl FnOnce(io::Error) -> DiskError {
    let disk = disk.id.clone();
    move |source| DiskError::Host {
        disk,
        attempt,
        source,
    }
}

/// Where the image of a disk is.
#[must_use]
pub fn image_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.img"))
}

/// Makes the image of a disk in `dir`, and tells `values` where its files are (`${sectors.ID:PATH}`).
///
/// # Errors
/// [`DiskError`].
pub fn make_image(disk: &Disk, dir: &Path, values: &mut Values) -> Result<(), DiskError> {
    let path = image_path(dir, &disk.id);
    let bytes = parse_size(&disk.size).expect("sizes were checked when the file was read");
    let file = File::create_new(&path).map_err(host(disk, "create its image"))?;
    file.set_len(bytes).map_err(host(disk, "size its image"))?;
    if let Some(name) = disk.content.file_system() {
        values.set(format!("fs.{}", disk.id), name);
    }
    match disk.content {
        Content::Zero => Ok(()),
        Content::Pattern(pattern) => {
            fill(&file, bytes, pattern).map_err(host(disk, "fill its image"))
        }
        Content::Xfs => {
            drop(file);
            make_xfs(disk, dir, &path)
        }
        Content::Btrfs => {
            drop(file);
            make_btrfs(disk, &path)
        }
        Content::Ext4 | Content::Ext4Small | Content::Ext4Verity => {
            drop(file);
            make_ext4(disk, dir, &path)?;
            for file in &disk.files {
                let sectors = sectors_of(disk, &path, file)?;
                values.set(format!("sectors.{}:{}", disk.id, file.path), sectors);
            }
            Ok(())
        }
    }
}

fn fill(mut file: &File, bytes: u64, pattern: Pattern) -> io::Result<()> {
    let mut block = vec![0; 4096];
    pattern.fill(&mut block);
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left.min(4096)).expect("at most 4096");
        file.write_all(&block[..len])?;
        left -= len as u64;
    }
    Ok(())
}

/// A directory of this host with the files that a fresh file system shall hold.
fn make_tree(disk: &Disk, dir: &Path) -> Result<PathBuf, DiskError> {
    let tree = dir.join(format!("{}.tree", disk.id));
    fs::create_dir(&tree).map_err(host(disk, "make a directory for its files"))?;
    for file in &disk.files {
        let path = tree.join(file.path.trim_start_matches('/'));
        let mut bytes = vec![0; usize::try_from(file.len).expect("files fit into memory")];
        file.pattern.fill(&mut bytes);
        let parent = path.parent().unwrap_or(&tree);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(host(disk, "write its files"))?;
    }
    Ok(tree)
}

fn make_ext4(disk: &Disk, dir: &Path, image: &Path) -> Result<(), DiskError> {
    let tree = make_tree(disk, dir)?;
    let mut command = tool("mke2fs");
    // Nothing is left to do lazily: a thread of the guest that zeroes tables would write when nobody expects it.
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-b"]);
    command.arg(disk.content.block().to_string());
    if disk.content == Content::Ext4Verity {
        command.args(["-O", "verity"]);
    }
    command
        .args(["-E", "lazy_itable_init=0,lazy_journal_init=0"])
        .arg("-d")
        .arg(&tree)
        .arg(image);
    run(disk, command)?;
    Ok(())
}

/// One allocation group, so that all files of a small file system are neighbours.
fn make_xfs(disk: &Disk, dir: &Path, image: &Path) -> Result<(), DiskError> {
    let tree = make_tree(disk, dir)?;
    // mkfs.xfs(8): a boot image, two numbers, and the root directory; the first three say nothing any more.
    let mut prototype = "/dev/null\n0 0\nd--755 0 0\n".to_owned();
    for file in &disk.files {
        let name = file.path.trim_start_matches('/');
        prototype += &format!("{name} ---644 0 0 {name}\n");
    }
    prototype += "$\n";
    let (listing, image) = (tree.join(".prototype"), std::path::absolute(image));
    fs::write(&listing, prototype).map_err(host(disk, "write the list of its files"))?;
    let image = image.map_err(host(disk, "find its image"))?;
    let mut command = tool("mkfs.xfs");
    // Smaller than 300 MiB is refused without the word that it is for tests.
    command
        .args([
            "-q",
            "-f",
            "--unsupported",
            "-b",
            "size=4096",
            "-d",
            "agcount=1",
        ])
        .args(["-p", ".prototype"])
        .arg(image)
        .current_dir(&tree);
    run(disk, command).map(drop)
}

/// One copy of everything, as small disks have no room for two.
fn make_btrfs(disk: &Disk, image: &Path) -> Result<(), DiskError> {
    let mut command = tool("mkfs.btrfs");
    command.args(["-q", "-f", "-m", "single", "-d", "single"]);
    run(disk, {
        command.arg(image);
        command
    })
    .map(drop)
}

/// The sectors of a file that lies in one piece.
fn sectors_of(disk: &Disk, image: &Path, file: &DiskFile) -> Result<toml::Value, DiskError> {
    let mut command = tool("debugfs");
    command
        .arg("-R")
        .arg(format!("blocks {}", file.path))
        .arg(image);
    let said = run(disk, command)?;
    let blocks: Vec<u64> = said
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let in_one_piece = blocks.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let (Some(first), true) = (blocks.first(), in_one_piece) else {
        let said = format!("{} does not lie in one piece: {said}", file.path);
        return Err(DiskError::Program {
            disk: disk.id.clone(),
            line: "debugfs blocks".into(),
            said,
        });
    };
    let sector = |block: u64| {
        toml::Value::Integer(
            i64::try_from(block * (disk.content.block() / 512)).unwrap_or(i64::MAX),
        )
    };
    let span = [
        ("from", sector(*first)),
        ("to", sector(first + blocks.len() as u64)),
    ];
    Ok(toml::Value::Table(
        span.map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect(),
    ))
}

/// A program of e2fsprogs or xfsprogs; these live where an ordinary user's PATH does not look.
pub(super) fn tool(name: &str) -> Command {
    let place = ["/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file());
    let mut command = Command::new(place.unwrap_or_else(|| name.into()));
    command.env("LC_ALL", "C").env("DEBUGFS_PAGER", "__none__");
    command
}

fn run(disk: &Disk, mut command: Command) -> Result<String, DiskError> {
    let line = format!("{command:?}");
    let output = command.output().map_err(|source| DiskError::Program {
        disk: disk.id.clone(),
        line: line.clone(),
        said: format!("{source}; are e2fsprogs and xfsprogs installed?"),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DiskError::Program {
            disk: disk.id.clone(),
            line,
            said,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The device for a disk whose image is there; `record` gets all that is written to it.
///
/// # Errors
/// [`DiskError`].
pub fn device(
    disk: &Disk,
    dir: &Path,
    context: &Context,
    record: Option<&SharedLog>,
) -> Result<SharedDevice, DiskError> {
    let file = FileOptions {
        path: image_path(dir, &disk.id),
        read_only: disk.read_only,
        ..FileOptions::default()
    };
    let open = |backend| {
        let opened = backend::open_disk(&DiskOptions {
            engine: backend,
            file,
        });
        opened.map_err(|source| DiskError::Open {
            disk: disk.id.clone(),
            source,
        })
    };
    let opened: Box<dyn backend::Disk> = match disk.backend {
        Backend::File => open(backend::Engine::File)?,
        Backend::Uring => open(backend::Engine::Uring)?,
        Backend::Volatile => Box::new(
            VolatileDisk::open(&image_path(dir, &disk.id)).map_err(host(disk, "read its image"))?,
        ),
    };
    let opened = match record {
        Some(log) => Box::new(Recorded::new(opened, log.clone())),
        None => opened,
    };
    let config = BlkConfig {
        read_only: disk.read_only,
        fetch: disk.fetch,
        queues: disk.queues,
        ..BlkConfig::new(&disk.id)
    };
    let device =
        BlkDevice::new(config, opened, context.clone()).map_err(host(disk, "make its device"))?;
    Ok(Arc::new(Mutex::new(device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(content: Content, files: Vec<DiskFile>) -> Disk {
        Disk {
            id: "a".into(),
            size: "16M".into(),
            content,
            files,
            fetch: pincushion_devices::trace::event::Fetch::Late,
            read_only: false,
            backend: Backend::File,
            queues: 1,
        }
    }

    #[test]
    fn a_fresh_xfs_holds_its_files_and_is_clean() {
        if pincushion_image::host_program("xfs_repair").is_err() {
            return eprintln!("skipped: xfsprogs is not installed");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile {
            path: "/data".into(),
            len: 8192,
            pattern: Pattern::Seed(3),
        };
        make_image(
            &disk(Content::Xfs, vec![file]),
            dir.path(),
            &mut Values::default(),
        )
        .unwrap();
        let image = image_path(dir.path(), "a");
        let bytes = fs::read(&image).unwrap();
        let mut blocks = bytes.chunks_exact(4096);
        assert!(blocks.any(|block| Pattern::Seed(3).first_difference(block).is_none()));
        let mut check = tool("xfs_repair");
        check.args(["-n", "-o", "force_geometry"]).arg(&image);
        assert!(check.output().unwrap().status.success());
    }

    #[test]
    fn a_pattern_begins_anew_in_each_block() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(Content::Pattern(Pattern::Seed(7)), vec![]);
        make_image(&disk, dir.path(), &mut Values::default()).unwrap();
        let bytes = fs::read(image_path(dir.path(), "a")).unwrap();
        assert_eq!(bytes.len(), 16 << 20);
        assert_eq!(Pattern::Seed(7).first_difference(&bytes[8192..12288]), None);
    }

    #[test]
    fn a_file_of_a_fresh_file_system_is_where_its_sectors_say() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile {
            path: "/data".into(),
            len: 8192,
            pattern: Pattern::Seed(3),
        };
        let mut values = Values::default();
        make_image(&disk(Content::Ext4, vec![file]), dir.path(), &mut values).unwrap();
        let sectors =
            crate::scenario::fill(&toml::Value::String("${sectors.a:/data}".into()), &values)
                .unwrap();
        let from = usize::try_from(sectors["from"].as_integer().unwrap()).unwrap() * 512;
        assert_eq!(
            sectors["to"].as_integer(),
            sectors["from"].as_integer().map(|from| from + 16)
        );
        let bytes = fs::read(image_path(dir.path(), "a")).unwrap();
        assert_eq!(
            Pattern::Seed(3).first_difference(&bytes[from..from + 8192]),
            None
        );
    }
}
