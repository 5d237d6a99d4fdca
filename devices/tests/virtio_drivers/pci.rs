//! The driver crate's hands on a function: it enumerates the bus, sizes the BAR and walks the capabilities by its own code;
//! the BAR itself is memory that only a virtual machine could trap, so its registers are reached from here.

use std::sync::Arc;

use pincushion_devices::transport::pci::{BAR_SIZE, PciTransport};
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot,
};
use virtio_drivers::transport::pci::virtio_device_type;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the test's firmware would like the BAR to be: above 4 GiB.
const BAR: u64 = 0x2_4000_0000;
/// The slot that the function is in.
const SLOT: u8 = 3;

/// Configuration space of a bus with one function.
struct Access(Arc<PciTransport>);

impl ConfigurationAccess for Access {
    fn read_word(&self, device: DeviceFunction, offset: u8) -> u32 {
        if (device.bus, device.device, device.function) != (0, SLOT, 0) {
            return u32::MAX;
        }
        let mut word = [0; 4];
        self.0.read_config(offset.into(), &mut word);
        u32::from_le_bytes(word)
    }

    fn write_word(&mut self, device: DeviceFunction, offset: u8, data: u32) {
        assert_eq!((device.bus, device.device, device.function), (0, SLOT, 0));
        self.0.write_config(offset.into(), &data.to_le_bytes());
    }

    #[expect(unsafe_code, reason = "the trait's")]
    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A function whose structures the driver has found.
pub struct Function {
    transport: Arc<PciTransport>,
    device_type: DeviceType,
    common: u64,
    notify: u64,
    multiplier: u64,
    isr: u64,
    device: u64,
}

impl Function {
    /// Finds the function on its bus, places its BAR and looks for its structures.
    pub fn find(transport: Arc<PciTransport>) -> Self {
        let mut root = PciRoot::new(Access(transport.clone()));
        let found: Vec<_> = root.enumerate_bus(0).collect();
        let [(at, info)] = &found[..] else {
            panic!("one function: {found:?}")
        };
        let device_type = virtio_device_type(info).expect("it is a virtio device");
        let bars = root.bars(*at).unwrap();
        let size = match bars[0] {
            Some(BarInfo::Memory {
                address_type: MemoryBarType::Width64,
                size,
                ..
            }) => size,
            _ => panic!("a 64-bit BAR: {bars:?}"),
        };
        assert_eq!(size, BAR_SIZE);
        root.set_bar_64(*at, 0, BAR);
        root.set_command(*at, Command::MEMORY_SPACE | Command::BUS_MASTER);
        assert_eq!(transport.decoded_bar(), Some(BAR));
        let vendor: Vec<(u8, u8)> = root
            .capabilities(*at)
            .filter(|capability| capability.id == 9)
            .map(|capability| {
                (
                    capability.private_header.to_le_bytes()[1],
                    capability.offset,
                )
            })
            .collect();
        let word = |cfg_type, skip| {
            let hit = vendor.iter().find(|(is, _)| *is == cfg_type);
            let (_, offset) = hit.unwrap_or_else(|| panic!("structure {cfg_type}"));
            let mut word = [0; 4];
            transport.read_config(u64::from(offset + skip), &mut word);
            u64::from(u32::from_le_bytes(word))
        };
        Self {
            device_type,
            common: word(1, 8),
            notify: word(2, 8),
            multiplier: word(2, 16),
            isr: word(3, 8),
            device: word(4, 8),
            transport: transport.clone(),
        }
    }

    fn get<const N: usize>(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        let field = &mut bytes[..N];
        self.transport.read_bar(self.common + offset, field);
        u64::from_le_bytes(bytes)
    }

    fn set<const N: usize>(&self, offset: u64, value: u64) {
        let bytes = &value.to_le_bytes()[..N];
        self.transport.write_bar(self.common + offset, bytes);
    }
}

/// Offsets of the common configuration by the number, since this is the other side: virtio 1.2, 4.1.4.3.
impl Transport for Function {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        self.set::<4>(0x00, 0);
        let low = self.get::<4>(0x04);
        self.set::<4>(0x00, 1);
        low | self.get::<4>(0x04) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        self.set::<4>(0x08, 0);
        self.set::<4>(0x0c, features);
        self.set::<4>(0x08, 1);
        self.set::<4>(0x0c, features >> 32);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.set::<2>(0x16, queue.into());
        u32::try_from(self.get::<2>(0x18)).unwrap()
    }

    fn notify(&mut self, queue: u16) {
        self.set::<2>(0x16, queue.into());
        let place = self.notify + self.get::<2>(0x1e) * self.multiplier;
        self.transport.write_bar(place, &queue.to_le_bytes());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(u32::try_from(self.get::<1>(0x14)).unwrap())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.set::<1>(0x14, status.bits().into());
    }

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.set::<2>(0x16, queue.into());
        self.set::<2>(0x18, size.into());
        self.set::<8>(0x20, descriptors);
        self.set::<8>(0x28, driver);
        self.set::<8>(0x30, device);
        self.set::<2>(0x1c, 1);
        assert_eq!(self.get::<2>(0x1c), 1, "the queue is enabled");
    }

    /// "The driver MUST NOT write a 0 to queue_enable": a reset stops all.
    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.set::<2>(0x16, queue.into());
        self.get::<2>(0x1c) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let mut isr = [0];
        self.transport.read_bar(self.isr, &mut isr);
        InterruptStatus::from_bits_truncate(isr[0].into())
    }

    fn read_config_generation(&self) -> u32 {
        u32::try_from(self.get::<1>(0x15)).unwrap()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        let at = self.device + offset as u64;
        self.transport.read_bar(at, value.as_mut_bytes());
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        let at = self.device + offset as u64;
        self.transport.write_bar(at, value.as_bytes());
        Ok(())
    }
}

impl Drop for Function {
    /// As the driver crate's own transport does.
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
    }
}
