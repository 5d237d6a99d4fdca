//! Rules of the house that neither rustfmt nor clippy knows. Each failure names file, line and rule.

mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{SourceFile, root, rust_files, tracked_files};

/// Longest a Rust file may be, in lines.
const MAX_FILE_LINES: usize = 500;
/// Widest a line of code or text may be, in characters.
const MAX_LINE_WIDTH: usize = 150;
/// Widest a line of a commit message may be that is sent to kernel developers (`scripts/checkpatch.pl`).
const MAX_MESSAGE_WIDTH: usize = 75;

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn the_top_level_holds_the_rooms_and_nothing_else() {
    let known: BTreeSet<&str> = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "devices",
        "docs",
        "guest-images",
        "tests",
        "vmm",
    ]
    .into();
    let strangers: BTreeSet<String> = tracked_files()
        .iter()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.') && !known.contains(name))
        .map(str::to_owned)
        .collect();
    assert!(
        strangers.is_empty(),
        "not a room of the house: {strangers:?}"
    );
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let offences: Vec<String> = rust_files()
        .iter()
        .filter(|file| file.lines().count() > MAX_FILE_LINES)
        .map(|file| format!("{}: {} lines", file.path, file.lines().count()))
        .collect();
    assert_none("a Rust file has at most 500 lines: split it", &offences);
}

#[test]
fn no_line_runs_off_the_screen() {
    let offences = each_line(|line| line.chars().count() > MAX_LINE_WIDTH);
    assert_none("a line has at most 150 characters", &offences);
}

#[test]
fn every_module_says_what_it_is_for() {
    let offences: Vec<String> = rust_files()
        .iter()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| file.path.clone())
        .collect();
    assert_none("a Rust file begins with a module doc", &offences);
}

#[test]
fn nothing_sleeps_where_an_event_can_be_waited_for() {
    let offences = each_line(|line| {
        line.contains(concat!("thread::", "sleep")) || line.contains(concat!("libc::", "usleep"))
    });
    assert_none("wait for an event, with a limit", &offences);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let offences = each_line(|line| {
        line.contains(concat!("#[", "allow(")) || line.contains(concat!("#![", "allow("))
    });
    assert_none("use #[expect(lint, reason = \"...\")]", &offences);
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    let words = [
        concat!("/work", "/"),
        concat!("deb.debian", ".org"),
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
    ];
    let offences: Vec<String> = tracked_files()
        .iter()
        .filter(|path| *path != "Cargo.lock")
        .filter_map(|path| Some((path, std::fs::read_to_string(root().join(path)).ok()?)))
        .flat_map(|(path, text)| {
            text.lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
                .map(|(index, _)| format!("{path}:{}", index + 1))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_none("no machine paths, no host of a registry", &offences);
}

#[test]
fn a_kernel_patch_says_what_it_costs_and_what_is_dangerous_about_it() {
    let mut offences = Vec::new();
    let is_patch = |path: &String| path.starts_with("guest-images/kernel/patches/0");
    for path in tracked_files().into_iter().filter(is_patch) {
        let text = std::fs::read_to_string(root().join(&path)).expect("a patch");
        let message = text.split("\n---\n").next().unwrap_or_default();
        // What a mail's header folds is its own matter.
        let body = message.split_once("\n\n").map_or("", |(_, body)| body);
        let wide = |line: &&str| line.chars().count() > MAX_MESSAGE_WIDTH;
        offences.extend(
            body.lines()
                .filter(wide)
                .map(|line| format!("{path}: {line}")),
        );
        let is_cover = path.contains("/0000-");
        for word in ["\nCost: ", "\nHazard: ", "\nSigned-off-by: "] {
            if !is_cover && !body.contains(word) {
                offences.push(format!("{path}: no `{}`", word.trim()));
            }
        }
    }
    assert_none(
        "the message of a patch has at most 75 columns, a cost, a hazard and who has signed it",
        &offences,
    );
}

#[test]
fn every_dependency_is_a_decision() {
    let decisions =
        std::fs::read_to_string(root().join("docs/decisions.md")).expect("docs/decisions.md");
    let mut missing = BTreeSet::new();
    for path in tracked_files()
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
    {
        let text = std::fs::read_to_string(root().join(path)).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("a manifest is TOML");
        for section in ["dependencies", "dev-dependencies"] {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for name in table.keys().filter(|name| !name.starts_with("pincushion")) {
                if !decisions.contains(&format!("`{name}`")) {
                    missing.insert(format!("{path}: {name}"));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "each dependency has a line in docs/decisions.md: {missing:?}"
    );
}

#[test]
fn there_is_one_vm_memory_and_one_vmm_sys_util() {
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock"))
        .expect("Cargo.lock")
        .parse()
        .expect("TOML");
    let packages = lock["package"].as_array().expect("packages");
    for name in ["vm-memory", "vmm-sys-util", "kvm-bindings", "virtio-queue"] {
        let count = packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .count();
        assert_eq!(
            count, 1,
            "{name}: two versions of a rust-vmm crate do not share types"
        );
    }
}

#[test]
fn the_readme_has_the_exit_codes_as_they_are() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for (code, meaning) in pincushion_vmm::exit_code::TABLE {
        assert!(
            readme.contains(&format!("| {code} | {meaning} |")),
            "README.md lacks `| {code} | {meaning} |`"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in tracked_files().iter().filter(|path| path.ends_with(".md")) {
        let text = std::fs::read_to_string(root().join(path)).expect("a document");
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            let beside = root()
                .join(path)
                .parent()
                .unwrap_or(Path::new(""))
                .join(file);
            if !file.is_empty() && !file.contains("://") && !beside.exists() {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none("a link leads to a file of the tree", &broken);
}

fn each_line(offends: impl Fn(&str) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for SourceFile { path, text } in rust_files() {
        for (index, line) in text.lines().enumerate() {
            if offends(line) {
                offences.push(format!("{path}:{}", index + 1));
            }
        }
    }
    offences
}
