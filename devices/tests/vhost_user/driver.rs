//! The side of the driver: the `virtio-driver` crate over a vhost-user socket, with a buffer that both sides share.
#![expect(
    unsafe_code,
    reason = "the driver crate takes buffers in shared memory as raw pointers"
)]

use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_driver::{
    VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags,
};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

const QUEUE: u16 = 128;
/// How long a completion may take, which is long for any machine.
const LIMIT: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    Read,
    Write,
    Flush,
}

/// A request by its name: what, and at which byte of the disk.
type Name = (Request, usize);

/// A connected driver of one queue.
pub struct Driver {
    // Dropped in this order: the queue lies in the transport's memory, and requests point into the buffer.
    queue: VirtioBlkQueue<'static, Name>,
    transport: Box<VirtioBlkTransport>,
    buffer: MmapRegion,
}

impl Driver {
    /// Connects, and shares a buffer of `len` zeros with the device.
    pub fn connect(socket: &Path, len: usize) -> Self {
        let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
        let features = features.bits() | VirtioBlkFeatureFlags::FLUSH.bits();
        let socket = socket.to_str().expect("a temporary path is text");
        let transport = VhostUser::new(socket, features).expect("the device is listening");
        assert_eq!(transport_features(&transport) & features, features);
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(len as u64).expect("room for the buffer");
        let fd: RawFd = file.as_raw_fd();
        let buffer: MmapRegion =
            MmapRegion::from_file(FileOffset::new(file, 0), len).expect("a shared mapping");
        // Before the queue, so that it begins to work with all of its memory.
        let shared = transport.map_mem_region(buffer.as_ptr() as usize, len, fd, 0);
        shared.expect("the device takes a memory region");
        let mut queues = VirtioBlkQueue::setup_queues(transport.as_mut(), 1, QUEUE)
            .expect("the device takes a queue");
        let mut queue = queues.pop().expect("one queue");
        // It begins without, and a wait for the descriptor would never end.
        queue.set_used_notif_enabled(true);
        Self {
            queue,
            transport,
            buffer,
        }
    }

    /// Puts bytes into the buffer.
    pub fn put(&self, at: usize, bytes: &[u8]) {
        let slice = self.buffer.as_volatile_slice();
        slice.write_slice(bytes, at).expect("inside the buffer");
    }

    /// Bytes of the buffer.
    pub fn get(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let slice = self.buffer.as_volatile_slice();
        slice.read_slice(&mut bytes, at).expect("inside the buffer");
        bytes
    }

    /// Where the device sees a byte of the buffer: over vhost-user this driver's guest addresses are its own.
    pub fn address(&self, at: usize) -> u64 {
        self.buffer.as_ptr() as u64 + at as u64
    }

    /// Queues a request without telling the device. `at` is its place in the buffer.
    pub fn submit(&mut self, request: Request, offset: usize, at: usize, len: usize) {
        assert!(at + len <= self.buffer.len(), "inside the buffer");
        let name = (request, offset);
        let place = self.buffer.as_ptr().wrapping_add(at);
        let queued = match request {
            // SAFETY: `place` and `len` are inside the shared mapping (asserted), which outlives the queue (order of
            // the fields); nobody makes a reference into it.
            Request::Read => unsafe { self.queue.read_raw(offset as u64, place, len, name) },
            // SAFETY: as above.
            Request::Write => unsafe { self.queue.write_raw(offset as u64, place, len, name) },
            Request::Flush => self.queue.flush(name),
        };
        queued.expect("the queue has room");
    }

    /// Tells the device about what was queued.
    pub fn notify(&self) {
        let notifier = self.transport.get_submission_notifier(0);
        notifier.notify().expect("an eventfd takes a kick");
    }

    /// Waits until `count` more requests have completed well, and returns at least these.
    pub fn wait(&mut self, count: usize) -> Vec<Name> {
        let mut done = Vec::new();
        let fd = self.transport.get_completion_fd(0);
        loop {
            for completion in self.queue.completions() {
                assert_eq!(completion.ret, 0, "{:?} failed", completion.context);
                done.push(completion.context);
            }
            if done.len() >= count {
                return done;
            }
            // With event indices the driver asks anew after each look, and looks again before it waits.
            self.queue.set_used_notif_enabled(true);
            if self.queue.completions().has_next() {
                continue;
            }
            let mut fds = [PollFd::new(fd.as_ref(), PollFlags::IN)];
            let ready = poll(&mut fds, Some(&LIMIT)).expect("poll");
            let waited = format!("waited 30 s for {count} completions, got {done:?}");
            assert_eq!(ready, 1, "{waited}");
            fd.read().expect("a readable eventfd");
        }
    }
}

fn transport_features<C, R>(transport: &VhostUser<C, R>) -> u64
where
    C: virtio_driver::ByteValued,
    R: Copy,
    VhostUser<C, R>: virtio_driver::VirtioTransport<C, R>,
{
    virtio_driver::VirtioTransport::get_features(transport)
}
