//! What KVM knows of a VM beside its vCPUs: interrupt chips, interval timer, clock.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
    kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::SnapshotError;

const CHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// The VM's part of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedVm {
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
    clock: kvm_clock_data,
}

impl SavedVm {
    /// Of a VM whose vCPUs stand.
    pub(crate) fn save(vm: &VmFd) -> Result<Self, SnapshotError> {
        let chip = |id: u32| {
            let mut chip = kvm_irqchip {
                chip_id: id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip).map(|()| chip)
        };
        let chips = CHIPS.into_iter().map(chip).collect::<Result<_, _>>();
        Ok(Self {
            chips: chips.map_err(SnapshotError::kvm("read an interrupt controller"))?,
            pit: vm
                .get_pit2()
                .map_err(SnapshotError::kvm("read the interval timer"))?,
            clock: vm
                .get_clock()
                .map_err(SnapshotError::kvm("read its clock"))?,
        })
    }

    /// Before any interrupt line is set: KVM keeps levels apart from the chips.
    pub(crate) fn restore_chips(&self, vm: &VmFd) -> Result<(), SnapshotError> {
        for chip in &self.chips {
            vm.set_irqchip(chip)
                .map_err(SnapshotError::kvm("set an interrupt controller"))?;
        }
        vm.set_pit2(&self.pit)
            .map_err(SnapshotError::kvm("set the interval timer"))
    }

    /// After the vCPUs' TSC: from now on the guest's clock goes on where it was, and no time has passed for it.
    pub(crate) fn restore_clock(&self, vm: &VmFd) -> Result<(), SnapshotError> {
        let clock = kvm_clock_data {
            clock: self.clock.clock,
            ..Default::default()
        };
        vm.set_clock(&clock)
            .map_err(SnapshotError::kvm("set its clock"))
    }
}
