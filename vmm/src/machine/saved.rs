//! A machine to a snapshot and from one.
//!
//! ```text
//!  save      vCPUs stand, device threads rest; devices, then chips and clock, then vCPUs, then memory
//!  restore   memory; VM; chips; vCPUs (TSC); clock; lines and kicks connected; platform; devices (may signal at once)
//! ```

use std::path::Path;
use std::sync::Arc;

use pincushion_devices::device::Memory;

use super::config::MachineConfig;
use super::error::MachineError;
use super::parts::{Booted, Core, Machine, Parts};
use super::remote::{OrderError, RunState};
use super::running::Running;
use crate::causes::with_causes;
use crate::memory;
use crate::snapshot::{
    Likeness, MachineState, SavedPlatform, SavedVm, Shape, Snapshot, SnapshotError, msr_indices,
    write,
};

impl Machine {
    /// The machine of a snapshot: `config` and `parts` are those that it was made with, or alike. The kernel is read only if the guest
    /// boots again.
    ///
    /// # Errors
    /// [`MachineError`]; a machine that the snapshot is not of is [`MachineError::Snapshot`].
    pub fn restore(
        config: MachineConfig,
        parts: Parts,
        snapshot: &Snapshot,
        likeness: Likeness,
    ) -> Result<Self, MachineError> {
        config.check()?;
        let ram: Memory = Arc::new(memory::create(config.memory_bytes)?);
        let (core, events) = Core::new(config, parts, ram)?;
        snapshot.fits(&core.shape(), likeness)?;
        let restored = core.restore(snapshot);
        if restored.is_err() {
            // Somebody may use the same devices for a boot.
            core.devices.reset();
        }
        Ok(Self {
            booted: restored?,
            core,
            events,
        })
    }
}

impl Core {
    /// What a guest can see of the machine.
    fn shape(&self) -> Shape {
        let region = |region: &crate::region::Region| (region.start(), region.len());
        Shape {
            vcpus: self.config.vcpus,
            memory_bytes: self.config.memory_bytes,
            transport: self.config.transport,
            has_agent: self.agent.is_some(),
            regions: self.regions.iter().map(region).collect(),
            devices: self.devices.shapes(),
        }
    }

    fn platform(&self) -> SavedPlatform {
        SavedPlatform {
            com1: self.com1.save(),
            com2: self.com2.save(),
            pm: self.pm.save(),
            agent: self.agent.as_ref().map(|agent| agent.save()),
        }
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<Booted, MachineError> {
        snapshot.fill(&self.ram)?;
        let state = snapshot.state();
        let vm = self.create_vm()?;
        let vcpus = vm.create_bare_vcpus(self.config.vcpus)?;
        state.vm.restore_chips(vm.fd())?;
        for (saved, vcpu) in state.vcpus.iter().zip(&vcpus) {
            saved.restore(vm.fd(), vcpu)?;
        }
        state.vm.restore_clock(vm.fd())?;
        self.connect(&vm)?;
        let platform = &state.platform;
        for (port, saved) in [(&self.com1, &platform.com1), (&self.com2, &platform.com2)] {
            port.restore(saved).map_err(SnapshotError::Platform)?;
        }
        self.pm.restore(platform.pm);
        if let (Some(agent), Some(saved)) = (&self.agent, &platform.agent) {
            agent.restore(saved);
        }
        self.devices
            .restore(&state.devices)
            .map_err(SnapshotError::Device)?;
        Ok(Booted { vm, vcpus })
    }
}

impl Running {
    /// Writes a snapshot of the machine, which stands still meanwhile.
    pub(super) fn snapshot(&mut self, path: &Path, note: String) -> Result<u64, OrderError> {
        log::info!("snapshot to {}", path.display());
        let was_paused = self.core.status.state() == RunState::Paused;
        if !was_paused {
            self.pause()?;
        }
        let taken = self.take(path, note);
        if !was_paused {
            self.resume()?;
        }
        taken.map_err(|error| OrderError::Failed(with_causes(&error)))
    }

    fn take(&self, path: &Path, note: String) -> Result<u64, SnapshotError> {
        let core = &self.core;
        let msrs: Arc<[u32]> = msr_indices(&core.kvm)?.into();
        let vm = self.vm.as_ref().ok_or(SnapshotError::Vcpu(0))?;
        // First of all, since devices may still have something to tell the guest.
        let devices = core.devices.save()?;
        let state = MachineState {
            shape: core.shape(),
            note,
            devices,
            platform: core.platform(),
            vm: SavedVm::save(vm.fd())?,
            vcpus: self
                .vcpus
                .iter()
                .map(|vcpu| vcpu.save(&msrs))
                .collect::<Result<_, _>>()?,
        };
        write(path, &state, &core.ram)
    }
}
