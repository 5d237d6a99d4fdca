//! The probe's payload: 64-bit ring 0 code that does, one by one, what a stock kernel does early, and says after each
//! step that it still lives.
#![expect(
    unsafe_code,
    reason = "assembles the payload into this binary and takes its bounds from linker symbols"
)]

use std::arch::global_asm;

/// Port that the payload reports to: one byte, the number of the step it has passed.
pub const REPORT_PORT: u16 = 0x0e10;
/// MMIO address that the payload writes between steps 3 and 4; nothing may be mapped there.
pub const MMIO_ADDR: u32 = 0xd000_0000;
/// Interrupt vector that the host injects once step 4 was reported.
pub const VECTOR: u8 = 0x30;
/// Guest physical address where the payload must be copied.
pub const LOAD_ADDR: u64 = 0x1_0000;
/// Report when the interrupt did not come within the payload's patience.
pub const NO_INTERRUPT: u8 = 0xfe;

global_asm!(
    ".pushsection .rodata.pincushion_probe, \"a\"",
    ".global pincushion_probe_start, pincushion_probe_handler, pincushion_probe_end",
    ".code64",
    "pincushion_probe_start:",
    "mov edx, {port}",
    // 1: 64-bit mode, an I/O port.
    "mov al, 1",
    "out dx, al",
    // 2: SSE on registers and memory.
    "movd xmm0, edx",
    "pshufd xmm1, xmm0, 0",
    "paddd xmm1, xmm0",
    "movups [0x9100], xmm1",
    "mov al, 2",
    "out dx, al",
    // 3: a locked 16-byte compare and exchange, which the slab allocator lives on.
    "mov r15, rdx",
    "xor eax, eax",
    "xor edx, edx",
    "mov ebx, 1",
    "xor ecx, ecx",
    "lock cmpxchg16b [0x9000]",
    "mov rdx, r15",
    "mov al, 3",
    "out dx, al",
    // 4: a store to a device's registers; then the local APIC is switched on.
    "mov ebx, {mmio}",
    "mov [rbx], eax",
    "mov ebx, 0xfee00000",
    "mov dword ptr [rbx + 0xf0], 0x1ff",
    "mov al, 4",
    "out dx, al",
    // 5: an interrupt, reported by its handler.
    "sti",
    "mov ecx, 200000",
    "92:",
    "dec ecx",
    "jnz 92b",
    "mov al, {no_interrupt}",
    "out dx, al",
    "93: hlt",
    "jmp 93b",
    "pincushion_probe_handler:",
    "mov al, 5",
    "out dx, al",
    "94: hlt",
    "jmp 94b",
    "pincushion_probe_end:",
    ".popsection",
    port = const REPORT_PORT,
    mmio = const MMIO_ADDR,
    no_interrupt = const NO_INTERRUPT,
);

unsafe extern "C" {
    static pincushion_probe_start: u8;
    static pincushion_probe_handler: u8;
    static pincushion_probe_end: u8;
}

/// The payload's bytes, and the offset of its interrupt handler in them.
pub fn bytes() -> (&'static [u8], u64) {
    let start = &raw const pincushion_probe_start;
    let len = (&raw const pincushion_probe_end).addr() - start.addr();
    let handler = (&raw const pincushion_probe_handler).addr() - start.addr();
    // SAFETY: the assembler block above lays out start..end as one piece of read-only data of this binary.
    let code = unsafe { std::slice::from_raw_parts(start, len) };
    (code, handler as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_payload_is_one_small_piece() {
        let (code, handler) = super::bytes();
        assert!(code.len() < 4096 && handler < code.len() as u64);
    }
}
