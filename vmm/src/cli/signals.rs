//! SIGINT and SIGTERM: the first stops the guest and lets everything be put in order, the second leaves at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// While it lives, a signal calls a function once; a second one ends the process.
pub struct StopOnSignal {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl StopOnSignal {
    /// `code` becomes the exit code of the first signal (128 + its number) before `stop` is called.
    ///
    /// # Errors
    /// The host refuses a thread or a handler.
    pub fn new(code: Arc<AtomicU8>, stop: impl Fn() + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    let first =
                        code.swap(128 + u8::try_from(signal).unwrap_or(0), Ordering::Relaxed) == 0;
                    if !first {
                        std::process::exit(128 + signal);
                    }
                    eprintln!("pincushion: stopping the guest; once more leaves at once");
                    stop();
                }
            })?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for StopOnSignal {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // The thread has no way to panic that matters here: it only waits.
            let _ = thread.join();
        }
    }
}
