//! One process at a time prepares a cache entry; the others wait and then find it done.
//!
//! The lock is `flock`, which the kernel drops when its holder dies, so a killed run locks nobody out.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, IoContext as _};
use crate::progress::Progress;

/// Longer than any download that ends.
const LIMIT: Duration = Duration::from_secs(900);

/// Held as long as the value lives.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// The locked file, for a child process that shall hold the lock too, until it ends.
    pub(crate) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Takes the lock at `path`, made if need be.
pub(crate) fn take(path: &Path, progress: &mut dyn Progress) -> Result<Lock, Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).during("create", parent)?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .during("open", path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(Lock { file });
    }
    progress.step(
        "waiting",
        &format!(
            "for another process that prepares the same files ({})",
            path.display()
        ),
    );
    let (sender, receiver) = mpsc::channel();
    // flock has no time limit of its own. If the limit strikes, the thread stays behind until the lock comes.
    thread::spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive);
        // The receiver is gone after the limit: nobody wants the lock any more, and dropping the file frees it.
        let _ = sender.send((file, locked));
    });
    match receiver.recv_timeout(LIMIT) {
        Ok((file, Ok(()))) => Ok(Lock { file }),
        Ok((_, Err(errno))) => Err(Error::Io {
            action: "lock",
            path: path.to_owned(),
            source: errno.into(),
        }),
        Err(_) => Err(Error::Locked {
            path: path.to_owned(),
            seconds: LIMIT.as_secs(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_second_taker_waits_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/x.lock");
        let first = take(&path, &mut Silent).unwrap();
        let (waits, told) = mpsc::channel();
        let second = thread::spawn(move || {
            let mut verbs = |verb: &str, _: &str| waits.send(verb.to_owned()).unwrap();
            take(&path, &mut verbs).map(drop)
        });
        assert_eq!(
            told.recv_timeout(Duration::from_secs(20)).unwrap(),
            "waiting"
        );
        assert!(!second.is_finished());
        drop(first);
        second.join().unwrap().unwrap();
    }
}
