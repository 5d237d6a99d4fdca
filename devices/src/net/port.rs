//! What is at the other end of the wire.
//!
//! A port gives each queue pair of the card two ends of its own, because the two queues of a pair are served
//! independently: a [`Sender`] for what the guest transmits, a [`Receiver`] for what it gets.

use std::io;
use std::os::fd::RawFd;

use super::header::Header;
use super::loopback::Injector;

/// Longest frame of any port in bytes: the largest IP packet and an Ethernet header with a VLAN tag.
pub const MAX_FRAME: usize = 65_535 + 18;

/// What a port does for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// It segments what the guest sends (HOST_TSO4, HOST_TSO6) and may give it segments put together (GUEST_TSO4, GUEST_TSO6).
    pub segmentation: bool,
}

/// One end of a wire.
pub trait Port: Send {
    /// What it does for the guest.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
    /// The ends for pair `index`; asked once for each, in order, when the device is made.
    ///
    /// # Errors
    /// The host refuses something.
    fn pair(&mut self, index: u16) -> io::Result<(Box<dyn Sender>, Box<dyn Receiver>)>;
    /// The driver works with `pairs` queue pairs (the others get nothing) and these features, or was reset (1 pair, no
    /// feature).
    fn configure(&mut self, pairs: u16, features: u64) {
        let _ = (pairs, features);
    }
    /// A way to put frames on the wire from the host, where there is one.
    fn injector(&self) -> Option<Injector> {
        None
    }
}

/// Takes frames from the guest.
pub trait Sender: Send {
    /// Sends one frame. It may change the frame, which is a copy, to complete it.
    ///
    /// # Errors
    /// The frame is lost: what the host said.
    fn send(&mut self, header: Header, frame: &mut [u8]) -> io::Result<()>;
}

/// Gives frames to the guest.
pub trait Receiver: Send {
    /// Readable while there may be a frame.
    fn fd(&self) -> RawFd;
    /// Takes the next frame into `frame`, whose content is replaced; `None` if there is none now. Never blocks.
    ///
    /// # Errors
    /// What the host said; the receiver is asked again when it is readable.
    fn receive(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<Header>>;
}
