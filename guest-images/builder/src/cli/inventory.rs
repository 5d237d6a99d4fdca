//! `list`, `verify`, `remove` and `show`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use pincushion_image::kernel;
use pincushion_image::{Content, Entry, Store, remove_crate_programs};

use pincushion_image::program::{complain, exit_code, tell};

use super::progress;

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON array, with every manifest
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RemoveArgs {
    /// First digits of a digest (at least 6), or a kernel's release or package
    names: Vec<String>,
    /// Everything, with the sources of kernels and what is built of them, and programs that were built of crates
    #[arg(long)]
    all: bool,
    /// All images; kernels stay
    #[arg(long)]
    images: bool,
}

pub(crate) fn list(store: &Store, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let entries = store.list()?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if entries.is_empty() {
        complain(format_args!(
            "nothing in {}: try `pincushion image fetch debian:6.12`",
            store.root().display()
        ));
    }
    for entry in &entries {
        let (kind, name, version) = describe(entry);
        let (digest, mib) = (
            entry.digest.get(..12).unwrap_or(&entry.digest),
            mebibytes(entry.size),
        );
        writeln!(
            out,
            "{kind:<7} {digest}  {mib:>9}  {name}  {version}\n        {}",
            entry.path.display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn verify(store: &Store) -> anyhow::Result<ExitCode> {
    let damages = store.verify(&mut progress)?;
    for damage in &damages {
        complain(format_args!(
            "damaged: {}: {}",
            damage.digest.get(..12).unwrap_or(&damage.digest),
            damage.error
        ));
    }
    if damages.is_empty() {
        tell("all files are as recorded")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(exit_code::FAILED))
}

pub(crate) fn remove(store: &Store, args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let mut entries = Vec::new();
    if args.all || args.images {
        entries = store.list()?;
        entries.retain(|entry| args.all || matches!(entry.content, Content::Image(_)));
    }
    // All names are looked up before anything goes, so that a typing error removes nothing.
    for name in &args.names {
        entries.extend(store.find(name)?);
    }
    for entry in &entries {
        store.remove(entry, &mut progress)?;
        let (kind, name, _) = describe(entry);
        tell(format_args!(
            "removed {kind} {name} {}",
            entry.path.display()
        ))?;
    }
    if args.all {
        for source in kernel::remove_sources(store, &mut progress)? {
            tell(format_args!("removed source {}", source.display()))?;
        }
        for program in remove_crate_programs(store)? {
            tell(format_args!("removed program {}", program.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn show(store: &Store, name: &str) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for entry in store.find(name)? {
        writeln!(out, "{}", serde_json::to_string_pretty(&entry)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Kind, name and version of an entry, for people.
fn describe(entry: &Entry) -> (&'static str, String, String) {
    match &entry.content {
        Content::Kernel(kernel) => {
            let version = kernel
                .package
                .as_ref()
                .map(|package| package.version.clone());
            let source = kernel
                .source
                .as_ref()
                .map(|path| path.display().to_string());
            (
                "kernel",
                kernel.release.clone(),
                version.or(source).unwrap_or_default(),
            )
        }
        Content::Image(image) => {
            let modules = format!(
                "{} modules, {} files",
                image.modules.len(),
                image.files.len()
            );
            ("image", image.release.clone(), modules)
        }
        Content::Unreadable(reason) => ("damaged", reason.clone(), String::new()),
    }
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
