//! A disk in a file or on a block device, by io_uring.
//!
//! ```text
//! submit -> backlog -> (commit) -> submission queue -> kernel -> (completions) -> done
//!              ^                                          |
//!              +---------- short transfer, EINTR ---------+
//! ```
//!
//! Everything that was submitted before [`Backend::commit`] goes to the kernel in one system call. The backlog has no
//! bound of its own (the guest's queue size is one), so a full ring delays a transfer and never loses it. No
//! more is with the kernel than its completion queue holds.
//!
//! Transfers run in any order. A flush covers what was *completed* before it was submitted, which is what virtio
//! asks for (virtio 1.2, 5.2.6.2), and is `fdatasync`.
//!
//! What the ring cannot do (a range of parts of blocks under direct I/O, a file system that cannot zero a range) is
//! done by [`FileDisk`] in the same call: slower and just as right.
#![expect(
    unsafe_code,
    reason = "the submission queue takes pointers into guest memory"
)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, Probe, opcode, types};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::FallocateFlags;

use super::direct::{BOUNCE_MAX, Bounce, gather};
use super::disk::{Disk, Geometry};
use super::error::OpenError;
use super::file::FileDisk;
use super::flight::{Flight, Flights, Next};
use super::image::FileOptions;
use super::vectored::Segments;
use super::work::{Backend, Completion, Submitted, Transfer, Work};
use super::zeroes::{PUNCH, is_refusal};

/// Entries of the submission queue; the completion queue has twice as many.
const ENTRIES: u32 = 128;

/// How long to wait in silence for the host's disk, in seconds.
const PATIENCE_S: i64 = 5;

/// A disk in a file, worked on in the background.
pub struct UringDisk {
    /// Opens, checks, and does what the ring cannot.
    disk: FileDisk,
    ring: IoUring,
    /// Readable when there is something to collect.
    wake: OwnedFd,
    flights: Flights,
    /// Accepted, not in the submission queue yet.
    backlog: VecDeque<u32>,
    /// In the submission queue, not taken by the kernel yet, in order.
    queued: VecDeque<u32>,
    /// Taken by the kernel, not answered yet.
    in_kernel: usize,
    done: Vec<Completion>,
    /// The kernel will have nothing more of us; everything goes by system calls.
    refused: bool,
}

impl UringDisk {
    /// Opens and locks an image, and sets up a ring for it.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::NoUring`] if the host refuses io_uring or has one from before Linux 5.6.
    pub fn open(options: &FileOptions) -> Result<Self, OpenError> {
        Self::of(FileDisk::open(options)?)
    }

