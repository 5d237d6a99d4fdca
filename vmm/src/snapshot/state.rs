//! What the state of a machine is, and whether another machine can take it.

use pincushion_devices::transport::DeviceShape;
use serde::{Deserialize, Serialize};

use super::{SavedVcpu, SavedVm};
use crate::agent_port::SavedAgentPort;
use crate::device_manager::SavedDevices;
use crate::machine::Transport;
use crate::platform::power::SavedPm;
use crate::platform::uart::SavedUart;

/// What a guest can see of its machine, and does not change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub(crate) vcpus: u8,
    pub(crate) memory_bytes: u64,
    pub(crate) transport: Transport,
    pub(crate) has_agent: bool,
    /// Start and length of each region of memory that is a file.
    pub(crate) regions: Vec<(u64, u64)>,
    pub(crate) devices: Vec<DeviceShape>,
}

/// How alike two machines have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// In everything.
    Same,
    /// As far as a guest could look that has no driver for any of its devices yet: their kinds and numbers of queues. A snapshot in
    /// which a driver has begun is refused.
    BeforeDrivers,
}

/// All of a machine but its memory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MachineState {
    pub(crate) shape: Shape,
    /// What the one who made the snapshot wants to remember.
    pub(crate) note: String,
    pub(crate) vm: SavedVm,
    pub(crate) vcpus: Vec<SavedVcpu>,
    pub(crate) platform: SavedPlatform,
    pub(crate) devices: SavedDevices,
}

/// The devices that every machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPlatform {
    pub(crate) com1: SavedUart,
    pub(crate) com2: SavedUart,
    pub(crate) pm: SavedPm,
    pub(crate) agent: Option<SavedAgentPort>,
}

impl Shape {
    /// In what this machine differs from a saved one, in words.
    pub(crate) fn difference(&self, saved: &Self, likeness: Likeness) -> Option<String> {
        let differ = |what: &str, here: String, there: String| {
            (here != there).then(|| format!("it has {there} {what}, this one {here}"))
        };
        let transport = |shape: &Self| format!("{:?}", shape.transport).to_lowercase();
        let agent = |shape: &Self| if shape.has_agent { "an" } else { "no" }.to_owned();
        differ("vCPUs", self.vcpus.to_string(), saved.vcpus.to_string())
            .or_else(|| {
                let (here, there) = (self.memory_bytes, saved.memory_bytes);
                differ("bytes of memory", here.to_string(), there.to_string())
            })
            .or_else(|| differ("as transport", transport(self), transport(saved)))
            .or_else(|| differ("port for an agent", agent(self), agent(saved)))
            .or_else(|| {
                let (here, there) = (self.devices.len(), saved.devices.len());
                differ("devices", here.to_string(), there.to_string())
            })
            .or_else(|| {
                let mut pairs = (1..).zip(self.devices.iter().zip(&saved.devices));
                pairs.find_map(|(number, (here, there))| {
                    let what = device_difference(here, there, likeness)?;
                    Some(format!("device {number}: {what}"))
                })
            })
            .or_else(|| {
                let text = |shape: &Self| format!("{:x?}", shape.regions);
                let same = likeness == Likeness::BeforeDrivers;
                differ("as persistent memory", text(self), text(saved)).filter(|_| !same)
            })
    }
}

fn device_difference(
    here: &DeviceShape,
    there: &DeviceShape,
    likeness: Likeness,
) -> Option<String> {
    let (theirs, ours) = (&there.name, &here.name);
    if here.kind != there.kind {
        let (its, mine) = (there.kind, here.kind);
        return Some(format!(
            "`{theirs}` has the virtio device id {its}, `{ours}` has {mine}"
        ));
    }
    let (its, mine) = (there.queue_sizes.len(), here.queue_sizes.len());
    if its != mine {
        return Some(format!("`{theirs}` has {its} queues, `{ours}` has {mine}"));
    }
    if likeness == Likeness::BeforeDrivers {
        return None;
    }
    if theirs != ours {
        return Some(format!("it is `{theirs}` there, `{ours}` here"));
    }
    if here.queue_sizes != there.queue_sizes {
        let (its, mine) = (&there.queue_sizes, &here.queue_sizes);
        return Some(format!(
            "the queues of `{ours}` have the sizes {its:?} there, {mine:?} here"
        ));
    }
    let (its, mine) = (there.features, here.features);
    (its != mine).then(|| format!("`{ours}` offers the features {its:#x} there, {mine:#x} here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str) -> DeviceShape {
        DeviceShape {
            name: name.into(),
            kind: 2,
            features: 1 << 32,
            queue_sizes: vec![256],
        }
    }

    fn shape() -> Shape {
        Shape {
            vcpus: 2,
            memory_bytes: 512 << 20,
            transport: Transport::Pci,
            has_agent: true,
            regions: vec![],
            devices: vec![disk("a"), disk("b")],
        }
    }

    #[test]
    fn each_difference_is_named() {
        let saved = shape();
        let difference = |change: fn(&mut Shape)| {
            let mut shape = shape();
            change(&mut shape);
            shape.difference(&saved, Likeness::Same).unwrap_or_default()
        };
        assert_eq!(difference(|_| ()), "");
        for (change, word) in [
            ((|s| s.vcpus = 1) as fn(&mut Shape), "2 vCPUs, this one 1"),
            (|s| s.memory_bytes = 4096, "536870912 bytes of memory"),
            (|s| s.transport = Transport::Mmio, "pci as transport"),
            (|s| s.has_agent = false, "agent"),
            (|s| drop(s.devices.pop()), "2 devices, this one 1"),
            (|s| s.devices[1] = disk("c"), "device 2: it is `b` there"),
            (
                |s| s.devices[0].kind = 1,
                "device 1: `a` has the virtio device id 2",
            ),
            (|s| s.devices[0].queue_sizes.push(1), "`a` has 1 queues"),
            (
                |s| s.devices[0].queue_sizes[0] = 8,
                "sizes [256] there, [8]",
            ),
            (|s| s.devices[0].features = 1, "0x100000000 there, 0x1 here"),
            (|s| s.regions.push((4096, 1)), "persistent memory"),
        ] {
            let said = difference(change);
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }

    #[test]
    fn before_drivers_only_kinds_and_numbers_of_queues_count() {
        let mut other = shape();
        other.devices = vec![disk("data"), disk("x")];
        other.devices[0].features = 1;
        assert_eq!(other.difference(&shape(), Likeness::BeforeDrivers), None);
        other.devices[1].queue_sizes.push(256);
        assert!(
            other
                .difference(&shape(), Likeness::BeforeDrivers)
                .is_some()
        );
    }
}
