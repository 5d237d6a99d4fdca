//! The KVM virtual machine: memory slots, interrupt controllers, clocks and vCPUs in their boot state.
//!
//! A reset of the guest makes a new one: nothing of the old kernel-side state can survive then.

#![expect(
    unsafe_code,
    reason = "memory slots hand a mapping to KVM, and KVM_SET_TSC_KHZ on a VM has no safe wrapper"
)]

use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_MEM_LOG_DIRTY_PAGES, KVM_PIT_SPEAKER_DUMMY, Msrs, kvm_msr_entry, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_io_nr;

use pincushion_devices::device::Memory;

use crate::boot::cpuid::{self, Profile, Xsave};
use crate::boot::entry::{boot_registers, boot_special_registers};
use crate::boot::kernel::Entry;
use crate::layout::{KVM_IDENTITY_MAP, KVM_TSS};
use crate::machine::MachineError;
use crate::region::Region;

ioctl_io_nr!(KVM_SET_TSC_KHZ, kvm_bindings::KVMIO, 0xa2);

/// A VM without vCPUs running yet.
#[derive(Debug)]
pub(crate) struct Vm {
    fd: Arc<VmFd>,
    /// KVM reads and writes guest memory through the slots for as long as the VM lives. After `fd`, so
    /// that it is dropped after it.
    _memory: Memory,
}

impl Vm {
    /// A VM with `memory`, which `regions` are a part of, an interrupt controller and a timer.
    pub(crate) fn create(
        kvm: &Kvm,
        memory: Memory,
        regions: &[Region],
    ) -> Result<Self, MachineError> {
        let fd = kvm
            .create_vm()
            .map_err(MachineError::kvm("create a virtual machine"))?;
        fd.set_identity_map_address(KVM_IDENTITY_MAP)
            .map_err(MachineError::kvm("place its identity map"))?;
        fd.set_tss_address(KVM_TSS)
            .map_err(MachineError::kvm("place its TSS"))?;
        use_current_tsc_rate(&fd);
        fd.create_irq_chip()
            .map_err(MachineError::kvm("create interrupt controllers"))?;
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        fd.create_pit2(pit)
            .map_err(MachineError::kvm("create the interval timer"))?;
        let fd = Arc::new(fd);
        map_memory(&fd, &memory, regions)?;
        Ok(Self {
            fd,
            _memory: memory,
        })
    }

    /// The VM, to register eventfds with. Whoever keeps it keeps it weakly.
    pub(crate) fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// vCPUs as KVM makes them.
    pub(crate) fn create_bare_vcpus(&self, count: u8) -> Result<Vec<VcpuFd>, MachineError> {
        let create = |index: u8| self.fd.create_vcpu(u64::from(index));
        let vcpus = (0..count).map(create).collect::<Result<_, _>>();
        vcpus.map_err(MachineError::kvm("create a vCPU"))
    }

    /// The vCPUs: the first about to enter at `entry`, the others waiting for their start-up interrupt.
    pub(crate) fn create_vcpus(
        &self,
        kvm: &Kvm,
        count: u8,
        entry: Entry,
    ) -> Result<Vec<VcpuFd>, MachineError> {
        let vcpus = self.create_bare_vcpus(count)?;
        let supported = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(MachineError::kvm("list its CPUID leaves"))?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        let xsave = Xsave::for_this_host();
        for (index, vcpu) in (0..count).zip(&vcpus) {
            let profile = Profile {
                vcpus: count,
                index,
                tsc_deadline,
                xsave,
            };
            let table = CpuId::from_entries(&cpuid::for_vcpu(supported.as_slice(), profile))
                .map_err(|_| MachineError::Kvm {
                    attempt: "take so many CPUID leaves",
                    source: kvm_ioctls::Error::new(libc::E2BIG),
                })?;
            vcpu.set_cpuid2(&table)
                .map_err(MachineError::kvm("set CPUID"))?;
            set_boot_msrs(vcpu)?;
        }
        if let Some(boot_processor) = vcpus.first() {
            let mut sregs = boot_processor
                .get_sregs()
                .map_err(MachineError::kvm("read special registers"))?;
            boot_special_registers(entry, &mut sregs);
            boot_processor
                .set_sregs(&sregs)
                .map_err(MachineError::kvm("set special registers"))?;
            boot_processor
                .set_regs(&boot_registers(entry))
                .map_err(MachineError::kvm("set registers"))?;
        }
        Ok(vcpus)
    }
}

/// Makes KVM use the TSC rate that the host knows now, not the one of when the module was loaded.
///
/// An emulated host calibrates twice; with the first value KVM believes that the rate of every vCPU has to be scaled,
/// cannot do so, and the guest's timers are wrong. A KVM without the ioctl has no such difference, so errors are of
/// no interest.
fn use_current_tsc_rate(vm: &VmFd) {
    // SAFETY: the ioctl takes an integer; 0 stands for the host's rate.
    let result = unsafe { ioctl_with_val(vm, KVM_SET_TSC_KHZ(), 0) };
    if result < 0 {
        log::debug!("KVM_SET_TSC_KHZ: {}", std::io::Error::last_os_error());
    }
}

fn map_memory(vm: &Arc<VmFd>, memory: &Memory, regions: &[Region]) -> Result<(), MachineError> {
    for (number, region) in (0..).zip(memory.iter()) {
        let start = region.start_addr().raw_value();
        let noted = regions
            .iter()
            .find(|noted| noted.notes_stores() && noted.start() == start);
        let slot = kvm_userspace_memory_region {
            slot: number,
            flags: noted.map_or(0, |_| KVM_MEM_LOG_DIRTY_PAGES),
            guest_phys_addr: start,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the slot is exactly the region's mapping, which `Vm` keeps alive longer than the VM, and which
        // nobody in this process accesses otherwise than as volatile.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(MachineError::kvm("map guest memory"))?;
        if let Some(noted) = noted {
            noted.connect(vm, number);
        }
    }
    Ok(())
}

/// What firmware would have set up: fast string operations, and write-back as the default memory type, so that the
/// kernel does not find its memory uncached.
fn set_boot_msrs(vcpu: &VcpuFd) -> Result<(), MachineError> {
    const IA32_MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRING: u64 = 1;
    const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
    const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[
        entry(IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
        entry(IA32_MISC_ENABLE, FAST_STRING),
    ])
    .expect("two entries fit");
    let set = vcpu
        .set_msrs(&msrs)
        .map_err(MachineError::kvm("set model-specific registers"))?;
    if set < 2 {
        log::debug!("KVM set only {set} of 2 boot MSRs");
    }
    Ok(())
}
