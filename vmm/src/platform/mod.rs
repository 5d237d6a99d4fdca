//! The few devices that every machine has, beside its virtio devices: power management, the keyboard
//! controller's reset, pvpanic, and the serial ports.

pub mod i8042;
pub mod power;
pub mod pvpanic;
pub mod uart;
