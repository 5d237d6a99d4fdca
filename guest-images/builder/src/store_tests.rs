//! The store from end to end, with an archive made in code: no network, no apt.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::apt::{Archive, PackageId};
use crate::digest::sha256;
use crate::error::Error;
use crate::image::{ExtraFile, ImageSpec};
use crate::progress::Silent;
use crate::store::Store;
use crate::test_support::{bootable_bzimage, deb, elf_with_loader, module, xz};

/// An archive with one package, which counts what it is asked.
struct FakeArchive {
    package: Option<PackageId>,
    deb: Vec<u8>,
    installed: bool,
    reachable: bool,
    asked: Cell<u32>,
    downloads: Cell<u32>,
}

impl FakeArchive {
    fn new() -> Self {
        let deb = deb(&[
            (
                "./boot/vmlinuz-6.12.1+deb12-cloud-amd64",
                &bootable_bzimage("6.12.1+deb12-cloud-amd64"),
            ),
            (
                "./lib/modules/6.12.1/kernel/virtio_blk.ko.xz",
                &xz(&module("virtio_blk", "virtio")),
            ),
            (
                "./lib/modules/6.12.1/kernel/virtio.ko.xz",
                &xz(&module("virtio", "")),
            ),
            (
                "./lib/modules/6.12.1/modules.builtin",
                b"kernel/fs/ext4/ext4.ko\n",
            ),
        ]);
        let name = "linux-image-6.12.1+deb12-cloud-amd64".to_owned();
        let package = Some(PackageId {
            name,
            version: "6.12.1-1".to_owned(),
            sha256: sha256(&deb),
        });
        Self {
            package,
            deb,
            installed: true,
            reachable: true,
            asked: Cell::new(0),
            downloads: Cell::new(0),
        }
    }

    fn that_knows_nothing() -> Self {
        Self {
            package: None,
            ..Self::new()
        }
    }
}

