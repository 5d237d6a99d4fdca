//! Requests that end together: a network frame that was spread over several receive buffers (VIRTIO_NET_F_MRG_RXBUF).
//!
//! The driver sees all of a group or nothing: its requests wait in state `Executed` until the last of them may be completed, also
//! when the plan holds one of them there; then all are completed in the order in which the backend gave them back, with
//! consecutive used elements and one store of the used index. If one of them has failed, all of them have. Younger requests are not
//! kept back. A plan that drops the completion of one member breaks the promise, as it breaks others.

use crate::trace::event::Status;

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::logic::Logic;

/// The groups of a queue that are not complete.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The group whose members the backend is giving back, and how many are still to come.
    arriving: Option<(u64, u64)>,
    waiting: Vec<Group>,
    /// A group is never named like one before.
    next: u64,
}

#[derive(Debug)]
struct Group {
    name: u64,
    members: Vec<u16>,
    /// Members that may not be completed yet.
    missing: u64,
}

impl Groups {
    /// Whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.arriving.is_none() && self.waiting.is_empty()
    }

    /// A request was given back, and `follow` more of the same group will be. Returns its group, if it has one.
    pub(super) fn joined(&mut self, index: u16, follow: u64) -> Option<u64> {
        let name = match self.arriving.take() {
            Some((name, _)) => name,
            None if follow == 0 => return None,
            None => {
                self.next += 1;
                self.waiting.push(Group {
                    name: self.next,
                    members: Vec::new(),
                    missing: follow + 1,
                });
                self.next
            }
        };
        self.arriving = (follow > 0).then_some((name, follow));
        let group = self.waiting.iter_mut().find(|group| group.name == name)?;
        group.members.push(index);
        Some(name)
    }

    /// One of its members may be completed. Returns all members once that is true for the last of them.
    fn arrived(&mut self, name: u64) -> Option<Vec<u16>> {
        let place = self.waiting.iter().position(|group| group.name == name)?;
        let group = &mut self.waiting[place];
        group.missing -= 1;
        (group.missing == 0).then(|| self.waiting.swap_remove(place).members)
    }
}

impl<L: Logic> Core<L> {
    /// Completes a request, or the whole group that it was the last of.
    #[inline]
    pub(super) fn complete(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        match queue.in_flight.slot(index).group {
            None => self.complete_alone(queue, index),
            Some(name) => self.complete_group(queue, name),
        }
    }

    #[inline(never)]
    fn complete_group(&mut self, queue: &mut DeviceQueue<L::Request>, name: u64) {
        let Some(members) = queue.groups.arrived(name) else {
            return;
        };
        let mut statuses = members
            .iter()
            .map(|index| queue.in_flight.slot(*index).status);
        let failed = statuses.find(|status| *status != Status::Ok);
        queue.ring.begin_group();
        for index in members {
            let slot = queue.in_flight.slot(index);
            slot.status = failed.unwrap_or(slot.status);
            self.complete_alone(queue, index);
        }
        let used = queue.ring.end_group(&queue.memory);
        queue.check(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_whole_when_its_last_member_arrives() {
        let mut groups = Groups::default();
        assert_eq!(groups.joined(9, 0), None, "alone");
        let first = groups.joined(3, 2).unwrap();
        assert_eq!(groups.joined(4, 1), Some(first));
        assert_eq!(groups.joined(5, 0), Some(first));
        let second = groups.joined(6, 1).unwrap();
        assert_ne!(first, second);
        assert_eq!(groups.joined(7, 0), Some(second));
        assert_eq!(groups.joined(8, 0), None);
        assert_eq!(groups.arrived(first), None);
        assert_eq!(groups.arrived(second), None);
        assert_eq!(groups.arrived(second), Some(vec![6, 7]));
        assert_eq!(groups.arrived(first), None);
        assert_eq!(groups.arrived(first), Some(vec![3, 4, 5]));
    }
}
