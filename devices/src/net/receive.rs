//! The host side of a receive queue: buffers wait here, in the order in which they were posted, until a frame comes.
//!
//! ```text
//!   submit ──> waiting ──┐                      ┌── a frame that fits: the oldest buffer is done
//!                        ├── completions ──> ───┼── several buffers (MRG_RXBUF): all of them are done
//!   port readable ───────┘                      └── no room: the frame waits for more buffers; dropped where none can come
//! ```
//!
//! A buffer that the plan holds before its start was not submitted yet, so it is none of these, and younger ones get the
//! frames. While no buffer waits, or the link is down, the port is not watched: frames wait at the host.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::backend::{Backend, Buffers, Completion, Submitted, Transfer};
use crate::context::Context;
use crate::memory;
use crate::trace::event::{EventKind, GuestRange};

use super::checksum;
use super::header::{Header, LEN};
use super::link::Link;
use super::port::Receiver;

/// Frames taken in one call, so that a flood does not keep the queue's lock.
const FRAMES_PER_CALL: usize = 64;

pub(super) struct ReceiveSide {
    name: String,
    queue: u16,
    context: Context,
    link: Link,
    receiver: Box<dyn Receiver>,
    waiting: VecDeque<Transfer>,
    frame: Vec<u8>,
    epoll: Epoll,
    poke: Arc<EventFd>,
    /// The port's descriptor is in `epoll`.
    watched: bool,
    /// The port failed and is left alone until the next reset: its descriptor may stay readable for ever.
    failed: bool,
    /// A frame was taken from the port that these many waiting buffers had no room for.
    short_of: Option<(Header, usize)>,
    dropped: u64,
}

impl ReceiveSide {
    pub(super) fn new(
        name: &str,
        queue: u16,
        receiver: Box<dyn Receiver>,
        link: Link,
        context: Context,
    ) -> io::Result<Self> {
        let (epoll, poke) = (Epoll::new()?, link.poke()?);
        let readable = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, poke.as_raw_fd(), readable)?;
        Ok(Self {
            name: name.to_owned(),
            queue,
            context,
            link,
            receiver,
            waiting: VecDeque::new(),
            frame: Vec::new(),
            epoll,
            poke,
            watched: false,
            failed: false,
            short_of: None,
            dropped: 0,
        })
    }

    /// Watches the port exactly while a frame could be taken.
    fn watch(&mut self) {
        let has_room = self.short_of.is_none() && !self.waiting.is_empty();
        let wanted = !self.failed && has_room && self.link.is_up();
        if wanted == self.watched {
            return;
        }
        let operation = if wanted {
            ControlOperation::Add
        } else {
            ControlOperation::Delete
        };
        let readable = EpollEvent::new(EventSet::IN, 0);
        match self.epoll.ctl(operation, self.receiver.fd(), readable) {
            Ok(()) => self.watched = wanted,
            Err(error) => log::error!("{}: cannot wait for frames: {error}", self.name),
        }
    }

    /// Takes the next frame, if there is one and a buffer might have room for it.
    fn next(&mut self) -> Option<Header> {
        if self.waiting.is_empty() || !self.link.is_up() {
            return None;
        }
        match self.short_of {
            Some((_, had)) if self.waiting.len() <= had => None,
            Some((header, _)) => {
                self.short_of = None;
                Some(header)
            }
            None => match self.receiver.receive(&mut self.frame) {
                Ok(frame) => frame,
                Err(error) => {
                    log::error!("{}: nothing is received any more: {error}", self.name);
                    self.failed = true;
                    None
                }
            },
        }
    }

    /// Gives the frame at hand to waiting buffers.
    fn deliver(&mut self, header: Header, done: &mut Vec<Completion>) {
        let (features, size) = {
            let state = self.link.state();
            let size = state.queue_sizes.get(usize::from(self.queue));
            (state.features, size.copied().unwrap_or(0))
        };
        let given = header.for_driver(features);
        if header.needs_checksum() && !given.needs_checksum() {
            checksum::complete(header, &mut self.frame);
        }
        let len = LEN as u64 + self.frame.len() as u64;
        let may_spread = features & (1 << VIRTIO_NET_F_MRG_RXBUF) != 0;
        let Some(count) = buffers_for(len, &self.waiting, may_spread) else {
            // A frame that not even all buffers of the queue can hold would block it for ever.
            if may_spread && self.waiting.len() < usize::from(size) {
                self.short_of = Some((header, self.waiting.len()));
                return;
            }
            return self.drop_frame("no buffer has room for it");
        };
        let mut bytes = given.bytes(count).to_vec();
        bytes.extend_from_slice(&self.frame);
        let mut left = bytes.as_slice();
        for more in (0..count).rev() {
            let Some(mut transfer) = self.waiting.pop_front() else {
                return;
            };
            let here = usize::try_from(transfer.len).unwrap_or(usize::MAX);
            let (now, later) = left.split_at(here.min(left.len()));
            let result = fill(&mut transfer.buffers, now).map(|()| now.len() as u64);
            transfer.offset = u64::from(more);
            done.push(Completion { transfer, result });
            left = later;
        }
    }

    fn drop_frame(&mut self, why: &str) {
        self.dropped += 1;
        // Said at 1, 2, 4, 8, ...: a guest must not be able to fill the host's log.
        if self.dropped.is_power_of_two() {
            log::warn!("{}: frame {} dropped: {why}", self.name, self.dropped);
        }
        self.context.tracer().emit(|| EventKind::FrameDropped {
            device: self.name.clone(),
            queue: self.queue,
            bytes: self.frame.len() as u64,
            why: why.to_owned(),
        });
    }
}

