//! How a user names a kernel.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::Error;
use crate::kernel::DesignChoice;

/// The kernel that a guest should boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSpec {
    /// Debian's kernel for amd64: `debian:6.12` is the newest of that series, `debian:6.12.117+deb12` exactly that one. The flavour is
    /// `-cloud-amd64`, or the one that is named behind, as in `uname -r`: `debian:6.12-amd64`, `debian:6.12-rt-amd64`.
    Debian(String),
    /// A kernel of our own designs, which has been built before: `design:bias`, `design:bias+bounce`, `design:bias+bounce-debug`.
    Design(DesignChoice),
    /// The kernel that runs here.
    Host,
    /// A kernel built by hand.
    File {
        /// A bzImage or an ELF vmlinux.
        kernel: PathBuf,
        /// The kernel's `lib/modules/RELEASE`, or the directory that was given to `INSTALL_MOD_PATH`. Without it every module
        /// is taken to be built in.
        modules: Option<PathBuf>,
    },
}

impl KernelSpec {
    /// Whether `text` names a kernel of our own designs that this program has, whatever a directory in its place
    /// (`$PINCUSHION_KERNEL_TREE`) says.
    #[must_use]
    pub fn is_of_this_program(text: &str) -> bool {
        let choice = text.strip_prefix("design:");
        choice.is_some_and(DesignChoice::is_of_this_program)
    }
}

impl FromStr for KernelSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadKernelSpec(text.to_owned());
        match text.split_once(':') {
            Some(("debian", version)) if is_version(version) => {
                Ok(Self::Debian(version.to_owned()))
            }
            Some(("design", choice)) => Ok(Self::Design(DesignChoice::parse(choice)?)),
            Some((scheme, _)) if !scheme.contains(['/', '.']) => Err(bad()),
            _ if text == "host" => Ok(Self::Host),
            _ if text.is_empty() || (is_version(text) && !text.contains('/')) => Err(bad()),
            // Somebody has left `design:` away.
            None if DesignChoice::parse(text).is_ok() && !Path::new(text).exists() => Err(bad()),
            _ => Ok(Self::File {
                kernel: PathBuf::from(text),
                modules: None,
            }),
        }
    }
}

/// Whether `text` looks like `6.12` or `6.12.117+deb12`: it reaches apt's command line, so nothing else may.
fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '~'))
}

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(version) => write!(f, "debian:{version}"),
            Self::Design(choice) => choice.fmt(f),
            Self::Host => f.write_str("host"),
            Self::File { kernel, .. } => write!(f, "{}", kernel.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_name_a_kernel_is_understood() {
        assert_eq!(
            "debian:6.12".parse::<KernelSpec>().unwrap(),
            KernelSpec::Debian("6.12".into())
        );
        let exact: KernelSpec = "debian:6.12.117+deb12".parse().unwrap();
        assert_eq!(exact.to_string(), "debian:6.12.117+deb12");
        assert_eq!("host".parse::<KernelSpec>().unwrap(), KernelSpec::Host);
        for path in ["/boot/vmlinuz-1", "vmlinux", "./a:b"] {
            assert!(
                matches!(path.parse::<KernelSpec>().unwrap(), KernelSpec::File { .. }),
                "{path}"
            );
        }
    }

    #[test]
    fn what_names_no_kernel_is_refused() {
        for text in [
            "",
            "debian:",
            "debian:--help",
            "debian:6 12",
            "debian:*",
            "fedora:41",
            "6.12",
            "bias+bounce",
        ] {
            assert!(
                matches!(text.parse::<KernelSpec>(), Err(Error::BadKernelSpec(_))),
                "{text}"
            );
        }
    }
}
