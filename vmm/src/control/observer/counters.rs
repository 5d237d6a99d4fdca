//! What is counted of each queue and device.

use std::collections::BTreeMap;

use super::histogram::Histogram;

/// One queue since the machine was started. All but `in_flight`, `held` and `parked` only grow.
#[derive(Debug, Clone, Default)]
pub struct QueueCounters {
    /// Requests popped.
    pub fetched: u64,
    /// Requests given back.
    pub used: u64,
    /// Of those, with a status other than OK.
    pub failed: u64,
    /// Bytes that given back requests asked the device to read.
    pub bytes_to_device: u64,
    /// Bytes that given back requests asked the device to write.
    pub bytes_from_device: u64,
    /// Times that a rule acted.
    pub faults: u64,
    /// Times that a request was parked.
    pub parkings: u64,
    /// Holds taken back by a reset.
    pub abandoned: u64,
    /// Interrupts.
    pub signals: u64,
    /// What the guest did wrong.
    pub guest_mistakes: u64,
    /// Requests between pop and used element now.
    pub in_flight: u64,
    /// Holds that are open now.
    pub held: u64,
    /// Requests that wait now.
    pub parked: u64,
    /// From the pop to the used element.
    pub latency: Histogram,
    /// From the opening of a hold to its end.
    pub hold_time: Histogram,
}

/// One device since the machine was started.
#[derive(Debug, Clone, Default)]
pub struct DeviceCounters {
    /// Its queues by index.
    pub queues: BTreeMap<u16, QueueCounters>,
    /// Times that a driver set it up.
    pub activations: u64,
    /// Times that a driver, or the machine, reset it.
    pub resets: u64,
}

/// All devices by name.
pub type Devices = BTreeMap<String, DeviceCounters>;

/// Finds a queue, which is made when it is first heard of.
pub(super) fn queue<'a>(
    devices: &'a mut Devices,
    device: &str,
    queue: u16,
) -> &'a mut QueueCounters {
    self::device(devices, device)
        .queues
        .entry(queue)
        .or_default()
}

/// Finds a device, which is made when it is first heard of.
pub(super) fn device<'a>(devices: &'a mut Devices, name: &str) -> &'a mut DeviceCounters {
    // A name is only copied the first time.
    if !devices.contains_key(name) {
        devices.insert(name.to_owned(), DeviceCounters::default());
    }
    devices.get_mut(name).expect("it was just made")
}
