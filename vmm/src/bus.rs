//! An address space of devices: I/O ports or memory-mapped registers.
//!
//! Promises: an access goes to the one device whose range holds its first byte; what nobody
//! claims reads as all ones and swallows writes, as an empty bus does.

use std::sync::Arc;

/// What a guest's write asks of the machine. The vCPU that wrote stops unless it is `Continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Run on.
    Continue,
    /// The guest powered the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// The guest says that its kernel has panicked.
    Panicked,
}

/// Something that answers to reads and writes at offsets from its first address.
///
/// Calls come from any vCPU thread, several at once; a device has its own lock where it needs one.
pub trait BusDevice: Send + Sync {
    /// Fills `data` from the registers at `offset`. A device that leaves bytes alone leaves zeros.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes `data` to the registers at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> Flow;
    /// The machine is reset: back to power-on state.
    fn reset(&self);
}

/// Why a device cannot be on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bus range {start:#x}..{end:#x} is empty or overlaps another device")]
pub struct RangeTaken {
    /// First address.
    pub start: u64,
    /// End (exclusive).
    pub end: u64,
}

struct Slot {
    start: u64,
    end: u64,
    device: Arc<dyn BusDevice>,
}

/// Devices by address, ascending.
#[derive(Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

impl Bus {
    /// Puts `device` at `start..start + len`.
    ///
    /// # Errors
    /// Where the range is empty or taken.
    pub fn insert(
        &mut self,
        start: u64,
        len: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), RangeTaken> {
        let end = start.saturating_add(len);
        let at = self.slots.partition_point(|slot| slot.end <= start);
        if len == 0 || self.slots.get(at).is_some_and(|next| next.start < end) {
            return Err(RangeTaken { start, end });
        }
        self.slots.insert(at, Slot { start, end, device });
        Ok(())
    }

    /// A guest's read of `data.len()` bytes.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((offset, device)) => {
                data.fill(0);
                device.read(offset, data);
            }
            None => data.fill(0xff),
        }
    }

    /// A guest's write.
    pub fn write(&self, address: u64, data: &[u8]) -> Flow {
        match self.find(address) {
            Some((offset, device)) => device.write(offset, data),
            None => Flow::Continue,
        }
    }

    /// Resets every device.
    pub fn reset(&self) {
        for slot in &self.slots {
            slot.device.reset();
        }
    }

    fn find(&self, address: u64) -> Option<(u64, &dyn BusDevice)> {
        let at = self.slots.partition_point(|slot| slot.end <= address);
        let slot = self.slots.get(at).filter(|slot| slot.start <= address)?;
        Some((address - slot.start, slot.device.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Recorder {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data[0] = u8::try_from(offset).unwrap();
        }
        fn write(&self, offset: u64, data: &[u8]) -> Flow {
            self.0.lock().unwrap().push((offset, data.to_vec()));
            Flow::Reset
        }
        fn reset(&self) {
            self.0.lock().unwrap().clear();
        }
    }

    #[test]
    fn an_access_reaches_the_device_of_its_address_with_the_offset() {
        let (first, second) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        let mut bus = Bus::default();
        bus.insert(0x2000, 0x10, second.clone()).unwrap();
        bus.insert(0x1000, 0x10, first.clone()).unwrap();
        assert_eq!(bus.write(0x100f, &[1, 2]), Flow::Reset);
        assert_eq!(bus.write(0x2000, &[3]), Flow::Reset);
        assert_eq!(*first.0.lock().unwrap(), [(0xf, vec![1, 2])]);
        assert_eq!(*second.0.lock().unwrap(), [(0, vec![3])]);
        let mut data = [0xaa; 2];
        bus.read(0x1003, &mut data);
        assert_eq!(data, [3, 0]);
    }

    #[test]
    fn nobody_answers_with_all_ones() {
        let bus = Bus::default();
        let mut data = [0; 4];
        bus.read(0x1010, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(bus.write(0x1010, &[0]), Flow::Continue);
    }

    #[test]
    fn overlapping_and_empty_ranges_are_refused() {
        let mut bus = Bus::default();
        let device = Arc::new(Recorder::default());
        bus.insert(0x1000, 0x10, device.clone()).unwrap();
        assert!(bus.insert(0x100f, 1, device.clone()).is_err());
        assert!(bus.insert(0x0, 0x1001, device.clone()).is_err());
        assert!(bus.insert(0x3000, 0, device.clone()).is_err());
        assert!(bus.insert(0x1010, 1, device).is_ok());
    }
}
