//! SIGINT and SIGTERM of the host become the command's: the first asks it, the second kills it, the third leaves at once.
//!
//! Before there is a command, and after it, the first one leaves at once: nothing of the user's is in danger then, and QEMU goes
//! with this process.

use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::error::{NestedError, host};
use super::session::Signaller;
use crate::lock::lock;
use crate::program::complain;
use crate::signals::{OnSignal, leave};

/// While it lives, the two signals are taken from the process and handed on.
pub(super) struct Forwarder {
    target: Arc<Mutex<Target>>,
    _on_signal: OnSignal,
}

/// Who gets the next signal.
#[derive(Default)]
struct Target {
    signaller: Option<Signaller>,
    /// How many this command got.
    sent: u32,
}

impl Forwarder {
    pub(super) fn start() -> Result<Self, NestedError> {
        let target = Arc::<Mutex<Target>>::default();
        let for_thread = Arc::clone(&target);
        let on_signal = OnSignal::new(move |number| forward(number, &mut lock(&for_thread)))
            .map_err(host("take over SIGINT and SIGTERM"))?;
        Ok(Self {
            target,
            _on_signal: on_signal,
        })
    }

    /// From now on signals go to what runs in a machine; `None`: they end this process.
    pub(super) fn aim(&self, signaller: Option<Signaller>) {
        *lock(&self.target) = Target { signaller, sent: 0 };
    }
}

fn forward(number: i32, target: &mut Target) {
    target.sent += 1;
    match (&target.signaller, target.sent) {
        (Some(command), 1) => {
            complain(format_args!(
                "nested: passing the signal on to the command; again kills it"
            ));
            command.signal_all(number);
        }
        (Some(command), 2) => command.signal_all(Signal::KILL.as_raw()),
        // QEMU dies with us.
        _ => leave(number),
    }
}