    /// A ring for `disk`.
    fn of(disk: FileDisk) -> Result<Self, OpenError> {
        let refuse = |attempt| move |source| OpenError::NoUring { attempt, source };
        let ring = IoUring::new(ENTRIES).map_err(refuse("set up a ring"))?;
        require_opcodes(&ring).map_err(refuse("use the ring for files"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| refuse("make an eventfd")(errno.into()))?;
        ring.submitter()
            .register_eventfd(wake.as_raw_fd())
            .map_err(refuse("register an eventfd"))?;
        Ok(Self {
            disk,
            ring,
            wake,
            flights: Flights::default(),
            backlog: VecDeque::new(),
            queued: VecDeque::new(),
            in_kernel: 0,
            done: Vec::new(),
            refused: false,
        })
    }

    /// Prepares a transfer for the ring, or says that it is not for the ring.
    fn prepare(&mut self, mut transfer: Transfer) -> Result<Flight, Unfit> {
        if let Err(error) = self.disk.image().check(&transfer) {
            return Err(Unfit::Refused(transfer, error));
        }
        let mut segments = Segments::default();
        let mut bounce = None;
        let mut fallocate = FallocateFlags::empty();
        match transfer.work {
            // What is not for disks was refused above.
            Work::Flush | Work::Transmit | Work::Receive | Work::Free => {}
            Work::Read | Work::Write => {
                if let Err(error) = segments.load(&mut transfer.buffers, transfer.len) {
                    return Err(Unfit::Refused(transfer, error));
                }
                if let Some(alignment) = self.disk.image().alignment {
                    if !alignment.fits_disk(transfer.offset, transfer.len) {
                        return Err(Unfit::Alone(transfer));
                    }
                    if !alignment.fits_memory(&segments) {
                        if transfer.len > BOUNCE_MAX {
                            return Err(Unfit::Alone(transfer));
                        }
                        let mut aligned = Bounce::new(alignment, transfer.len);
                        if transfer.work == Work::Write
                            && let Err(error) = gather(&transfer.buffers, 0, aligned.bytes())
                        {
                            return Err(Unfit::Refused(transfer, error));
                        }
                        segments.load_bytes(aligned.bytes());
                        bounce = Some(aligned);
                    }
                }
            }
            Work::Discard => fallocate = PUNCH,
            Work::WriteZeroes { unmap } => match self.disk.image().zeroing.modes(unmap).next() {
                Some(mode) => fallocate = mode,
                None => return Err(Unfit::Alone(transfer)),
            },
        }
        Ok(Flight {
            transfer,
            segments,
            bounce,
            fallocate,
        })
    }

    /// Does a transfer by system calls when nothing else is under way, so that it cannot mix with another one in a block.
    fn run_alone(&mut self, mut transfer: Transfer) -> Completion {
        self.settle();
        self.announce_done();
        let result = self.disk.run(&mut transfer);
        Completion { transfer, result }
    }

    /// Moves as much of the backlog to the kernel as fits.
    fn push_backlog(&mut self) {
        let room = self.ring.params().cq_entries() as usize;
        let file = types::Fd(self.disk.image().file.as_raw_fd());
        loop {
            while self.in_kernel + self.queued.len() < room
                && let Some(&number) = self.backlog.front()
            {
                let entry = self
                    .flights
                    .get_mut(number)
                    .entry(file)
                    .user_data(u64::from(number));
                // SAFETY: the entry points into the flight's segments, and they into its buffers. The table keeps the
                // flight, unchanged, until the kernel has answered; `drop` waits for all answers.
                if unsafe { self.ring.submission().push(&entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
                self.queued.push_back(number);
            }
            let waiting = self.queued.len();
            self.enter();
            if self.backlog.is_empty() || self.queued.len() == waiting {
                return;
            }
        }
    }

    /// Offers the submission queue to the kernel.
    fn enter(&mut self) {
        while !self.queued.is_empty() {
            match self.ring.submit() {
                Ok(taken) => {
                    self.queued.drain(..taken.min(self.queued.len()));
                    self.in_kernel += taken;
                    return;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        // Out of some resource: what is under way gives it back and wakes us.
                        if self.in_kernel == 0 {
                            self.ring();
                        }
                        return;
                    }
                    _ => return self.leave_ring(&error),
                },
            }
        }
    }

    /// The kernel took nothing and never will: what it did not take is done without it.
    fn leave_ring(&mut self, error: &io::Error) {
        log::error!(
            "disk image {:?}: io_uring failed ({error}), going on with system calls",
            self.disk.image().path
        );
        self.refused = true;
        let left: Vec<u32> = self
            .queued
            .drain(..)
            .chain(self.backlog.drain(..))
            .collect();
        for number in left {
            let mut transfer = self.flights.take(number).transfer;
            let result = self.disk.run(&mut transfer);
            self.done.push(Completion { transfer, result });
        }
        self.announce_done();
    }

    /// Collects the kernel's answers.
    fn reap(&mut self) {
        let answers: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        self.in_kernel -= answers.len();
        for (number, answer) in answers {
            let number =
                u32::try_from(number).expect("the kernel gives back what push_backlog gave it");
            match self.flights.get_mut(number).answered(answer) {
                Next::Again if self.refused => {
                    let completion = self.flights.take(number).finish(Ok(()));
                    self.finish_without_ring(completion.transfer);
                }
                Next::Again => self.backlog.push_back(number),
                Next::Done(result) => self.land(number, result),
            }
        }
    }

    fn finish_without_ring(&mut self, mut transfer: Transfer) {
        let result = self.disk.run(&mut transfer);
        self.done.push(Completion { transfer, result });
    }

    /// A flight is over. What the file system refused to zero is written, and what a device did not discard is cut to its blocks.
    fn land(&mut self, number: u32, result: io::Result<()>) {
        let flight = self.flights.take(number);
        match (&result, flight.transfer.work) {
            (Err(error), Work::Discard | Work::WriteZeroes { .. }) if is_refusal(error) => {
                self.disk.note_refusal(flight.fallocate, error);
                self.finish_without_ring(flight.transfer);
            }
            _ => self.done.push(flight.finish(result)),
        }
    }

    /// Blocks until nothing is under way.
    fn settle(&mut self) {
        loop {
            self.push_backlog();
            self.reap();
            if self.in_kernel == 0 && self.queued.is_empty() && self.backlog.is_empty() {
                return;
            }
            if self.in_kernel > 0 {
                self.wait();
            }
        }
    }

    /// Waits until the kernel has an answer, however long the disk takes: its memory is in use until then.
    fn wait(&self) {
        let patience = Timespec {
            tv_sec: PATIENCE_S,
            tv_nsec: 0,
        };
        match poll(
            &mut [PollFd::new(&self.wake, PollFlags::IN)],
            Some(&patience),
        ) {
            Ok(0) => log::warn!(
                "disk image {:?}: still waiting for the host's disk to finish {} transfers",
                self.disk.image().path,
                self.in_kernel
            ),
            Ok(_) => self.silence(),
            // A signal; the loop looks again.
            Err(_) => {}
        }
    }

    fn announce_done(&self) {
        if !self.done.is_empty() {
            self.ring();
        }
    }

    /// Makes the completion descriptor readable.
    fn ring(&self) {
        // A full counter is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Clears the completion descriptor.
    fn silence(&self) {
        // Not readable is what we want.
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
    }
}

/// Why a transfer does not go to the ring.
enum Unfit {
    /// It is wrong.
    Refused(Transfer, io::Error),
    /// It must run when nothing else does.
    Alone(Transfer),
}

fn require_opcodes(ring: &IoUring) -> io::Result<()> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
    ];
    if needed.into_iter().all(|code| probe.is_supported(code)) {
        Ok(())
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Disk for UringDisk {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    /// With a ring of its own.
    fn another(&self) -> io::Result<Box<dyn Disk>> {
        let disk = Self::of(self.disk.same()).map_err(io::Error::other)?;
        Ok(Box::new(disk))
    }
}

impl Backend for UringDisk {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        if self.refused {
            return self.disk.submit(transfer);
        }
        // `fallocate` and vectored I/O of nothing are errors or ambiguous; nothing is done at once.
        if transfer.len == 0 && transfer.work != Work::Flush {
            return self.disk.submit(transfer);
        }
        match self.prepare(transfer) {
            Ok(flight) => {
                let number = self.flights.insert(flight);
                self.backlog.push_back(number);
                Submitted::Pending
            }
            Err(Unfit::Refused(transfer, error)) => Submitted::Done(Completion {
                transfer,
                result: Err(error),
            }),
            Err(Unfit::Alone(transfer)) => Submitted::Done(self.run_alone(transfer)),
        }
    }

    fn commit(&mut self) {
        self.push_backlog();
    }

    fn completion_fd(&self) -> Option<RawFd> {
        Some(self.wake.as_raw_fd())
    }

    fn completions(&mut self, done: &mut Vec<Completion>) {
        // Silence first: what is answered after the look rings again.
        self.silence();
        self.reap();
        self.push_backlog();
        done.append(&mut self.done);
    }

    fn drain(&mut self, done: &mut Vec<Completion>) {
        self.settle();
        self.silence();
        done.append(&mut self.done);
    }
}

impl Drop for UringDisk {
    /// The kernel may be writing into guest memory that the flights own: nothing is freed before it is done.
    fn drop(&mut self) {
        self.settle();
    }
}