/// How many of the oldest buffers a frame of `len` bytes takes; `None` if they have no room.
fn buffers_for(len: u64, waiting: &VecDeque<Transfer>, may_spread: bool) -> Option<u16> {
    let mut room: u64 = 0;
    let usable = if may_spread { waiting.len() } else { 1 };
    for (count, transfer) in (1..).zip(waiting.iter().take(usable)) {
        room = room.saturating_add(transfer.len);
        if room >= len {
            return Some(count);
        }
    }
    None
}

/// Writes into a transfer's buffers, which have room.
fn fill(buffers: &mut Buffers, bytes: &[u8]) -> io::Result<()> {
    match buffers {
        Buffers::None => Ok(()),
        Buffers::Owned(copy) => {
            let len = copy.len().min(bytes.len());
            copy[..len].copy_from_slice(&bytes[..len]);
            Ok(())
        }
        Buffers::Guest { memory, ranges } => {
            let ranges: &[GuestRange] = ranges;
            memory::write(memory, ranges, bytes).map_err(io::Error::other)
        }
    }
}

impl Backend for ReceiveSide {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        self.waiting.push_back(transfer);
        Submitted::Pending
    }

    fn commit(&mut self) {
        let more = self
            .short_of
            .is_some_and(|(_, had)| self.waiting.len() > had);
        if more && let Err(error) = self.poke.write(1) {
            log::error!("{}: cannot wake itself: {error}", self.name);
        }
        self.watch();
    }

    fn completion_fd(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }

    fn completions(&mut self, done: &mut Vec<Completion>) {
        // Nothing to read where only the port was readable.
        let _ = self.poke.read();
        for _ in 0..FRAMES_PER_CALL {
            let Some(header) = self.next() else {
                break;
            };
            self.deliver(header, done);
        }
        self.watch();
    }

    /// All that is here waits for the outside world.
    fn settle(&mut self, _done: &mut Vec<Completion>) {}

    fn drain(&mut self, done: &mut Vec<Completion>) {
        for transfer in self.waiting.drain(..) {
            let result = Err(io::ErrorKind::Interrupted.into());
            done.push(Completion { transfer, result });
        }
        self.watch();
        self.failed = false;
        self.short_of = None;
    }
}
