//! What the guest's CPUID says: KVM's answer, with the machine's topology and without what it must not see.
//!
//! Pure functions on the leaf table, so that every rule has a test without KVM.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// What differs from machine to machine and from vCPU to vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Number of vCPUs, 1 to 16: each is a core with one thread.
    pub vcpus: u8,
    /// Which one this is; also its APIC id.
    pub index: u8,
    /// Whether KVM can run the local APIC timer in TSC deadline mode.
    pub tsc_deadline: bool,
    /// XSAVE and all that needs it.
    pub xsave: Xsave,
}

/// Whether the guest may see XSAVE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xsave {
    /// As KVM offers it.
    Offered,
    /// Hidden with everything that needs it: AVX, AVX-512, AMX, protection keys, leaf 0xd.
    Hidden,
}

impl Xsave {
    /// The choice for this host. A host that is itself emulated by QEMU's TCG gives its guests an XSAVE
    /// area whose size contradicts CPUID: Linux warns at boot, and with half of it hidden signals break.
    #[must_use]
    pub fn for_this_host() -> Self {
        if host_is_emulated() {
            Xsave::Hidden
        } else {
            Xsave::Offered
        }
    }
}

/// Whether this host's CPU is QEMU's TCG: the nested machine. Its SVM differs from a CPU's in some places.
pub(crate) fn host_is_emulated() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    let name = [leaf.ebx, leaf.ecx, leaf.edx]
        .map(u32::to_le_bytes)
        .concat();
    name == b"TCGTCGTCGTCG"
}

/// Leaf 1 ECX.
mod leaf1_ecx {
    pub const FMA: u32 = 1 << 12;
    pub const X2APIC: u32 = 1 << 21;
    pub const TSC_DEADLINE: u32 = 1 << 24;
    pub const XSAVE: u32 = 1 << 26;
    pub const OSXSAVE: u32 = 1 << 27;
    pub const AVX: u32 = 1 << 28;
    pub const F16C: u32 = 1 << 29;
    pub const HYPERVISOR: u32 = 1 << 31;
}

/// Leaf 7, subleaf 0: MPX, AVX2 and the AVX-512 family in EBX.
const LEAF7_EBX_XSAVE: u32 = 1 << 5
    | 1 << 14
    | 1 << 16
    | 1 << 17
    | 1 << 21
    | 1 << 26
    | 1 << 27
    | 1 << 28
    | 1 << 30
    | 1 << 31;
/// Leaf 7, subleaf 0: protection keys, AVX-512 and VEX-coded AES and carry-less multiply in ECX.
const LEAF7_ECX_XSAVE: u32 =
    1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14;
/// Leaf 7, subleaf 0: AVX-512 and AMX in EDX.
const LEAF7_EDX_XSAVE: u32 = 1 << 2 | 1 << 3 | 1 << 8 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25;
/// Leaf 0x8000_0001 ECX: XOP, LWP, FMA4.
const EXT1_ECX_XSAVE: u32 = 1 << 11 | 1 << 15 | 1 << 16;

/// The table for one vCPU, from KVM's `supported` leaves.
#[must_use]
pub fn for_vcpu(supported: &[kvm_cpuid_entry2], profile: Profile) -> Vec<kvm_cpuid_entry2> {
    let topology_leaf = |leaf| matches!(leaf, 0xb | 0x1f);
    let mut table: Vec<_> = supported
        .iter()
        .copied()
        .filter(|entry| !topology_leaf(entry.function))
        .collect();
    for entry in &mut table {
        match entry.function {
            0x1 => leaf_1(entry, profile),
            0x4 | 0x8000_001d => cache_sharing(entry, profile),
            0x8000_0001 if profile.vcpus > 1 && is_amd(supported) => entry.ecx |= 1 << 1,
            0x8000_0008 if is_amd(supported) => {
                entry.ecx = u32::from(profile.vcpus - 1) | core_bits(profile.vcpus) << 12;
            }
            0x8000_001e => amd_topology(entry, profile),
            _ => {}
        }
        if profile.xsave == Xsave::Hidden {
            hide_xsave(entry);
        }
    }
    if profile.xsave == Xsave::Hidden {
        table.retain(|entry| !matches!(entry.function, 0xd | 0x12 | 0x14 | 0x1d | 0x1e));
    }
    if supported
        .iter()
        .any(|entry| entry.function == 0 && entry.eax >= 0xb)
    {
        table.extend(extended_topology(profile));
    }
    table
}

fn leaf_1(entry: &mut kvm_cpuid_entry2, profile: Profile) {
    const HTT: u32 = 1 << 28;
    // EBX: brand (7:0) and cache line (15:8) stay, then how many APIC ids the package has, and ours.
    entry.ebx =
        (entry.ebx & 0xffff) | u32::from(profile.vcpus) << 16 | u32::from(profile.index) << 24;
    entry.ecx |= leaf1_ecx::HYPERVISOR | leaf1_ecx::X2APIC;
    if profile.tsc_deadline {
        entry.ecx |= leaf1_ecx::TSC_DEADLINE;
    }
    if profile.vcpus > 1 {
        entry.edx |= HTT;
    } else {
        entry.edx &= !HTT;
    }
}

/// EAX of the cache leaves: level in 7:5, sharing threads less one in 25:14; leaf 4 has the package's
/// cores less one in 31:26. The last level is shared by all, the others belong to one core.
fn cache_sharing(entry: &mut kvm_cpuid_entry2, profile: Profile) {
    if entry.eax & 0x1f == 0 {
        return;
    }
    let level = entry.eax >> 5 & 7;
    let sharing = if level >= 3 {
        u32::from(profile.vcpus - 1)
    } else {
        0
    };
    entry.eax = (entry.eax & 0x3fff) | sharing << 14;
    if entry.function == 0x4 {
        entry.eax |= u32::from(profile.vcpus - 1) << 26;
    }
}

