//! Kernels and guest images, made once per suite.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pincushion_image::{
    BOOT_MODULES, DRIVER_MODULES, ImageSpec, KernelSpec, ON_DEMAND_MODULES, Store,
};

use super::programs::Programs;

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

/// What came of a kernel: made once, told to everybody who asks.
type Made = Result<Arc<GuestImage>, String>;

/// All images of a suite.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// Held while an image is made: who else wants it waits, and does not fetch it twice.
    made: Mutex<BTreeMap<String, Made>>,
}

impl Images {
    /// The image for a kernel as the user names it. The error is for people.
    pub(super) fn get(&self, kernel: &str, programs: &Programs, progress: &dyn Fn(&str)) -> Made {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.get(kernel) {
            return made.clone();
        }
        let result = make(kernel, programs, progress)
            .map(Arc::new)
            .map_err(|error| crate::words(&error));
        made.insert(kernel.to_owned(), result.clone());
        result
    }
}

fn make(
    kernel: &str,
    programs: &Programs,
    progress: &dyn Fn(&str),
) -> Result<GuestImage, pincushion_image::Error> {
    let mut step = |verb: &str, object: &str| progress(&format!("{verb} {object}"));
    let store = Store::open_default()?;
    let spec: KernelSpec = kernel.parse()?;
    let kernel = store.kernel(&spec, &mut step)?;
    let init = programs.agent();
    let image = store.guest_image(
        &kernel,
        &ImageSpec {
            init: &init,
            modules: BOOT_MODULES,
            on_demand: &[DRIVER_MODULES, ON_DEMAND_MODULES].concat(),
            files: Vec::new(),
        },
    )?;
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
