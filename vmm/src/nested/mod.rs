//! The nested machine: where Pincushion runs when the host's KVM is missing or too small.
//!
//! QEMU emulates an x86-64 machine with AMD's nested virtualization (`-accel tcg -cpu max`); in it a stock Debian
//! kernel with `kvm-amd` and our agent as PID 1 run any command that is put there, `/dev/kvm` included:
//!
//! ```text
//! this process            QEMU (emulated, "L1")                   guests ("L2")
//! NestedMachine::run ---> pincushion-nested-agent ---> pincushion run ---> kernel under test
//!            socket pair  virtio-serial port                KVM
//! ```
//!
//! Promised: a command's output arrives as it is printed, standard output and error apart, every byte; its exit
//! code or signal is told; a command that crashes, hangs or leaves processes behind does not hurt the next; every
//! wait has a limit on the host's clock and says what it waited for; QEMU never outlives the [`NestedMachine`], nor
//! this process. Not promised: speed (7 times slower than the host, 25,000 VM exits a second), or true time in there.
//!
//! By hand: `pincushion nested -- doctor`, or any static program, by the library's example:
//!
//! ```text
//! cargo build -p pincushion-agent
//! cargo run -p pincushion-vmm --example nested -- --put ./prog:/bin/prog -- /bin/prog
//! ```
//!
//! | file | what lives there |
//! | --- | --- |
//! | args.rs, command.rs, signals.rs | the command `pincushion nested` |
//! | machine.rs, run.rs, config.rs | [`NestedMachine`]: boot, run, put, get |
//! | session.rs, transfer.rs | the conversation with the agent; files |
//! | qemu.rs, process.rs, tsc.rs, image.rs | QEMU's command line and process, the clock, what it boots |

mod args;
mod command;
mod config;
mod error;
mod image;
mod machine;
pub(crate) mod one_cpu;
mod process;
mod qemu;
mod run;
mod session;
mod signals;
#[cfg(test)]
mod tests;
mod transfer;
mod tsc;

pub use args::NestedArgs;
pub use command::{command, install_programs, is_inside};
pub use config::{Clock, Command, Ended, NestedConfig};
pub use error::NestedError;
pub use image::{boot_files, find_agent};
pub use machine::NestedMachine;
pub use qemu::{ensure_qemu, find_qemu};
pub use session::Signaller;
