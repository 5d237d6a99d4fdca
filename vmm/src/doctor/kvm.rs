//! Runs the probe's payload on /dev/kvm.

use std::io;

use kvm_bindings::{
    KVM_API_VERSION, kvm_dtable, kvm_msi, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::payload;

/// What the steps of the payload prove, in its order.
pub const STEPS: [&str; 5] = [
    "64-bit mode",
    "SSE in ring 0",
    "cmpxchg16b in ring 0",
    "an MMIO exit",
    "an interrupt",
];

/// What a host's KVM can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmAbility {
    /// Runs stock kernels.
    Full,
    /// Runs small payloads that begin in ring 3; a stock kernel fails on it at this step.
    PayloadsOnly {
        /// First of [`STEPS`] that did not pass.
        fails_at: &'static str,
        /// What KVM said.
        detail: String,
    },
    /// There is none to use.
    None {
        /// Why, and the way out.
        reason: String,
    },
}

impl KvmAbility {
    /// Whether a guest that boots Linux can run here without the nested machine.
    #[must_use]
    pub fn runs_stock_kernels(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// Tries this host's KVM. Takes milliseconds; never blocks for ever, since the payload counts its patience down.
#[must_use]
pub fn probe() -> KvmAbility {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            return KvmAbility::None {
                reason: why_closed(error.errno()),
            };
        }
    };
    if kvm.get_api_version() != i32::try_from(KVM_API_VERSION).unwrap_or(i32::MAX) {
        return KvmAbility::None {
            reason: format!(
                "/dev/kvm speaks API version {}, not 12",
                kvm.get_api_version()
            ),
        };
    }
    let needed = [
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    ];
    if let Some((_, name)) = needed.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return KvmAbility::None {
            reason: format!("this host's KVM lacks {name}"),
        };
    }
    match run_payload(&kvm) {
        Ok(Progress { passed: 5, .. }) => KvmAbility::Full,
        Ok(Progress { passed, stopped_by }) => KvmAbility::PayloadsOnly {
            fails_at: STEPS[usize::from(passed)],
            detail: stopped_by,
        },
        Err(error) => KvmAbility::None {
            reason: format!("/dev/kvm opens, but no machine can be made: {error}"),
        },
    }
}

fn why_closed(errno: i32) -> String {
    match errno {
        libc::ENOENT => {
            "there is no /dev/kvm: switch on virtualization in the firmware or the hypervisor above, and load kvm-intel or kvm-amd".into()
        }
        libc::EACCES | libc::EPERM => {
            "no permission for /dev/kvm: join its group (`sudo usermod -aG kvm $USER`, then log in anew) or run as root".into()
        }
        errno => format!("cannot open /dev/kvm: {}", io::Error::from_raw_os_error(errno)),
    }
}

struct Progress {
    passed: u8,
    stopped_by: String,
}

const MEMORY_SIZE: usize = 2 << 20;
const PAGE_TABLES: u64 = 0x2000;
const IDT: u64 = 0x8000;
const STACK_TOP: u64 = 0xf000;

fn run_payload(kvm: &Kvm) -> Result<Progress, Box<dyn std::error::Error>> {
    let vm = kvm.create_vm()?;
    vm.create_irq_chip()?;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)])?;
    map_memory(&vm, &memory)?;
    let (code, handler) = payload::bytes();
    memory.write_slice(code, GuestAddress(payload::LOAD_ADDR))?;
    write_page_tables(&memory)?;
    write_idt_entry(&memory, payload::LOAD_ADDR + handler)?;
    let mut vcpu = vm.create_vcpu(0)?;
    // First, since KVM refuses long mode on a vCPU that does not claim to have it.
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)?)?;
    enter_long_mode(&vcpu)?;
    drive(&vm, &mut vcpu)
}

