//! virtio-pci, modern only (virtio 1.2, 4.1): a device as a function on a conventional PCI bus.
//!
//! | file | what lives there |
//! | --- | --- |
//! | function.rs | [`PciTransport`]: what a bus calls |
//! | config_space.rs, identity.rs | the type 0 header, its capabilities, and which bits a guest can write |
//! | common.rs | the common configuration structure |
//! | msix.rs, interrupt.rs | vectors, masks, pending bits, ISR, INTx |
//! | layout.rs | where everything is in the one BAR |
//!
//! Promises: MSI-X with one vector per queue and one for configuration changes, INTx without it; function level reset;
//! whatever a guest reads or writes, of any width, is answered or ignored. Does not promise: legacy or transitional
//! drivers, queue reset, power management, or that clearing Bus Master Enable stops a device (a driver resets it for that).

mod common;
mod config_space;
mod function;
mod identity;
mod interrupt;
mod layout;
mod msix;
#[cfg(test)]
mod tests;

pub use function::PciTransport;
pub use interrupt::PciInterrupts;
pub use layout::{BAR_SIZE, notify_offset};
pub use msix::Message;
