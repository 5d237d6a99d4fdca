//! Files in and out: whole at once or not at all, and holes stay holes.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pincushion_abi::nested::sparse::for_each_block;
use pincushion_abi::nested::{Block, Entry, EntryKind, Frame, Kind, WireError};

use super::flow::{Flow, HostIsGone};
use super::outbox::Outbox;

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    HostIsGone(#[from] HostIsGone),
}

/// A file on its way in. It gets its name when it is complete, so nobody meets half of it, and a program
/// that is running can be replaced.
pub(super) struct Incoming {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    mode: u32,
    len: u64,
    digest: Option<String>,
}

impl Incoming {
    pub(super) fn begin(
        channel: u32,
        path: PathBuf,
        mode: u32,
        len: u64,
        digest: Option<String>,
    ) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other("a path of a file was expected"));
        };
        fs::create_dir_all(parent)?;
        let mut hidden = std::ffi::OsString::from(format!(".incoming-{channel}-"));
        hidden.push(name);
        let temporary = parent.join(hidden);
        let file = File::create(&temporary)?;
        file.set_len(len)?;
        Ok(Self {
            file,
            temporary,
            path,
            mode,
            len,
            digest,
        })
    }

    pub(super) fn write(&self, frame: &Frame) -> Result<(), FileError> {
        let block = Block::parse(frame, self.len)?;
        Ok(self.file.write_all_at(block.bytes, block.offset)?)
    }

    /// Gives the file its mode and its name, and notes its digest.
    pub(super) fn finish(mut self, known: &mut Known) -> io::Result<()> {
        fs::set_permissions(&self.temporary, Permissions::from_mode(self.mode))?;
        fs::rename(&self.temporary, &self.path)?;
        if let Some(digest) = self.digest.take() {
            known.note(digest, &self.path)?;
        }
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After `finish` the name is gone already.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// The files that came with a digest, and are believed to be as they came while size, inode and
/// times say so. A change through a shared mapping does not show in these: the host gives no digest for files that
/// a command writes.
#[derive(Default)]
pub(super) struct Known {
    by_digest: HashMap<String, (PathBuf, Stamp)>,
}

#[derive(PartialEq, Eq)]
struct Stamp([i128; 5]);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Self([
            i128::from(meta.dev()),
            i128::from(meta.ino()),
            i128::from(meta.size()),
            nanos(meta.mtime(), meta.mtime_nsec()),
            nanos(meta.ctime(), meta.ctime_nsec()),
        ])
    }
}

impl Known {
    fn note(&mut self, digest: String, path: &Path) -> io::Result<()> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        self.by_digest.insert(digest, (path.to_owned(), stamp));
        Ok(())
    }

    /// Puts known bytes at `path`, without the host's help; `false` if they are not known.
    pub(super) fn place(
        &mut self,
        channel: u32,
        digest: &str,
        path: &Path,
        mode: u32,
    ) -> io::Result<bool> {
        let Some((known, stamp)) = self.by_digest.get(digest) else {
            return Ok(false);
        };
        let Ok(meta) = fs::symlink_metadata(known) else {
            return Ok(false);
        };
        if Stamp::of(&meta) != *stamp {
            return Ok(false);
        }
        if known == path && meta.mode() & 0o7777 == mode {
            return Ok(true);
        }
        let source = File::open(known)?;
        let digest = Some(digest.to_owned());
        let copy = Incoming::begin(channel, path.to_owned(), mode, meta.len(), digest)?;
        for_each_block(&source, meta.len(), |block| {
            copy.file.write_all_at(block.bytes, block.offset)
        })?;
        copy.finish(self)?;
        Ok(true)
    }
}

/// Sends a file, or a directory with all below it.
pub(super) fn send_tree(
    root: &Path,
    channel: u32,
    flow: &Flow,
    outbox: &Outbox,
) -> Result<(), FileError> {
    let sender = TreeSender {
        root,
        channel,
        flow,
        outbox,
    };
    // The root has to be there; what vanishes below it while it is read was not asked for by name.
    let mut todo = sender.visit(root, &fs::symlink_metadata(root)?)?;
    while let Some(path) = todo.pop() {
        match fs::symlink_metadata(&path) {
            Ok(meta) => todo.extend(sender.visit(&path, &meta)?),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(())
}

struct TreeSender<'a> {
    root: &'a Path,
    channel: u32,
    flow: &'a Flow,
    outbox: &'a Outbox,
}

impl TreeSender<'_> {
    /// Sends one entry; returns what lies in it, last name first.
    fn visit(&self, path: &Path, meta: &Metadata) -> Result<Vec<PathBuf>, FileError> {
        let kind = meta.file_type();
        if kind.is_dir() {
            self.entry(path, meta, EntryKind::Dir)?;
            let children: io::Result<Vec<_>> = fs::read_dir(path)?.map(|e| Ok(e?.path())).collect();
            let mut children = children?;
            children.sort_by(|a, b| b.cmp(a));
            return Ok(children);
        }
        if kind.is_symlink() {
            let target = fs::read_link(path)?;
            self.entry(path, meta, EntryKind::Link { target })?;
        } else if kind.is_file() {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            self.entry(path, meta, EntryKind::File { len })?;
            for_each_block(&file, len, |block| self.block(block))?;
        }
        Ok(Vec::new())
    }

    fn entry(&self, path: &Path, meta: &Metadata, kind: EntryKind) -> Result<(), FileError> {
        let entry = Entry {
            path: path.strip_prefix(self.root).unwrap_or(path).to_owned(),
            mode: meta.mode() & 0o7777,
            kind,
        };
        let frame = Frame::json(Kind::Entry, self.channel, &entry)?;
        Ok(self.outbox.send(&frame)?)
    }

    fn block(&self, block: Block<'_>) -> Result<(), FileError> {
        self.flow.wait_for_credit()?;
        self.flow.spend(block.bytes.len());
        Ok(self.outbox.send(&block.frame(self.channel))?)
    }
}
