//! A fake driver: lays out a split queue by hand in guest memory and offers block requests to a device.
//!
//! It is as simple as a driver can be (one chain per request, direct descriptors, it polls) and lets a test write any
//! descriptor. It is not built on virtio-queue's mock, which puts the used ring over the available ring when a queue
//! has more than 128 entries.
//!
//! ```text
//!   0x1000  descriptor table   16 * size
//!           available ring     6 + 2 * size
//!           used ring          6 + 8 * size
//!           control bytes      32 per head: header at 0, status at 16
//!   data    whole frames, for the test
//! ```
//!
//! Everything here panics when a test asks for something impossible.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::device::{Activation, Interrupt, Memory, QueueService, SharedQueue, VirtioDevice};
use crate::trace::event::{FRAME_SIZE, GuestRange};

const TABLE: u64 = 0x1000;
const CONTROL: u64 = 32;
/// A status that no device writes.
pub const UNANSWERED: u8 = 0xee;

/// One descriptor of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desc {
    /// Guest physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes it.
    pub writable: bool,
}

/// Serves a device's queues by hand, as an event loop would.
pub trait ByHand {
    /// A kick of one queue.
    fn on_kick(&self, queue: u16);
    /// All queues go on with what has happened meanwhile.
    fn on_wake(&self);
}

impl<D: VirtioDevice + ?Sized> ByHand for D {
    fn on_kick(&self, queue: u16) {
        if let Some(queue) = self.queues().get(usize::from(queue)) {
            lock(queue).on_kick();
        }
    }

    fn on_wake(&self) {
        for queue in self.queues() {
            lock(&queue).on_wake();
        }
    }
}

fn lock(queue: &SharedQueue) -> MutexGuard<'_, dyn QueueService + 'static> {
    queue.lock().expect("no test's device panicked before")
}

/// A used element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain.
    pub head: u16,
    /// Bytes that the device says it wrote.
    pub len: u32,
}

/// A driver of one block device with one queue.
#[derive(Debug)]
pub struct Driver {
    memory: Memory,
    size: u16,
    table: u64,
    avail: u64,
    used: u64,
    control: u64,
    data: u64,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
    avail_idx: u16,
    used_seen: u16,
}

fn readable(addr: u64, len: u32) -> Desc {
    Desc {
        addr,
        len,
        writable: false,
    }
}

fn writable(addr: u64, len: u32) -> Desc {
    Desc {
        addr,
        len,
        writable: true,
    }
}

