//! Runs one command in a nested machine, by the library.
//!
//! ```text
//! cargo build -p pincushion-agent
//! cargo run -p pincushion-vmm --example nested -- \
//!     --put target/x86_64-unknown-linux-gnu/debug/pincushion:/bin/pincushion -- /bin/pincushion doctor
//! ```

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use pincushion_vmm::nested::{
    Command, Ended, NestedConfig, NestedMachine, boot_files, ensure_qemu, find_agent,
};

#[derive(Parser)]
struct Args {
    /// Copy a file in first: SRC or SRC:DST
    #[arg(long)]
    put: Vec<String>,
    /// Copy a file or directory out afterwards: SRC:DST
    #[arg(long)]
    get: Vec<String>,
    /// CPUs of the nested machine
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds that the command may take
    #[arg(long)]
    limit: Option<u64>,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    pincushion_vmm::program::begin(pincushion_vmm::program::WithoutReader::GoOn);
    let args = Args::parse();
    let progress = |line: &str| eprintln!("nested: {line}");
    ensure_qemu(&progress)?;
    let (kernel, initrd) = boot_files(&find_agent()?, &progress)?;
    let mut config = NestedConfig::new(kernel, initrd);
    config.vcpus = args.cpus;
    let machine = NestedMachine::boot(&config, &progress)?;
    for put in &args.put {
        let (from, to) = put.split_once(':').unwrap_or((put, put));
        machine.put_if_changed(Path::new(from), &std::path::absolute(to)?, 0o755)?;
    }
    let mut command = Command::new(args.command);
    command.limit = args.limit.map(Duration::from_secs);
    if let Ok(level) = std::env::var("RUST_LOG") {
        command.env.insert("RUST_LOG".to_owned(), level);
    }
    let ended = machine.run(&command, &mut std::io::stdout(), &mut std::io::stderr())?;
    for get in &args.get {
        let (from, to) = get.split_once(':').unwrap_or((get, get));
        machine.get(Path::new(from), Path::new(to))?;
    }
    drop(machine);
    std::process::exit(match ended {
        Ended::Exited(code) => code,
        Ended::Killed(signal) => 128 + signal,
        Ended::LimitReached => 124,
    })
}
