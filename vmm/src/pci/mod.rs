//! The PCI bus of a machine whose devices are virtio-pci functions.
//!
//! ```text
//! 00:00.0  host bridge           configuration space: ports 0xcf8/0xcfc, and ECAM where there are functions
//! 00:01.0  first device          BARs are placed by us in the window below 4 GiB; a guest may move them there or in
//! ...      31 slots, then .1     the window at the end of its address space, and the ioeventfds follow
//! ```
//!
//! | file | what lives there |
//! | --- | --- |
//! | bus.rs | [`PciBus`]: functions by number and by address, and what follows when a BAR moves |
//! | ports.rs, ecam.rs, window.rs | the three ways in: configuration mechanism 1, ECAM, memory |
//! | msi.rs, intx.rs | the two ways out: messages by irqfd and a routing table, level-triggered lines |
//!
//! What a function is, is in `pincushion_devices::transport::pci`; here is what needs KVM.

mod bus;
mod ecam;
mod intx;
mod msi;
mod ports;
mod window;

pub(crate) use bus::PciBus;
pub(crate) use ecam::Ecam;
pub(crate) use intx::intx_gsi;
pub(crate) use ports::ConfigPorts;
pub(crate) use window::MemoryWindow;
