//! `kernel build`, `kernel selftests`, `kernel list` and `kernel check`: kernels that carry our own designs.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use pincushion_image::kernel::{
    self, BuildOrder, Built, BuiltState, Catalogue, KernelFiles, TREE_VARIABLE,
};
use pincushion_image::program::{WithoutReader, complain, tell};
use pincushion_image::{Progress, Store};

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Build the kernel that has a design, from Debian's source package and our patches; what was built before is used again
    #[command(after_help = about())]
    Build(BuildArgs),
    /// Build the kernel's own selftests of pinned pages (cow, gup_longterm, gup_test, hugetlb_dio), for the scenarios of that name
    Selftests(MakeArgs),
    /// List the designs, policies and flavours, and which kernels are built
    List(ListArgs),
    /// Fetch and verify the source and apply the patches in memory, without building
    Check(SourceArgs),
}

impl KernelCommand {
    pub(crate) fn without_reader(&self) -> WithoutReader {
        match self {
            Self::List(_) => WithoutReader::End,
            Self::Build(_) | Self::Selftests(_) | Self::Check(_) => WithoutReader::GoOn,
        }
    }
}

fn about() -> String {
    format!(
        "A build from nothing takes 10 to 15 minutes on 2 idle CPUs and 4 GB of disk, less with ccache; after an edit of a patch it takes as \
         long as what depends on it. What is missing on the host (gcc, make, flex, bison, bc, libelf-dev, libssl-dev) is installed for root. \
         Run it as `pincushion test run --kernel design:NAME+POLICY`.\n\n\
         Patches and configuration are those of this program, or those in the directory of --tree or ${TREE_VARIABLE}; to run what was built \
         from a directory, set ${TREE_VARIABLE}."
    )
}

#[derive(Debug, Args)]
struct TreeArgs {
    /// A directory like guest-images/kernel, to use in place of what is in this program [default: $PINCUSHION_KERNEL_TREE, or none]
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
}

