//! One writer or many readers per image: an advisory lock on the open file.
//!
//! `flock` belongs to the open file description, so it also keeps two disks of one process apart, and ends with the
//! last descriptor, however the process ends. It does not keep out programs that ask no lock (`dd`, `mount`).
//! [`unlock_image`] gives it back at once: a child process that is just being started has the descriptor too.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock, major, minor};

use super::error::OpenError;

/// Who holds a lock, as far as `/proc` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This process: the image was given twice.
    Ourselves,
    /// Another process.
    Process {
        /// Its id.
        pid: u32,
        /// The name of its program.
        name: String,
    },
    /// Not to be seen from here (another pid namespace, another host).
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ourselves => write!(f, "another disk of this same machine"),
            Self::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Self::Unknown => write!(f, "another process"),
        }
    }
}

/// Takes the lock that `read_only` calls for; it lasts as long as `file` is open. Never waits.
///
/// # Errors
/// [`OpenError::Locked`] if somebody else has it.
pub(crate) fn lock_image(file: &File, path: &Path, read_only: bool) -> Result<(), OpenError> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::io::retry_on_intr(|| flock(file, operation)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked {
            path: path.to_owned(),
            holder: holder_of(file),
        }),
        // A file system without locks (some FUSE and network ones) is no reason not to run.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK) => {
            log::warn!(
                "disk image {path:?}: its file system has no locks, so nothing keeps a second machine away"
            );
            Ok(())
        }
        Err(errno) => Err(OpenError::host("lock", path)(io::Error::from(errno))),
    }
}

/// Gives the lock back, whoever else has the descriptor.
pub(crate) fn unlock_image(file: &File) {
    // At worst it ends with the last descriptor.
    let _ = flock(file, FlockOperation::Unlock);
}

/// How often to look for a holder that must be there: /proc/locks can miss one while others come and go.
const LOOKS: usize = 5;

fn holder_of(file: &File) -> Holder {
    let Ok(metadata) = file.metadata() else {
        return Holder::Unknown;
    };
    let device = metadata.dev();
    let inode = format!(
        "{:02x}:{:02x}:{}",
        major(device),
        minor(device),
        metadata.ino()
    );
    let holder = (0..LOOKS).find_map(|_| find_holder(&read_locks().ok()?, &inode));
    match holder {
        Some(pid) if pid == std::process::id() => Holder::Ourselves,
        Some(pid) => Holder::Process {
            pid,
            name: fs::read_to_string(format!("/proc/{pid}/comm"))
                .map_or_else(|_| "unknown".into(), |name| name.trim().into()),
        },
        None => Holder::Unknown,
    }
}

/// All locks of the host, in reads that are as large as the kernel serves at once.
fn read_locks() -> io::Result<String> {
    let mut file = File::open("/proc/locks")?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Finds the process that holds a `flock` on `inode` (`major:minor:inode`, as /proc/locks spells it).
fn find_holder(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        // "3: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; one who waits has an "->" after the number.
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == inode => {
                pid.parse().ok().filter(|&pid| pid != 0)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 fe:00:5 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 22 fe:00:55 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 33 fe:00:5 0 EOF\n\
                         3: FLOCK  ADVISORY  READ 44 fe:00:5 0 EOF\n";

    #[test]
    fn the_holder_is_who_has_the_flock_and_not_who_waits_for_it() {
        assert_eq!(find_holder(LOCKS, "fe:00:5"), Some(44));
        assert_eq!(find_holder(LOCKS, "fe:00:6"), None);
        assert_eq!(find_holder("", "fe:00:5"), None);
        assert_eq!(find_holder("1: FLOCK", "fe:00:5"), None);
    }
}
