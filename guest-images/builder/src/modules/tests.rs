//! Trees made in code.

use std::fs;
use std::path::Path;

use super::tree::module_name;
use super::*;
use crate::test_support::{gzip, module, module_with, xz, zstd};

/// A tree of (file name, depends), all plain.
fn tree(modules: &[(&str, &str)], builtin: &str) -> (tempfile::TempDir, ModuleTree) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("kernel")).unwrap();
    for (file, depends) in modules {
        let name = module_name(Path::new(file)).unwrap();
        fs::write(dir.path().join("kernel").join(file), module(&name, depends)).unwrap();
    }
    fs::write(dir.path().join("modules.builtin"), builtin).unwrap();
    let tree = ModuleTree::open(dir.path()).unwrap();
    (dir, tree)
}

fn names(modules: &[Module]) -> Vec<&str> {
    modules.iter().map(|module| module.name.as_str()).collect()
}

#[test]
fn what_a_module_needs_comes_before_it_and_once() {
    let (_dir, tree) = tree(
        &[
            ("virtio_blk.ko", "virtio,virtio_ring"),
            ("virtio.ko", "virtio_ring"),
            ("virtio_ring.ko", ""),
            ("virtio-mmio.ko", "virtio_ring,virtio"),
        ],
        "",
    );
    let order = tree.resolve(&["virtio_mmio", "virtio-blk"]).unwrap();
    assert_eq!(
        names(&order),
        ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk"]
    );
}

#[test]
fn built_in_modules_are_skipped_also_as_a_dependency() {
    let (_dir, tree) = tree(
        &[("a.ko", "ext4,b"), ("b.ko", "")],
        "kernel/fs/ext4/ext4.ko\n",
    );
    assert_eq!(names(&tree.resolve(&["ext4", "a"]).unwrap()), ["b", "a"]);
    assert!(tree.is_builtin("ext4"));
}

#[test]
fn what_a_module_would_like_comes_before_it_if_it_is_there() {
    let (dir, _) = tree(&[("crc16.ko", ""), ("after.ko", "")], "");
    let soft = "softdep=pre: crypto-crc32c gone crc16 post: after\0";
    let alias = "alias=crc32c\0alias=crypto-crc32c\0softdep=pre: ext4\0";
    for (name, more) in [
        ("ext4", soft),
        ("crc32c_generic", alias),
        ("sha_generic", ""),
    ] {
        let path = dir.path().join(format!("kernel/{name}.ko"));
        fs::write(path, module_with(name, "", more)).unwrap();
    }
    let tree = ModuleTree::open(dir.path()).unwrap();
    let order = tree.resolve(&["ext4"]).unwrap();
    assert_eq!(names(&order), ["crc32c_generic", "crc16", "ext4"]);
}

#[test]
fn packed_modules_come_out_unpacked() {
    let (dir, _) = tree(&[], "");
    let elf = module("m", "");
    for (file, packed) in [
        ("x.ko.xz", xz(&elf)),
        ("z.ko.zst", zstd(&elf)),
        ("g.ko.gz", gzip(&elf)),
    ] {
        fs::write(dir.path().join("kernel").join(file), packed).unwrap();
    }
    let tree = ModuleTree::open(dir.path()).unwrap();
    let modules = tree.resolve(&["x", "z", "g"]).unwrap();
    assert!(modules.iter().all(|module| module.bytes == elf));
}

#[test]
fn an_unknown_module_is_named_with_the_one_that_needs_it() {
    let (_dir, tree) = tree(&[("a.ko", "gone"), ("virtio_blk.ko", "")], "");
    let message = tree.resolve(&["a"]).unwrap_err().to_string();
    assert!(message.contains("`gone` (needed by a)"), "{message}");
    let message = tree.resolve(&["virtio"]).unwrap_err().to_string();
    assert!(message.contains("similar: virtio_blk"), "{message}");
}

#[test]
fn a_circle_and_a_file_that_is_no_module_are_errors() {
    let (dir, tree) = tree(&[("a.ko", "b"), ("b.ko", "a")], "");
    assert!(
        matches!(tree.resolve(&["a"]), Err(ModuleError::Circle(path)) if path == "a -> b -> a")
    );
    fs::write(dir.path().join("kernel/t.ko"), "text").unwrap();
    let tree = ModuleTree::open(dir.path()).unwrap();
    assert!(matches!(
        tree.resolve(&["t"]),
        Err(ModuleError::NotAModule { .. })
    ));
}

#[test]
fn a_kernel_without_a_tree_has_everything_built_in() {
    assert!(
        ModuleTree::none()
            .resolve(&["virtio_blk"])
            .unwrap()
            .is_empty()
    );
}

#[test]
fn the_tree_is_found_below_an_install_mod_path() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lib/modules/6.12.0");
    fs::create_dir_all(root.join("kernel")).unwrap();
    assert_eq!(
        ModuleTree::open(dir.path()).unwrap().root(),
        Some(root.as_path())
    );
    assert!(matches!(
        ModuleTree::open(&dir.path().join("lib")),
        Err(ModuleError::NotATree { .. })
    ));
}
