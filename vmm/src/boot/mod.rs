//! From files on the host to a boot processor about to run the guest's first instruction.

pub(crate) mod acpi;
mod acpi_pci;
pub(crate) mod cpuid;
pub(crate) mod entry;
pub mod initrd;
pub mod kernel;
pub(crate) mod memory_map;
