//! Loads and stores that survive SIGBUS and SIGSEGV.
//!
//! A scenario touches mappings whose file was truncated, whose disk fails, or which another thread
//! has unmapped. In PID 1 the signal would crash the kernel. So there is one copy instruction that
//! may fault, and a handler that knows its address: it moves the program counter behind it and
//! leaves the number of the signal and of the bytes not copied in registers.
#![expect(unsafe_code, reason = "a signal handler and a copy in assembly")]

use std::arch::global_asm;
use std::sync::Once;

use super::memory::Span;

// Arguments rdi destination, rsi source, rdx length; result rax bytes left, rdx signal. `rep movsb`
// keeps rcx, rsi and rdi exact when it faults.
global_asm!(
    ".global pincushion_guarded_copy",
    ".global pincushion_guarded_copy_at",
    ".global pincushion_guarded_copy_out",
    "pincushion_guarded_copy:",
    "mov rcx, rdx",
    "pincushion_guarded_copy_at:",
    "rep movsb",
    "xor edx, edx",
    "pincushion_guarded_copy_out:",
    "mov rax, rcx",
    "ret",
);

#[repr(C)]
struct Copied {
    left: usize,
    signal: usize,
}

unsafe extern "C" {
    fn pincushion_guarded_copy(
        to: *mut libc::c_void,
        from: *const libc::c_void,
        len: usize,
    ) -> Copied;
    fn pincushion_guarded_copy_at();
    fn pincushion_guarded_copy_out();
}

/// A load or store that a signal stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// `SIGBUS` or `SIGSEGV`.
    pub signal: &'static str,
    /// Bytes copied before.
    pub at: usize,
}

fn prepare(span: Span, bytes: &[u8]) {
    assert_eq!(
        span.len(),
        bytes.len(),
        "callers make the buffer as long as the span"
    );
    install();
}

/// Copies `bytes` into a mapping of the same length by the CPU, ascending.
pub fn store(span: Span, bytes: &[u8]) -> Result<(), Stopped> {
    prepare(span, bytes);
    // SAFETY: the source is a slice; the destination belongs to no Rust object and may fault.
    judge(
        unsafe { pincushion_guarded_copy(span.pointer(), bytes.as_ptr().cast(), bytes.len()) },
        bytes.len(),
    )
}

/// Copies a mapping into `bytes` of the same length by the CPU, ascending.
pub fn load(span: Span, bytes: &mut [u8]) -> Result<(), Stopped> {
    prepare(span, bytes);
    // SAFETY: the destination is a slice; the source belongs to no Rust object and may fault.
    judge(
        unsafe { pincushion_guarded_copy(bytes.as_mut_ptr().cast(), span.pointer(), bytes.len()) },
        bytes.len(),
    )
}

fn judge(copied: Copied, len: usize) -> Result<(), Stopped> {
    let at = len - copied.left;
    match i32::try_from(copied.signal) {
        Ok(0) => Ok(()),
        Ok(libc::SIGBUS) => Err(Stopped {
            signal: "SIGBUS",
            at,
        }),
        _ => Err(Stopped {
            signal: "SIGSEGV",
            at,
        }),
    }
}

/// Installs the handler, once per process.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: sigaction is plain data, all zeros is a value of it.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGBUS, libc::SIGSEGV] {
            // SAFETY: the handler touches its own frame and the saved registers only.
            unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
    });
}

/// Continues behind the guarded copy, or lets the signal do what it does without a handler.
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    const RIP: usize = libc::REG_RIP as usize;
    const RDX: usize = libc::REG_RDX as usize;
    /// The CPU, or madvise(MADV_HWPOISON), says that memory has failed.
    const BUS_MCEERR_AR: i32 = 4;
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel gives SA_SIGINFO handlers a valid context, which nobody else uses now.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    // SAFETY: the kernel gives a valid one with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    if registers[RIP] == pincushion_guarded_copy_at as *const () as i64 {
        registers[RIP] = pincushion_guarded_copy_out as *const () as i64;
        registers[RDX] = signal.into();
    } else if code == BUS_MCEERR_AR && signal == libc::SIGBUS {
        // Outside the copy a step has asked for it by madvise: no instruction has failed, and whoever touches the page gets the next one.
    } else {
        // SAFETY: back to the default; the instruction faults again and the process ends by it.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::super::memory::{PAGE, map, unmap};
    use super::*;

    const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

    #[test]
    fn what_was_stored_is_loaded() {
        let span = map(PAGE, READ_WRITE, ANONYMOUS, None, 0)
            .unwrap()
            .part(5, 3)
            .unwrap();
        store(span, &[1, 2, 3]).unwrap();
        let mut bytes = [0; 3];
        load(span, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3]);
    }

    #[test]
    fn a_load_beyond_the_end_of_the_file_stops_with_sigbus_at_its_byte() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE as u64).unwrap();
        let span = map(
            2 * PAGE,
            READ_WRITE,
            libc::MAP_SHARED,
            Some(file.as_raw_fd()),
            0,
        )
        .unwrap();
        let mut bytes = vec![0; 2 * PAGE];
        assert_eq!(
            load(span, &mut bytes),
            Err(Stopped {
                signal: "SIGBUS",
                at: PAGE
            })
        );
        assert_eq!(
            store(span, &bytes),
            Err(Stopped {
                signal: "SIGBUS",
                at: PAGE
            })
        );
        unmap(span).unwrap();
    }

    #[test]
    fn a_store_into_an_unmapped_or_read_only_mapping_stops_with_sigsegv() {
        let span = map(PAGE, libc::PROT_READ, ANONYMOUS, None, 0).unwrap();
        let stopped = Err(Stopped {
            signal: "SIGSEGV",
            at: 0,
        });
        assert_eq!(store(span, &[0; PAGE]), stopped);
        unmap(span).unwrap();
        assert_eq!(load(span, &mut [0; PAGE]), stopped);
    }
}
