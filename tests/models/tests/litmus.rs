//! The barriers of the handshake by the kernel's own memory model: herd7 runs the files in `litmus/`.
//!
//! Needs `herd7` and the directory `tools/memory-model` of a kernel's source, named by `$PINCUSHION_LKMM`. Where one is missing the run is
//! left out, and the reason is printed; what is checked then is only that the files say what loom is asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use pincushion_models::handshake::{HANDSHAKES, Handshake};

fn file(handshake: &Handshake) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("litmus")
        .join(format!("{}.litmus", handshake.name))
}

fn expected(handshake: &Handshake) -> &'static str {
    if handshake.expect_overlooked {
        "Sometimes"
    } else {
        "Never"
    }
}

#[test]
fn each_handshake_has_a_litmus_file_with_the_same_barriers() {
    for handshake in &HANDSHAKES {
        let text = std::fs::read_to_string(file(handshake)).expect("a file per handshake");
        let has = |what: &str| text.contains(what);
        assert!(
            has(&format!("Result: {}", expected(handshake))),
            "{}",
            handshake.name
        );
        assert_eq!(
            has("smp_mb__after_atomic();"),
            handshake.gup_barrier && handshake.looks_again,
            "{}",
            handshake.name
        );
        assert_eq!(
            has("smp_mb();"),
            handshake.write_back_barrier,
            "{}",
            handshake.name
        );
        assert_eq!(
            has("r1 = READ_ONCE(*pte);"),
            handshake.looks_again,
            "{}",
            handshake.name
        );
    }
}

#[test]
fn the_kernels_memory_model_agrees_where_herd7_is_there() {
    let Some(model) = std::env::var_os("PINCUSHION_LKMM") else {
        println!(
            "left out: $PINCUSHION_LKMM names no tools/memory-model of a kernel's source (docs/models.md says how to run it)"
        );
        return;
    };
    for handshake in &HANDSHAKES {
        let output = Command::new("herd7")
            .args(["-conf", "linux-kernel.cfg"])
            .arg(file(handshake))
            .current_dir(&model)
            .output();
        let output = output.expect("$PINCUSHION_LKMM asks for herd7, which has to be in $PATH");
        let said = String::from_utf8_lossy(&output.stdout);
        let wanted = format!(
            "Observation gup-and-write-back-{} {} ",
            handshake.name,
            expected(handshake)
        );
        assert!(
            said.contains(&wanted),
            "{}: {said}{}",
            handshake.name,
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
