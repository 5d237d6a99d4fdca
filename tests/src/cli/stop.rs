//! Ctrl-C: the first ends the suite with its reports, the second leaves at once.

use pincushion_vmm::exit_code;
use pincushion_vmm::program::complain;
use pincushion_vmm::signals::{OnSignal, leave};

use super::Failure;
use crate::suite::Stop;

/// While the guard lives, SIGINT and SIGTERM stop the suite. Machines and runs on this host die with this process.
pub(super) fn on_signal(stop: Stop) -> Result<OnSignal, Failure> {
    let guard = OnSignal::new(move |signal| {
        if stop.wished().is_some() {
            leave(signal);
        }
        complain(format_args!(
            "-- stopping: the runs under way end, then come the reports; once more leaves at once"
        ));
        stop.wish(signal);
    });
    guard.map_err(|error| {
        Failure::setup(anyhow::anyhow!(
            "cannot take over SIGINT and SIGTERM: {error}"
        ))
    })
}

/// A signal's name.
pub(super) fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGINT => "SIGINT (Ctrl-C)",
        _ => "SIGTERM",
    }
}

/// The exit code of a suite that a signal stopped.
pub(super) fn code(signal: i32) -> u8 {
    match signal {
        libc::SIGINT => exit_code::INTERRUPTED,
        _ => exit_code::TERMINATED,
    }
}
