//! Where a vCPU was when it stopped, for people who have to find out why a guest hangs.
//!
//! Promises: making a report changes nothing in the vCPU and cannot fail; what KVM or guest memory would not say is missing in it.
//! It does not walk the guest's stack and knows no symbols: the bytes at the instruction pointer and the top of the stack are
//! for a reader who has the kernel's image.

use std::fmt;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED, KVM_MP_STATE_UNINITIALIZED, kvm_lapic_state, kvm_regs, kvm_sregs,
};
use kvm_ioctls::VcpuFd;
use pincushion_devices::device::Memory;
use vm_memory::{Bytes, GuestAddress};

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_IF: u64 = 1 << 9;

/// How many of the last exits are remembered.
const EXITS_KEPT: usize = 16;
/// How many bytes before and after the instruction pointer are told.
const CODE_BYTES: u64 = 16;
/// How many words of the stack are told: some frames deep, if a frame is small.
const STACK_WORDS: u64 = 32;
/// Offset and stride of the interrupt request register in a local APIC's page (Intel SDM volume 3, 11.4.1).
const LAPIC_IRR: usize = 0x200;
const LAPIC_STRIDE: usize = 0x10;

/// Where a vCPU was when it stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VcpuReport {
    /// Which vCPU.
    pub index: u8,
    /// Its instruction pointer; 0 where KVM would not say.
    pub rip: u64,
    /// Whether it slept in `hlt` or waited for its start-up interrupt.
    pub halted: bool,
    /// In words: what the processor does (`runs`, `sleeps in hlt`, ...), in which mode, whether it takes interrupts, what its
    /// last exit was.
    pub summary: String,
    /// Many lines: registers, pending events, last exits, code and stack.
    pub details: String,
}

impl fmt::Display for VcpuReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vcpu{} at {:#x}", self.index, self.rip)?;
        if self.summary.is_empty() {
            return Ok(());
        }
        write!(f, ", {}", self.summary)
    }
}

/// Reports one after the other, as a file for people has them.
#[must_use]
pub fn full_text(reports: &[VcpuReport]) -> String {
    reports
        .iter()
        .map(|report| format!("{report}\n{}\n", report.details))
        .collect()
}

/// What made a vCPU leave the guest. Only what a reader can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastExit {
    /// A port was read.
    In(u16),
    /// A port was written, and with what (its first byte).
    Out(u16, u8),
    /// A device's register was read.
    Read(u64),
    /// A device's register was written.
    Write(u64),
    /// A signal of ours.
    Signal,
}

impl fmt::Display for LastExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(port) => write!(f, "in {port:#x}"),
            Self::Out(port, byte) => write!(f, "out {port:#x} {byte:#04x}"),
            Self::Read(address) => write!(f, "read {address:#x}"),
            Self::Write(address) => write!(f, "write {address:#x}"),
            Self::Signal => write!(f, "signal"),
        }
    }
}

/// The last exits of a vCPU and their number. Costs some nanoseconds beside the microseconds of an exit.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    count: usize,
    last: [Option<LastExit>; EXITS_KEPT],
}

impl Exits {
    pub(crate) fn add(&mut self, exit: LastExit) {
        self.last[self.count % EXITS_KEPT] = Some(exit);
        self.count += 1;
    }

    /// The remembered ones, oldest first.
    fn in_order(&self) -> impl DoubleEndedIterator<Item = LastExit> {
        let oldest = self.count % EXITS_KEPT;
        let (newer, older) = self.last.split_at(oldest);
        older.iter().chain(newer).copied().flatten()
    }
}

/// Looks at a vCPU that does not run.
pub(crate) fn report(index: u8, fd: &VcpuFd, memory: &Memory, exits: &Exits) -> VcpuReport {
    let regs = fd.get_regs().unwrap_or_default();
    let sregs = fd.get_sregs().unwrap_or_default();
    let mp_state = fd
        .get_mp_state()
        .map_or(KVM_MP_STATE_RUNNABLE, |state| state.mp_state);
    let takes = if regs.rflags & RFLAGS_IF == 0 {
        "interrupts off"
    } else {
        "interrupts on"
    };
    // A signal is how we stopped it: it says nothing about the guest.
    let last = exits
        .in_order()
        .rev()
        .find(|exit| *exit != LastExit::Signal)
        .map_or("no exit yet".into(), |exit| format!("last exit: {exit}"));
    VcpuReport {
        index,
        rip: regs.rip,
        halted: mp_state != KVM_MP_STATE_RUNNABLE,
        summary: format!("{}, {}, {takes}, {last}", activity(mp_state), mode(&sregs)),
        details: details(fd, memory, &regs, &sregs, exits),
    }
}

fn activity(mp_state: u32) -> String {
    match mp_state {
        KVM_MP_STATE_RUNNABLE => "runs".into(),
        KVM_MP_STATE_HALTED => "sleeps in hlt".into(),
        KVM_MP_STATE_UNINITIALIZED => "was never started".into(),
        KVM_MP_STATE_INIT_RECEIVED => "waits for its start-up interrupt".into(),
        KVM_MP_STATE_SIPI_RECEIVED => "has got its start-up interrupt".into(),
        other => format!("is in KVM's state {other}"),
    }
}

