//! A device's registers to a snapshot and from one.

use super::{Core, Signals};
use crate::transport::queue_setup::QueueSetup;
use crate::transport::saved::{DeviceShape, SavedCore, SavedQueueSetup, StateError};
use crate::transport::status::{DRIVER_OK, FEATURES_OK};

impl<I: Signals + 'static> Core<I> {
    /// What a guest can find out about the device.
    pub(in crate::transport) fn shape(&self) -> DeviceShape {
        DeviceShape {
            name: self.name.clone(),
            kind: self.device_id,
            features: self.offered,
            queue_sizes: self.device().queue_max_sizes().to_vec(),
        }
    }

    /// The registers, for a snapshot. No vCPU runs, and nobody serves the queues.
    pub(in crate::transport) fn save(&self) -> Result<SavedCore, StateError> {
        let registers = self.registers();
        let status = self.status();
        let device = (status & FEATURES_OK != 0).then(|| self.device().save());
        let device = device.transpose().map_err(|what| StateError::Save {
            device: self.name.clone(),
            what,
        })?;
        let queue = |setup: &QueueSetup| SavedQueueSetup {
            size: setup.size,
            desc: setup.desc,
            driver: setup.driver,
            device: setup.device,
            ready: setup.ready,
        };
        Ok(SavedCore {
            status,
            device_features_sel: registers.device_features_sel,
            driver_features_sel: registers.driver_features_sel,
            driver_features: registers.driver_features,
            queue_sel: registers.queue_sel,
            queues: registers.queues.iter().map(queue).collect(),
            device,
        })
    }

    /// The registers as they were saved, of a device that is as after a reset. The state may come from any file, so all of it is
    /// checked as what a driver writes.
    pub(in crate::transport) fn restore(&self, saved: &SavedCore) -> Result<(), StateError> {
        let misfit = |what: String| StateError::Restore {
            device: self.name.clone(),
            what,
        };
        let mut registers = self.registers();
        if saved.queues.len() != registers.queues.len() {
            let (theirs, ours) = (saved.queues.len(), registers.queues.len());
            return Err(misfit(format!("{theirs} queues, and it has {ours}")));
        }
        registers.device_features_sel = saved.device_features_sel;
        registers.driver_features_sel = saved.driver_features_sel;
        registers.driver_features = saved.driver_features;
        registers.queue_sel = saved.queue_sel;
        for (setup, saved) in registers.queues.iter_mut().zip(&saved.queues) {
            *setup = QueueSetup {
                max_size: setup.max_size,
                size: saved.size,
                desc: saved.desc,
                driver: saved.driver,
                device: saved.device,
                ready: saved.ready,
            };
            if setup.ready {
                setup
                    .queue(&self.memory)
                    .map_err(|what| misfit(format!("its driver {what}")))?;
            }
        }
        let device = saved.device.as_ref();
        if saved.status & FEATURES_OK != 0 {
            let features = registers.driver_features;
            if features & !self.offered != 0 || !self.device().accept_features(features) {
                let offered = self.offered;
                return Err(misfit(format!(
                    "its driver uses features {features:#x}, and on offer are {offered:#x}"
                )));
            }
            let own = device.ok_or_else(|| misfit("its own part is missing".into()))?;
            self.device().restore(&own.own).map_err(misfit)?;
        }
        self.interrupt.status().add(saved.status & !DRIVER_OK);
        if saved.status & DRIVER_OK != 0 {
            let queues = device.map_or_else(Vec::new, |device| device.queues.clone());
            self.activate(&registers, queues);
            // What was on its way to the guest when the machine was saved is lost; one signal too many means nothing.
            for (queue, _) in (0..).zip(&registers.queues).filter(|(_, it)| it.ready) {
                self.interrupt.signal_queue(queue);
            }
        }
        Ok(())
    }
}