fn drive(vm: &VmFd, vcpu: &mut VcpuFd) -> Result<Progress, Box<dyn std::error::Error>> {
    let mut passed = 0;
    loop {
        let stopped_by = match vcpu.run() {
            Ok(VcpuExit::IoOut(payload::REPORT_PORT, &[payload::NO_INTERRUPT])) => {
                "it did not arrive".to_owned()
            }
            Ok(VcpuExit::IoOut(payload::REPORT_PORT, &[step])) if step == passed + 1 => {
                passed = step;
                if step == 4 {
                    vm.signal_msi(kvm_msi {
                        address_lo: 0xfee0_0000,
                        data: u32::from(payload::VECTOR),
                        ..kvm_msi::default()
                    })?;
                }
                if step < 5 {
                    continue;
                }
                "the end".to_owned()
            }
            Ok(VcpuExit::MmioWrite(addr, _)) if addr == u64::from(payload::MMIO_ADDR) => continue,
            Ok(exit) => format!("{exit:?}"),
            Err(error) if error.errno() == libc::EINTR => continue,
            Err(error) => error.to_string(),
        };
        return Ok(Progress { passed, stopped_by });
    }
}

#[expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes a raw mapping")]
fn map_memory(vm: &VmFd, memory: &GuestMemoryMmap<()>) -> Result<(), Box<dyn std::error::Error>> {
    let region = kvm_userspace_memory_region {
        memory_size: MEMORY_SIZE as u64,
        userspace_addr: memory.get_host_address(GuestAddress(0))? as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the mapping is MEMORY_SIZE long and outlives the VM: both are locals of `run_payload`, and the VM is used last.
    unsafe { vm.set_user_memory_region(region)? };
    Ok(())
}

/// Maps the first 4 GiB to itself by 2 MiB pages.
fn write_page_tables(memory: &GuestMemoryMmap<()>) -> Result<(), Box<dyn std::error::Error>> {
    let (pml4, pdpt, first_pd) = (PAGE_TABLES, PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    memory.write_obj(pdpt | 3, GuestAddress(pml4))?;
    for gib in 0..4 {
        let pd = first_pd + gib * 0x1000;
        memory.write_obj(pd | 3, GuestAddress(pdpt + gib * 8))?;
        for index in 0..512 {
            memory.write_obj(
                (gib << 30 | index << 21) | 0x83,
                GuestAddress(pd + index * 8),
            )?;
        }
    }
    Ok(())
}

/// One 64-bit interrupt gate for the probe's vector.
fn write_idt_entry(
    memory: &GuestMemoryMmap<()>,
    handler: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let low = handler & 0xffff | 0x8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
    let entry = GuestAddress(IDT + u64::from(payload::VECTOR) * 16);
    memory.write_obj(low, entry)?;
    memory.write_obj(handler >> 32, GuestAddress(entry.0 + 8))?;
    // The GDT that the gate's selector is looked up in: null, 64-bit code, data.
    for (index, descriptor) in [0u64, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]
        .into_iter()
        .enumerate()
    {
        memory.write_obj(descriptor, GuestAddress(GDT + index as u64 * 8))?;
    }
    Ok(())
}

const GDT: u64 = 0x1000;

fn enter_long_mode(vcpu: &VcpuFd) -> Result<(), Box<dyn std::error::Error>> {
    let mut sregs = vcpu.get_sregs()?;
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 8,
        type_: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment {
        selector: 16,
        type_: 3,
        db: 1,
        l: 0,
        ..code
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt = kvm_dtable {
        base: GDT,
        limit: 23,
        ..kvm_dtable::default()
    };
    sregs.idt = kvm_dtable {
        base: IDT,
        limit: 0xfff,
        ..kvm_dtable::default()
    };
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 = 0x620; // PAE, OSFXSR, OSXMMEXCPT
    sregs.cr0 = 0x8000_0033; // PG, NE, ET, MP, PE
    sregs.efer = 0x500; // LME, LMA
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rsp, regs.rflags) = (payload::LOAD_ADDR, STACK_TOP, 2);
    vcpu.set_regs(&regs)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_comes_to_an_answer_here() {
        match probe() {
            KvmAbility::None { reason } => println!("skipped: {reason}"),
            KvmAbility::PayloadsOnly { fails_at, detail } => {
                assert_ne!(fails_at, STEPS[0], "even 64-bit mode failed: {detail}");
            }
            KvmAbility::Full => {}
        }
    }

    #[test]
    fn a_closed_door_names_its_key() {
        assert!(why_closed(libc::ENOENT).contains("no /dev/kvm"));
        assert!(why_closed(libc::EACCES).contains("usermod -aG kvm"));
    }
}
