//! Why a machine could not be made.

use std::io;

use crate::affinity::AffinityError;
use crate::boot::initrd::InitrdError;
use crate::boot::kernel::KernelError;
use crate::layout::{CMDLINE_MAX, MAX_VCPUS};
use crate::memory::MemoryError;
use crate::region::RegionError;
use crate::snapshot::SnapshotError;

/// Why there is no machine. Nothing has run then.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The number of vCPUs is out of range.
    #[error("{vcpus} vCPUs are not possible: use 1 to {MAX_VCPUS}")]
    Vcpus {
        /// What was asked for.
        vcpus: u8,
    },
    /// The command line is too long or has a zero byte.
    #[error("a kernel command line of {len} bytes is not possible: at most {} bytes, and no zero byte", CMDLINE_MAX - 1)]
    Cmdline {
        /// Its length in bytes.
        len: usize,
    },
    /// More devices than the transport has room for.
    #[error("{count} devices are too many: by this transport a machine has room for {room}")]
    TooManyDevices {
        /// How many were given.
        count: usize,
        /// How many there can be.
        room: usize,
    },
    /// vCPUs cannot run where they should.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
    /// `/dev/kvm` does not exist.
    #[error(
        "there is no /dev/kvm on this host: `pincushion nested -- run ...` needs none; `pincushion doctor` says more"
    )]
    NoKvm,
    /// `/dev/kvm` may not be opened.
    #[error(
        "no permission to open /dev/kvm: join its group or run as root (`pincushion doctor` says how), or use `pincushion nested -- run ...`"
    )]
    KvmPermission,
    /// A call to KVM failed.
    #[error("KVM cannot {attempt}: {source}")]
    Kvm {
        /// What was tried.
        attempt: &'static str,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A region of memory above RAM.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The kernel file.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initrd file.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// A snapshot that this machine cannot take.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Boot structures could not be written.
    #[error("cannot write boot structures to guest memory")]
    BootStructures(#[source] vm_memory::GuestMemoryError),
    /// The host refused a descriptor, a thread or the terminal.
    #[error("cannot {attempt}: {source}")]
    Host {
        /// What was tried.
        attempt: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl MachineError {
    /// For `map_err` on calls to KVM.
    pub(crate) fn kvm(attempt: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { attempt, source }
    }

    /// For `map_err` on calls to the host.
    pub(crate) fn host(attempt: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { attempt, source }
    }

    /// The error of opening `/dev/kvm`.
    pub(crate) fn open_kvm(source: kvm_ioctls::Error) -> Self {
        match source.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Self::NoKvm,
            libc::EACCES | libc::EPERM => Self::KvmPermission,
            _ => Self::Kvm {
                attempt: "be opened (/dev/kvm)",
                source,
            },
        }
    }
}
