//! Kernels and guest images, made once per suite.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pincushion_image::kernel::{KernelError, KernelFiles, find_built, find_selftests};
use pincushion_image::{
    BOOT_MODULES, DRIVER_MODULES, Error, ImageSpec, KernelSpec, ON_DEMAND_MODULES, Store,
    ensure_host_programs, host_program,
};

use super::programs::Programs;
use crate::scenario::Scenario;
use crate::scenario::model::Initrd;

/// A kernel that guests can boot.
#[derive(Debug, Clone)]
pub(super) struct GuestImage {
    pub(super) release: String,
    pub(super) package: Option<String>,
    /// Words that it needs on its command line.
    pub(super) parameters: String,
    pub(super) vmlinux: PathBuf,
    /// As the distribution ships it.
    pub(super) bzimage: Option<PathBuf>,
    pub(super) initrd: PathBuf,
    pub(super) digest: String,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    /// As the user names it.
    pub(super) kernel: String,
    /// Whether the kernel's own selftests are in it.
    pub(super) selftests: bool,
    /// Programs of the host that are in it.
    pub(super) programs: Vec<String>,
}

impl Wanted {
    /// What a scenario wants on a kernel.
    pub(super) fn of(scenario: &Scenario, kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            selftests: scenario.vm.initrd == Initrd::Selftests,
            programs: scenario.vm.programs.clone(),
        }
    }
}

/// What came of a kernel: made once, told to everybody who asks.
type Made = Result<Arc<GuestImage>, String>;

/// All images of a suite.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// Held while an image is made: who else wants it waits, and does not fetch it twice.
    made: Mutex<BTreeMap<Wanted, Made>>,
}

impl Images {
    /// The image that is wanted. The error is for people.
    pub(super) fn get(&self, wanted: Wanted, programs: &Programs, progress: &dyn Fn(&str)) -> Made {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.get(&wanted) {
            return made.clone();
        }
        let result = make(&wanted, programs, progress)
            .map(Arc::new)
            .map_err(|error| crate::words(&error));
        made.insert(wanted, result.clone());
        result
    }
}

/// What has to be built by hand for a run and is not: the kernel of a design, the kernel's selftests. Anything else that is wrong with them is
/// for the run to tell.
pub(super) fn missing_build(scenario: &Scenario, kernel: &str) -> Option<String> {
    let files = KernelFiles::of(None);
    let look = || {
        if let KernelSpec::Design(choice) = kernel.parse()? {
            find_built(&Store::open_default()?, &files, &choice)?;
        }
        if scenario.vm.initrd == Initrd::Selftests {
            find_selftests(&Store::open_default()?, &files)?;
        }
        Ok::<_, Error>(())
    };
    match look() {
        Err(Error::Design(error @ (KernelError::NotBuilt { .. } | KernelError::NoSelftests))) => {
            Some(crate::words(&error))
        }
        Ok(()) | Err(_) => None,
    }
}

fn make(
    wanted: &Wanted,
    programs: &Programs,
    progress: &dyn Fn(&str),
) -> Result<GuestImage, Error> {
    let mut step = |verb: &str, object: &str| progress(&format!("{verb} {object}"));
    let store = Store::open_default()?;
    let spec: KernelSpec = wanted.kernel.parse()?;
    let kernel = store.kernel(&spec, &mut step)?;
    let files = if wanted.selftests {
        find_selftests(&store, &KernelFiles::of(None))?.files()
    } else {
        Vec::new()
    };
    let init = programs.agent();
    let on_demand = [DRIVER_MODULES, ON_DEMAND_MODULES].concat();
    let mut image = ImageSpec {
        init: &init,
        modules: BOOT_MODULES,
        on_demand: &on_demand,
        files,
    };
    let names: Vec<&str> = wanted.programs.iter().map(String::as_str).collect();
    ensure_host_programs(&names, progress)?;
    for name in names {
        let mut files = host_program(name)?;
        // The program itself, wherever this host has it: the agent looks there.
        files[0].path = format!("/usr/bin/{name}");
        image.add_files(files);
    }
    let image = store.guest_image(&kernel, &image)?;
    // What was built from a source is not what the distribution ships.
    let series = kernel.build.map_or(String::new(), |build| {
        format!(
            " with the series {}",
            build.series.get(..12).unwrap_or_default()
        )
    });
    Ok(GuestImage {
        release: kernel.release,
        package: kernel
            .package
            .map(|package| format!("{} {}{series}", package.name, package.version)),
        parameters: kernel.parameters,
        vmlinux: image.kernel,
        bzimage: kernel.bzimage,
        initrd: image.initrd,
        digest: image.digest,
    })
}
