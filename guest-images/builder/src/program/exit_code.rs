//! Exit codes of every pincushion program, in one place. The README has the same table.

/// Done: the guest powered off; a suite saw just what it expected.
pub const OK: u8 = 0;
/// The machine failed while it ran: the host refused something, or a bug of ours. A cache that was verified is damaged.
pub const FAILED: u8 = 1;
/// The command line, the configuration file, the plan or the scenario is wrong.
pub const BAD_ARGUMENTS: u8 = 2;
/// Something that is needed is missing or unusable: a kernel, an image, a package, a port.
pub const SETUP_ERROR: u8 = 3;
/// No /dev/kvm, no permission for it, or one that cannot run what was asked.
pub const NO_USABLE_KVM: u8 = 4;
/// The guest reset itself and `--on-reset` is `exit`.
pub const GUEST_RESET: u8 = 10;
/// The guest's kernel panicked.
pub const GUEST_PANIC: u8 = 11;
/// The guest, or a step in it, did not end within its limit.
pub const HANG: u8 = 12;
/// A suite saw something that it did not expect, in either direction.
pub const SURPRISE: u8 = 20;
/// A scenario could not establish what it needed.
pub const INCONCLUSIVE: u8 = 21;
/// With `--until`: the runs do not tell whether the kernel is good (`git bisect run` skips it then).
pub const CANNOT_TELL: u8 = 125;
/// Stopped by SIGINT (128 + 2).
pub const INTERRUPTED: u8 = 130;
/// Nobody read the output of the nested machine's command any more, which was stopped for that (128 + SIGPIPE's 13).
pub const READER_GONE: u8 = 141;
/// Stopped by SIGTERM (128 + 15).
pub const TERMINATED: u8 = 143;

/// Every code with its meaning, for `--help` and the README.
pub const TABLE: &[(u8, &str)] = &[
    (
        OK,
        "done: the guest powered off; the suite saw what it expected",
    ),
    (
        FAILED,
        "the machine failed while it ran; a verified cache is damaged",
    ),
    (
        BAD_ARGUMENTS,
        "bad arguments, configuration, plan or scenario",
    ),
    (
        SETUP_ERROR,
        "setup error: a kernel, image, package or port is missing or unusable",
    ),
    (
        NO_USABLE_KVM,
        "no usable KVM (`pincushion doctor` says more)",
    ),
    (GUEST_RESET, "the guest reset itself"),
    (GUEST_PANIC, "the guest's kernel panicked"),
    (HANG, "the guest or a step did not end within its limit"),
    (
        SURPRISE,
        "the suite saw something that it did not expect; with `--until broken`: the kernel broke a promise",
    ),
    (
        INCONCLUSIVE,
        "a scenario could not establish what it needed",
    ),
    (
        CANNOT_TELL,
        "with `--until broken`: the runs do not tell; `git bisect run` skips the kernel",
    ),
    (INTERRUPTED, "stopped by SIGINT"),
    (
        READER_GONE,
        "nobody read the nested command's output any more",
    ),
    (TERMINATED, "stopped by SIGTERM"),
];

/// The lines of `--help` about `codes`, which are some of [`TABLE`].
#[must_use]
pub fn help(codes: &[u8]) -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in TABLE.iter().filter(|(code, _)| codes.contains(code)) {
        text.push_str(&format!("  {code:>3}  {meaning}\n"));
    }
    text
}

/// As [`help`], for a program that has all codes.
#[must_use]
pub fn help_all() -> String {
    help(&TABLE.iter().map(|(code, _)| *code).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_tells_the_codes_that_were_asked_for_and_no_others() {
        let text = help(&[HANG, OK]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("\n   12  the guest or a step"), "{text}");
        assert_eq!(help_all().lines().count(), 1 + TABLE.len());
    }

    /// The README has the same table.
    #[test]
    fn the_readme_lists_every_code() {
        let readme = include_str!("../../../../README.md");
        for (code, meaning) in TABLE {
            let row = format!("| {code} | {meaning} |");
            assert!(readme.contains(&row), "no row: {row}");
        }
    }
}
