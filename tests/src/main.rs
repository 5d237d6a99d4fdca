//! The binary `pincushion-test`: see [`pincushion_test::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pincushion_test::cli::main()
}
