//! The binary `pincushion`: see [`pincushion_vmm::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pincushion_vmm::cli::main()
}