fn mode(sregs: &kvm_sregs) -> &'static str {
    if sregs.efer & EFER_LMA != 0 {
        if sregs.cs.l == 1 {
            "64-bit mode"
        } else {
            "compatibility mode"
        }
    } else if sregs.cr0 & CR0_PG != 0 {
        "protected mode with paging"
    } else if sregs.cr0 & CR0_PE != 0 {
        "protected mode without paging"
    } else {
        "real mode"
    }
}

fn details(
    fd: &VcpuFd,
    memory: &Memory,
    regs: &kvm_regs,
    sregs: &kvm_sregs,
    exits: &Exits,
) -> String {
    let mut lines = vec![
        format!(
            "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
            regs.rax, regs.rbx, regs.rcx, regs.rdx
        ),
        format!(
            "  rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}",
            regs.rsi, regs.rdi, regs.rbp, regs.rsp
        ),
        format!(
            "  r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}",
            regs.r8, regs.r9, regs.r10, regs.r11
        ),
        format!(
            "  r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
            regs.r12, regs.r13, regs.r14, regs.r15
        ),
        format!(
            "  rflags {:x} cs {:x} cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x} idt {:x}+{:x} gs {:x}",
            regs.rflags,
            sregs.cs.selector,
            sregs.cr0,
            sregs.cr2,
            sregs.cr3,
            sregs.cr4,
            sregs.efer,
            sregs.idt.base,
            sregs.idt.limit,
            sregs.gs.base
        ),
        format!("  pending: {}", pending(fd)),
    ];
    let list: Vec<String> = exits.in_order().map(|exit| exit.to_string()).collect();
    lines.push(format!(
        "  {} exits, the last: {}",
        exits.count,
        list.join(", ")
    ));
    let code: Vec<String> = bytes(
        fd,
        memory,
        regs.rip.saturating_sub(CODE_BYTES),
        2 * CODE_BYTES,
    )
    .map(|byte| format!("{byte:02x}"))
    .collect();
    lines.push(format!(
        "  code from rip-{CODE_BYTES:#x}: {}",
        code.join(" ")
    ));
    let stack: Vec<u8> = bytes(fd, memory, regs.rsp, STACK_WORDS * 8).collect();
    let words = stack.chunks_exact(8).map(|word| {
        format!(
            "{:x}",
            u64::from_le_bytes(word.try_into().expect("8 bytes"))
        )
    });
    lines.push(format!(
        "  stack from rsp: {}",
        words.collect::<Vec<_>>().join(" ")
    ));
    lines.join("\n")
}

/// Events that KVM still has to bring to the guest.
fn pending(fd: &VcpuFd) -> String {
    let mut words = Vec::new();
    if let Ok(events) = fd.get_vcpu_events() {
        let exception = events.exception;
        if exception.injected != 0 || exception.pending != 0 {
            words.push(format!(
                "exception {} with error code {:#x}",
                exception.nr, exception.error_code
            ));
        }
        if events.interrupt.injected != 0 {
            words.push(format!("interrupt {} under way", events.interrupt.nr));
        }
        if events.nmi.injected != 0 || events.nmi.pending != 0 {
            words.push("an NMI".into());
        }
    }
    if let Ok(lapic) = fd.get_lapic() {
        let vectors: Vec<String> = requested(&lapic).map(|vector| vector.to_string()).collect();
        if !vectors.is_empty() {
            words.push(format!("vectors {} asked for", vectors.join(" ")));
        }
    }
    if words.is_empty() {
        return "nothing".into();
    }
    words.join(", ")
}

/// The vectors in a local APIC's interrupt request register.
fn requested(lapic: &kvm_lapic_state) -> impl Iterator<Item = usize> {
    (0..256).filter(|vector| {
        let byte = LAPIC_IRR + vector / 32 * LAPIC_STRIDE + vector % 32 / 8;
        lapic.regs[byte].cast_unsigned() >> (vector % 8) & 1 == 1
    })
}

/// Up to `len` bytes of guest memory from the guest's virtual address `start`; ends where nothing is mapped.
fn bytes(fd: &VcpuFd, memory: &Memory, start: u64, len: u64) -> impl Iterator<Item = u8> {
    (0..len).map_while(move |offset| {
        let translated = fd.translate_gva(start.checked_add(offset)?).ok()?;
        if translated.valid == 0 {
            return None;
        }
        memory
            .read_obj(GuestAddress(translated.physical_address))
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exits_are_told_oldest_first() {
        let mut exits = Exits::default();
        assert_eq!(exits.in_order().count(), 0);
        for port in 0..20 {
            exits.add(LastExit::In(port));
        }
        let ports: Vec<LastExit> = exits.in_order().collect();
        assert_eq!(ports.len(), EXITS_KEPT);
        assert_eq!(
            (ports[0], ports[EXITS_KEPT - 1]),
            (LastExit::In(4), LastExit::In(19))
        );
    }

    #[test]
    fn requested_vectors_are_read_from_the_right_bits() {
        let mut lapic = kvm_lapic_state::default();
        // Vector 0x31 is bit 17 of the second word of 32 bits.
        lapic.regs[LAPIC_IRR + LAPIC_STRIDE + 2] = 2;
        assert_eq!(requested(&lapic).collect::<Vec<_>>(), [0x31]);
    }

    #[test]
    fn a_report_without_details_is_one_short_line() {
        let report = VcpuReport {
            index: 1,
            rip: 0x10,
            ..Default::default()
        };
        assert_eq!(report.to_string(), "vcpu1 at 0x10");
    }
}
