//! The file.
//!
//! ```text
//!    0  magic                       16 bytes
//!   16  version of the format       u32, little endian as all numbers
//!   20  nothing                     u32
//!   24  length of the memory        u64
//!   32  digest of the memory        u64, XXH3
//!   40  length of the state         u64
//!   48  digest of the state         u64, XXH3
//! 4096  memory, whole pages
//!       state, JSON: machine and extents of the memory
//! ```
//!
//! It is written beside its place and renamed, so a name always stands for a whole file. The header is written last.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use vm_memory::GuestMemoryMmap;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::memory::{self, Extent};
use super::state::MachineState;
use super::{Likeness, Shape, SnapshotError};

const MAGIC: [u8; 16] = *b"PINCUSHION SNAP\n";
/// Raised with each change of what a file means.
const VERSION: u32 = 1;
/// Where the memory begins.
const MEMORY_AT: u64 = 4096;
/// Longest state in bytes that is read: that of 16 vCPUs and 248 devices is far below it.
const MAX_STATE: u64 = 256 << 20;

/// How much of a file is looked at before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// All of it: a damaged page is noticed.
    Whole,
    /// Header and state: for a file that this program has just written itself.
    State,
}

/// A snapshot, opened and checked.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    file: File,
    state: MachineState,
    extents: Vec<Extent>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    memory_len: u64,
    memory_digest: u64,
    state_len: u64,
    state_digest: u64,
}

#[derive(Serialize)]
struct Contents<'a> {
    machine: &'a MachineState,
    extents: &'a [Extent],
}

#[derive(Deserialize)]
struct ReadContents {
    machine: MachineState,
    extents: Vec<Extent>,
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        for number in [
            self.memory_len,
            self.memory_digest,
            self.state_len,
            self.state_digest,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    /// `Err`: what is wrong, in words.
    fn parse(bytes: &[u8; 56]) -> Result<Self, String> {
        if bytes[..16] != MAGIC {
            return Err("it does not begin like one".into());
        }
        let version = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]);
        if version != VERSION {
            return Err(format!(
                "it has version {version} of the format, and this program reads {VERSION}; make it again"
            ));
        }
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        Ok(Self {
            memory_len: number(24),
            memory_digest: number(32),
            state_len: number(40),
            state_digest: number(48),
        })
    }
}

/// Writes a snapshot to `path`, in the place of whatever is there. Returns its length in bytes.
pub(crate) fn write(
    path: &Path,
    machine: &MachineState,
    ram: &GuestMemoryMmap,
) -> Result<u64, SnapshotError> {
    let failed = |source| SnapshotError::File {
        attempt: "write the snapshot",
        path: path.to_owned(),
        source,
    };
    let beside = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let file = NamedTempFile::new_in(beside).map_err(failed)?;
    let len = fill(file.as_file(), machine, ram).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(len)
}

fn fill(file: &File, machine: &MachineState, ram: &GuestMemoryMmap) -> io::Result<u64> {
    let mut to = Hashed {
        to: BufWriter::with_capacity(1 << 20, file),
        hash: Xxh3::new(),
        len: 0,
    };
    to.to.seek(SeekFrom::Start(MEMORY_AT))?;
    let extents = memory::save(ram, &mut to)?;
    let (memory_len, memory_digest) = (to.len, to.hash.digest());
    let contents = Contents {
        machine,
        extents: &extents,
    };
    let state = serde_json::to_vec(&contents)?;
    to.to.write_all(&state)?;
    to.to.flush()?;
    let header = Header {
        memory_len,
        memory_digest,
        state_len: state.len() as u64,
        state_digest: xxh3_64(&state),
    };
    file.write_all_at(&header.to_bytes(), 0)?;
    Ok(MEMORY_AT + memory_len + header.state_len)
}

/// Counts and hashes what goes through it.
struct Hashed<W> {
    to: W,
    hash: Xxh3,
    len: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.to.write(bytes)?;
        self.hash.update(&bytes[..len]);
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Snapshot {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// [`SnapshotError::File`] and [`SnapshotError::Unusable`].
    pub fn open(path: &Path, check: Check) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(|source| SnapshotError::File {
            attempt: "open the snapshot",
            path: path.to_owned(),
            source,
        })?;
        let unusable = |what: String| SnapshotError::Unusable {
            path: path.to_owned(),
            what,
        };
        let (header, read) = read(&file).map_err(unusable)?;
        let whole = memory::total(&read.extents) == Some(header.memory_len);
        if !whole {
            return Err(unusable("its parts contradict each other".into()));
        }
        if check == Check::Whole {
            let same = digest(&file, &header).map(|digest| digest == header.memory_digest);
            if !same.map_err(|error| unusable(error.to_string()))? {
                return Err(unusable("its memory is damaged".into()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            state: read.machine,
            extents: read.extents,
        })
    }

    /// What the one who made it wanted to remember.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.state.note
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn state(&self) -> &MachineState {
        &self.state
    }

    /// Whether a machine can take it.
    pub(crate) fn fits(&self, shape: &Shape, likeness: Likeness) -> Result<(), SnapshotError> {
        if let Some(what) = shape.difference(&self.state.shape, likeness) {
            return Err(SnapshotError::OtherMachine(what));
        }
        if likeness == Likeness::BeforeDrivers && !self.state.devices.are_untouched() {
            let what = "a driver had begun with one of its devices".to_owned();
            return Err(SnapshotError::OtherMachine(what));
        }
        Ok(())
    }

    /// Copies the memory into RAM that is all zero.
    pub(crate) fn fill(&self, ram: &GuestMemoryMmap) -> Result<(), SnapshotError> {
        memory::restore(ram, &self.file, MEMORY_AT, &self.extents).map_err(SnapshotError::Memory)
    }
}

/// `Err`: what is wrong, in words.
fn read(file: &File) -> Result<(Header, ReadContents), String> {
    let mut bytes = [0; 56];
    let short = |_| "it is cut short".to_owned();
    file.read_exact_at(&mut bytes, 0).map_err(short)?;
    let header = Header::parse(&bytes)?;
    let state_at = MEMORY_AT.checked_add(header.memory_len);
    let end = state_at.and_then(|at| at.checked_add(header.state_len));
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    let (Some(state_at), true) = (state_at, end == Some(len) && header.state_len <= MAX_STATE)
    else {
        return Err(format!(
            "it has {len} bytes, and its header speaks of others: it is cut short or damaged"
        ));
    };
    let state_len = usize::try_from(header.state_len).map_err(|error| error.to_string())?;
    let mut state = vec![0; state_len];
    file.read_exact_at(&mut state, state_at).map_err(short)?;
    if xxh3_64(&state) != header.state_digest {
        return Err("its state is damaged".into());
    }
    let read = serde_json::from_slice(&state).map_err(|error| format!("its state: {error}"))?;
    Ok((header, read))
}

fn digest(mut file: &File, header: &Header) -> io::Result<u64> {
    file.seek(SeekFrom::Start(MEMORY_AT))?;
    let mut memory = file.take(header.memory_len);
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match memory.read(&mut buffer)? {
            0 => return Ok(hash.digest()),
            len => hash.update(&buffer[..len]),
        }
    }
}
