//! One descriptor that becomes readable when a device has something to do besides kicks: a message, a finished host
//! operation, a due alarm. It is an epoll descriptor over the three, so that an event loop needs to know one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::clock::{Alarm, Clock};
use crate::fault::{Inbox, Ticket};

#[derive(Debug)]
pub(super) struct Wake {
    epoll: Epoll,
    inbox: Arc<Inbox>,
    /// Made when the first duration is waited for; one for all of a device.
    alarm: Option<Box<dyn Alarm>>,
    due: BinaryHeap<Reverse<(u64, Ticket)>>,
}

impl Wake {
    pub(super) fn new(completion_fd: Option<RawFd>) -> io::Result<Self> {
        let wake = Self {
            epoll: Epoll::new()?,
            inbox: Arc::new(Inbox::new()?),
            alarm: None,
            due: BinaryHeap::new(),
        };
        wake.add(wake.inbox.fd())?;
        if let Some(fd) = completion_fd {
            wake.add(fd)?;
        }
        Ok(wake)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Announces a ticket at a time.
    pub(super) fn at(&mut self, clock: &dyn Clock, at_ns: u64, ticket: Ticket) -> io::Result<()> {
        if self.alarm.is_none() {
            let alarm = clock.alarm()?;
            self.add(alarm.fd())?;
            self.alarm = Some(alarm);
        }
        self.due.push(Reverse((at_ns, ticket)));
        self.set_alarm()
    }

    /// Takes what is due, earliest first.
    pub(super) fn take_due(&mut self, clock: &dyn Clock, into: &mut Vec<Ticket>) {
        if self.due.is_empty() {
            return;
        }
        let now_ns = clock.now_ns();
        while let Some(Reverse((at_ns, ticket))) = self.due.peek().copied() {
            if at_ns > now_ns {
                break;
            }
            self.due.pop();
            into.push(ticket);
        }
        self.set_alarm_or_say_so();
    }

    /// Forgets all times.
    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.set_alarm_or_say_so();
    }

    fn set_alarm_or_say_so(&mut self) {
        if let Err(error) = self.set_alarm() {
            log::error!("cannot set a timer: {error}; requests held for a duration may stay held");
        }
    }

    fn set_alarm(&mut self) -> io::Result<()> {
        let next = self.due.peek().map(|Reverse((at_ns, _))| *at_ns);
        self.alarm.as_mut().map_or(Ok(()), |alarm| alarm.set(next))
    }

    fn add(&self, fd: RawFd) -> io::Result<()> {
        self.epoll
            .ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))
    }
}
