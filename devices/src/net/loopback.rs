//! A wire whose two ends are joined: what the guest sends on a queue pair comes back on the same pair. A person at the host may
//! put frames of their own on it ([`Injector`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::header::Header;
use super::port::{MAX_FRAME, Port, Receiver, Sender};

/// Frames that wait for a receive buffer; more are lost.
const MOST: usize = 1024;
/// An Ethernet header: less is no frame.
const SHORTEST: usize = 14;

/// The port.
#[derive(Debug, Default)]
pub struct Loopback {
    wires: Wires,
}

/// By pair.
type Wires = Arc<Mutex<Vec<Arc<Wire>>>>;

#[derive(Debug)]
struct Wire {
    frames: Mutex<VecDeque<(Header, Vec<u8>)>>,
    /// Readable while there are frames.
    ready: EventFd,
}

struct End(Arc<Wire>);

impl Wire {
    fn frames(&self) -> MutexGuard<'_, VecDeque<(Header, Vec<u8>)>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, header: Header, frame: &[u8]) -> io::Result<()> {
        let mut frames = self.frames();
        if frames.len() == MOST {
            return Err(io::ErrorKind::StorageFull.into());
        }
        frames.push_back((header, frame.to_vec()));
        self.ready.write(1)
    }
}

/// Puts frames on the wire of the first queue pair, from any thread; clones are the same one.
#[derive(Debug, Clone)]
pub struct Injector(Wires);

impl Injector {
    /// A whole Ethernet frame comes in at the card, behind those that wait.
    ///
    /// # Errors
    /// It is no frame of any card (`InvalidInput`), or so many wait that it is lost (`StorageFull`).
    pub fn inject(&self, frame: &[u8]) -> io::Result<()> {
        if !(SHORTEST..=MAX_FRAME).contains(&frame.len()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let wires = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match wires.first() {
            Some(wire) => wire.put(Header::default(), frame),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Port for Loopback {
    fn pair(&mut self, _index: u16) -> io::Result<(Box<dyn Sender>, Box<dyn Receiver>)> {
        let wire = Arc::new(Wire {
            frames: Mutex::default(),
            ready: EventFd::new(EFD_NONBLOCK)?,
        });
        self.wires().push(wire.clone());
        Ok((Box::new(End(wire.clone())), Box::new(End(wire))))
    }

    fn configure(&mut self, pairs: u16, features: u64) {
        // After a reset nothing of the time before may come in.
        if features == 0 {
            for wire in self.wires().iter() {
                wire.frames().clear();
                let _ = wire.ready.read();
            }
        }
        let _ = pairs;
    }

    fn injector(&self) -> Option<Injector> {
        Some(Injector(self.wires.clone()))
    }
}

impl Loopback {
    fn wires(&self) -> MutexGuard<'_, Vec<Arc<Wire>>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender for End {
    fn send(&mut self, header: Header, frame: &mut [u8]) -> io::Result<()> {
        self.0.put(header, frame)
    }
}

impl Receiver for End {
    fn fd(&self) -> RawFd {
        self.0.ready.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<Header>> {
        let mut frames = self.0.frames();
        let next = frames.pop_front();
        if frames.is_empty() {
            let _ = self.0.ready.read();
        }
        Ok(next.map(|(header, bytes)| {
            *frame = bytes;
            header
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injected_frame_comes_in_behind_those_that_wait_until_there_are_too_many() {
        let mut port = Loopback::default();
        let injector = port.injector().unwrap();
        let refusal = |frame: &[u8]| injector.inject(frame).map_err(|error| error.kind());
        assert_eq!(refusal(&[1; 60]), Err(io::ErrorKind::NotConnected));
        let (mut sender, mut receiver) = port.pair(0).unwrap();
        sender.send(Header::default(), &mut [7; 60]).unwrap();
        for wrong in [&[][..], &[1; SHORTEST - 1], &vec![1; MAX_FRAME + 1]] {
            assert_eq!(refusal(wrong), Err(io::ErrorKind::InvalidInput));
        }
        for _ in 1..MOST {
            assert_eq!(refusal(&[1; SHORTEST]), Ok(()));
        }
        assert_eq!(refusal(&[1; SHORTEST]), Err(io::ErrorKind::StorageFull));
        let mut frame = Vec::new();
        for byte in [7, 1] {
            assert!(receiver.receive(&mut frame).unwrap().is_some());
            assert_eq!(frame[0], byte);
        }
    }
}