impl TreeArgs {
    fn files(&self) -> KernelFiles {
        KernelFiles::of(self.tree.as_deref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// A design that the kernel shall have; can be repeated, designs of one binary are built together
    #[arg(long = "design", value_name = "NAME", default_value = "bias")]
    designs: Vec<String>,
    /// `guest` to run scenarios on, `debug` to find more and run slower [default: the first in source.toml, guest]
    #[arg(long, value_name = "NAME")]
    flavour: Option<String>,
    #[command(flatten)]
    make: MakeArgs,
}

/// How anything is built of the source.
#[derive(Debug, Args)]
pub(crate) struct MakeArgs {
    /// Compilers at once [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    source: SourceArgs,
}

impl MakeArgs {
    /// As many as were asked for, or one for each CPU.
    fn jobs(&self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or(cpus, usize::from)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tree: TreeArgs,
}

/// Where source, patches and configuration come from.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The source package's file, if it shall not come from apt; its digest is checked
    #[arg(long, value_name = "DEB")]
    source: Option<PathBuf>,
    #[command(flatten)]
    tree: TreeArgs,
}

pub(crate) fn run(command: &KernelCommand) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    match command {
        KernelCommand::Build(args) => build(&store, args)?,
        KernelCommand::Selftests(args) => selftests(&store, args)?,
        KernelCommand::List(args) => list(&store, args)?,
        KernelCommand::Check(args) => check(&store, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn build(store: &Store, args: &BuildArgs) -> anyhow::Result<()> {
    let files = args.make.source.tree.files();
    let catalogue = Catalogue::read(&files)?;
    let flavour = match &args.flavour {
        Some(name) => catalogue.flavour(name)?,
        None => &catalogue.flavours[0],
    };
    // All names are looked up before the first is built.
    let designs = args.designs.iter().map(|name| catalogue.design(name));
    let designs = designs.collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    for design in designs
        .into_iter()
        .filter(|design| seen.insert(&design.binary))
    {
        let order = BuildOrder {
            files: &files,
            design: &design.name,
            flavour: &flavour.name,
            jobs: args.make.jobs(),
            source: args.make.source.source.as_deref(),
        };
        let built = kernel::build(store, &order, &mut Shown::new())?;
        report(&built)?;
    }
    Ok(())
}

fn selftests(store: &Store, args: &MakeArgs) -> anyhow::Result<()> {
    let (built, was_there) = kernel::build_selftests(
        store,
        &args.source.tree.files(),
        args.source.source.as_deref(),
        args.jobs(),
        &mut Shown::new(),
    )?;
    let cached = if was_there { "  (cached)" } else { "" };
    for file in built.files() {
        tell(format_args!("program {}{cached}", file.source.display()))?;
    }
    Ok(tell(format_args!(
        "run     pincushion test run --tag selftests --kernel KERNEL"
    ))?)
}

fn report(built: &Built) -> io::Result<()> {
    let kernel = &built.kernel;
    let cached = if built.was_cached { "  (cached)" } else { "" };
    tell(format_args!("vmlinux {}{cached}", kernel.vmlinux.display()))?;
    tell(format_args!("release {}", kernel.release))?;
    if let Some(build) = &kernel.build {
        let flavour = if build.flavour == "guest" {
            String::new()
        } else {
            format!("-{}", build.flavour)
        };
        let names = build
            .designs
            .iter()
            .map(|design| format!("design:{design}{flavour}"));
        tell(format_args!(
            "kernels {}",
            names.collect::<Vec<_>>().join(" ")
        ))?;
        tell(format_args!("series  {}", &build.series[..12]))?;
    }
    tell(format_args!("digest  {}", kernel.digest))
}

fn list(store: &Store, args: &ListArgs) -> anyhow::Result<()> {
    let files = args.tree.files();
    let catalogue = Catalogue::read(&files)?;
    let mut rows = Vec::new();
    for design in &catalogue.designs {
        for flavour in &catalogue.flavours {
            rows.push((
                design,
                flavour,
                kernel::state(store, &files, &design.name, &flavour.name)?,
            ));
        }
    }
    if args.json {
        let kernels = rows
            .iter()
            .map(|(design, flavour, state)| row(design, flavour, state));
        let kernels: Vec<serde_json::Value> = kernels.collect();
        let object = serde_json::json!({ "policies": catalogue.policies, "kernels": kernels });
        return Ok(tell(format_args!("{object:#}"))?);
    }
    let mut out = io::stdout().lock();
    for (design, flavour, state) in &rows {
        let state = match state {
            BuiltState::Yes(digest) => format!("built, {}", digest.get(..12).unwrap_or(digest)),
            BuiltState::OfOtherSeries(count) => format!("to be built ({count} of other patches)"),
            BuiltState::No => "to be built".to_owned(),
        };
        let suffix = if flavour.name == catalogue.flavours[0].name {
            String::new()
        } else {
            format!("-{}", flavour.name)
        };
        let name = format!("design:{}{suffix}", design.name);
        writeln!(out, "{name:<24} {state:<36} {}", design.summary)?;
    }
    let policies = catalogue.policies.iter().map(|policy| format!("+{policy}"));
    writeln!(
        out,
        "policies, behind the design's name: {}",
        policies.collect::<Vec<_>>().join(", ")
    )?;
    Ok(())
}

fn row(design: &kernel::Design, flavour: &kernel::Part, state: &BuiltState) -> serde_json::Value {
    let digest = match state {
        BuiltState::Yes(digest) => Some(digest),
        BuiltState::OfOtherSeries(_) | BuiltState::No => None,
    };
    serde_json::json!({
        "design": design.name, "binary": design.binary, "flavour": flavour.name, "summary": design.summary, "digest": digest,
    })
}

fn check(store: &Store, args: &SourceArgs) -> anyhow::Result<()> {
    let checked = kernel::check(
        store,
        &args.tree.files(),
        args.source.as_deref(),
        &mut Shown::new(),
    )?;
    for moved in &checked.moved {
        complain(format_args!("{:>10} {moved}", "note"));
    }
    tell(format_args!(
        "source  {}, as its digest says",
        checked.source
    ))?;
    tell(format_args!(
        "series  {} patches apply, to {} files",
        checked.patches, checked.files
    ))?;
    Ok(())
}

/// Shows progress on standard error: each step on a line, how far a long one is on a line that is written over, or every so often
/// where nobody watches a terminal.
struct Shown {
    is_terminal: bool,
    last: Option<Instant>,
    /// Whether the terminal's line holds what is to be written over.
    is_open: bool,
}

impl Shown {
    fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            last: None,
            is_open: false,
        }
    }
}

impl Progress for Shown {
    fn step(&mut self, verb: &str, object: &str) {
        if std::mem::take(&mut self.is_open) {
            complain("");
        }
        super::progress(verb, object);
    }

    fn advance(&mut self, verb: &str, object: &str) {
        let pause = if self.is_terminal {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(20)
        };
        if self.last.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.last = Some(Instant::now());
        if self.is_terminal {
            // Nobody to tell if that fails.
            let _ = write!(io::stderr(), "\r\x1b[K{verb:>10} {object:.100}");
            self.is_open = true;
        } else {
            super::progress(verb, object);
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.is_open {
            complain("");
        }
    }
}
