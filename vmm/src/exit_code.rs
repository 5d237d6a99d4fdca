//! Exit codes of every pincushion program, in one place. The README has the same table.

/// The guest powered off; a suite saw just what it expected.
pub const OK: u8 = 0;
/// The machine failed while it ran: the host refused something, or a bug of ours.
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
/// Stopped by SIGINT (128 + 2).
pub const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM (128 + 15).
pub const TERMINATED: u8 = 143;

/// Every code with its meaning, for `--help` and the README.
pub const TABLE: &[(u8, &str)] = &[
    (OK, "the guest powered off; the suite saw what it expected"),
    (FAILED, "the machine failed while it ran"),
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
    (SURPRISE, "the suite saw something that it did not expect"),
    (
        INCONCLUSIVE,
        "a scenario could not establish what it needed",
    ),
    (INTERRUPTED, "stopped by SIGINT"),
    (TERMINATED, "stopped by SIGTERM"),
];
