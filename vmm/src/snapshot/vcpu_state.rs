//! What KVM knows of a vCPU.
//!
//! The order is KVM's: CPUID decides which registers there are; special registers come before the local APIC, whose base is one of them;
//! the TSC before the deadline that is counted in it, and that after the APIC, whose timer mode gives it a meaning; what is
//! pending and whether the vCPU runs come last.

#![expect(
    unsafe_code,
    reason = "KVM_SET_XSAVE reads as much as KVM says that the area has"
)]

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::boot::cpuid::host_is_emulated;

const TSC: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;
/// Most registers that KVM takes at once.
const MSRS_AT_ONCE: usize = 128;
/// The local APIC's timer entry, and the bit that makes its timer count to a deadline.
const LVT_TIMER: usize = 0x320;
const LVT_DEADLINE: u8 = 1 << 2;
/// The bit by which the type of a busy task segment differs from an available one's.
const BUSY: u8 = 1 << 1;

/// A vCPU's part of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedVcpu {
    cpuid: Vec<kvm_cpuid_entry2>,
    regs: kvm_regs,
    sregs: kvm_sregs,
    debug: kvm_debugregs,
    xcrs: Option<kvm_xcrs>,
    xsave: kvm_xsave,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
}

/// Registers that can be saved, the TSC first and the deadline last.
pub(crate) fn msr_indices(kvm: &Kvm) -> Result<Vec<u32>, SnapshotError> {
    let list = kvm
        .get_msr_index_list()
        .map_err(SnapshotError::kvm("list its model-specific registers"))?;
    let others = list.as_slice().iter().copied();
    let others = others.filter(|index| ![TSC, TSC_DEADLINE].contains(index));
    Ok(std::iter::once(TSC)
        .chain(others)
        .chain([TSC_DEADLINE])
        .collect())
}

impl SavedVcpu {
    /// Of a vCPU whose last exit is completed.
    pub(crate) fn save(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, SnapshotError> {
        // First: it makes KVM take in what a vCPU that waits for its start-up was sent.
        let mp_state = vcpu
            .get_mp_state()
            .map_err(SnapshotError::kvm("read a vCPU's state"))?;
        let lapic = vcpu
            .get_lapic()
            .map_err(SnapshotError::kvm("read a local APIC"))?;
        let mut saved = read_msrs(vcpu, msrs)?;
        fire_an_expired_deadline(&mut saved, &lapic);
        Ok(Self {
            mp_state,
            lapic,
            msrs: saved,
            cpuid: vcpu
                .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
                .map_err(SnapshotError::kvm("read CPUID"))?
                .as_slice()
                .to_vec(),
            regs: vcpu
                .get_regs()
                .map_err(SnapshotError::kvm("read registers"))?,
            sregs: vcpu
                .get_sregs()
                .map_err(SnapshotError::kvm("read special registers"))?,
            debug: vcpu
                .get_debug_regs()
                .map_err(SnapshotError::kvm("read debug registers"))?,
            // Without XSAVE on the host there are none.
            xcrs: vcpu.get_xcrs().ok(),
            xsave: vcpu
                .get_xsave()
                .map_err(SnapshotError::kvm("read the floating point unit"))?,
            events: vcpu
                .get_vcpu_events()
                .map_err(SnapshotError::kvm("read pending events"))?,
        })
    }

    /// Into a vCPU that was just made.
    pub(crate) fn restore(&self, vm: &VmFd, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        let cpuid = CpuId::from_entries(&self.cpuid).map_err(|_| SnapshotError::Kvm {
            attempt: "take so many CPUID leaves",
            source: kvm_ioctls::Error::new(libc::E2BIG),
        })?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(SnapshotError::kvm("set CPUID"))?;
        vcpu.set_sregs(&task_register_for(host_is_emulated(), self.sregs))
            .map_err(SnapshotError::kvm("set special registers"))?;
        vcpu.set_regs(&self.regs)
            .map_err(SnapshotError::kvm("set registers"))?;
        self.restore_fpu(vm, vcpu)?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(SnapshotError::kvm("set debug registers"))?;
        let (deadline, others): (Vec<_>, Vec<_>) = self
            .msrs
            .iter()
            .partition(|entry| entry.index == TSC_DEADLINE);
        write_msrs(vcpu, &others)?;
        vcpu.set_lapic(&self.lapic)
            .map_err(SnapshotError::kvm("set a local APIC"))?;
        write_msrs(vcpu, &deadline)?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(SnapshotError::kvm("set pending events"))?;
        vcpu.set_mp_state(self.mp_state)
            .map_err(SnapshotError::kvm("set a vCPU's state"))
    }

    fn restore_fpu(&self, vm: &VmFd, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        let area = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        if area > size_of::<kvm_xsave>() {
            return Err(SnapshotError::Kvm {
                attempt: "restore a floating point unit with more than 4096 bytes of state",
                source: kvm_ioctls::Error::new(libc::E2BIG),
            });
        }
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs)
                .map_err(SnapshotError::kvm("set extended control registers"))?;
        }
        // SAFETY: KVM reads 4096 bytes where the area is not larger, which was just asked, and nothing enlarges it in between.
        unsafe { vcpu.set_xsave(&self.xsave) }
            .map_err(SnapshotError::kvm("set the floating point unit"))
    }
}

