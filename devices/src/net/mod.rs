//! virtio-net (virtio 1.2, 5.1): an ordinary network card whose buffers are held like any other request's.
//!
//! ```text
//!   receiveq n   buffers are in flight from the moment they are posted; a frame ends the oldest that waits
//!   transmitq n  a frame is in flight until the port has taken it
//!   controlq     commands, answered at once
//! ```
//!
//! What is on the other side of the wire is a [`port::Port`]: a tap, a capture file, a loop, a generator.
//!
//! It does not filter: receive mode and address tables are answered and remembered, and every frame is given to the
//! driver all the same, which virtio 1.2, 5.1.6.5.2 allows.

pub mod checksum;
pub mod config;
mod control;
mod device;
pub mod header;
pub mod lab;
pub mod link;
pub mod loopback;
pub mod pace;
pub mod pattern;
pub mod pcap;
pub mod port;
mod receive;
mod request;
pub mod tap;
#[cfg(test)]
mod tests;
mod transmit;
mod tun;

pub use config::{Mac, NetConfig};
pub use device::NetDevice;
pub use link::Link;
pub use loopback::Injector;
pub use port::{Offloads, Port};
