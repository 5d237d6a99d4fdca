//! The driver's rings: copies chains out, publishes used elements, decides on notifications.
//!
//! Built on virtio-queue, which bounds every walk by the size of the table. What it cannot tell apart (a chain that
//! ended and one that broke off) is told apart here. Everything read from guest memory is read once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::mmap::MmapRegion;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
};

use crate::memory::Near;

use super::logic::{Chain, Segment};

/// The longest chain that is accepted when the queue itself is shorter (an indirect table may be longer than the
/// queue only by a guest mistake that drivers are known to make).
const MIN_LONGEST_CHAIN: usize = 256;

/// Bytes of the used ring before its elements, and of an element (virtio 1.2, 2.7.8).
const USED_HEADER: u64 = 4;
const USED_ELEMENT: u64 = 8;

/// Above all physical addresses of a guest.
const OWN_RING: GuestAddress = GuestAddress(1 << 62);

/// The rings can not be used any more: only a reset helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RingBroken {
    #[error("the available index is more than the queue's size ahead")]
    AvailableIndex,
    #[error("the available ring names a descriptor outside the table")]
    Head,
    #[error("the rings are outside guest memory")]
    Memory,
}

/// Chains that were popped together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chains: Vec<Popped>,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy)]
struct Popped {
    head: u16,
    end: usize,
    defect: Option<&'static str>,
}

impl Batch {
    /// Each chain, or what is wrong with it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Chain<'_>, Option<&'static str>)> {
        let mut start = 0;
        self.chains.iter().map(move |popped| {
            let segments = &self.segments[start..popped.end];
            start = popped.end;
            (
                Chain {
                    head: popped.head,
                    segments,
                },
                popped.defect,
            )
        })
    }

    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    fn clear(&mut self) {
        self.chains.clear();
        self.segments.clear();
    }
}

/// The rings of one queue.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    longest_chain: usize,
    /// Used elements were published since the last decision on a notification.
    published: bool,
    /// One of them was a group, of which virtio-queue has counted one element.
    published_group: bool,
    /// Used elements that are to be seen at once.
    group: Option<Vec<(u16, u32)>>,
    /// The group at hand is not to be signalled.
    muted_group: bool,
}

