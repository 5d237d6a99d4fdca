//! Programs of the kernel's own selftests that are about pinned pages, built of the same source as the kernels, static, for a guest image.
//!
//! They lie in `sources/<digest>/selftests/` and are removed with the source. The series that the tree has at that time is no part of what
//! they are known by: it changes no file that they are built of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::KernelError;
use super::build::full_disk;
use super::catalogue::Catalogue;
use super::files::KernelFiles;
use super::make::Make;
use super::source::{Source, lock_source};
use super::tools::{Needed, Tools};
use crate::apt::Apt;
use crate::error::{Error, IoContext as _};
use crate::image::ExtraFile;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::store::{Store, remove_if_there};

/// Which are built, of `tools/testing/selftests/mm`.
const PROGRAMS: [&str; 4] = ["cow", "gup_longterm", "gup_test", "hugetlb_dio"];
/// What they need beside what a kernel needs; without it they leave io_uring out.
const MORE: &[Needed] = &[("/usr/include/liburing.h", "liburing-dev")];
/// Their directory in the source.
const PLACE: &str = "tools/testing/selftests/mm";

/// The kernel's selftests, built.
#[derive(Debug, Clone)]
pub struct Selftests {
    dir: PathBuf,
}

impl Selftests {
    /// The programs as files of a guest image: `/selftests/NAME`.
    #[must_use]
    pub fn files(&self) -> Vec<ExtraFile> {
        let file = |name: &&str| ExtraFile {
            source: self.dir.join(name),
            path: format!("/selftests/{name}"),
            mode: 0o755,
        };
        PROGRAMS.iter().map(file).collect()
    }
}

/// Builds them, unless they have been built; `true`: they were.
///
/// # Errors
/// The source cannot be had, a tool is missing, or the build fails: see [`KernelError`].
pub fn build_selftests(
    store: &Store,
    files: &KernelFiles,
    given: Option<&Path>,
    jobs: usize,
    progress: &mut dyn Progress,
) -> Result<(Selftests, bool), Error> {
    let package = Catalogue::read(files)?.source;
    let source = Source::new(store, &package);
    let built = Selftests {
        dir: source.dir.join("selftests"),
    };
    if built.dir.is_dir() {
        return Ok((built, true));
    }
    let tools = Tools::ensure(MORE, progress)?;
    let lock = lock_source(store, &package.sha256, progress)?;
    // Another process may have built them until then.
    if built.dir.is_dir() {
        return Ok((built, true));
    }
    source
        .fetch(&Apt, given, progress)
        .and_then(|()| source.unpack(progress))
        .and_then(|()| make_selftests(&source.tree(), &built, &tools, &lock, jobs, progress))
        .map_err(full_disk)?;
    Ok((built, false))
}

fn make_selftests(
    tree: &Path,
    built: &Selftests,
    tools: &Tools,
    lock: &Lock,
    jobs: usize,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let output = tree.join("build-selftests");
    fs::create_dir_all(&output).during("create", &output)?;
    let make = |source: PathBuf| Make {
        source,
        output: output.clone(),
        // Without ccache: their Makefile asks the compiler for libraries by a script that takes its first word.
        tools,
        jobs,
        lock,
    };
    progress.step("building", "the selftests' headers");
    let words = ["ARCH=x86".to_owned(), "headers".to_owned()];
    make(tree.to_owned()).run(&words, &output.join("headers.log"), None, progress)?;
    progress.step("building", &PROGRAMS.join(", "));
    // What their Makefile once found out about the host's libraries it keeps.
    for name in ["local_config.h", "local_config.mk"] {
        let path = tree.join(PLACE).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.during("remove", &path)?,
        }
    }
    let mut words = vec![
        format!("OUTPUT={}", output.display()),
        format!(
            "KHDR_INCLUDES=-isystem {}",
            output.join("usr/include").display()
        ),
        "LDFLAGS=-static".to_owned(),
    ];
    let programs = PROGRAMS.map(|name| output.join(name));
    words.extend(programs.iter().map(|path| path.display().to_string()));
    make(tree.join(PLACE)).run(&words, &output.join("build.log"), None, progress)?;
    keep(&programs, &built.dir)
}

/// Puts all of them into `dir`, or makes none.
fn keep(programs: &[PathBuf], dir: &Path) -> Result<(), Error> {
    let temporary = dir.with_extension("tmp");
    remove_if_there(&temporary)?;
    fs::create_dir_all(&temporary).during("create", &temporary)?;
    for program in programs {
        let to = temporary.join(program.file_name().unwrap_or_default());
        fs::copy(program, &to).during("write", &to)?;
    }
    fs::rename(&temporary, dir).during("rename", &temporary)
}

/// Those that have been built.
///
/// # Errors
/// None have been built of the source that `files` name: the message has the command.
pub fn find_selftests(store: &Store, files: &KernelFiles) -> Result<Selftests, Error> {
    let package = Catalogue::read(files)?.source;
    let dir = Source::new(store, &package).dir.join("selftests");
    if dir.is_dir() {
        Ok(Selftests { dir })
    } else {
        Err(KernelError::NoSelftests.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::tree;
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn what_was_built_is_found_whole_and_is_not_built_again() {
        let dir = tree();
        let files = KernelFiles::Directory(dir.path().to_owned());
        let store = Store::at(&dir.path().join("cache")).unwrap();
        let told = find_selftests(&store, &files).unwrap_err().to_string();
        assert!(
            told.contains("`pincushion image kernel selftests`"),
            "{told}"
        );
        let package = Catalogue::read(&files).unwrap().source;
        let place = Source::new(&store, &package).dir.join("selftests");
        let programs = PROGRAMS.map(|name| dir.path().join(name));
        // One is missing: nothing is there.
        for program in &programs[1..] {
            fs::write(program, "x").unwrap();
        }
        assert!(keep(&programs, &place).is_err() && find_selftests(&store, &files).is_err());
        fs::write(&programs[0], "y").unwrap();
        keep(&programs, &place).unwrap();
        let found = find_selftests(&store, &files).unwrap().files();
        assert_eq!(found[0].path, "/selftests/cow");
        assert_eq!(fs::read(&found[0].source).unwrap(), b"y");
        assert_eq!(found.len(), PROGRAMS.len());
        let (_, was_there) = build_selftests(&store, &files, None, 1, &mut Silent).unwrap();
        assert!(was_there);
    }
}
