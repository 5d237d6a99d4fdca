//! What the nested machine boots: Debian's kernel, and an initramfs with our agent, KVM's modules, and the tools with which
//! scenarios make and check file systems.

use std::path::{Path, PathBuf};

use pincushion_image::{ExtraFile, ImageSpec, KernelSpec, NESTED_MODULES, Store};

use super::error::NestedError;

/// The kernel of the nested machine. Guests of it boot whatever they like.
const KERNEL: &str = "6.12";

/// PID 1 of the nested machine, found beside the running program.
pub(super) const AGENT: &str = "pincushion-nested-agent";

/// Programs of the host that most scenarios call; others are put into the running machine when one needs them.
const TOOLS: [&str; 4] = ["mke2fs", "e2fsck", "debugfs", "dumpe2fs"];

/// Read by `mke2fs`; what it makes shall be the same inside and outside.
const TOOL_CONFIG: &str = "/etc/mke2fs.conf";

/// Kernel and initramfs of the nested machine, from the cache or made now. `progress` gets lines for the user.
///
/// # Errors
///
/// [`NestedError::Image`] if the kernel cannot be fetched or the image not be built, [`NestedError::NoAgent`] if our agent is
/// not where `agent` says.
pub fn boot_files(
    agent: &Path,
    progress: &dyn Fn(&str),
) -> Result<(PathBuf, PathBuf), NestedError> {
    if !agent.is_file() {
        return Err(NestedError::NoAgent(agent.to_owned()));
    }
    let mut step = |verb: &str, object: &str| progress(&format!("{verb} {object}"));
    let store = Store::open_default()?;
    let kernel = store.kernel(&KernelSpec::Debian(KERNEL.to_owned()), &mut step)?;
    let mut spec = ImageSpec {
        init: agent,
        modules: NESTED_MODULES,
        on_demand: &[],
        files: Vec::new(),
    };
    for tool in TOOLS {
        spec.add_host_program(tool)?;
    }
    if Path::new(TOOL_CONFIG).is_file() {
        spec.files.push(ExtraFile {
            source: TOOL_CONFIG.into(),
            path: TOOL_CONFIG.to_owned(),
            mode: 0o644,
        });
    }
    let image = store.guest_image(&kernel, &spec)?;
    Ok((image.kernel, image.initrd))
}

/// Where our agent is when nobody says otherwise: beside the running program, or one directory above (Cargo's tests and
/// examples lie one below).
///
/// # Errors
///
/// [`NestedError::NoAgent`] with the first place.
pub fn find_agent() -> Result<PathBuf, NestedError> {
    let program = std::env::current_exe().unwrap_or_default();
    let places = || program.ancestors().skip(1).take(2);
    places()
        .map(|dir| dir.join(AGENT))
        .find(|agent| agent.is_file())
        .ok_or_else(|| NestedError::NoAgent(program.with_file_name(AGENT)))
}
