//! Kernel modules of the image, below /modules.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pincushion_abi::Fault;

use crate::fault::{self, sentence};
use crate::sys::fs::load_module;

/// Where the image has its modules.
const ROOT: &str = "/modules";
/// Lists the paths of the modules to load at boot, in order.
const LIST: &str = "/modules/load";
/// Names the modules that this kernel has built in.
const BUILTIN: &str = "/modules/builtin";
/// Deepest chain of dependencies that is followed.
const MAX_DEPTH: usize = 16;

/// Loads what the image lists; gives one line for each module that could not be loaded.
pub fn load_listed() -> Vec<String> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![format!("{LIST}: {error}")],
    };
    let paths = list.lines().map(str::trim).filter(|line| !line.is_empty());
    paths
        .filter_map(|path| {
            let path = Path::new(ROOT).join(path);
            let fault = load_file(&path).err()?;
            Some(format!("{}: {} {}", path.display(), fault.call, fault.name))
        })
        .collect()
}

/// Loads a module by name, and before it those that it says it depends on; gives the names of those
/// that were not loaded before.
pub fn load_by_name(name: &str) -> Result<Vec<String>, Fault> {
    let files = files_below(Path::new(ROOT));
    let mut loaded = Vec::new();
    load_with_dependencies(name, &files, &mut loaded, 0)?;
    Ok(loaded)
}

fn load_with_dependencies(
    name: &str,
    files: &[PathBuf],
    loaded: &mut Vec<String>,
    depth: usize,
) -> Result<(), Fault> {
    let name = name.replace('-', "_");
    if Path::new("/sys/module").join(&name).exists() || is_builtin(&name) {
        return Ok(());
    }
    let Some(path) = files
        .iter()
        .find(|path| module_name(path).as_deref() == Some(&name))
    else {
        return Err(sentence(
            "load-module",
            format!("the image has no module {name:?}; have it put into the image"),
        ));
    };
    if depth < MAX_DEPTH {
        let bytes = fs::read(path).map_err(|error| fault::io("read module", &error))?;
        for needed in dependencies(&bytes) {
            load_with_dependencies(&needed, files, loaded, depth + 1)?;
        }
    }
    load_file(path)?;
    loaded.push(name);
    Ok(())
}

/// Not every part of a kernel has a directory in /sys/module.
fn is_builtin(name: &str) -> bool {
    let list = fs::read_to_string(BUILTIN).unwrap_or_default();
    list.lines().any(|line| line.replace('-', "_") == name)
}

/// A module that is loaded already is no failure.
fn load_file(path: &Path) -> Result<(), Fault> {
    let module = File::open(path).map_err(|error| fault::io("open", &error))?;
    let compressed = path.extension().is_some_and(|extension| extension != "ko");
    match load_module(&module, compressed) {
        Err(errno) if errno.number != libc::EEXIST => Err(errno.into()),
        _ => Ok(()),
    }
}

/// `virtio_blk` of `/modules/kernel/virtio-blk.ko.xz` and of `/modules/07-virtio_blk.ko`, whose
/// number is the image's load order.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once('.')?;
    let is_module = rest == "ko" || rest.starts_with("ko.");
    let name = match name.split_once('-') {
        Some((order, name)) if order.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    is_module.then(|| name.replace('-', "_"))
}

/// The names after `depends=` in the module information; none in a compressed module, whose
/// dependencies the boot list has to load.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[start + KEY.len()..];
    let end = rest
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_its_file_name_with_underscores() {
        let name = |path| module_name(Path::new(path));
        assert_eq!(
            name("/modules/kernel/virtio-blk.ko.xz").as_deref(),
            Some("virtio_blk")
        );
        assert_eq!(name("/modules/07-nd_pmem.ko").as_deref(), Some("nd_pmem"));
        assert_eq!(name("xfs.ko").as_deref(), Some("xfs"));
        assert_eq!(name("/modules/load"), None);
        assert_eq!(name("README.korean"), None);
    }

    #[test]
    fn dependencies_are_read_from_the_module_information() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=libcrc32c,xfs\0name=x\0"),
            ["libcrc32c", "xfs"]
        );
        assert!(dependencies(b"\x7fELF\0depends=\0name=x\0").is_empty());
        assert!(dependencies(b"\xfd7zXZ").is_empty());
    }

    #[test]
    fn a_module_that_the_image_lacks_is_named() {
        let fault = load_by_name("no_such_module").unwrap_err();
        assert!(fault.name.contains("no_such_module"), "{}", fault.name);
    }
}
