//! Fuzz targets, and the replay of what they found.
//!
//! `tests/fuzz/run` builds this with libFuzzer (the feature `libfuzzer`); `PINCUSHION_FUZZ` names the target then. Built as any other test
//! it needs no libFuzzer and no C++: each target meets every input of its `corpus`, and a file that is named by
//! `PINCUSHION_FUZZ_INPUT` alone.
//!
//! | target | what the bytes are |
//! | --- | --- |
//! | chains | what a driver writes into the rings of each device, and when it kicks, under a fault plan |
//! | transports | what it does with the registers of virtio-mmio and virtio-pci |
//! | plan | plans, flags, scenarios and machine files |
//! | api | requests to the control socket |
//! | logs | event logs for the judge |
//!
//! Not here: host I/O (io_uring and files answer later, so an input would not repeat) and KVM.
#![cfg_attr(feature = "libfuzzer", no_main)]

mod account;
mod api;
mod chains;
mod logs;
mod plan;
#[cfg(not(feature = "libfuzzer"))]
mod replay;
#[path = "../../../vmm/tests/control/schema.rs"]
mod schema;
mod subject;
mod transports;

/// A target: panics at the first promise that an input breaks.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("chains", chains::target),
    ("transports", transports::target),
    ("plan", plan::target),
    ("api", api::target),
    ("logs", logs::target),
];

#[cfg(feature = "libfuzzer")]
fn chosen() -> Target {
    static CHOSEN: std::sync::OnceLock<Target> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("PINCUSHION_FUZZ").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found
            .expect("PINCUSHION_FUZZ is a target: tests/fuzz/run sets it")
            .1
    })
}

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| chosen()(data));

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    replay::main()
}