impl Driver {
    /// A driver with its own guest memory, which has `data_frames` frames for the test.
    #[must_use]
    pub fn new(size: u16, data_frames: u64) -> Self {
        let end = Self::data_start(TABLE, size) + data_frames * FRAME_SIZE;
        let len = usize::try_from(end).expect("a test's memory fits the host's");
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)])
            .expect("the host has memory for a test");
        Self::within(Arc::new(memory), TABLE, size)
    }

    /// A driver whose rings and control bytes begin at the frame `table` of a memory that it shares with others. Its data begin
    /// where they end.
    #[must_use]
    pub fn within(memory: Memory, table: u64, size: u16) -> Self {
        let n = u64::from(size);
        let avail = table + 16 * n;
        let used = (avail + 6 + 2 * n).next_multiple_of(4);
        Self {
            memory,
            size,
            table,
            avail,
            used,
            control: (used + 6 + 8 * n).next_multiple_of(CONTROL),
            data: Self::data_start(table, size),
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            avail_idx: 0,
            used_seen: 0,
        }
    }

    fn data_start(table: u64, size: u16) -> u64 {
        let n = u64::from(size);
        let used = (table + 16 * n + 6 + 2 * n).next_multiple_of(4);
        let control = (used + 6 + 8 * n).next_multiple_of(CONTROL);
        (control + CONTROL * n).next_multiple_of(FRAME_SIZE)
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Guest physical address of the `frame`-th frame for the test's data.
    #[must_use]
    pub fn data(&self, frame: u64) -> u64 {
        self.data + frame * FRAME_SIZE
    }

    /// `len` bytes at the `frame`-th frame of the test's data.
    #[must_use]
    pub fn range(&self, frame: u64, len: u64) -> GuestRange {
        GuestRange {
            addr: self.data(frame),
            len,
        }
    }

    /// What a transport would activate a device with.
    #[must_use]
    pub fn activation(&self, features: u64, interrupt: Arc<dyn Interrupt>) -> Activation {
        Activation {
            memory: self.memory.clone(),
            features,
            queues: vec![self.queue()],
            interrupt,
            resume: Vec::new(),
        }
    }

    /// The queue as a driver sets it up, ready.
    #[must_use]
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).expect("a power of two");
        let halves = |addr: u64| (u32::try_from(addr).ok(), Some(0));
        let (low, high) = halves(self.table);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(self.avail);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(self.used);
        queue.set_used_ring_address(low, high);
        queue.set_ready(true);
        queue
    }

    /// Forgets all requests and clears the rings, as after a device reset.
    pub fn reset(&mut self) {
        let zeros = vec![0; usize::try_from(self.control - self.table).expect("small")];
        self.put(self.table, &zeros);
        self.free = (0..self.size).rev().collect();
        self.chains.iter_mut().for_each(Vec::clear);
        self.avail_idx = 0;
        self.used_seen = 0;
    }

    /// Offers a read into `ranges`.
    pub fn read(&mut self, sector: u64, ranges: &[GuestRange]) -> u16 {
        self.request(VIRTIO_BLK_T_IN, sector, ranges, true)
    }

    /// Offers a write from `ranges`.
    pub fn write(&mut self, sector: u64, ranges: &[GuestRange]) -> u16 {
        self.request(VIRTIO_BLK_T_OUT, sector, ranges, false)
    }

    /// Offers a flush.
    pub fn flush(&mut self) -> u16 {
        self.request(VIRTIO_BLK_T_FLUSH, 0, &[], false)
    }

    /// Offers GET_ID.
    pub fn get_id(&mut self, range: GuestRange) -> u16 {
        self.request(VIRTIO_BLK_T_GET_ID, 0, &[range], true)
    }

    /// Offers a discard whose segments are in `range`.
    pub fn discard(&mut self, range: GuestRange) -> u16 {
        self.request(VIRTIO_BLK_T_DISCARD, 0, &[range], false)
    }

    /// Offers a request of any type, well formed.
    pub fn request(
        &mut self,
        kind: u32,
        sector: u64,
        ranges: &[GuestRange],
        device_writes: bool,
    ) -> u16 {
        let head = *self.free.last().expect("a free descriptor");
        self.put_header(head, kind, sector);
        let mut chain = vec![readable(self.header(head), 16)];
        chain.extend(ranges.iter().map(|range| Desc {
            addr: range.addr,
            len: u32::try_from(range.len).expect("a descriptor's length"),
            writable: device_writes,
        }));
        chain.push(writable(self.status_addr(head), 1));
        self.offer(&chain)
    }

    /// Offers a chain of any descriptors and publishes it. Returns its head.
    pub fn offer(&mut self, chain: &[Desc]) -> u16 {
        let descs: Vec<u16> = chain
            .iter()
            .map(|_| self.free.pop().expect("a free descriptor"))
            .collect();
        for (index, desc) in chain.iter().enumerate() {
            let next = descs.get(index + 1).copied();
            let write = if desc.writable { VRING_DESC_F_WRITE } else { 0 };
            let flags = write | if next.is_some() { VRING_DESC_F_NEXT } else { 0 };
            let flags = u16::try_from(flags).expect("flags have 16 bits");
            self.put_desc(descs[index], desc.addr, desc.len, flags, next.unwrap_or(0));
        }
        let head = descs[0];
        self.chains[usize::from(head)] = descs;
        self.put(self.status_addr(head), &[UNANSWERED]);
        self.offer_head(head);
        head
    }

    /// Puts a head into the available ring and publishes it.
    pub fn offer_head(&mut self, head: u16) {
        let place = self.avail + 4 + 2 * u64::from(self.avail_idx % self.size);
        self.put(place, &head.to_le_bytes());
        self.publish(self.avail_idx.wrapping_add(1));
    }

    /// Sets the available index to anything.
    pub fn publish(&mut self, avail_idx: u16) {
        self.avail_idx = avail_idx;
        let stored = self.memory.store(
            avail_idx.to_le(),
            GuestAddress(self.avail + 2),
            Ordering::Release,
        );
        stored.expect("the rings are in guest memory");
    }

    /// Writes a descriptor of the table.
    pub fn put_desc(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.put(self.table + 16 * u64::from(index), &bytes);
    }

    /// Writes the request header that belongs to a head.
    pub fn put_header(&self, head: u16, kind: u32, sector: u64) {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.put(self.header(head), &bytes);
    }

    /// Where the header of a head is.
    #[must_use]
    pub fn header(&self, head: u16) -> u64 {
        self.control + CONTROL * u64::from(head)
    }

    /// Where the status byte of a head is.
    #[must_use]
    pub fn status_addr(&self, head: u16) -> u64 {
        self.header(head) + 16
    }

    /// The status byte of a head.
    #[must_use]
    pub fn status(&self, head: u16) -> u8 {
        self.memory
            .read_obj(GuestAddress(self.status_addr(head)))
            .expect("in guest memory")
    }

    /// The next head that [`Self::offer`] will use.
    #[must_use]
    pub fn next_head(&self) -> u16 {
        *self.free.last().expect("a free descriptor")
    }

    /// What the used index is now.
    #[must_use]
    pub fn used_idx(&self) -> u16 {
        used_idx(&self.memory, self.used)
    }

    /// A way to look at the used index from elsewhere, for example from a sink.
    pub fn used_idx_reader(&self) -> impl Fn() -> u16 + Send + use<> {
        let (memory, used) = (self.memory.clone(), self.used);
        move || used_idx(&memory, used)
    }

    /// Takes the new used elements and frees their descriptors.
    pub fn take_used(&mut self) -> Vec<Used> {
        let mut elements = Vec::new();
        while self.used_seen != self.used_idx() {
            let place = self.used + 4 + 8 * u64::from(self.used_seen % self.size);
            let [head, len] = self
                .memory
                .read_obj::<[u32; 2]>(GuestAddress(place))
                .expect("in guest memory")
                .map(u32::from_le);
            let head = u16::try_from(head).expect("a device gives back heads");
            let chain = std::mem::take(&mut self.chains[usize::from(head)]);
            self.free.extend(chain.into_iter().rev());
            elements.push(Used { head, len });
            self.used_seen = self.used_seen.wrapping_add(1);
        }
        elements
    }

    /// The last `count` elements of the used ring as they are, whoever has taken them already.
    #[must_use]
    pub fn used_ring(&self, count: u16) -> Vec<Used> {
        let last = self.used_idx();
        let element = |back: u16| {
            let index = last.wrapping_sub(back) % self.size;
            let place = self.used + 4 + 8 * u64::from(index);
            let [head, len] = self
                .memory
                .read_obj::<[u32; 2]>(GuestAddress(place))
                .expect("in guest memory")
                .map(u32::from_le);
            let head = u16::try_from(head).expect("a device gives back heads");
            Used { head, len }
        };
        (1..=count).rev().map(element).collect()
    }

    /// With VIRTIO_F_EVENT_IDX: asks to be signalled when the used index passes this.
    pub fn set_used_event(&self, index: u16) {
        self.put(
            self.avail + 4 + 2 * u64::from(self.size),
            &index.to_le_bytes(),
        );
    }

    /// Without it: the flags of the available ring.
    pub fn set_avail_flags(&self, flags: u16) {
        self.put(self.avail, &flags.to_le_bytes());
    }

    /// Writes guest memory.
    pub fn put(&self, addr: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(addr))
            .expect("in guest memory");
    }

    /// Reads guest memory.
    #[must_use]
    pub fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(addr))
            .expect("in guest memory");
        bytes
    }

    /// Where the rings begin and end: descriptor table, available ring, used ring.
    #[must_use]
    pub fn rings(&self) -> [GuestRange; 3] {
        let n = u64::from(self.size);
        [
            (self.table, 16 * n),
            (self.avail, 6 + 2 * n),
            (self.used, 6 + 8 * n),
        ]
        .map(|(addr, len)| GuestRange { addr, len })
    }
}

fn used_idx(memory: &GuestMemoryMmap<()>, used: u64) -> u16 {
    let index = memory.load::<u16>(GuestAddress(used + 2), Ordering::Acquire);
    u16::from_le(index.expect("the rings are in guest memory"))
}
