//! Both programs are PID 1 of a machine of ours and change nothing anywhere else: they would mount over the host's directories and switch
//! it off. That this test needs them makes `cargo test` build them for the scenarios too.

use std::process::Command;

#[test]
fn the_agents_do_nothing_where_they_are_not_pid_1() {
    for program in [
        env!("CARGO_BIN_EXE_pincushion-agent"),
        env!("CARGO_BIN_EXE_pincushion-nested-agent"),
    ] {
        let ended = Command::new(program).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success(), "{program}: {said}");
        assert!(said.contains("does nothing elsewhere"), "{program}: {said}");
    }
}
