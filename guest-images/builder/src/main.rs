//! `pincushion image`: builds guest images and looks after their cache.

use anyhow::Context as _;
use pincushion_image::{GUEST_MODULES, ImageSpec, Store};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let kernel = std::env::args().nth(1).context("which kernel?")?;
    let init = std::env::args().nth(2).context("which init?")?;
    let store = Store::open_default()?;
    let mut progress = |verb: &str, object: &str| eprintln!("{verb} {object}");
    let kernel = store.kernel(&kernel.parse()?, &mut progress)?;
    let spec = ImageSpec {
        init: Path::new(&init),
        modules: GUEST_MODULES,
        files: vec![],
    };
    let image = store.guest_image(&kernel, &spec)?;
    println!("{}\n{}", image.kernel.display(), image.initrd.display());
    Ok(())
}
