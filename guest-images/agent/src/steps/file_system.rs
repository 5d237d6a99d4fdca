//! A mounted file system as a whole, and fs-verity of a file.

use std::os::fd::AsRawFd;

use pincushion_abi::step::FileSystem;

use crate::agent::Agent;
use crate::fault;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::file_system;

/// Freezes or thaws the file system that is mounted somewhere, or seals a file of one.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &FileSystem) -> StepResult {
    let root = |target| std::fs::File::open(target).map_err(|error| fault::io("open", &error));
    match act {
        FileSystem::Freeze { target } => {
            let root = root(target)?;
            stamp.around(|| file_system::freeze(root.as_raw_fd()))?;
        }
        FileSystem::Thaw { target } => {
            let root = root(target)?;
            stamp.around(|| file_system::thaw(root.as_raw_fd()))?;
        }
        FileSystem::Verity { file } => {
            let fd = agent.file(file)?;
            stamp.around(|| file_system::enable_verity(fd))?;
        }
    }
    Ok(Found::nothing())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn what_cannot_be_frozen_or_sealed_is_a_fault_of_that_call() {
        let bench = Bench::new();
        let thaw = json!({"op": "file-system", "do": "thaw", "target": "/proc"});
        assert_eq!(bench.fails(thaw).call, "ioctl FITHAW");
        bench.create("v");
        let verity = json!({"op": "file-system", "do": "verity", "file": "v"});
        assert_eq!(bench.fails(verity).call, "ioctl FS_IOC_ENABLE_VERITY");
    }
}
