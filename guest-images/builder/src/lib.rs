//! Makes what a guest boots: a kernel, and an initramfs with a static PID 1 and the modules that the guest needs.
//!
//! ```no_run
//! use std::path::Path;
//! use pincushion_image::{GUEST_MODULES, ImageSpec, Silent, Store};
//!
//! let store = Store::open_default()?;
//! let kernel = store.kernel(&"debian:6.12".parse()?, &mut Silent)?;
//! let image = store.guest_image(&kernel, &ImageSpec { init: Path::new("agent"), modules: GUEST_MODULES, on_demand: &[], files: vec![] })?;
//! println!("boot {} with {}", image.kernel.display(), image.initrd.display());
//! # Ok::<(), pincushion_image::Error>(())
//! ```
//!
//! Promises: the same input gives the same bytes; nothing needs root once apt's lists exist; what was fetched before is
//! used again without the network; a killed run leaves nothing behind that is believed later; and two processes at
//! once do the work once. Does not promise: that a kernel built by hand has what the guest needs.
//!
//! | file | what lives there |
//! | --- | --- |
//! | store.rs, entry.rs, lock.rs | the cache directory, its entries, and who may write |
//! | spec.rs, apt.rs, deb.rs, bzimage.rs | from a wish to an unpacked kernel |
//! | modules.rs | which modules, in which order |
//! | image.rs, initramfs.rs, host_program.rs | the image and what goes into it |
//! | install.rs | packages of the distribution that are missing |
//! | kernel/ | kernels that carry our own designs, from Debian's source package and our patches |
//! | program/ | what the command lines of all pincushion programs share |

mod apt;
pub mod bzimage;
mod command;
mod crate_program;
mod deb;
mod digest;
mod entry;
mod error;
mod fetch;
mod host_program;
mod image;
mod initramfs;
mod install;
mod inventory;
pub mod kernel;
mod lock;
mod modules;
pub mod program;
mod progress;
mod spec;
mod store;
#[cfg(test)]
mod store_tests;
pub mod strip;
#[cfg(test)]
mod test_support;
mod unpack;

pub use apt::PackageId;
pub use crate_program::{is_of_a_crate, remove_crate_programs};
pub use deb::DebError;
pub use digest::{FileRecord, sha256};
pub use entry::{BuildRecord, Kernel, KernelRecord};
pub use error::Error;
pub use host_program::{host_program, package_of};
pub use image::{ExtraFile, FileDigest, Image, ImageSpec, Manifest};
pub use install::{ensure_host_programs, install, install_line};
pub use inventory::{Content, Damage, Entry};
pub use modules::{Module, ModuleError, ModuleTree};
pub use progress::{Progress, Silent};
pub use spec::KernelSpec;
pub use store::Store;

/// The version of what this builder writes; a change makes every cached image be built anew.
pub const FORMAT: u32 = 2;

/// What an ordinary guest needs for its disks, on every kernel that is known here.
pub const GUEST_MODULES: &[&str] = &["virtio_mmio", "virtio_pci", "virtio_blk", "ext4"];

/// The same for a guest whose agent loads the drivers of its devices itself ([`DRIVER_MODULES`]): until then it has seen no more of
/// them than that they are there, so a snapshot of it can go on with others.
pub const BOOT_MODULES: &[&str] = &["ext4"];

/// The drivers of a guest's bus and disks.
pub const DRIVER_MODULES: &[&str] = &["virtio_mmio", "virtio_pci", "virtio_blk"];

/// What a guest may need for what not every machine has; a step of the agent loads it.
pub const ON_DEMAND_MODULES: &[&str] = &[
    "virtio_pmem",
    "nd_pmem",
    "device_dax",
    "dax_pmem",
    "xfs",
    "btrfs",
    "virtio_balloon",
    "virtio_net",
    "virtio_console",
];

/// What the nested machine needs: KVM on the emulated AMD processor, PCI, its agent's port, a disk.
pub const NESTED_MODULES: &[&str] = &[
    "kvm",
    "kvm_amd",
    "irqbypass",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "tun",
];
