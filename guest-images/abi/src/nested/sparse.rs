//! Files that are mostly holes: read only what is there.
//!
//! Disk images are. [`for_each_block`] asks the file system where data lies (`SEEK_DATA`, `SEEK_HOLE`) and
//! leaves out chunks that are all zeros besides. Where a file system knows no holes the file is one
//! piece of data: slower, never wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::Block;

/// Zeros are looked for in pieces of this size, in bytes: one page, the unit in which files have holes.
const GRAIN: usize = 4096;

/// Calls `visit` with each block of the first `len` bytes of `file` that is not a hole, in ascending order.
///
/// Changes the file's position, and expects that nobody else does meanwhile. A file that shrinks while it
/// is read is no error: what is gone reads as a hole.
///
/// # Errors
///
/// Those of the file, and those of `visit`.
pub fn for_each_block<E: From<io::Error>>(
    file: &File,
    len: u64,
    mut visit: impl FnMut(Block<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; Block::MAX_LEN / GRAIN * GRAIN];
    let mut at = 0;
    while let Some((start, end)) = next_data(file, at, len)? {
        let mut offset = start;
        while offset < end {
            let want = usize::try_from(end - offset).map_or(buffer.len(), |n| n.min(buffer.len()));
            let got = file.read_at(&mut buffer[..want], offset)?;
            if got == 0 {
                return Ok(());
            }
            for (start, bytes) in runs_of_data(&buffer[..got]) {
                visit(Block {
                    offset: offset + start as u64,
                    bytes,
                })?;
            }
            offset += got as u64;
        }
        at = end;
    }
    Ok(())
}

/// Where the next data at or after `at` begins and ends, within `len` bytes.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, len))),
        Err(why) => return Err(why.into()),
    };
    let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end.min(len),
        Err(Errno::NXIO | Errno::INVAL) => len,
        Err(why) => return Err(why.into()),
    };
    Ok((start < end).then_some((start, end)))
}

/// The parts of `buffer` that are not zero, at the grain, with their offsets.
fn runs_of_data(buffer: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let grains = |from: usize| buffer[from..].chunks(GRAIN);
        at += grains(at)
            .take_while(|g| is_zero(g))
            .map(<[u8]>::len)
            .sum::<usize>();
        let start = at;
        at += grains(at)
            .take_while(|g| !is_zero(g))
            .map(<[u8]>::len)
            .sum::<usize>();
        (start < at).then(|| (start, &buffer[start..at]))
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks_of(file: &File, len: u64) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        for_each_block(file, len, |block| {
            found.push((block.offset, block.bytes.to_vec()));
            Ok::<_, io::Error>(())
        })
        .unwrap();
        found
    }

    #[test]
    fn a_file_of_holes_has_no_blocks() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(blocks_of(&file, 1 << 40), []);
    }

    #[test]
    fn data_between_holes_is_found_where_it_lies() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"middle", 512 << 20).unwrap();
        file.write_all_at(b"end", (1 << 30) - 3).unwrap();
        let found = blocks_of(&file, 1 << 30);
        let whole: usize = found.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(whole <= 2 * GRAIN, "{whole} bytes for two words");
        assert!(
            found
                .iter()
                .any(|(at, bytes)| *at == 512 << 20 && bytes.starts_with(b"middle"))
        );
        assert!(found.iter().any(|(_, bytes)| bytes.ends_with(b"end")));
    }

    #[test]
    fn written_zeros_are_left_out_and_the_rest_is_kept() {
        let mut bytes = vec![0; 3 * GRAIN + 5];
        bytes[GRAIN] = 1;
        bytes[3 * GRAIN + 4] = 2;
        let runs: Vec<_> = runs_of_data(&bytes)
            .map(|(at, run)| (at, run.len()))
            .collect();
        assert_eq!(runs, [(GRAIN, GRAIN), (3 * GRAIN, 5)]);
    }

    #[test]
    fn a_file_that_shrank_ends_early() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"short", 0).unwrap();
        assert_eq!(blocks_of(&file, 1 << 20), [(0, b"short".to_vec())]);
    }
}
