//! Files between the host and the machine; holes are not sent and are holes again at the other end.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use pincushion_abi::nested::sparse::for_each_block;
use pincushion_abi::nested::{Block, Entry, EntryKind, Frame, Kind, Reply, Request};
use xxhash_rust::xxh3::Xxh3;

use super::error::{NestedError, host_file};
use super::session::{Channel, Session, Silence, Trouble, unexpected};

/// How long the machine may be silent during a transfer. It moves 45 MB each second when the host is calm, and never pauses by itself.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What stopped a transfer. The machine adds what it knows to [`Trouble`].
pub(super) enum Stop {
    Trouble(Trouble),
    Error(NestedError),
}

impl<T: Into<Trouble>> From<T> for Stop {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

impl From<NestedError> for Stop {
    fn from(error: NestedError) -> Self {
        Self::Error(error)
    }
}

/// What asks for nothing but a [`Reply::Done`].
pub(super) fn simple(session: &Session, request: &Request) -> Result<(), Stop> {
    done(session.open(request)?.reply(deadline())?)
}

/// Whether a file is worth a digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Send it whatever is there: commands may write it in ways that nobody sees.
    Fresh,
    /// Only read in there: bytes that are known need not be sent again.
    Stable,
}

/// Sends the file `from`, to lie at `inside` with the permission bits `mode`.
pub(super) fn put(
    session: &Session,
    from: &Path,
    inside: &Path,
    mode: u32,
    content: Content,
) -> Result<(), Stop> {
    let file = File::open(from).map_err(host_file("open", from))?;
    let meta = file.metadata().map_err(host_file("look at", from))?;
    if !meta.is_file() {
        let why = io::Error::other("only plain files can be put there");
        return Err(host_file("send", from)(why).into());
    }
    let len = meta.len();
    let digest = match content {
        Content::Fresh => None,
        Content::Stable => Some(digest(&file, len).map_err(host_file("read", from))?),
    };
    let mut channel = session.open(&Request::Put {
        path: inside.to_owned(),
        mode,
        len,
        digest,
    })?;
    match channel.reply(deadline())? {
        Reply::Send => {}
        other => return done(other),
    }
    send_content(&channel, &file, len, from)?;
    done(channel.reply(deadline())?)
}

fn send_content(channel: &Channel, file: &File, len: u64, from: &Path) -> Result<(), Stop> {
    enum Failure {
        Read(io::Error),
        Send(Silence),
    }
    impl From<io::Error> for Failure {
        fn from(why: io::Error) -> Self {
            Self::Read(why)
        }
    }
    let sent = for_each_block(file, len, |block| {
        channel
            .send(&block.frame(channel.id()))
            .map_err(Failure::Send)
    });
    match sent {
        Ok(()) => Ok(channel.send(&Frame::new(Kind::End, channel.id(), Vec::new()))?),
        Err(Failure::Send(silence)) => Err(silence.into()),
        Err(Failure::Read(why)) => Err(host_file("read", from)(why).into()),
    }
}

/// Names a content. Against chance, not against attackers: both sides are ours.
fn digest(file: &File, len: u64) -> io::Result<String> {
    let mut hash = Xxh3::new();
    for_each_block(file, len, |block| {
        hash.update(&block.offset.to_le_bytes());
        hash.update(block.bytes);
        Ok::<_, io::Error>(())
    })?;
    hash.update(&len.to_le_bytes());
    Ok(format!("{:032x}", hash.digest128()))
}

/// Brings `inside`, a file or a directory with all below it, to `to` on the host. Files that are there are
/// overwritten, others stay.
pub(super) fn get(session: &Session, inside: &Path, to: &Path) -> Result<(), Stop> {
    let mut channel = session.open(&Request::Get {
        path: inside.to_owned(),
    })?;
    let mut tree = Tree::new(to);
    loop {
        let frame = channel.next(Some(deadline()))?;
        match frame.kind {
            Kind::Entry => tree.entry(frame.parse()?)?,
            Kind::Data => {
                tree.data(&frame)?;
                channel.took(frame.payload.len())?;
            }
            Kind::Reply => {
                let reply = channel.read_reply(&frame)?;
                return done(reply);
            }
            Kind::Hello
            | Kind::Request
            | Kind::End
            | Kind::Signal
            | Kind::Credit
            | Kind::Stdout
            | Kind::Stderr => return Err(unexpected(&frame).into()),
        }
    }
}

fn done(reply: Reply) -> Result<(), Stop> {
    match reply {
        Reply::Done => Ok(()),
        Reply::Failed { why } => Err(NestedError::Refused(why).into()),
        Reply::Send | Reply::Exited { .. } | Reply::Killed { .. } => {
            let why = format!("it answered {reply:?} to a transfer");
            Err(NestedError::Refused(why).into())
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + SILENCE_LIMIT
}

/// A tree that is being written on the host.
struct Tree<'a> {
    to: &'a Path,
    current: Option<(File, PathBuf, u64)>,
}

impl<'a> Tree<'a> {
    fn new(to: &'a Path) -> Self {
        Self { to, current: None }
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Stop> {
        self.current = None;
        let path = self.place(&entry.path)?;
        let permissions = Permissions::from_mode(entry.mode);
        match entry.kind {
            EntryKind::Dir => {
                fs::create_dir_all(&path).map_err(host_file("make", &path))?;
                // Ours to write in, whatever it was in there.
                let permissions = Permissions::from_mode(entry.mode | 0o700);
                fs::set_permissions(&path, permissions).map_err(host_file("set up", &path))?;
            }
            EntryKind::Link { target } => {
                // What a former run left is replaced; the link fails if that could not be removed.
                let _ = fs::remove_file(&path);
                std::os::unix::fs::symlink(target, &path).map_err(host_file("link", &path))?;
            }
            EntryKind::File { len } => {
                let file = File::create(&path).map_err(host_file("create", &path))?;
                file.set_len(len)
                    .and_then(|()| file.set_permissions(permissions))
                    .map_err(host_file("set up", &path))?;
                self.current = Some((file, path, len));
            }
        }
        Ok(())
    }

    fn data(&mut self, frame: &Frame) -> Result<(), Stop> {
        let Some((file, path, len)) = &self.current else {
            return Err(unexpected(frame).into());
        };
        let block = Block::parse(frame, *len)?;
        file.write_all_at(block.bytes, block.offset)
            .map_err(host_file("write", path))?;
        Ok(())
    }

    /// Where an entry goes; never outside of the place it was asked for.
    fn place(&self, relative: &Path) -> Result<PathBuf, Stop> {
        if relative.as_os_str().is_empty() {
            return Ok(self.to.to_owned());
        }
        let is_below = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if is_below {
            Ok(self.to.join(relative))
        } else {
            let why = format!("it sent a file named {}", relative.display());
            Err(NestedError::Refused(why).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_would_leave_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        assert!(tree.place(Path::new("a/b")).is_ok());
        for path in ["../a", "a/../../b", "/etc/passwd", "./a"] {
            assert!(tree.place(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_digest_depends_on_content_place_and_length() {
        let digest_of = |bytes: &[u8], at: u64, len: u64| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(len).unwrap();
            file.write_all_at(bytes, at).unwrap();
            digest(&file, len).unwrap()
        };
        let one = digest_of(b"x", 0, 10_000);
        assert_eq!(one, digest_of(b"x", 0, 10_000));
        assert_ne!(one, digest_of(b"y", 0, 10_000));
        assert_ne!(one, digest_of(b"x", 4096, 10_000));
        assert_ne!(one, digest_of(b"x", 0, 10_001));
    }
}
