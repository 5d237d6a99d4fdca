//! The command line: exit codes and what people are told. No network; each test has a cache of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(cache: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pincushion-image"))
        .args(args)
        .env("PINCUSHION_CACHE", cache)
        .output()
        .expect("cargo built the program before this test")
}

fn assert_refused(output: &Output, code: i32, told: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(told), "expected {told:?} in: {stderr}");
}

#[test]
fn bad_arguments_end_with_2_and_name_the_argument() {
    let cache = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 10] = [
        (
            &["build", "--kernel", "design:bais"],
            "no design `bais`; did you mean `bias`?",
        ),
        (
            &["build", "--kernel", "design:bias+bonce"],
            "no policy `bonce`; did you mean `bounce`?",
        ),
        (
            &["kernel", "build", "--design", "bais"],
            "no design `bais`; did you mean `bias`?",
        ),
        (
            &["kernel", "build", "--flavour", "debg"],
            "no flavour `debg`; did you mean `debug`?",
        ),
        (
            &["build", "--kernel", "fedora:41"],
            "`fedora:41` names no kernel",
        ),
        (&["build", "--file", "only-a-source"], "expected SRC:DST"),
        (
            &["build", "--init", "x", "--modules", "m"],
            "--modules is for a kernel given by its path",
        ),
        (&["remove"], "--all"),
        (
            &["remove", "0123456789"],
            "nothing in the cache is called `0123456789`",
        ),
        (&["show", "0123456789"], "pincushion image list"),
    ];
    for (args, told) in cases {
        assert_refused(&run(cache.path(), args), 2, told);
    }
}

#[test]
fn what_is_missing_ends_with_3_and_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let text = cache.path().join("text");
    fs::write(&text, "no kernel").unwrap();
    let text = text.to_str().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (
            &["build", "--init", text, "--kernel", "design:bias+bounce"],
            "pincushion image kernel build --design bias",
        ),
        (
            &["kernel", "check", "--source", text],
            "but source.toml says",
        ),
        (&["build", "--init", text, "--kernel", text], "is no kernel"),
        (
            &["build", "--init", text, "--kernel", "/nowhere/vmlinux"],
            "/nowhere/vmlinux",
        ),
        (
            &["build", "--init", text, "--host-program", "no-such-program"],
            "apt-get install -y --no-install-recommends no-such-program",
        ),
        (&["extract-vmlinux", text, "/nowhere/out"], "not a bzImage"),
    ];
    for (args, told) in cases {
        assert_refused(&run(cache.path(), args), 3, told);
    }
}

#[test]
fn an_empty_cache_lists_nothing_and_is_undamaged() {
    let cache = tempfile::tempdir().unwrap();
    let list = run(cache.path(), &["list", "--json"]);
    assert_eq!(
        (list.status.code(), list.stdout.as_slice()),
        (Some(0), b"[]\n".as_slice())
    );
    assert_eq!(run(cache.path(), &["verify"]).status.code(), Some(0));
}

#[test]
fn a_list_that_nobody_reads_ends_quietly_by_sigpipe() {
    use std::os::unix::process::ExitStatusExt;
    let cache = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_pincushion-image"))
        .args(["list", "--json"])
        .env("PINCUSHION_CACHE", cache.path())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGPIPE), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_damaged_entry_fails_verify_and_can_be_removed() {
    let cache = tempfile::tempdir().unwrap();
    let kernels = format!("v{}/kernels", pincushion_image::FORMAT);
    let entry = cache.path().join(kernels).join("a".repeat(64));
    fs::create_dir_all(&entry).unwrap();
    fs::write(entry.join("manifest.json"), "{").unwrap();
    assert_refused(&run(cache.path(), &["verify"]), 1, "damaged: aaaaaaaaaaaa");
    assert_eq!(
        run(cache.path(), &["remove", "aaaaaa"]).status.code(),
        Some(0)
    );
    assert!(!entry.exists());
    assert_eq!(run(cache.path(), &["verify"]).status.code(), Some(0));
}
