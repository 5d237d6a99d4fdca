//! Names the sources of the nested machine's agent (`PINCUSHION_NESTED_SOURCES`), so that a program notices one that was not
//! built together with it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What the agent of the nested machine and its vocabulary are made of.
const SOURCES: [&str; 3] = [
    "src/nested",
    "../agent/src/nested",
    "../agent/src/bin/nested_agent.rs",
];

fn main() {
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        collect(Path::new(source), &mut files);
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        let text = fs::read(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        (file, text).hash(&mut hasher);
    }
    let digest = hasher.finish();
    println!("cargo::rustc-env=PINCUSHION_NESTED_SOURCES={digest:016x}");
}

/// Adds the files at and below `path`.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return files.push(path.to_owned());
    }
    let entries = fs::read_dir(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        collect(&entry.path(), files);
    }
}
