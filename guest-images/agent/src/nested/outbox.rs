//! The one way out: whole frames, from any thread, in turn.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use pincushion_abi::nested::{Frame, Kind, Reply, WireError};

/// Where replies and data leave. One lock; nothing else is taken while it is held.
pub(super) struct Outbox {
    stream: Mutex<Box<dyn Write + Send>>,
}

impl Outbox {
    pub(super) fn new(stream: impl Write + Send + 'static) -> Self {
        Self {
            stream: Mutex::new(Box::new(stream)),
        }
    }

    /// Sends one frame. An error means that the host is gone.
    pub(super) fn send(&self, frame: &Frame) -> io::Result<()> {
        // A thread that panicked in here left a cut frame at worst, which the host refuses by its mark.
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        frame.write_to(&mut *stream)
    }

    /// Sends the last word of a channel (or [`Reply::Send`]).
    pub(super) fn reply(&self, channel: u32, reply: &Reply) -> io::Result<()> {
        match Frame::json(Kind::Reply, channel, reply) {
            Ok(frame) => self.send(&frame),
            Err(WireError::Io(why)) => Err(why),
            Err(other) => Err(io::Error::other(other)),
        }
    }
}
