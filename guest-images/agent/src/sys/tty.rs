//! The serial port on which requests come, and the console.
#![expect(
    unsafe_code,
    reason = "termios is set by a C struct; the console takes no lock"
)]

use std::fs::File;
use std::os::fd::AsRawFd;

use super::check;
use crate::fault::Errno;

/// Sets a tty to raw mode: no echo, no line editing, no signals. Fails with EIO where the driver has
/// no such port.
pub fn set_raw(tty: &File) -> Result<(), Errno> {
    // SAFETY: termios is plain data, all zeros is a value of it.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the struct is ours and outlives the calls.
    unsafe {
        check(
            "tcgetattr",
            libc::tcgetattr(tty.as_raw_fd(), &raw mut settings),
        )?;
        libc::cfmakeraw(&raw mut settings);
        check(
            "tcsetattr",
            libc::tcsetattr(tty.as_raw_fd(), libc::TCSANOW, &raw const settings),
        )?;
    }
    Ok(())
}

/// Writes to the console (standard error) without a lock, so that a forked child may use it too.
pub fn say_on_console(text: &[u8]) {
    // SAFETY: the text is ours for the length given. Nobody is there to hear of a failure.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}
