//! `pincushion nested`: its options, and which of the command's words are files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::config::default_memory_mib;

/// Options of `pincushion nested`.
#[derive(Clone, Debug, Args)]
pub struct NestedArgs {
    /// Memory of the nested machine in MiB; files put there live in it too
    #[arg(long, value_name = "MIB", default_value_t = default_memory_mib(), value_parser = clap::value_parser!(u32).range(256..))]
    pub memory: u32,
    /// CPUs of the nested machine; with several, QEMU now and then loses a kernel
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub cpus: u32,
    /// Copy a file in before the command runs; files that the command line names are copied by themselves
    #[arg(long, value_name = "SRC[:DST]")]
    pub put: Vec<String>,
    /// Copy a file or directory out after the command ended
    #[arg(long, value_name = "SRC[:DST]")]
    pub bring_back: Vec<String>,
    /// End the command after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub limit: Option<u64>,
    /// Give up if the machine is not up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub boot_limit: u64,
    /// Write the machine's console to this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// A pincushion command (`run`, `doctor`, `test`, ...) or the absolute path of a program in the machine, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `SRC[:DST]`, both absolute; without `DST` the file has the same path on both sides.
pub(super) fn source_and_target(text: &str) -> std::io::Result<(PathBuf, PathBuf)> {
    let (source, target) = match text.split_once(':') {
        Some((source, target)) if !target.is_empty() => (source, target),
        _ => (text.trim_end_matches(':'), text.trim_end_matches(':')),
    };
    Ok((std::path::absolute(source)?, std::path::absolute(target)?))
}

/// The words of the command in the machine: a first word that is no path is a command of `pincushion`, or one of our programs.
pub(super) fn inner_command(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    match words.first() {
        Some(first) if first.contains('/') => {}
        Some(first) if first == "pincushion" || first.starts_with("pincushion-") => {
            words[0] = format!("/bin/{first}");
        }
        Some(_) | None => words.insert(0, "/bin/pincushion".to_owned()),
    }
    words
}

/// A file of the host that the command names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    pub(super) access: Access,
}

/// What the command may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It reads it.
    Read,
    /// It is a disk: it may come back changed.
    Disk,
}

/// The files that `words` name: a word that is a path, or `key=PATH`, or such between commas as in `path=disk.img,id=a`.
/// `is_file` tells what is one. What a configuration file names is not seen.
pub(super) fn named_files(words: &[String], is_file: impl Fn(&Path) -> bool) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    for word in words {
        let is_read_only = word.split(',').any(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, "on"));
            matches!(key, "ro" | "readonly" | "read-only") && matches!(value, "on" | "true")
        });
        let whole = std::iter::once((None, word.as_str()));
        let parts = word.split(',').map(|part| match part.split_once('=') {
            Some((key, value)) => (Some(key), value),
            None => (None, part),
        });
        for (key, value) in whole.chain(parts) {
            let path = Path::new(value);
            if value.is_empty() || !is_file(path) || found.iter().any(|known| known.path == path) {
                continue;
            }
            let is_disk = key == Some("path") && !is_read_only;
            found.push(Named {
                path: path.to_owned(),
                access: if is_disk { Access::Disk } else { Access::Read },
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_first_word_chooses_the_program() {
        for (line, expected) in [
            ("run --kernel k", "/bin/pincushion run --kernel k"),
            ("pincushion run", "/bin/pincushion run"),
            ("pincushion-test list", "/bin/pincushion-test list"),
            ("/sbin/mke2fs -V", "/sbin/mke2fs -V"),
        ] {
            assert_eq!(inner_command(&words(line)), words(expected));
        }
    }

    #[test]
    fn files_are_found_in_every_place_of_a_command_line() {
        let line = words(
            "run --kernel vmlinuz --initrd=init --blk path=a.img,id=a --blk path=b.img,ro --blk path=c.img,read-only=on --cmdline quiet",
        );
        let is_file = |path: &Path| {
            ["vmlinuz", "init", "a.img", "b.img", "c.img"]
                .iter()
                .any(|f| path == Path::new(f))
        };
        let named = |path: &str, access| Named {
            path: path.into(),
            access,
        };
        assert_eq!(
            named_files(&line, is_file),
            [
                named("vmlinuz", Access::Read),
                named("init", Access::Read),
                named("a.img", Access::Disk),
                named("b.img", Access::Read),
                named("c.img", Access::Read),
            ]
        );
    }

    #[test]
    fn a_file_named_twice_is_sent_once_and_a_comma_in_a_name_is_no_end() {
        let line = words("a,b --x a,b");
        assert_eq!(named_files(&line, |path| path == Path::new("a,b")).len(), 1);
    }

    #[test]
    fn without_a_target_a_file_keeps_its_path() {
        let (source, target) = source_and_target("/a/b").unwrap();
        assert_eq!(
            (source.as_path(), target.as_path()),
            (Path::new("/a/b"), Path::new("/a/b"))
        );
        let (source, target) = source_and_target("/a:/b").unwrap();
        assert_eq!(
            (source.as_path(), target.as_path()),
            (Path::new("/a"), Path::new("/b"))
        );
    }
}
