//! The binary `pincushion-image`, which users reach as `pincushion image`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
