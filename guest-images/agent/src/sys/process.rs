//! Processes, and the end of the machine.
#![expect(unsafe_code, reason = "fork, waitpid, socketpair, reboot")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Once;

use super::{check, check_len};
use crate::fault::Errno;

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(i32),
}

/// `fork(2)`. In the child only this thread lives: locks that other threads held stay locked for
/// ever, so the child must not ask for any that its forker did not hold.
pub fn fork() -> Result<Forked, Errno> {
    // SAFETY: the C library puts its own locks in order; ours are the caller's duty, see above.
    match check("fork", unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Ends this process at once, without destructors.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(status) }
}

/// Sleeps until a signal ends this process.
pub fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

/// This thread's id.
pub fn thread_id() -> i32 {
    // SAFETY: takes nothing, never fails.
    unsafe { libc::gettid() }
}

/// Waits for any child to end: its process id and wait status.
pub fn wait_any() -> Result<(i32, i32), Errno> {
    let mut status = 0;
    // SAFETY: the status is ours.
    let pid = check("waitpid", unsafe { libc::waitpid(-1, &raw mut status, 0) })?;
    Ok((pid, status))
}

/// `kill(2)` with SIGKILL.
pub fn kill(pid: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("kill", unsafe { libc::kill(pid, libc::SIGKILL) }).map(drop)
}

/// `sched_setscheduler(2)` of this thread to SCHED_FIFO with the lowest of its priorities.
pub fn run_first() -> Result<(), Errno> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter is ours. Not every C library has the call for a thread.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO,
            &raw const lowest,
        )
    };
    check("sched_setscheduler", if ret < 0 { -1 } else { 0 }).map(drop)
}

/// Sends SIGUSR1 to a thread of this process. It has a handler that does nothing, installed without SA_RESTART: a call that sleeps
/// interruptibly ends with EINTR.
pub fn interrupt(tid: i32) -> Result<(), Errno> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: sigaction is plain data, all zeros is a value of it; the handler touches nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        }
    });
    // SAFETY: takes numbers only.
    let ret = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1) };
    check("tgkill", if ret < 0 { -1 } else { 0 }).map(drop)
}

extern "C" fn nothing(_signal: i32) {}

/// Two connected sockets that keep messages apart.
pub fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut pair = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors, which are then nobody else's.
    unsafe {
        check(
            "socketpair",
            libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()),
        )?;
        Ok((OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])))
    }
}

/// Sends one message.
pub fn send(socket: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    let fd = socket.as_raw_fd();
    // SAFETY: the buffer is ours for the length given.
    let sent = unsafe {
        libc::send(
            fd,
            message.as_ptr().cast(),
            message.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    check_len("send", sent).map(drop)
}

/// Receives one message into `buffer`; 0 bytes when the other end is gone.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        let fd = socket.as_raw_fd();
        // SAFETY: the buffer is ours for the length given.
        let got = check_len("recv", unsafe {
            libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0)
        });
        match got {
            Err(errno) if errno.number == libc::EINTR => {}
            other => return other,
        }
    }
}

/// A file without a name, for the output of a program.
pub fn anonymous_file() -> Result<File, Errno> {
    // SAFETY: a C string and a number; the descriptor is then nobody else's.
    unsafe {
        let fd = check(
            "memfd_create",
            libc::memfd_create(c"output".as_ptr(), libc::MFD_CLOEXEC),
        )?;
        Ok(File::from_raw_fd(fd))
    }
}

/// `reboot(2)` with RB_AUTOBOOT or RB_POWER_OFF. Comes back only when it failed.
pub fn reboot(command: i32) -> Errno {
    // SAFETY: takes a number.
    unsafe { libc::reboot(command) };
    Errno::last("reboot")
}
