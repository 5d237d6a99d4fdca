//! Snapshots: a whole machine in one file, and a machine from one.
//!
//! ```text
//!  running machine                                    file                          new machine
//!  ---------------                                    ----                          -----------
//!  vCPUs stand, device threads rest                   magic, lengths, digests       shape compared
//!  devices, platform, interrupt chips, clock, vCPUs   state (JSON)          ----->  VM, chips, vCPUs, clock, devices
//!  pages that are not zero                            memory                ----->  RAM
//!  goes on                                            renamed into place            runs on
//! ```
//!
//! | file | what lives there |
//! | --- | --- |
//! | format.rs | the file: header, checks, atomic writing |
//! | memory.rs | RAM to the file and back, without zero pages |
//! | state.rs | what a machine's state is, and whether another machine can take it |
//! | vcpu_state.rs, vm_state.rs | what KVM knows |
//!
//! Promises: a file is whole or refused (another format, cut short, damaged); a machine that differs in what its guest can see
//! refuses it and says in what; the guest sees no time pass between the two. It does not promise that another host's KVM takes it, and
//! what is outside of the machine (disk images, taps, files as memory) is not in it: that has to be as it was.

mod format;
mod memory;
mod state;
mod vcpu_state;
mod vm_state;

use std::io;
use std::path::PathBuf;

use pincushion_devices::transport::StateError;

pub use format::{Check, Snapshot};
pub use state::{Likeness, Shape};

pub(crate) use format::write;
pub(crate) use state::{MachineState, SavedPlatform};
pub(crate) use vcpu_state::{SavedVcpu, msr_indices};
pub(crate) use vm_state::SavedVm;

/// Why there is no snapshot, or no machine from it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file could not be read or written.
    #[error("cannot {attempt} {}", path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is none of ours, or not whole.
    #[error("{} is no usable snapshot: {what}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The machine is another one.
    #[error("the snapshot is of another machine: {0}; give the flags that it was made with")]
    OtherMachine(String),
    /// A device cannot be saved now, or its state does not fit.
    #[error(transparent)]
    Device(#[from] StateError),
    /// A serial port does not take its state.
    #[error("the state does not fit the machine: {0}")]
    Platform(String),
    /// KVM refused something.
    #[error("KVM cannot {attempt}: {source}")]
    Kvm {
        /// What was tried.
        attempt: &'static str,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// KVM does not take the value of a model-specific register.
    #[error(
        "KVM does not take {value:#x} for the model-specific register {index:#x}: the snapshot comes from another host or kernel"
    )]
    Msr {
        /// Which register.
        index: u32,
        /// Its value.
        value: u64,
    },
    /// The guest's memory could not be copied.
    #[error("cannot copy guest memory")]
    Memory(#[source] io::Error),
    /// A vCPU's thread did not answer.
    #[error("vCPU {0} does not answer")]
    Vcpu(u8),
}

impl SnapshotError {
    /// For `map_err` on calls to KVM.
    fn kvm(attempt: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { attempt, source }
    }
}
