//! SIGINT and SIGTERM, handed to a function on a thread of their own.

use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// While it lives, the two signals do nothing but call a function.
#[derive(Debug)]
pub struct OnSignal {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl OnSignal {
    /// `call` gets the number of each signal, one after the other.
    ///
    /// # Errors
    /// The host refuses a thread or a handler.
    pub fn new(mut call: impl FnMut(i32) + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(&mut call))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for OnSignal {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the function was printed by its thread; there is nothing left to undo.
            let _ = thread.join();
        }
    }
}

/// Ends this process as a shell tells of one that the signal ended: with 128 and its number.
pub fn leave(signal: i32) -> ! {
    std::process::exit(128 + signal)
}