/// AMD's topology: extended APIC id, core id with one thread per core, one node.
fn amd_topology(entry: &mut kvm_cpuid_entry2, profile: Profile) {
    entry.eax = u32::from(profile.index);
    entry.ebx = u32::from(profile.index);
    entry.ecx = 0;
    entry.edx = 0;
}

/// Leaf 0xb: a level of one thread per core, a level of all cores, the end.
fn extended_topology(profile: Profile) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let level = |index, eax, ebx, kind| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: index | kind,
        edx: u32::from(profile.index),
        ..Default::default()
    };
    [
        level(0, 0, 1, THREAD),
        level(1, core_bits(profile.vcpus), u32::from(profile.vcpus), CORE),
        level(2, 0, 0, 0),
    ]
}

/// Bits of an APIC id that tell the cores apart.
fn core_bits(vcpus: u8) -> u32 {
    vcpus.next_power_of_two().trailing_zeros()
}

fn is_amd(supported: &[kvm_cpuid_entry2]) -> bool {
    supported.iter().any(|entry| {
        let vendor = [entry.ebx, entry.edx, entry.ecx]
            .map(u32::to_le_bytes)
            .concat();
        entry.function == 0 && (vendor == b"AuthenticAMD" || vendor == b"HygonGenuine")
    })
}

fn hide_xsave(entry: &mut kvm_cpuid_entry2) {
    use leaf1_ecx::{AVX, F16C, FMA, OSXSAVE, XSAVE};
    match (entry.function, entry.index) {
        (0x1, _) => entry.ecx &= !(XSAVE | OSXSAVE | AVX | FMA | F16C),
        (0x7, 0) => {
            entry.ebx &= !LEAF7_EBX_XSAVE;
            entry.ecx &= !LEAF7_ECX_XSAVE;
            entry.edx &= !LEAF7_EDX_XSAVE;
        }
        (0x7, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        (0x8000_0001, _) => entry.ecx &= !EXT1_ECX_XSAVE,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, regs: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = regs;
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    fn vendor(name: &[u8; 12], max_leaf: u32) -> kvm_cpuid_entry2 {
        let word = |at: usize| u32::from_le_bytes(*name[at..].first_chunk().unwrap());
        leaf(0, 0, [max_leaf, word(0), word(8), word(4)])
    }

    fn find(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *table
            .iter()
            .find(|entry| (entry.function, entry.index) == (function, index))
            .unwrap()
    }

    const FOUR: Profile = Profile {
        vcpus: 4,
        index: 3,
        tsc_deadline: true,
        xsave: Xsave::Offered,
    };

    #[test]
    fn each_vcpu_has_its_apic_id_in_every_leaf_that_has_one() {
        let supported = [
            vendor(b"AuthenticAMD", 0x10),
            leaf(1, 0, [0, 0x0101_0800, 0, 0]),
            leaf(0xb, 0, [0, 0, 0, 99]),
            leaf(0x8000_001e, 0, [99, 99, 99, 99]),
        ];
        let table = for_vcpu(&supported, FOUR);
        assert_eq!(find(&table, 1, 0).ebx, 0x0304_0800);
        assert_eq!(find(&table, 0xb, 0).edx, 3);
        let cores = find(&table, 0xb, 1);
        assert_eq!(
            (cores.eax, cores.ebx, cores.ecx, cores.edx),
            (2, 4, 0x201, 3)
        );
        assert_eq!(find(&table, 0x8000_001e, 0).eax, 3);
    }

    #[test]
    fn the_last_level_cache_is_shared_and_the_others_are_not() {
        let supported = [
            vendor(b"GenuineIntel", 0x10),
            leaf(4, 0, [0xfc00_0021 | 0x3ffc000, 0, 0, 0]),
            leaf(4, 3, [0x63, 0, 0, 0]),
        ];
        let table = for_vcpu(&supported, FOUR);
        assert_eq!(find(&table, 4, 0).eax >> 14 & 0xfff, 0);
        assert_eq!(find(&table, 4, 3).eax >> 14 & 0xfff, 3);
        assert_eq!(find(&table, 4, 3).eax >> 26, 3);
    }

    #[test]
    fn a_hidden_xsave_takes_everything_that_needs_it_along() {
        let supported = [
            vendor(b"AuthenticAMD", 0x10),
            leaf(1, 0, [0, 0, u32::MAX, 0]),
            leaf(7, 0, [0, u32::MAX, u32::MAX, 0]),
            leaf(0xd, 0, [7; 4]),
        ];
        let table = for_vcpu(
            &supported,
            Profile {
                xsave: Xsave::Hidden,
                ..FOUR
            },
        );
        let ecx = find(&table, 1, 0).ecx;
        assert_eq!(
            ecx & (leaf1_ecx::XSAVE | leaf1_ecx::OSXSAVE | leaf1_ecx::AVX),
            0
        );
        assert_ne!(ecx & leaf1_ecx::HYPERVISOR, 0);
        assert_eq!(find(&table, 7, 0).ecx & 1 << 3, 0, "protection keys");
        assert!(!table.iter().any(|entry| entry.function == 0xd));
        let offered = for_vcpu(&supported, FOUR);
        assert!(offered.iter().any(|entry| entry.function == 0xd));
    }

    #[test]
    fn core_bits_round_up() {
        assert_eq!([1, 2, 3, 4, 5, 16].map(core_bits), [0, 1, 2, 2, 3, 4]);
    }
}
