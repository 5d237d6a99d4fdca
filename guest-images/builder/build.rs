//! Embeds what kernels of our own designs are made of (`../kernel`: source.toml, the series, the fragments), so that an installed
//! program can build them. The list is made here and not by hand, since patches come and go.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const TREE: &str = "../kernel";

fn main() {
    println!("cargo::rerun-if-changed={TREE}");
    let mut files = vec![
        PathBuf::from("source.toml"),
        PathBuf::from("patches/series"),
    ];
    files.extend(ending("patches", "patch"));
    // For readers: nothing is built of it.
    files.retain(|file| !file.ends_with("0000-cover-letter.patch"));
    files.extend(ending("config", "config"));
    let mut code = String::from("&[\n");
    for file in &files {
        let path = Path::new(TREE).join(file);
        if !path.is_file() {
            continue;
        }
        let full =
            fs::canonicalize(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        writeln!(
            code,
            "    ({:?}, include_str!({:?})),",
            file.display().to_string(),
            full.display().to_string()
        )
        .expect("a string takes everything");
    }
    code.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kernel_files.rs");
    fs::write(&out, code).unwrap_or_else(|why| panic!("{}: {why}", out.display()));
}

/// The files of this ending in a folder of the tree, by name.
fn ending(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(TREE).join(folder))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Path::new(folder).join(entry.file_name()))
        .filter(|path| path.extension().is_some_and(|its| its == ending))
        .collect();
    files.sort();
    files
}
