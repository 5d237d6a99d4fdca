//! The few devices that every machine has, beside its virtio devices: power management, the keyboard
//! controller's reset, pvpanic, an empty PCI bus, and the serial ports.

pub mod i8042;
pub mod pci_stub;
pub mod power;
pub mod pvpanic;
pub mod uart;
