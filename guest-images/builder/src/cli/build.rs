//! `build` and `fetch`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use pincushion_image::{
    ExtraFile, GUEST_MODULES, Image, ImageSpec, Kernel, KernelSpec, ON_DEMAND_MODULES, Store,
};

use pincushion_image::program::tell;

use super::progress;

const AGENT: &str = "pincushion-agent";

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// `debian:6.12`, `debian:6.1`, `debian:<exact version>`, `design:<name>[+<policy>]`, `host`, or the path of a vmlinux or bzImage
    #[arg(long, value_name = "KERNEL", default_value = "debian:6.12")]
    kernel: KernelSpec,
    /// Modules of a kernel given by its path: its lib/modules/RELEASE, or the directory given to INSTALL_MOD_PATH [default: none, all are built in]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Static program that becomes PID 1 [default: pincushion-agent beside this program]
    #[arg(long, value_name = "PATH")]
    init: Option<PathBuf>,
    /// Module that the guest loads, with all that it needs; can be repeated [default: virtio_mmio, virtio_pci, virtio_blk, ext4]
    #[arg(long = "module", value_name = "NAME")]
    module_names: Vec<String>,
    /// File to put into the image; MODE is octal; can be repeated [default of MODE: that of the file]
    #[arg(long = "file", value_name = "SRC:DST[:MODE]")]
    files: Vec<FileArg>,
    /// Program of this host to put into the image with its libraries; can be repeated
    #[arg(long = "host-program", value_name = "NAME")]
    host_programs: Vec<String>,
    /// Directory that gets copies of vmlinux, initrd and manifest.json [default: none, they stay in the cache]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// `SRC:DST[:MODE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileArg {
    source: PathBuf,
    path: String,
    mode: Option<u32>,
}

impl FromStr for FileArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (source, rest) = text
            .split_once(':')
            .ok_or("expected SRC:DST or SRC:DST:MODE")?;
        let (path, mode) = match rest.split_once(':') {
            None => (rest, None),
            Some((path, mode)) => {
                let mode = u32::from_str_radix(mode, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777);
                (
                    path,
                    Some(mode.ok_or("the mode must be octal, such as 755")?),
                )
            }
        };
        if source.is_empty() || path.is_empty() {
            return Err("expected SRC:DST or SRC:DST:MODE".to_owned());
        }
        Ok(Self {
            source: source.into(),
            path: path.to_owned(),
            mode,
        })
    }
}

impl FileArg {
    fn to_extra(&self) -> anyhow::Result<ExtraFile> {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = match self.mode {
            Some(mode) => mode,
            None => {
                let file = fs::metadata(&self.source)
                    .with_context(|| format!("--file {}", self.source.display()))?;
                file.permissions().mode() & 0o777
            }
        };
        Ok(ExtraFile {
            source: self.source.clone(),
            path: self.path.clone(),
            mode,
        })
    }
}

