//! A wire whose two ends are joined: what the guest sends on a queue pair comes back on the same pair.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::header::Header;
use super::port::{Port, Receiver, Sender};

/// Frames that wait for a receive buffer; more are lost.
const MOST: usize = 1024;

/// The port.
#[derive(Debug, Default)]
pub struct Loopback {
    wires: Vec<Arc<Wire>>,
}

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
}

impl Port for Loopback {
    fn pair(&mut self, _index: u16) -> io::Result<(Box<dyn Sender>, Box<dyn Receiver>)> {
        let wire = Arc::new(Wire {
            frames: Mutex::default(),
            ready: EventFd::new(EFD_NONBLOCK)?,
        });
        self.wires.push(wire.clone());
        Ok((Box::new(End(wire.clone())), Box::new(End(wire))))
    }

    fn configure(&mut self, pairs: u16, features: u64) {
        // After a reset nothing of the time before may come in.
        if features == 0 {
            for wire in &self.wires {
                wire.frames().clear();
                let _ = wire.ready.read();
            }
        }
        let _ = pairs;
    }
}

impl Sender for End {
    fn send(&mut self, header: Header, frame: &mut [u8]) -> io::Result<()> {
        let mut frames = self.0.frames();
        if frames.len() == MOST {
            return Err(io::ErrorKind::StorageFull.into());
        }
        frames.push_back((header, frame.to_vec()));
        self.0.ready.write(1)
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
