//! The side of the guest: its memory, and a way for the `virtio-drivers` crate to reach our registers.
//!
//! A driver's buffers are copied into guest memory at changing alignments, as a guest's own would lie.
#![expect(
    unsafe_code,
    reason = "the driver crate's Hal is an unsafe trait that deals in pointers"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

use pincushion_devices::device::Memory;
use pincushion_devices::transport::{MmioTransport, QUEUE_NOTIFY};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr, Result};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MEMORY: usize = 16 << 20;

thread_local! {
    /// The Hal has no `self`, so each test thread is a guest of its own.
    static PAGES: RefCell<Option<Pages>> = const { RefCell::new(None) };
}

/// Guest memory by the page.
struct Pages {
    memory: Memory,
    next: u64,
    free: HashMap<usize, Vec<u64>>,
    shared: u64,
}

impl Pages {
    fn take(&mut self, count: usize) -> u64 {
        if let Some(address) = self.free.get_mut(&count).and_then(Vec::pop) {
            return address;
        }
        let address = self.next;
        self.next += (count * PAGE_SIZE) as u64;
        assert!(self.next <= MEMORY as u64, "the guest's memory is used up");
        address
    }

    fn give(&mut self, address: u64, count: usize) {
        self.free.entry(count).or_default().push(address);
    }
}

/// Makes the calling thread a guest with fresh memory.
pub fn new_guest() -> Memory {
    let ranges = [
        (GuestAddress(0), MEMORY / 2),
        (GuestAddress(MEMORY as u64 / 2), MEMORY / 2),
    ];
    let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
    let pages = Pages {
        memory: memory.clone(),
        next: PAGE_SIZE as u64,
        free: HashMap::new(),
        shared: 0,
    };
    PAGES.set(Some(pages));
    memory
}

fn with_pages<R>(work: impl FnOnce(&mut Pages) -> R) -> R {
    PAGES.with_borrow_mut(|pages| work(pages.as_mut().expect("the thread is a guest")))
}

/// The driver crate's view of guest memory.
pub struct GuestHal;

// SAFETY: pages come from a bump allocator over mapped guest memory and are not given twice; the mapping is kept by
// `PAGES` as long as its thread, which outlives every driver in it.
unsafe impl Hal for GuestHal {
    fn dma_alloc(count: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        with_pages(|pages| {
            let address = pages.take(count);
            let zeros = vec![0; count * PAGE_SIZE];
            pages
                .memory
                .write_slice(&zeros, GuestAddress(address))
                .unwrap();
            let host = pages
                .memory
                .get_host_address(GuestAddress(address))
                .unwrap();
            (address, NonNull::new(host).unwrap())
        })
    }

    unsafe fn dma_dealloc(address: PhysAddr, _pointer: NonNull<u8>, count: usize) -> i32 {
        with_pages(|pages| pages.give(address, count));
        0
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("only PCI asks for this")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        with_pages(|pages| {
            pages.shared += 1;
            let shift = pages.shared % 3 * 8;
            let address = pages.take(pages_for(buffer.len())) + shift;
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the caller promises a valid buffer that nobody else accesses now.
                let bytes = unsafe { buffer.as_ref() };
                pages
                    .memory
                    .write_slice(bytes, GuestAddress(address))
                    .unwrap();
            }
            address
        })
    }

    unsafe fn unshare(address: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        with_pages(|pages| {
            if direction != BufferDirection::DriverToDevice {
                // SAFETY: as for `share`.
                let bytes = unsafe { buffer.as_mut() };
                pages
                    .memory
                    .read_slice(bytes, GuestAddress(address))
                    .unwrap();
            }
            let page = address - address % PAGE_SIZE as u64;
            pages.give(page, pages_for(buffer.len()));
        });
    }
}

/// Pages for a buffer that may begin anywhere in the first half of one.
fn pages_for(len: usize) -> usize {
    (len + PAGE_SIZE / 2).div_ceil(PAGE_SIZE)
}

/// The driver's hands on our registers.
pub struct Registers(pub Arc<MmioTransport>);

impl Registers {
    fn get(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.0.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn set(&self, offset: u64, value: u32) {
        self.0.write(offset, &value.to_le_bytes());
    }

    fn set_address(&self, offset: u64, address: PhysAddr) {
        self.0.write(offset, &address.to_le_bytes()[..4]);
        self.0.write(offset + 4, &address.to_le_bytes()[4..]);
    }
}

/// Register offsets by the number, since this is the other side: virtio 1.2, 4.2.2.
impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        DeviceType::try_from(self.get(0x008)).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        self.set(0x014, 0);
        let low = u64::from(self.get(0x010));
        self.set(0x014, 1);
        low | u64::from(self.get(0x010)) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for (select, word) in (0..).zip(features.to_le_bytes().chunks_exact(4)) {
            self.set(0x024, select);
            self.0.write(0x020, word);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.set(0x030, queue.into());
        self.get(0x034)
    }

    fn notify(&mut self, queue: u16) {
        self.set(QUEUE_NOTIFY, queue.into());
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.get(0x070))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.set(0x070, status.bits());
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
        self.set(0x030, queue.into());
        self.set(0x038, size);
        self.set_address(0x080, descriptors);
        self.set_address(0x090, driver);
        self.set_address(0x0a0, device);
        self.set(0x044, 1);
        assert_eq!(self.get(0x044), 1, "the queue is ready");
    }

    fn queue_unset(&mut self, queue: u16) {
        self.set(0x030, queue.into());
        self.set(0x044, 0);
        assert_eq!(self.get(0x044), 0, "the queue has stopped");
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.set(0x030, queue.into());
        self.get(0x044) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let pending = self.get(0x060);
        self.set(0x064, pending);
        InterruptStatus::from_bits_truncate(pending)
    }

    fn read_config_generation(&self) -> u32 {
        self.get(0x0fc)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        self.0.read(0x100 + offset as u64, value.as_mut_bytes());
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        self.0.write(0x100 + offset as u64, value.as_bytes());
        Ok(())
    }
}