pub(crate) fn build(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    let init = match &args.init {
        Some(init) => init.clone(),
        None => agent_beside_us()?,
    };
    let names: Vec<&str> = args.module_names.iter().map(String::as_str).collect();
    let files = args
        .files
        .iter()
        .map(FileArg::to_extra)
        .collect::<anyhow::Result<_>>()?;
    let (modules, on_demand) = if names.is_empty() {
        (GUEST_MODULES, ON_DEMAND_MODULES)
    } else {
        (names.as_slice(), [].as_slice())
    };
    let mut spec = ImageSpec {
        init: &init,
        modules,
        on_demand,
        files,
    };
    for name in &args.host_programs {
        spec.add_host_program(name)?;
    }
    let store = Store::open_default()?;
    let kernel = store.kernel(
        &with_modules(&args.kernel, args.modules.as_deref())?,
        &mut progress,
    )?;
    let image = store.guest_image(&kernel, &spec)?;
    let (kernel_path, initrd) = match &args.output {
        Some(output) => copy_to(output, &image)?,
        None => (image.kernel.clone(), image.initrd.clone()),
    };
    if args.json {
        let result = serde_json::json!({
            "kernel": kernel_path, "initrd": initrd, "digest": image.digest, "bzimage": kernel.bzimage, "manifest": image.manifest,
            "parameters": kernel.parameters,
        });
        tell(format_args!("{result:#}"))?;
    } else {
        tell(format_args!("kernel  {}", kernel_path.display()))?;
        tell(format_args!("initrd  {}", initrd.display()))?;
        tell(format_args!("release {}", kernel.release))?;
        tell(format_args!("digest  {}", image.digest))?;
        if !kernel.parameters.is_empty() {
            tell(format_args!("cmdline {}", kernel.parameters))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn fetch(spec: &KernelSpec) -> anyhow::Result<ExitCode> {
    let kernel: Kernel = Store::open_default()?.kernel(spec, &mut progress)?;
    tell(format_args!("vmlinux {}", kernel.vmlinux.display()))?;
    if let Some(bzimage) = &kernel.bzimage {
        tell(format_args!("bzimage {}", bzimage.display()))?;
    }
    if let Some(modules) = kernel.modules.root() {
        tell(format_args!("modules {}", modules.display()))?;
    }
    tell(format_args!("release {}", kernel.release))?;
    Ok(ExitCode::SUCCESS)
}

fn with_modules(spec: &KernelSpec, modules: Option<&Path>) -> anyhow::Result<KernelSpec> {
    match (spec, modules) {
        (_, None) => Ok(spec.clone()),
        (KernelSpec::File { kernel, .. }, Some(modules)) => Ok(KernelSpec::File {
            kernel: kernel.clone(),
            modules: Some(modules.to_owned()),
        }),
        (KernelSpec::Debian(_) | KernelSpec::Design(_) | KernelSpec::Host, Some(_)) => {
            Err(pincushion_image::Error::ModulesNotWanted(spec.to_string()).into())
        }
    }
}

/// The agent that was built together with this program.
fn agent_beside_us() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this program is")?;
    let agent = own.with_file_name(AGENT);
    anyhow::ensure!(
        agent.is_file(),
        "there is no {}: build it with `cargo build -p pincushion-agent`, or name a static program with --init",
        agent.display()
    );
    Ok(agent)
}

fn copy_to(output: &Path, image: &Image) -> anyhow::Result<(PathBuf, PathBuf)> {
    fs::create_dir_all(output).with_context(|| format!("--output {}", output.display()))?;
    let copy = |source: &Path, name: &str| {
        let target = output.join(name);
        fs::copy(source, &target).with_context(|| format!("cannot write {}", target.display()))?;
        anyhow::Ok(target)
    };
    copy(
        &image.initrd.with_file_name("manifest.json"),
        "manifest.json",
    )?;
    Ok((
        copy(&image.kernel, "vmlinux")?,
        copy(&image.initrd, "initrd")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_argument_has_two_or_three_parts() {
        let file = |text: &str| text.parse::<FileArg>();
        assert_eq!(
            file("a:/b").unwrap(),
            FileArg {
                source: "a".into(),
                path: "/b".into(),
                mode: None
            }
        );
        assert_eq!(file("a:/b:4755").unwrap().mode, Some(0o4755));
        for bad in ["a", "a:", ":/b", "a:/b:", "a:/b:9", "a:/b:77777"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modules_go_only_with_a_kernel_given_by_its_path() {
        let dir = Path::new("m");
        assert!(with_modules(&KernelSpec::Host, Some(dir)).is_err());
        let file = KernelSpec::File {
            kernel: "k".into(),
            modules: None,
        };
        let expected = KernelSpec::File {
            kernel: "k".into(),
            modules: Some(dir.to_owned()),
        };
        assert_eq!(with_modules(&file, Some(dir)).unwrap(), expected);
    }
}
