//! Programs of the host that go into an image, with the shared libraries that they need.
//!
//! Libraries that a program opens by itself (NSS, plug-ins) are not seen, nor are its data files.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::command;
use crate::crate_program::CrateProgram;
use crate::error::{Error, IoContext as _};
use crate::image::ExtraFile;
use crate::install::install_line;

/// The file of the program `name` (a bare name, or a path), and those of its libraries and its loader, at the paths that they have here.
/// What was built of a crate into the cache goes to `/usr/bin`.
///
/// # Errors
/// The program is not installed, or its libraries cannot be told.
pub fn host_program(name: &str) -> Result<Vec<ExtraFile>, Error> {
    let program = find(name).ok_or_else(|| Error::NoProgram {
        name: name.to_owned(),
    })?;
    let mut own = extra(&program);
    if let Some(program) = CrateProgram::named(name) {
        own.path = program.path_in_image();
    }
    let mut files = vec![own];
    files.extend(libraries(&program)?.iter().map(|library| extra(library)));
    Ok(files)
}

/// The line that installs the program.
#[must_use]
pub fn line_for(name: &str) -> String {
    match CrateProgram::named(name) {
        Some(program) => program.line(),
        None => install_line(&[package_of(name)]),
    }
}

/// The Debian package that has the program, as far as Pincushion uses it.
#[must_use]
pub fn package_of(name: &str) -> &str {
    match name {
        "mke2fs" | "mkfs.ext4" | "e2fsck" | "debugfs" | "tune2fs" | "dumpe2fs" => "e2fsprogs",
        "mkfs.xfs" | "xfs_repair" | "xfs_io" => "xfsprogs",
        "mkfs.btrfs" | "btrfs" => "btrfs-progs",
        "timeout" | "test" => "coreutils",
        other => other,
    }
}

fn extra(path: &Path) -> ExtraFile {
    ExtraFile {
        source: path.to_owned(),
        path: path.display().to_string(),
        mode: 0o755,
    }
}

/// The file of a program, looked for in PATH and where the system's own tools are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if let Some(program) = CrateProgram::named(name) {
        return program.path().ok().filter(is_program);
    }
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // An ordinary user's PATH lacks the two with the file system tools.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(is_program)
}

/// What `ldd` says that `program` loads; nothing for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let bytes = fs::read(program).during("read", program)?;
    // `ldd` fails on what needs no library.
    if loader(&bytes).is_none() {
        return Ok(Vec::new());
    }
    let path = program.display().to_string();
    let listing = command::output(30, None, "ldd", &[&path])?;
    parse_ldd(&listing).map_err(|library| Error::Command {
        command: format!("ldd {path}"),
        reason: format!("the library {library} is not installed"),
    })
}

/// The loader that the ELF file `bytes` asks for (PT_INTERP); nothing for a static program or a file of another kind.
pub(crate) fn loader(bytes: &[u8]) -> Option<String> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    let path = segments
        .iter()
        .find_map(|segment| segment.interpreter(endian, bytes).ok().flatten())?;
    Some(String::from_utf8_lossy(path).into_owned())
}

/// Lines are `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader, or `NAME (ADDRESS)` for the vDSO. A missing
/// library is the error.
fn parse_ldd(listing: &str) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in listing.lines() {
        let (name, target) = line
            .split_once("=>")
            .map_or((line, line), |(name, target)| (name, target));
        if target.trim().starts_with("not found") {
            return Err(name.trim().to_owned());
        }
        let path = target.trim().split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_taken_and_the_vdso_is_not() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
             \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
             \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ]
        .map(PathBuf::from);
        assert_eq!(parse_ldd(listing).unwrap(), expected);
    }

    #[test]
    fn a_library_that_is_not_installed_is_named() {
        assert_eq!(
            parse_ldd("\tlibgone.so.1 => not found\n"),
            Err("libgone.so.1".to_owned())
        );
    }

    #[test]
    fn a_static_program_has_no_loader_and_other_files_have_none_either() {
        assert_eq!(loader(b"#!/bin/sh"), None);
        assert_eq!(loader(&crate::test_support::elf_of_len(200)), None);
        // This test itself is static, as every binary of this workspace.
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        assert_eq!(loader(&own), None);
        let with_loader = crate::test_support::elf_with_loader("/lib64/ld.so");
        assert_eq!(loader(&with_loader).as_deref(), Some("/lib64/ld.so"));
    }

    #[test]
    fn an_absent_program_is_told_with_its_package() {
        let message = host_program("mke2fs-of-nowhere").unwrap_err().to_string();
        assert!(
            message.contains("run `apt-get install -y --no-install-recommends mke2fs-of-nowhere`"),
            "{message}"
        );
        assert_eq!(package_of("e2fsck"), "e2fsprogs");
        assert!(line_for("fsx").starts_with("cargo install "));
        assert!(line_for("btrfs").ends_with(" btrfs-progs"));
    }
}
