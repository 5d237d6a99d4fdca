//! What a driver says about one queue before it is ready.

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The registers of one queue (virtio 1.2, 4.1.4.3 and 4.2.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueSetup {
    pub(super) max_size: u16,
    /// QueueNum or queue_size, whatever the driver wrote.
    pub(super) size: u32,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// QueueReady or queue_enable; then [`Self::queue`] has said yes.
    pub(super) ready: bool,
}

/// What a transport says the size of a queue is before the driver sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeAtReset {
    /// Nothing: the driver has to say one (virtio-mmio).
    Zero,
    /// The greatest, which the driver may leave so (virtio 1.2, 4.1.4.3).
    Greatest,
}

impl QueueSetup {
    pub(super) fn new(max_size: u16, at_reset: SizeAtReset) -> Self {
        Self {
            max_size,
            size: match at_reset {
                SizeAtReset::Zero => 0,
                SizeAtReset::Greatest => u32::from(max_size),
            },
            desc: 0,
            driver: 0,
            device: 0,
            ready: false,
        }
    }

    /// The queue as it is set up, if it can be used.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn queue(&self, memory: &GuestMemoryMmap<()>) -> Result<Queue, &'static str> {
        let size = u16::try_from(self.size)
            .ok()
            .filter(|&size| size.is_power_of_two() && size <= self.max_size)
            .ok_or("made a queue ready whose size is wrong")?;
        let aligned = self.desc.is_multiple_of(16)
            && self.driver.is_multiple_of(2)
            && self.device.is_multiple_of(4);
        if !aligned {
            return Err("made a queue ready whose rings are not aligned");
        }
        // Lengths with the event index (virtio 1.2, 2.7.6 and 2.7.8).
        let entries = usize::from(size);
        let parts = [
            (self.desc, 16 * entries),
            (self.driver, 6 + 2 * entries),
            (self.device, 6 + 8 * entries),
        ];
        if !parts
            .iter()
            .all(|&(base, len)| memory.check_range(GuestAddress(base), len))
        {
            return Err("made a queue ready whose rings are outside guest memory");
        }
        let mut queue = empty_queue(self.max_size);
        queue.set_size(size);
        let halves = |address: u64| (Some(low(address)), Some(low(address >> 32)));
        let (low, high) = halves(self.desc);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(self.driver);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(self.device);
        queue.set_used_ring_address(low, high);
        queue.set_ready(true);
        Ok(queue)
    }
}

/// A queue that is not ready.
pub(super) fn empty_queue(max_size: u16) -> Queue {
    Queue::new(max_size).expect("a device's greatest queue size is a power of two")
}

/// Puts a 32-bit register into a 64-bit address.
pub(super) fn set_half(address: &mut u64, half: Half, value: u32) {
    *address = match half {
        Half::Low => (*address & !u64::from(u32::MAX)) | u64::from(value),
        Half::High => (*address & u64::from(u32::MAX)) | (u64::from(value) << 32),
    };
}

/// Which half of an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Low,
    High,
}

/// The lower 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the half that is wanted")]
pub(super) fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemoryMmap<()> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
    }

    fn good() -> QueueSetup {
        QueueSetup {
            size: 16,
            desc: 0x1000,
            driver: 0x2000,
            device: 0x3000,
            ..QueueSetup::new(256, SizeAtReset::Zero)
        }
    }

    #[test]
    fn a_good_queue_is_what_the_driver_said() {
        let queue = good().queue(&memory()).unwrap();
        assert!(queue.ready());
        assert_eq!(queue.size(), 16);
        assert_eq!(
            (queue.desc_table(), queue.avail_ring(), queue.used_ring()),
            (0x1000, 0x2000, 0x3000)
        );
    }

    #[test]
    fn a_queue_outside_memory_or_of_a_wrong_size_is_refused() {
        let memory = memory();
        for bad in [
            QueueSetup { size: 0, ..good() },
            QueueSetup { size: 3, ..good() },
            QueueSetup {
                size: 512,
                ..good()
            },
            QueueSetup {
                size: u32::MAX,
                ..good()
            },
            QueueSetup {
                size: 0x1_0010,
                ..good()
            },
            QueueSetup {
                desc: 0x1008,
                ..good()
            },
            QueueSetup {
                driver: 0x2001,
                ..good()
            },
            QueueSetup {
                device: 0x3002,
                ..good()
            },
            QueueSetup {
                desc: 0x1_0000,
                ..good()
            },
            QueueSetup {
                desc: 0xff10,
                ..good()
            },
            QueueSetup {
                driver: u64::MAX - 1,
                ..good()
            },
            QueueSetup {
                device: u64::MAX - 3,
                ..good()
            },
        ] {
            assert!(bad.queue(&memory).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn halves_of_an_address_are_set_one_by_one() {
        let mut address = 0x1111_2222_3333_4444;
        set_half(&mut address, Half::Low, 5);
        assert_eq!(address, 0x1111_2222_0000_0005);
        set_half(&mut address, Half::High, 6);
        assert_eq!(address, 0x6_0000_0005);
    }
}