impl Archive for FakeArchive {
    fn find(&self, wish: &str) -> Result<Option<PackageId>, Error> {
        self.asked.set(self.asked.get() + 1);
        if !self.installed {
            let (command, reason) = (
                "apt-cache".to_owned(),
                "apt-cache is not installed".to_owned(),
            );
            return Err(Error::Command { command, reason });
        }
        Ok(self
            .package
            .clone()
            .filter(|package| package.satisfies(wish)))
    }
    fn known_versions(&self) -> Vec<String> {
        vec!["6.12.1+deb12".to_owned()]
    }
    fn lists_stamp(&self) -> Option<i64> {
        self.package.as_ref().map(|_| 7)
    }
    fn may_update(&self) -> bool {
        false
    }
    fn update(&self) -> Result<(), Error> {
        unreachable!("may_update() forbids it")
    }
    fn download(&self, _package: &PackageId, dir: &Path) -> Result<PathBuf, Error> {
        self.downloads.set(self.downloads.get() + 1);
        if !self.reachable {
            return Err(Error::Command {
                command: "apt-get download".to_owned(),
                reason: "404".to_owned(),
            });
        }
        let path = dir.join("kernel.deb");
        fs::write(&path, &self.deb).unwrap();
        Ok(path)
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn a_package_is_fetched_once_and_the_archive_asked_once() {
    let (_dir, store) = store();
    let archive = FakeArchive::new();
    for _ in 0..3 {
        let kernel = store.debian_kernel(&archive, "6.12", &mut Silent).unwrap();
        assert_eq!(kernel.release, "6.12.1+deb12-cloud-amd64");
        assert!(fs::read(&kernel.vmlinux).unwrap().starts_with(b"\x7fELF"));
        assert!(kernel.bzimage.unwrap().is_file());
        assert_eq!(kernel.package, archive.package);
    }
    assert_eq!((archive.downloads.get(), archive.asked.get()), (1, 1));
}

#[test]
fn what_is_in_the_cache_is_used_when_the_archive_knows_nothing() {
    let (_dir, store) = store();
    store
        .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
        .unwrap();
    let offline = FakeArchive::that_knows_nothing();
    for wish in ["6.12", "6.12.1", "6.12.1+deb12"] {
        store.debian_kernel(&offline, wish, &mut Silent).unwrap();
    }
    let message = store
        .debian_kernel(&offline, "6.1", &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("apt-get update") && message.contains("apt knows 6.12.1+deb12"),
        "{message}"
    );
}

#[test]
fn a_host_without_apt_uses_the_cache_and_is_told_what_else_it_can_do() {
    let (_dir, store) = store();
    store
        .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
        .unwrap();
    let archive = FakeArchive {
        installed: false,
        ..FakeArchive::that_knows_nothing()
    };
    store.debian_kernel(&archive, "6.12", &mut Silent).unwrap();
    let error = store
        .debian_kernel(&archive, "6.1", &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("not installed") && error.contains("by its path"),
        "{error}"
    );
}

#[test]
fn an_older_kernel_of_the_cache_serves_when_the_newer_cannot_be_fetched() {
    let (_dir, store) = store();
    let mut archive = FakeArchive::new();
    let older = store.debian_kernel(&archive, "6.12", &mut Silent).unwrap();
    archive.reachable = false;
    archive.package = Some(PackageId {
        name: "linux-image-6.12.9+deb12-cloud-amd64".to_owned(),
        version: "6.12.9-1".to_owned(),
        sha256: sha256(b"newer"),
    });
    // Else the answer of before would still hold.
    fs::remove_dir_all(store.root().join("resolved")).unwrap();
    let mut told = Vec::new();
    let mut progress = |verb: &str, object: &str| told.push(format!("{verb} {object}"));
    let kernel = store
        .debian_kernel(&archive, "6.12", &mut progress)
        .unwrap();
    assert_eq!(kernel.digest, older.digest);
    assert!(
        told.iter()
            .any(|line| line.contains("6.12.9+deb12-cloud-amd64 cannot be fetched")),
        "{told:?}"
    );
    let error = store
        .debian_kernel(&archive, "6.12.9", &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("404") && error.contains("check the network"),
        "{error}"
    );
}

#[test]
fn an_init_that_needs_a_loader_is_refused_unless_the_loader_comes_along() {
    let (dir, store) = store();
    let kernel = store
        .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
        .unwrap();
    let init = dir.path().join("init");
    fs::write(&init, elf_with_loader("/lib64/ld.so")).unwrap();
    let error = store
        .guest_image(
            &kernel,
            &ImageSpec {
                init: &init,
                modules: &[],
                on_demand: &[],
                files: vec![],
            },
        )
        .unwrap_err();
    assert!(error.to_string().contains("/lib64/ld.so"), "{error}");
    let files = vec![ExtraFile {
        source: init.clone(),
        path: "/lib64/ld.so".to_owned(),
        mode: 0o755,
    }];
    store
        .guest_image(
            &kernel,
            &ImageSpec {
                init: &init,
                modules: &[],
                on_demand: &[],
                files,
            },
        )
        .unwrap();
}

#[test]
fn a_package_with_another_digest_is_refused_and_leaves_nothing() {
    let (_dir, store) = store();
    let mut archive = FakeArchive::new();
    archive.deb.push(0);
    let error = store
        .debian_kernel(&archive, "6.12", &mut Silent)
        .unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    assert!(store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_a_killed_run_left_is_not_believed() {
    let (_dir, store) = store();
    let archive = FakeArchive::new();
    let digest = archive.package.clone().unwrap().sha256;
    // A run that was killed while it unpacked, and (which only another program can do) an entry without a manifest.
    for half in [
        store.root().join("tmp").join(&digest),
        store.root().join("kernels").join(&digest),
    ] {
        fs::create_dir_all(half.join("modules/kernel")).unwrap();
        fs::write(half.join("vmlinux"), "half").unwrap();
        fs::write(half.join("modules/kernel/stale.ko"), "half").unwrap();
    }
    let kernel = store.debian_kernel(&archive, "6.12", &mut Silent).unwrap();
    assert!(fs::read(&kernel.vmlinux).unwrap().starts_with(b"\x7fELF"));
    assert!(kernel.modules.resolve(&["stale"]).is_err());
    assert!(store.verify(&mut Silent).unwrap().is_empty());
}

#[test]
fn two_at_once_get_the_same_kernel() {
    let (_dir, store) = store();
    let kernels: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    store
                        .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
                        .unwrap()
                        .vmlinux
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(kernels.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(store.verify(&mut Silent).unwrap().is_empty());
}

#[test]
fn a_changed_file_is_noticed_and_removing_its_entry_helps() {
    let (_dir, store) = store();
    let archive = FakeArchive::new();
    let kernel = store.debian_kernel(&archive, "6.12", &mut Silent).unwrap();
    fs::write(&kernel.vmlinux, "evil").unwrap();
    let error = store
        .debian_kernel(&archive, "6.12", &mut Silent)
        .unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert_eq!(store.verify(&mut Silent).unwrap().len(), 1);
    for entry in store.find(&kernel.digest[..8]).unwrap() {
        store.remove(&entry, &mut Silent).unwrap();
    }
    store.debian_kernel(&archive, "6.12", &mut Silent).unwrap();
    assert_eq!(archive.downloads.get(), 2);
}

#[test]
fn a_changed_module_does_not_get_into_an_image() {
    let (dir, store) = store();
    let kernel = store
        .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
        .unwrap();
    let path = kernel.modules.root().unwrap().join("kernel/virtio.ko.xz");
    fs::write(path, xz(&module("virtio", "evil"))).unwrap();
    let init = dir.path().join("init");
    fs::write(&init, "init").unwrap();
    let spec = ImageSpec {
        init: &init,
        modules: &["virtio_blk"],
        on_demand: &[],
        files: vec![],
    };
    let error = store.guest_image(&kernel, &spec).unwrap_err().to_string();
    assert!(
        error.contains("virtio.ko.xz") && error.contains("pincushion image remove"),
        "{error}"
    );
}

#[test]
fn the_same_input_gives_the_same_bytes_in_any_cache() {
    let build = || {
        let (dir, store) = store();
        let kernel = store
            .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
            .unwrap();
        let (init, tool) = (dir.path().join("init"), dir.path().join("tool"));
        fs::write(&init, "init").unwrap();
        fs::write(&tool, "tool").unwrap();
        let files = vec![ExtraFile {
            source: tool,
            path: "/bin/tool".to_owned(),
            mode: 0o755,
        }];
        let spec = ImageSpec {
            init: &init,
            modules: &["ext4", "virtio"],
            on_demand: &["virtio_blk", "nowhere"],
            files,
        };
        let image = store.guest_image(&kernel, &spec).unwrap();
        let modules: Vec<_> = image
            .manifest
            .modules
            .iter()
            .map(|module| module.path.clone())
            .collect();
        assert_eq!(
            modules,
            ["/modules/00-virtio.ko", "/modules/01-virtio_blk.ko"]
        );
        let initrd = fs::read(&image.initrd).unwrap();
        let list = b"/modules/00-virtio.ko\n";
        assert!(initrd.windows(list.len()).any(|window| window == list));
        assert_eq!(image.manifest.builtin, ["ext4"]);
        (image.digest, fs::read(image.initrd).unwrap())
    };
    assert_eq!(build(), build());
}

#[test]
fn an_image_is_built_again_only_when_something_in_it_changed() {
    let (dir, store) = store();
    let kernel = store
        .debian_kernel(&FakeArchive::new(), "6.12", &mut Silent)
        .unwrap();
    let init = dir.path().join("init");
    let digest_with = |content: &str, modules: &[&str]| {
        fs::write(&init, content).unwrap();
        store
            .guest_image(
                &kernel,
                &ImageSpec {
                    init: &init,
                    modules,
                    on_demand: &[],
                    files: vec![],
                },
            )
            .unwrap()
            .digest
    };
    let first = digest_with("agent 1", &["virtio"]);
    assert_eq!(digest_with("agent 1", &["virtio"]), first);
    assert_ne!(digest_with("agent 2", &["virtio"]), first);
    assert_ne!(digest_with("agent 1", &["virtio_blk"]), first);
    assert_eq!(store.list().unwrap().len(), 4, "one kernel, three images");
}

#[test]
fn a_kernel_built_by_hand_is_taken_with_its_modules_and_without() {
    let (dir, store) = store();
    let (kernel_path, tree) = (dir.path().join("bzImage"), dir.path().join("out"));
    fs::write(&kernel_path, bootable_bzimage("6.12.0-mine")).unwrap();
    fs::create_dir_all(tree.join("lib/modules/6.12.0-mine/kernel")).unwrap();
    fs::write(
        tree.join("lib/modules/6.12.0-mine/kernel/m.ko"),
        module("m", ""),
    )
    .unwrap();
    let init = dir.path().join("init");
    fs::write(&init, "init").unwrap();
    for (modules, expected) in [(Some(tree), 1), (None, 0)] {
        let spec = crate::KernelSpec::File {
            kernel: kernel_path.clone(),
            modules,
        };
        let kernel = store.kernel(&spec, &mut Silent).unwrap();
        assert_eq!(kernel.release, "6.12.0-mine");
        let image = store
            .guest_image(
                &kernel,
                &ImageSpec {
                    init: &init,
                    modules: &["m"],
                    on_demand: &[],
                    files: vec![],
                },
            )
            .unwrap();
        assert_eq!(image.manifest.modules.len(), expected);
    }
    fs::write(&kernel_path, "a text").unwrap();
    let spec = crate::KernelSpec::File {
        kernel: kernel_path,
        modules: None,
    };
    assert!(matches!(
        store.kernel(&spec, &mut Silent),
        Err(Error::NotAKernel { .. })
    ));
}
