//! QEMU: where it is, how it comes here, and how the nested machine is made of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pincushion_abi::nested::PORT_NAME;
use pincushion_image::install;

use super::config::{Clock, NestedConfig};
use super::error::NestedError;

const PROGRAM: &str = "qemu-system-x86_64";

/// What installs it on Debian and its descendants, as a person would type it.
pub(super) const INSTALL_LINE: &str = "apt-get install -y --no-install-recommends qemu-system-x86";

/// Looks for `qemu-system-x86_64` in `PATH`.
///
/// # Errors
///
/// [`NestedError::QemuMissing`], which holds the line that installs it.
pub fn find_qemu() -> Result<PathBuf, NestedError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(PROGRAM))
        .find(|program| program.is_file())
        .ok_or(NestedError::QemuMissing)
}

/// Finds QEMU, and installs it from the distribution first if it is missing and we are root. `progress` gets lines
/// for the user.
///
/// # Errors
///
/// [`NestedError::QemuMissing`] for a user who is not root or has no `apt-get`; [`NestedError::Image`] if that failed.
pub fn ensure_qemu(progress: &dyn Fn(&str)) -> Result<PathBuf, NestedError> {
    if let Ok(found) = find_qemu() {
        return Ok(found);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(NestedError::QemuMissing);
    }
    install("QEMU", INSTALL_LINE, progress)?;
    find_qemu()
}

/// All that QEMU can emulate, less what kernels choose because it is quick in hardware, and which is slow when it is emulated.
///
/// * `erms`, `fsrm`: with them a kernel copies and clears by `rep movsb` and `rep stosb`, which are emulated byte by byte. Without them
///   a snapshot of 48 MB is copied in 0.4 s where it took 1.4 s, and all that guests and this machine copy is quicker likewise.
/// * `la57`: five levels of page tables, each of which is looked up in as many of the outer ones.
const CPU: &str = "max,-erms,-fsrm,-la57";

/// The nested kernel's parameters, less those that depend on the clock.
///
/// * `panic=-1 oops=panic` with QEMU's `-no-reboot`: a kernel that is broken ends QEMU, which the host sees at once.
/// * `maxcpus=1`: the agent wakes the other CPUs when the kernel has done with rewriting its own code, which does not always go
///   well on several emulated CPUs.
/// * `tsc=reliable`, `nowatchdog`: on a busy host the emulated timers drift against the counter, and CPUs stand still; the kernel
///   shall not conclude anything from that.
/// * `no_timer_check`: on a busy host the boot's look whether the timer ticks comes too early, and panics.
/// * `quiet`: each character on an emulated serial line costs two exits of the emulated CPU.
/// * The rest leaves out what costs time and is of no use here; all in all the boot takes half the instructions.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 oops=panic maxcpus=1 tsc=reliable nowatchdog no_timer_check \
     mitigations=off audit=0 lsm=capability cryptomgr.notests \
     initcall_blacklist=jent_mod_init,bpf_tcp_ca_kfunc_init,bpf_dummy_struct_ops_init";

/// Rate of the time-stamp counter of a machine whose clock counts instructions: one is a nanosecond (QEMU's `shift=0`).
pub(super) const INSTRUCTIONS_KHZ: u64 = 1_000_000;

/// Ticks of the kernel's own clock in a second (`CONFIG_HZ` of Debian's kernels).
const KERNEL_HZ: u64 = 250;

/// QEMU's command line. The agent's port is QEMU's standard input, a socket; the console is its standard output.
///
/// `q35` with `qboot.rom`: SeaBIOS costs seconds. `microvm` never comes up under TCG: it has no timer to calibrate by.
pub(super) fn command_line(config: &NestedConfig, tsc_khz: u64) -> Vec<OsString> {
    // What the kernel would measure by waiting, and measure wrongly on a busy host.
    let loops_per_jiffy = tsc_khz * 1000 / KERNEL_HZ;
    let kernel_words = format!("{KERNEL_WORDS} tsc_early_khz={tsc_khz} lpj={loops_per_jiffy}");
    let text = |word: &str| OsString::from(word);
    let icount = (config.clock == Clock::Instructions).then_some(["-icount", "shift=0,sleep=off"]);
    // One thread needs no atomic operations of the host for those of the guest.
    let threads = if config.vcpus == 1 { "single" } else { "multi" };
    let mut line: Vec<OsString> = "-M q35 -bios qboot.rom \
         -nodefaults -no-user-config -display none -no-reboot -serial file:/proc/self/fd/1 \
         -device virtio-serial-pci -chardev socket,id=port,fd=0"
        .split_whitespace()
        .map(text)
        .collect();
    line.extend(icount.into_iter().flatten().map(text));
    line.extend([
        text("-cpu"),
        text(CPU),
        text("-accel"),
        text(&format!("tcg,thread={threads}")),
        text("-device"),
        text(&format!("virtserialport,chardev=port,name={PORT_NAME}")),
        text("-smp"),
        text(&config.vcpus.to_string()),
        text("-m"),
        text(&format!("{}M", config.memory_mib)),
        text("-append"),
        text(&kernel_words),
        text("-kernel"),
        path(&config.kernel),
        text("-initrd"),
        path(&config.initrd),
    ]);
    line
}

/// A path as an argument that QEMU takes for nothing else.
fn path(path: &Path) -> OsString {
    // A relative path that begins with a dash would be an option.
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .into_os_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_the_rate_of_the_clock() {
        let config = NestedConfig::new("vmlinux".into(), "l1.cpio".into());
        let line = command_line(&config, 2_596_132);
        assert!(
            line.iter()
                .any(|word| word.to_string_lossy().contains("tsc_early_khz=2596132"))
        );
    }

    #[test]
    fn a_machine_that_counts_instructions_is_told_so_and_no_other() {
        let config = NestedConfig::new("vmlinux".into(), "l1.cpio".into());
        let counts = |config: &NestedConfig| {
            let line = command_line(config, INSTRUCTIONS_KHZ);
            line.windows(2)
                .any(|pair| pair[0] == "-icount" && pair[1] == "shift=0,sleep=off")
        };
        assert!(!counts(&config));
        let config = NestedConfig {
            clock: Clock::Instructions,
            ..config
        };
        assert!(counts(&config));
    }

    #[test]
    fn a_path_is_never_taken_for_an_option() {
        assert!(
            path(Path::new("-kernel"))
                .to_string_lossy()
                .starts_with('/')
        );
    }
}
