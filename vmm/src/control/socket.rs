//! The socket's file: made for its owner only, never taken from a machine that is alive, removed at the end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A machine that is alive has it.
    #[error("--api-sock {}: another machine answers there; choose another path", path.display())]
    Alive {
        /// Where.
        path: PathBuf,
    },
    /// There is something else.
    #[error("--api-sock {}: there is a file that is no socket; choose another path or remove it", path.display())]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// The path does not fit into a socket's address.
    #[error("--api-sock {}: the path is too long for a socket (at most 107 bytes)", path.display())]
    TooLong {
        /// Where.
        path: PathBuf,
    },
    /// The host refused something.
    #[error("--api-sock {}: cannot {attempt}", path.display())]
    Host {
        /// Where.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A listening socket, whose file is removed when this is dropped (unless somebody has put another in its place).
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Socket {
    /// Makes the file with mode 0600 and listens. One that a dead machine has left is replaced.
    pub(super) fn listen(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let host = |attempt| {
            move |source| SocketError::Host {
                path: path.to_owned(),
                attempt,
                source,
            }
        };
        let address = SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong {
            path: path.to_owned(),
        })?;
        remove_dead(path)?;
        let make = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            // The file gets the mode of the socket (unix_bind), so it is never open to others, not for a moment.
            fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            Ok(socket)
        };
        let socket = make().map_err(host("make a socket"))?;
        bind(&socket, &address)
            .map_err(io::Error::from)
            .map_err(host("make it"))?;
        let metadata = std::fs::symlink_metadata(path).map_err(host("look at it"))?;
        let this = Self {
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        };
        listen(&socket, BACKLOG)
            .map_err(io::Error::from)
            .map_err(host("listen"))?;
        Ok((this, UnixListener::from(socket)))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes a socket where nobody listens any more.
fn remove_dead(path: &Path) -> Result<(), SocketError> {
    let host = |attempt, source| SocketError::Host {
        path: path.to_owned(),
        attempt,
        source,
    };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(host("look at it", error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NoSocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(_) => {
            return Err(SocketError::Alive {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(host("ask who listens there", error)),
    }
    log::info!(
        "{}: a dead machine has left it; it is replaced",
        path.display()
    );
    std::fs::remove_file(path).map_err(|error| host("replace what a dead machine has left", error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_for_its_owner_only_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (socket, _listener) = Socket::listen(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_is_taken_from_the_dead_and_not_from_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "nobody has removed it");
        let (socket, listener) = Socket::listen(&path).unwrap();
        let refused = Socket::listen(&path).unwrap_err();
        assert!(matches!(refused, SocketError::Alive { .. }), "{refused}");
        drop((listener, socket));
        std::fs::write(&path, "precious").unwrap();
        let refused = Socket::listen(&path).unwrap_err();
        assert!(matches!(refused, SocketError::NoSocket { .. }), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn an_impossible_path_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let said = |path: &Path| Socket::listen(path).unwrap_err().to_string();
        assert!(said(&dir.path().join("x".repeat(200))).contains("too long"));
        let nowhere = said(&dir.path().join("no/s"));
        assert!(nowhere.contains("no/s: cannot make it"), "{nowhere}");
    }

    #[test]
    fn a_file_that_somebody_else_put_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (socket, _listener) = Socket::listen(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "other").unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
