//! A disk with a volatile cache: what was not flushed is lost when the machine ends, as if the power had been cut.
//!
//! A host that keeps running hides a flush that lies, since its page cache holds the bytes; this disk does not.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pincushion_devices::backend::{Backend, Disk, Geometry, MemoryDisk, Submitted, Transfer, Work};

/// Memory in front of an image.
pub(super) struct VolatileDisk {
    memory: MemoryDisk,
    image: File,
    /// Changed since the last flush: offset and length in bytes.
    dirty: Vec<(u64, u64)>,
}

impl VolatileDisk {
    /// Reads the image at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let image = File::options().write(true).open(path)?;
        Ok(Self {
            memory: MemoryDisk::from_bytes(fs::read(path)?),
            image,
            dirty: Vec::new(),
        })
    }

    fn write_dirty(&mut self) -> io::Result<()> {
        for (offset, len) in self.dirty.drain(..) {
            let part = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
            let bytes =
                part.and_then(|(offset, len)| self.memory.bytes().get(offset..)?.get(..len));
            self.image
                .write_all_at(bytes.ok_or(io::ErrorKind::UnexpectedEof)?, offset)?;
        }
        Ok(())
    }
}

impl Disk for VolatileDisk {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }
}

impl Backend for VolatileDisk {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        let (work, offset, len) = (transfer.work, transfer.offset, transfer.len);
        let flushed = if work == Work::Flush {
            self.write_dirty()
        } else {
            Ok(())
        };
        let mut submitted = self.memory.submit(transfer);
        if let Submitted::Done(completion) = &mut submitted {
            match work {
                Work::Write | Work::WriteZeroes { .. } | Work::Discard
                    if completion.result.is_ok() =>
                {
                    self.dirty.push((offset, len))
                }
                Work::Write
                | Work::WriteZeroes { .. }
                | Work::Discard
                | Work::Read
                | Work::Transmit
                | Work::Free
                | Work::Receive => {}
                Work::Flush => completion.result = flushed.map(|()| 0),
            }
        }
        submitted
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::backend::Buffers;

    use super::*;

    fn submit(disk: &mut VolatileDisk, work: Work, offset: u64, buffers: Buffers) {
        let len = if matches!(buffers, Buffers::Owned(_)) {
            512
        } else {
            0
        };
        match disk.submit(Transfer {
            token: 0,
            ordinal: 0,
            work,
            offset,
            len,
            buffers,
        }) {
            Submitted::Done(completion) => drop(completion.result.unwrap()),
            Submitted::Pending => panic!("memory is done at once"),
        }
    }

    #[test]
    fn only_what_was_flushed_is_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        fs::write(&path, [0; 4096]).unwrap();
        let mut disk = VolatileDisk::open(&path).unwrap();
        submit(&mut disk, Work::Write, 512, Buffers::Owned(vec![1; 512]));
        submit(&mut disk, Work::Flush, 0, Buffers::None);
        submit(&mut disk, Work::Write, 1024, Buffers::Owned(vec![2; 512]));
        drop(disk);
        let bytes = fs::read(&path).unwrap();
        assert_eq!((bytes.len(), bytes[512], bytes[1024]), (4096, 1, 0));
    }
}
