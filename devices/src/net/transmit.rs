//! The host side of a transmit queue: copies a frame out of guest memory and gives it to the port.

use std::io;

use crate::backend::{Backend, Buffers, Completion, Submitted, Transfer};
use crate::memory;

use super::header::Header;
use super::link::Link;
use super::port::Sender;

/// Sends at once. A frame that the host does not take is lost, as on a wire; the log says why (`host_error`).
pub(super) struct TransmitSide {
    sender: Box<dyn Sender>,
    link: Link,
    frame: Vec<u8>,
}

impl TransmitSide {
    pub(super) fn new(sender: Box<dyn Sender>, link: Link) -> Self {
        Self {
            sender,
            link,
            frame: Vec::new(),
        }
    }

    fn send(&mut self, transfer: &Transfer) -> io::Result<u64> {
        if !self.link.is_up() {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        self.frame.clear();
        match &transfer.buffers {
            Buffers::None => {}
            Buffers::Owned(bytes) => self.frame.extend_from_slice(bytes),
            Buffers::Guest { memory, ranges } => {
                memory::read(memory, ranges, &mut self.frame).map_err(io::Error::other)?;
            }
        }
        let header = Header::from_word(transfer.offset);
        let len = self.frame.len() as u64;
        self.sender.send(header, &mut self.frame)?;
        Ok(len)
    }
}

impl Backend for TransmitSide {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        let result = self.send(&transfer);
        Submitted::Done(Completion { transfer, result })
    }
}
