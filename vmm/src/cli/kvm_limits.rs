//! What a KVM that only runs small payloads means for `pincushion run`.
//!
//! On such a KVM a stock kernel does not fail: it crawls or spins, for ever and in silence. So it is refused by its name.

use std::io;
use std::path::{Path, PathBuf};

use pincushion_image::bzimage::is_bzimage;

use crate::doctor::{KvmAbility, probe};
use crate::machine::Exit;

/// The way out for a guest that this KVM cannot run.
pub const NESTED_ADVICE: &str = "boot this guest in the nested machine, by `pincushion nested -- run ...` with the same flags; \
     `pincushion doctor` says more";

/// Begins the banner of every Linux kernel, which an unpacked one holds as text.
const LINUX_BANNER: &[u8] = b"Linux version ";

/// The kernel is Linux, and this KVM cannot run that.
#[derive(Debug, thiserror::Error)]
#[error("{} is a Linux kernel, and this host's KVM fails at {fails_at}, which Linux needs: {NESTED_ADVICE}", kernel.display())]
pub struct NeedsMoreKvm {
    kernel: PathBuf,
    fails_at: &'static str,
}

/// What this host's KVM was seen to do.
pub struct KvmLimits(KvmAbility);

impl KvmLimits {
    /// Tries it, which takes milliseconds.
    pub fn probe() -> Self {
        Self(probe())
    }

    /// Whether it is worth while to start `kernel` here.
    ///
    /// # Errors
    /// [`NeedsMoreKvm`]; the host's error where the file cannot be read.
    pub fn check(&self, kernel: &Path) -> Result<(), Box<dyn std::error::Error>> {
        match self.0 {
            KvmAbility::PayloadsOnly { fails_at, .. } if is_linux(kernel)? => {
                let kernel = kernel.to_owned();
                Err(NeedsMoreKvm { kernel, fails_at }.into())
            }
            KvmAbility::Full | KvmAbility::PayloadsOnly { .. } | KvmAbility::None { .. } => Ok(()),
        }
    }

    /// Whether a guest may have ended by what this KVM cannot do. It may also have fallen by its own fault; in the nested
    /// machine that shows.
    pub fn may_explain(&self, exit: &Exit) -> bool {
        let is_suspect = matches!(exit, Exit::KvmGaveUp { .. } | Exit::TripleFault { .. });
        is_suspect && !self.0.runs_stock_kernels()
    }
}

fn is_linux(kernel: &Path) -> io::Result<bool> {
    let image = std::fs::read(kernel)?;
    let holds_banner = || {
        image
            .windows(LINUX_BANNER.len())
            .any(|window| window == LINUX_BANNER)
    };
    Ok(is_bzimage(&image) || holds_banner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> KvmLimits {
        KvmLimits(KvmAbility::PayloadsOnly {
            fails_at: "SSE in ring 0",
            detail: String::new(),
        })
    }

    #[test]
    fn a_small_kvm_refuses_linux_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("k");
        std::fs::write(&kernel, b"\x7fELF ... Linux version 6.12.1").unwrap();
        let said = limits().check(&kernel).unwrap_err().to_string();
        assert!(
            said.contains("SSE in ring 0") && said.contains("pincushion nested"),
            "{said}"
        );
        assert!(KvmLimits(KvmAbility::Full).check(&kernel).is_ok());
        std::fs::write(&kernel, b"\x7fELF and some code").unwrap();
        assert!(limits().check(&kernel).is_ok());
    }

    #[test]
    fn a_guest_that_ended_by_its_own_will_blames_nobody() {
        let fault = Exit::TripleFault { vcpu: 0 };
        assert!(limits().may_explain(&fault));
        assert!(!limits().may_explain(&Exit::Reset));
        assert!(!KvmLimits(KvmAbility::Full).may_explain(&fault));
    }
}
