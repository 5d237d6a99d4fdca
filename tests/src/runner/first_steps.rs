//! Between the agent's first word and the scenario's first step: a snapshot for others, and modules.

use std::path::Path;

use pincushion_abi::{Outcome, Report, Step as Act};
use pincushion_vmm::config::units::parse_size;
use pincushion_vmm::machine::Transport;
use pincushion_vmm::program::tell;

use super::snapshots::{make_room, room};
use super::stage::{STEP_LIMIT, Stage};
use super::trouble::Trouble;
use super::witness::Hello;

impl Stage<'_> {
    /// Writes a snapshot of the guest, which has just said hello, for others like it, with its file systems' modules loaded: that takes
    /// seconds, and touches no device. That a snapshot cannot be had is no trouble of this run.
    pub(super) fn keep_snapshot(&mut self, path: &Path, hello: &Hello) -> Result<(), Trouble> {
        if self.ear.witness.driver_began {
            log::info!("no snapshot: a driver that the kernel has built in has begun already");
            return Ok(());
        }
        for name in self.scenario.file_system_modules() {
            self.load_module(name)?;
        }
        let text = match self.try_to_keep(path, hello) {
            Ok(Some(len)) => format!("kept a snapshot of the booted guest, {} MiB", len >> 20),
            Ok(None) => "no room for a snapshot of the booted guest".to_owned(),
            Err(error) => format!("no snapshot of the booted guest: {error:#}"),
        };
        // A parent that cannot hear does not matter to the run.
        let _ = tell(&text);
        Ok(())
    }

    /// Has a module loaded, and whatever it needs. A kernel that does not have it, or has it built in, is no trouble here.
    pub(super) fn load_module(&mut self, name: &str) -> Result<(), Trouble> {
        let act = Act::LoadModule { name: name.into() };
        let sent = self.send(act, None, format!("load {name}"), None, None)?;
        self.answer(&sent, STEP_LIMIT)?;
        Ok(())
    }

    /// Plugs the devices in, and has the guest look for them.
    pub(super) fn plug_in(&mut self) -> Result<(), Trouble> {
        self.machine.plug_in();
        let act = Act::WriteFile {
            path: "/sys/bus/pci/rescan".into(),
            text: "1".into(),
        };
        let sent = self.send(act, None, "rescan the PCI bus".into(), None, None)?;
        // Nothing of the scenario has happened, so that it does not answer says nothing about the kernel.
        let in_setup = |trouble| match trouble {
            Trouble::Hang(why) => {
                Trouble::Setup(format!("the guest does not look for its devices: {why}"))
            }
            trouble => trouble,
        };
        match self.answer(&sent, STEP_LIMIT).map_err(in_setup)? {
            Outcome::Ok(_) => Ok(()),
            refused => Err(Trouble::Setup(format!(
                "the guest cannot look for its devices by /sys/bus/pci/rescan ({refused:?}); with --fresh they are there when it boots"
            ))),
        }
    }

    fn try_to_keep(&self, path: &Path, hello: &Hello) -> anyhow::Result<Option<u64>> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        // What a guest has touched until now is a part of its memory: a quarter is more than any takes.
        let memory = parse_size(&self.scenario.vm.memory).map_err(anyhow::Error::msg)?;
        if !make_room(dir, memory / 4, room(dir)?)? {
            return Ok(None);
        }
        let hello = Report::Hello {
            version: hello.version,
            release: hello.release.clone(),
            module_errors: hello.module_errors.clone(),
        };
        let note = serde_json::to_string(&hello)?;
        Ok(Some(self.machine.snapshot(path, &note)?))
    }

    /// Loads the drivers of bus and disks. A kernel that has them built in needs none, and one that lacks them finds no disk.
    pub(super) fn load_drivers(&mut self) -> Result<(), Trouble> {
        let scenario = self.scenario;
        let bus = match scenario.vm.transport {
            Transport::Pci => "virtio_pci",
            Transport::Mmio => "virtio_mmio",
        };
        let has_more = !scenario.nets.is_empty()
            || !scenario.pmems.is_empty()
            || scenario.balloon.is_some()
            || scenario.vm.virtio_console;
        let mut names = Vec::new();
        if has_more || !scenario.disks.is_empty() {
            names.push(bus);
        }
        if !scenario.disks.is_empty() {
            names.push("virtio_blk");
        }
        for name in names {
            let restored = self.ear.witness.restored;
            self.load_module(name).map_err(|trouble| match trouble {
                // Nothing of the scenario has happened, so this says nothing about the kernel.
                Trouble::Hang(why) if restored => {
                    Trouble::Setup(format!("the restored guest does not answer: {why}"))
                }
                trouble => trouble,
            })?;
        }
        Ok(())
    }
}
