//! The user's terminal in raw mode, given back on every way out.
//!
//! Promises: the terminal is as it was after the guard is dropped, after `process::exit`, and when any thread
//! panics. A process that is killed outright cannot keep that promise.

#![expect(
    unsafe_code,
    reason = "termios and atexit are C interfaces without a safe wrapper"
)]

use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, Once};

use crate::lock::lock;

/// The terminal's settings from before raw mode; `None` when it is as it was.
static ORIGINAL: Mutex<Option<libc::termios>> = Mutex::new(None);

/// Standard input in raw mode for as long as this lives.
#[derive(Debug)]
pub(crate) struct RawTerminal(());

impl RawTerminal {
    /// Switches standard input to raw mode; `None` where it is not a terminal.
    ///
    /// # Errors
    /// The terminal driver's error.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        // SAFETY: termios is plain data for which all zeros is a value.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `settings` outlives the call and has the type that the call fills.
        if unsafe { libc::tcgetattr(stdin.as_raw_fd(), &mut settings) } < 0 {
            return Err(io::Error::last_os_error());
        }
        *lock(&ORIGINAL) = Some(settings);
        restore_on_every_way_out();
        // SAFETY: changes only `settings`.
        unsafe { libc::cfmakeraw(&mut settings) };
        // The output side keeps turning "\n" into "\r\n": our own log lines go there too.
        settings.c_oflag |= libc::OPOST;
        // SAFETY: `settings` is initialised and outlives the call.
        if unsafe { libc::tcsetattr(stdin.as_raw_fd(), libc::TCSANOW, &settings) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Some(Self(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

extern "C" fn restore() {
    let original = lock(&ORIGINAL).take();
    if let Some(settings) = original {
        // SAFETY: `settings` came from tcgetattr and outlives the call.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &settings) };
    }
}

fn restore_on_every_way_out() {
    static HOOKS: Once = Once::new();
    HOOKS.call_once(|| {
        // SAFETY: `restore` is a function without arguments that does not unwind.
        unsafe { libc::atexit(restore) };
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            earlier(info);
        }));
    });
}

/// What to do with a typed byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Bytes for the guest.
    Bytes(Vec<u8>),
    /// The user wants to leave.
    Leave,
    /// Standard input has ended.
    End,
}

/// Reads what was typed and finds the key to leave: Ctrl-A, then x. Ctrl-A twice sends one.
#[derive(Debug, Default)]
pub(crate) struct TypedInput {
    escaped: bool,
}

impl TypedInput {
    /// Reads once from standard input, which is readable.
    pub(crate) fn read(&mut self) -> Typed {
        let mut buffer = [0; 256];
        // Not through `io::stdin`: its buffer could keep bytes while the descriptor is no longer readable.
        // SAFETY: the buffer outlives the call, which writes at most its length.
        let len =
            unsafe { libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(len) {
            Ok(0) | Err(_) => Typed::End,
            Ok(len) => self.interpret(&buffer[..len]),
        }
    }

    fn interpret(&mut self, typed: &[u8]) -> Typed {
        const CTRL_A: u8 = 1;
        let mut bytes = Vec::new();
        for &byte in typed {
            match (std::mem::take(&mut self.escaped), byte) {
                (true, b'x' | b'X') => return Typed::Leave,
                (true, CTRL_A) => bytes.push(CTRL_A),
                (true, other) => bytes.extend([CTRL_A, other]),
                (false, CTRL_A) => self.escaped = true,
                (false, other) => bytes.push(other),
            }
        }
        Typed::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_leaves_also_across_two_reads() {
        let mut input = TypedInput::default();
        assert_eq!(input.interpret(b"ls\r"), Typed::Bytes(b"ls\r".to_vec()));
        assert_eq!(input.interpret(b"a\x01"), Typed::Bytes(b"a".to_vec()));
        assert_eq!(input.interpret(b"x"), Typed::Leave);
    }

    #[test]
    fn ctrl_a_twice_sends_one_and_other_keys_pass() {
        let mut input = TypedInput::default();
        assert_eq!(
            input.interpret(b"\x01\x01x"),
            Typed::Bytes(b"\x01x".to_vec())
        );
        assert_eq!(input.interpret(b"\x01k"), Typed::Bytes(b"\x01k".to_vec()));
    }
}
