//! Frames made from a seed. What the guest sends goes nowhere.
//!
//! ```text
//!   ff ff ff ff ff ff   52 50 69 6e 00 00   88 b5   index, 4 bytes, big endian   bytes by seed and index
//! ```
//!
//! Ethernet type 0x88b5 is for local experiments (IEEE 802). Frames are broadcast, so that a stack takes them without promiscuous mode.
//! They come as fast as receive buffers are posted, until there are no more; a plan's holds on the buffers pace them. All go to
//! the first queue pair.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::header::Header;
use super::port::{Port, Receiver, Sender};

/// Ethernet type of the frames.
pub const ETHERTYPE: u16 = 0x88b5;
/// Frames by default.
pub const FRAMES: u32 = 64;
const HEAD: usize = 18;

/// The port.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// What decides every byte.
    pub seed: u64,
    /// How many frames come.
    pub frames: u32,
    /// Longest frame in bytes, Ethernet header included, at least 64.
    pub longest: u16,
}

impl Pattern {
    /// Frame `index` in full.
    #[must_use]
    pub fn frame(&self, index: u32) -> Vec<u8> {
        let mut random = Random(self.seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let span = u64::from(self.longest.max(64)) - 63;
        let len = 64 + usize::try_from(random.next() % span).unwrap_or(0);
        let mut frame = vec![0xff; 6];
        frame.extend([0x52, 0x50, 0x69, 0x6e, 0, 0]);
        frame.extend(ETHERTYPE.to_be_bytes());
        frame.extend(index.to_be_bytes());
        debug_assert_eq!(frame.len(), HEAD);
        while frame.len() < len {
            let word = random.next().to_le_bytes();
            let missing = len - frame.len();
            frame.extend_from_slice(&word[..missing.min(8)]);
        }
        frame
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Takes frames and forgets them.
pub(super) struct Sink;

impl Sender for Sink {
    fn send(&mut self, _header: Header, _frame: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Frames that are known beforehand, one after another.
pub(super) struct Script<F> {
    next: u32,
    count: u32,
    frame: F,
    /// Readable while there are frames.
    ready: EventFd,
}

impl<F: FnMut(u32, &mut Vec<u8>) + Send> Script<F> {
    pub(super) fn new(count: u32, frame: F) -> io::Result<Self> {
        let ready = EventFd::new(EFD_NONBLOCK)?;
        if count > 0 {
            ready.write(1)?;
        }
        Ok(Self {
            next: 0,
            count,
            frame,
            ready,
        })
    }
}

impl<F: FnMut(u32, &mut Vec<u8>) + Send> Receiver for Script<F> {
    fn fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<Header>> {
        if self.next == self.count {
            let _ = self.ready.read();
            return Ok(None);
        }
        frame.clear();
        (self.frame)(self.next, frame);
        self.next += 1;
        Ok(Some(Header::default()))
    }
}

impl Port for Pattern {
    fn pair(&mut self, index: u16) -> io::Result<(Box<dyn Sender>, Box<dyn Receiver>)> {
        let count = if index == 0 { self.frames } else { 0 };
        let pattern = *self;
        let script = Script::new(count, move |index, frame: &mut Vec<u8>| {
            *frame = pattern.frame(index);
        })?;
        Ok((Box::new(Sink), Box::new(script)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_frames_again_and_another_seed_others() {
        let pattern = |seed| Pattern {
            seed,
            frames: 3,
            longest: 1514,
        };
        let frames: Vec<_> = (0..3).map(|index| pattern(7).frame(index)).collect();
        assert_eq!(frames[1], pattern(7).frame(1));
        assert_ne!(frames[1], frames[2]);
        assert_ne!(frames[1], pattern(8).frame(1));
        assert_eq!(frames[2][12..18], [0x88, 0xb5, 0, 0, 0, 2]);
        assert!((0..999).all(|index| (64..=1514).contains(&pattern(7).frame(index).len())));
    }

    #[test]
    fn they_end() {
        let mut port = Pattern {
            seed: 7,
            frames: 2,
            longest: 100,
        };
        let (_, mut receiver) = port.pair(0).unwrap();
        let mut frame = Vec::new();
        for index in 0..2 {
            assert!(receiver.receive(&mut frame).unwrap().is_some());
            assert_eq!(frame, port.frame(index));
        }
        assert_eq!(receiver.receive(&mut frame).unwrap(), None);
        let (_, mut second) = port.pair(1).unwrap();
        assert_eq!(second.receive(&mut frame).unwrap(), None);
    }
}
