//! The file that a recorded disk or region leaves: one entry per piece of work, in the order in which the host had done them.
//!
//! An entry is one `write(2)`: one that was begun when the process died is not read. Which request it belongs to is said by its
//! queue and ordinal, so that the event log says when.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"PINCUT01";
/// Bytes of an entry before its payload.
const HEADER: usize = 32;
/// No entry is longer; a greater length is damage.
const MAX_LEN: u64 = 1 << 32;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// These bytes were written.
    Write,
    /// The range was zeroed.
    WriteZeroes,
    /// The range was discarded.
    Discard,
    /// A flush was done, and ended well.
    Flush,
    /// A region held these bytes just after the event whose number is in `ordinal`, and other ones when it was last looked at.
    Sample,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub kind: EntryKind,
    /// The request's queue.
    pub queue: u16,
    /// The request's ordinal; of a sample, the number of an event.
    pub ordinal: u64,
    /// First byte.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// They themselves; empty unless `kind` is `Write` or `Sample`.
    pub bytes: Vec<u8>,
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            Self::Write => 1,
            Self::WriteZeroes => 2,
            Self::Discard => 3,
            Self::Flush => 4,
            Self::Sample => 5,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [
            Self::Write,
            Self::WriteZeroes,
            Self::Discard,
            Self::Flush,
            Self::Sample,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }

    fn has_bytes(self) -> bool {
        matches!(self, Self::Write | Self::Sample)
    }
}

/// Writes entries.
#[derive(Debug)]
pub struct LogWriter {
    file: File,
    buffer: Vec<u8>,
}

impl LogWriter {
    /// A new file.
    ///
    /// # Errors
    /// It exists already, or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create_new(path)?;
        file.write_all(MAGIC)?;
        Ok(Self {
            file,
            buffer: Vec::new(),
        })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The host's.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend([entry.kind.code(), 0]);
        self.buffer.extend(entry.queue.to_le_bytes());
        self.buffer.extend([0; 4]);
        for number in [entry.ordinal, entry.offset, entry.len] {
            self.buffer.extend(number.to_le_bytes());
        }
        debug_assert_eq!(self.buffer.len(), HEADER);
        self.buffer.extend(&entry.bytes);
        self.file.write_all(&self.buffer)
    }
}

/// Reads entries, in order.
pub struct LogReader {
    file: BufReader<File>,
}

impl LogReader {
    /// Opens a file.
    ///
    /// # Errors
    /// The host's; `InvalidData` for a file of another kind.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic == *MAGIC {
            Ok(Self { file })
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is no record of writes",
            ))
        }
    }

    fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut header = [0; HEADER];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        let number = |at: usize| {
            u64::from_le_bytes(
                header[at..at + 8]
                    .try_into()
                    .expect("eight bytes are eight"),
            )
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the record is damaged");
        let kind = EntryKind::of(header[0]).ok_or_else(damaged)?;
        let len = number(24);
        let mut bytes = Vec::new();
        if kind.has_bytes() {
            let len = usize::try_from(len).ok().filter(|_| len <= MAX_LEN);
            bytes.resize(len.ok_or_else(damaged)?, 0);
            if !self.fill(&mut bytes)? {
                return Ok(None);
            }
        }
        Ok(Some(Entry {
            kind,
            queue: u16::from_le_bytes([header[2], header[3]]),
            ordinal: number(8),
            offset: number(16),
            len,
            bytes,
        }))
    }

    /// Whether there was so much.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.file.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Iterator for LogReader {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, bytes: &[u8]) -> Entry {
        Entry {
            kind,
            queue: 3,
            ordinal: 9,
            offset: 4096,
            len: 512,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn what_was_recorded_is_read_back_up_to_an_entry_that_breaks_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut writer = LogWriter::create(&path).unwrap();
        let entries = [
            entry(EntryKind::Write, &[7; 512]),
            entry(EntryKind::Flush, &[]),
            entry(EntryKind::Discard, &[]),
            entry(EntryKind::WriteZeroes, &[]),
            entry(EntryKind::Sample, &[8; 512]),
        ];
        for entry in &entries {
            writer.append(entry).unwrap();
        }
        let read = || -> Vec<Entry> { LogReader::open(&path).unwrap().flatten().collect() };
        assert_eq!(read(), entries);
        let len = std::fs::metadata(&path).unwrap().len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len - 1)
            .unwrap();
        assert_eq!(read(), entries[..4]);
    }

    #[test]
    fn another_file_and_a_damaged_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "something else").unwrap();
        assert!(LogReader::open(&path).is_err());
        std::fs::write(&path, [&MAGIC[..], &[9; HEADER]].concat()).unwrap();
        assert!(LogReader::open(&path).unwrap().next().unwrap().is_err());
    }
}