impl Ring {
    /// `None` if the rings are not in guest memory or the queue's size is not usable.
    pub(super) fn new(
        mut queue: Queue,
        memory: &GuestMemoryMmap<()>,
        event_idx: bool,
    ) -> Option<Self> {
        if !queue.size().is_power_of_two() || !queue.is_valid(memory) {
            return None;
        }
        queue.set_event_idx(event_idx);
        Some(Self {
            longest_chain: usize::from(queue.size()).max(MIN_LONGEST_CHAIN),
            queue,
            published: false,
            published_group: false,
            group: None,
            muted_group: false,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Pops up to `limit` chains into `batch`, which is emptied first.
    #[inline]
    pub(super) fn pop(
        &mut self,
        memory: &GuestMemoryMmap<()>,
        limit: usize,
        batch: &mut Batch,
    ) -> Result<(), RingBroken> {
        batch.clear();
        let size = self.queue.size();
        let near = near(memory, self.queue.desc_table())?;
        let mut available = self.queue.iter(&near).map_err(|error| match error {
            virtio_queue::Error::InvalidAvailRingIndex => RingBroken::AvailableIndex,
            _ => RingBroken::Memory,
        })?;
        while batch.chains.len() < limit {
            let Some(mut chain) = available.next() else {
                break;
            };
            if chain.head_index() >= size {
                return Err(RingBroken::Head);
            }
            let head = chain.head_index();
            let defect = copy_chain(&mut chain, self.longest_chain, &mut batch.segments);
            let end = batch.segments.len();
            batch.chains.push(Popped { head, end, defect });
        }
        Ok(())
    }

    /// Where the device is in the two rings: next available, next used.
    pub(super) fn places(&self) -> (u16, u16) {
        (self.queue.next_avail(), self.queue.next_used())
    }

    /// Pops chains whose heads are known already, at most as many as the queue has descriptors. The driver may have overwritten the
    /// elements of the available ring that named them, so they are popped from a ring of our own, above all memory.
    pub(super) fn pop_again(
        &self,
        memory: &GuestMemoryMmap<()>,
        heads: &[u16],
        batch: &mut Batch,
    ) -> Result<(), RingBroken> {
        batch.clear();
        let count = u16::try_from(heads.len()).map_err(|_| RingBroken::Head)?;
        if count > self.queue.size() || heads.iter().any(|head| *head >= self.queue.size()) {
            return Err(RingBroken::Head);
        }
        let ours = own_ring(self.queue.size(), heads).ok_or(RingBroken::Memory)?;
        let ring = ours.start_addr();
        let memory = memory.insert_region(Arc::new(ours));
        let memory = memory.map_err(|_| RingBroken::Memory)?;
        let state = self.queue.state();
        let mut queue = Queue::try_from(state).map_err(|_| RingBroken::Memory)?;
        queue
            .try_set_avail_ring_address(ring)
            .map_err(|_| RingBroken::Memory)?;
        queue.set_next_avail(0);
        let near = near(&memory, queue.desc_table())?;
        let available = queue.iter(&near).map_err(|_| RingBroken::Memory)?;
        for mut chain in available {
            let head = chain.head_index();
            let defect = copy_chain(&mut chain, self.longest_chain, &mut batch.segments);
            let end = batch.segments.len();
            batch.chains.push(Popped { head, end, defect });
        }
        Ok(())
    }

    /// Publishes a used element: from now on the guest owns the chain's pages.
    #[inline]
    pub(super) fn add_used(
        &mut self,
        memory: &GuestMemoryMmap<()>,
        head: u16,
        written: u32,
    ) -> Result<(), RingBroken> {
        if let Some(group) = &mut self.group {
            group.push((head, written));
            return Ok(());
        }
        let near = near(memory, self.queue.used_ring())?;
        let used = self.queue.add_used(&near, head, written);
        used.map_err(|_| RingBroken::Memory)?;
        self.published = true;
        Ok(())
    }

    /// What is published from now on is seen at [`Self::end_group`], all at once.
    pub(super) fn begin_group(&mut self) {
        self.group = Some(Vec::new());
        self.muted_group = false;
    }

    /// Publishes what came since [`Self::begin_group`]: all elements, then one store of the used index.
    pub(super) fn end_group(&mut self, memory: &GuestMemoryMmap<()>) -> Result<(), RingBroken> {
        let Some(mut group) = self.group.take() else {
            return Ok(());
        };
        let Some((last_head, last_written)) = group.pop() else {
            return Ok(());
        };
        let first = self.queue.next_used();
        for (index, (head, written)) in (0..).zip(&group) {
            let place = u64::from(first.wrapping_add(index) % self.queue.size());
            let element = [u32::from(*head).to_le(), written.to_le()];
            let addr = self.queue.used_ring() + USED_HEADER + USED_ELEMENT * place;
            let put = memory.write_obj(element, GuestAddress(addr));
            put.map_err(|_| RingBroken::Memory)?;
        }
        let before = u16::try_from(group.len()).unwrap_or(u16::MAX);
        self.queue.set_next_used(first.wrapping_add(before));
        self.published_group |= before > 0;
        let signals = self.published || !self.muted_group;
        let added = self.add_used(memory, last_head, last_written);
        self.published = signals;
        added
    }

    /// Whether the next decision on a notification is about anything.
    pub(super) fn signals(&self) -> bool {
        self.published
    }

    /// Sets that, against what was published. In a group it is the whole group that is signalled or not.
    pub(super) fn set_signals(&mut self, signals: bool) {
        self.published = signals;
        self.muted_group = !signals;
    }

    /// Asks the driver not to kick while the queue is being served anyway.
    pub(super) fn disable_kicks(&mut self, memory: &GuestMemoryMmap<()>) -> Result<(), RingBroken> {
        let disabled = self.queue.disable_notification(memory);
        disabled.map_err(|_| RingBroken::Memory)
    }

    /// Asks for kicks again. `true`: there is more already, for which no kick may come.
    pub(super) fn enable_kicks(
        &mut self,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<bool, RingBroken> {
        let more = self.queue.enable_notification(memory);
        more.map_err(|_| RingBroken::Memory)
    }

    /// Whether the driver wants to be told about what was published since the last call.
    pub(super) fn needs_signal(
        &mut self,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<bool, RingBroken> {
        if !std::mem::take(&mut self.published) {
            return Ok(false);
        }
        let certain = std::mem::take(&mut self.published_group);
        let wanted = self.queue.needs_notification(memory);
        let wanted = wanted.map_err(|_| RingBroken::Memory)?;
        // Without VIRTIO_F_EVENT_IDX the driver speaks through the flag, which virtio-queue does not read (virtio
        // 1.2, 2.7.7.2).
        Ok((wanted || certain)
            && (self.queue.event_idx_enabled() || !self.interrupts_suppressed(memory)?))
    }

    fn interrupts_suppressed(&self, memory: &GuestMemoryMmap<()>) -> Result<bool, RingBroken> {
        let flags = memory.load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed);
        let flags = u16::from_le(flags.map_err(|_| RingBroken::Memory)?);
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT != 0)
    }
}

/// An available ring with these heads, in memory where no guest has any.
fn own_ring(size: u16, heads: &[u16]) -> Option<GuestRegionMmap<()>> {
    let len = (6 + 2 * usize::from(size)).next_multiple_of(4096);
    let region = GuestRegionMmap::new(MmapRegion::new(len).ok()?, OWN_RING)?;
    let count = u16::try_from(heads.len()).ok()?;
    let words = [0, count].into_iter().chain(heads.iter().copied());
    let bytes: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
    region.write_slice(&bytes, MemoryRegionAddress(0)).ok()?;
    Some(region)
}

/// Guest memory as it is seen from a ring.
#[inline]
fn near(memory: &GuestMemoryMmap<()>, ring: u64) -> Result<Near<'_>, RingBroken> {
    Near::new(memory, ring).ok_or(RingBroken::Memory)
}

/// Copies a chain's descriptors; says what is wrong if it breaks off.
#[inline]
fn copy_chain(
    chain: &mut virtio_queue::DescriptorChain<&Near<'_>>,
    longest: usize,
    segments: &mut Vec<Segment>,
) -> Option<&'static str> {
    let start = segments.len();
    let mut goes_on = true;
    for descriptor in chain {
        if segments.len() - start == longest {
            return Some("a chain is longer than the queue");
        }
        goes_on = descriptor.has_next();
        segments.push(Segment {
            addr: descriptor.addr().0,
            len: descriptor.len(),
            writable: descriptor.is_write_only(),
        });
    }
    // The walk ends early at a loop, an index outside the table, a bad indirect table, or more than 2^32 bytes.
    goes_on.then_some("a chain breaks off: a loop, a bad next index or a bad indirect table")
}