/// Reads what can be read: KVM lists registers also of features that this vCPU does not have.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, SnapshotError> {
    let entry = |index: &u32| kvm_msr_entry {
        index: *index,
        ..Default::default()
    };
    let mut read = Vec::new();
    let mut rest = indices;
    while !rest.is_empty() {
        let chunk: Vec<_> = rest.iter().take(MSRS_AT_ONCE).map(entry).collect();
        let mut msrs = Msrs::from_entries(&chunk).expect("few enough");
        let count = vcpu
            .get_msrs(&mut msrs)
            .map_err(SnapshotError::kvm("read model-specific registers"))?;
        read.extend_from_slice(&msrs.as_slice()[..count]);
        // KVM stops at the first that it cannot read.
        let skipped = usize::from(count < chunk.len());
        rest = &rest[count + skipped..];
    }
    Ok(read)
}

fn write_msrs(vcpu: &VcpuFd, entries: &[&kvm_msr_entry]) -> Result<(), SnapshotError> {
    let mut rest = entries;
    while !rest.is_empty() {
        let chunk: Vec<_> = rest.iter().take(MSRS_AT_ONCE).map(|it| **it).collect();
        let msrs = Msrs::from_entries(&chunk).expect("few enough");
        let count = vcpu
            .set_msrs(&msrs)
            .map_err(SnapshotError::kvm("set model-specific registers"))?;
        if let Some(refused) = chunk.get(count) {
            accept_refusal(vcpu, refused)?;
        }
        let skipped = usize::from(count < chunk.len());
        rest = &rest[count + skipped..];
    }
    Ok(())
}

/// A register that is read-only, or is what it should be already, may be refused.
fn accept_refusal(vcpu: &VcpuFd, refused: &kvm_msr_entry) -> Result<(), SnapshotError> {
    let (index, value) = (refused.index, refused.data);
    let now = read_msrs(vcpu, &[index])?;
    if now.first().is_some_and(|now| now.data == value) {
        log::debug!("KVM does not take {value:#x} for {index:#x}, which it has already");
        return Ok(());
    }
    Err(SnapshotError::Msr { index, value })
}

/// KVM calls every task segment busy, as hardware does once it is loaded. TCG keeps what the descriptor said before, and lets only an
/// available one with an I/O bitmap allow a port: with a busy one, a program with `ioperm` would be killed by its next access.
fn task_register_for(tcg: bool, mut sregs: kvm_sregs) -> kvm_sregs {
    if tcg {
        sregs.tr.type_ &= !BUSY;
    }
    sregs
}

/// A deadline that has passed reads as 0, while its interrupt may not have reached the APIC's registers: KVM keeps it elsewhere. So it
/// passes once more; an interrupt of a timer that comes too often means nothing.
fn fire_an_expired_deadline(msrs: &mut [kvm_msr_entry], lapic: &kvm_lapic_state) {
    let counts_to_deadline = lapic.regs[LVT_TIMER + 2].cast_unsigned() & LVT_DEADLINE != 0;
    let tsc = msrs.iter().find(|entry| entry.index == TSC);
    let tsc = tsc.map_or(1, |entry| entry.data);
    let deadline = msrs.iter_mut().find(|entry| entry.index == TSC_DEADLINE);
    if let Some(deadline) = deadline.filter(|entry| entry.data == 0 && counts_to_deadline) {
        deadline.data = tsc;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_segment_is_not_busy_where_that_would_close_its_ports() {
        let mut sregs = kvm_sregs::default();
        sregs.tr.type_ = 0xb;
        assert_eq!(task_register_for(false, sregs).tr.type_, 0xb);
        assert_eq!(task_register_for(true, sregs).tr.type_, 0x9);
    }

    #[test]
    fn a_deadline_that_may_have_passed_unheard_passes_once_more() {
        let entry = |index, data| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let mut lapic = kvm_lapic_state::default();
        let mut msrs = [entry(TSC, 77), entry(TSC_DEADLINE, 0)];
        fire_an_expired_deadline(&mut msrs, &lapic);
        assert_eq!(msrs[1].data, 0, "its timer does not count to deadlines");
        lapic.regs[LVT_TIMER + 2] = 4;
        fire_an_expired_deadline(&mut msrs, &lapic);
        assert_eq!(msrs[1].data, 77);
        msrs[1].data = 99;
        fire_an_expired_deadline(&mut msrs, &lapic);
        assert_eq!(msrs[1].data, 99);
    }
}
