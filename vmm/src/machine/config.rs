//! What a machine is made of, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layout::{CMDLINE_MAX, MAX_VCPUS};

use super::error::MachineError;
use crate::affinity::CpuList;

/// What happens when the guest resets the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// The run ends with [`super::Exit::Reset`].
    #[default]
    Exit,
    /// The machine boots again: devices reset, memory empty, kernel and initrd read anew.
    Reboot,
}

/// How the guest finds its virtio devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Registers in windows of memory that ACPI names; at most 15 devices.
    Mmio,
    /// Functions on a PCI bus, with MSI-X; at most 248 devices.
    #[default]
    Pci,
}

/// Most threads that serve queues.
pub const MAX_WORKERS: u8 = 64;

/// A machine before it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineConfig {
    /// ELF `vmlinux` or bzImage.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, as given: nothing is added. At most 2047 bytes, no zero byte.
    pub cmdline: String,
    /// Number of vCPUs, 1 to 16.
    pub vcpus: u8,
    /// RAM in bytes, a multiple of 4096, at least [`crate::memory::MIN_MEMORY`].
    pub memory_bytes: u64,
    /// What a reset does.
    pub on_reset: OnReset,
    /// How the guest finds its virtio devices.
    pub transport: Transport,
    /// The devices of the PCI bus are not on it until [`super::HotPlug::plug_in`]: a guest that rescans the bus (Linux:
    /// `/sys/bus/pci/rescan`) finds them then. A snapshot that was made before knows of none, and goes on with any. A reset of the machine
    /// takes none away. Virtio-mmio devices are always there.
    pub hot_plug: bool,
    /// Threads that serve the devices' queues, 1 to [`MAX_WORKERS`]; each serves every so many-th queue.
    pub workers: u8,
    /// Where the vCPUs' threads run.
    pub cpu_affinity: CpuList,
}

impl MachineConfig {
    /// A machine with one vCPU, 512 MiB and the kernel at `kernel`.
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            initrd: None,
            cmdline: String::new(),
            vcpus: 1,
            memory_bytes: 512 << 20,
            on_reset: OnReset::Exit,
            transport: Transport::default(),
            hot_plug: false,
            workers: 1,
            cpu_affinity: CpuList::default(),
        }
    }

    /// Checks what can be checked without the host: vCPUs and command line. Memory and files are checked when
    /// they are used.
    ///
    /// # Errors
    /// [`MachineError::Vcpus`] and [`MachineError::Cmdline`].
    pub fn check(&self) -> Result<(), MachineError> {
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return Err(MachineError::Vcpus { vcpus: self.vcpus });
        }
        let len = self.cmdline.len();
        if len >= CMDLINE_MAX || self.cmdline.contains('\0') {
            return Err(MachineError::Cmdline { len });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_are_one_to_sixteen() {
        let with = |vcpus| {
            MachineConfig {
                vcpus,
                ..MachineConfig::new("k")
            }
            .check()
        };
        assert!(matches!(with(0), Err(MachineError::Vcpus { vcpus: 0 })));
        assert!(matches!(with(17), Err(MachineError::Vcpus { vcpus: 17 })));
        assert!(with(1).is_ok() && with(16).is_ok());
    }

    #[test]
    fn a_command_line_beyond_the_kernels_limit_is_refused() {
        let with = |cmdline: String| {
            MachineConfig {
                cmdline,
                ..MachineConfig::new("k")
            }
            .check()
        };
        assert!(with("x".repeat(2047)).is_ok());
        assert!(matches!(
            with("x".repeat(2048)),
            Err(MachineError::Cmdline { len: 2048 })
        ));
        assert!(with("a\0b".into()).is_err());
    }
}
