//! What is in flight now, from the event log alone: no device is asked, so no device can be disturbed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use pincushion_devices::trace::event::{
    Direction, GuestRange, HoldEnd, HoldId, Operation, Point, RequestId, Status, Until,
};
use pincushion_devices::trace::{Event, EventKind};

use super::counters::{self, Devices};

/// A request between pop and used element.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// Which.
    pub request: RequestId,
    /// Head of its descriptor chain.
    pub head: u16,
    /// What it asks for.
    pub operation: Operation,
    /// Its first sector.
    pub sector: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was popped, on the log's clock.
    pub fetched_ns: u64,
    /// Its hold, while it is open.
    pub hold: Option<OpenHold>,
    /// What it waits for, while it is parked.
    pub waits: Option<Wait>,
    /// Whether the device touches its frames now.
    pub is_touching: bool,
    direction: Option<Direction>,
}

/// The frames that a device owns.
#[derive(Debug, Clone)]
pub struct OpenHold {
    /// Its name.
    pub id: HoldId,
    /// Which way the bytes go.
    pub direction: Direction,
    /// Where.
    pub ranges: Vec<GuestRange>,
    /// Since when, on the log's clock.
    pub opened_ns: u64,
}

/// Why a request does not go on.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Where on its way.
    pub point: Point,
    /// What for.
    pub until: Until,
    /// Since when, on the log's clock.
    pub since_ns: u64,
}

/// Everything that is known about now.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) devices: Devices,
    pub(super) open_gates: BTreeSet<String>,
    /// By the number of the event of their pop, so the oldest come first.
    requests: BTreeMap<u64, InFlight>,
    places: HashMap<RequestId, u64>,
}

impl Live {
    /// Takes notice of an event.
    pub(super) fn apply(&mut self, event: &Event) {
        let now_ns = event.time_ns;
        match &event.kind {
            EventKind::Fetched { .. } => self.fetched(event),
            EventKind::HoldOpened {
                hold,
                request,
                direction,
                ranges,
            } => self.change(request, |queue, it| {
                queue.held += 1;
                it.hold = Some(OpenHold {
                    id: *hold,
                    direction: *direction,
                    ranges: ranges.clone(),
                    opened_ns: now_ns,
                });
            }),
            EventKind::FaultApplied { request, .. } => {
                counters::queue(&mut self.devices, &request.device, request.queue).faults += 1;
            }
            EventKind::Parked {
                request,
                point,
                until,
            } => self.change(request, |queue, it| {
                queue.parkings += 1;
                queue.parked += u64::from(it.waits.is_none());
                it.waits = Some(Wait {
                    point: *point,
                    until: until.clone(),
                    since_ns: now_ns,
                });
            }),
            EventKind::Released { request, .. } => self.change(request, |queue, it| {
                queue.parked -= u64::from(it.waits.take().is_some());
            }),
            EventKind::TouchBegan { request } => {
                self.change(request, |_, it| it.is_touching = true)
            }
            EventKind::TouchEnded { request } => {
                self.change(request, |_, it| it.is_touching = false)
            }
            EventKind::HoldClosed { request, how, .. } => self.hold_closed(request, *how, now_ns),
            EventKind::Used {
                request, status, ..
            } => self.used(request, *status, now_ns),
            EventKind::Signalled { device, queue } => {
                counters::queue(&mut self.devices, device, *queue).signals += 1;
            }
            EventKind::GuestMistake { device, queue, .. } => {
                counters::queue(&mut self.devices, device, *queue).guest_mistakes += 1;
            }
            EventKind::Activated { device, .. } => {
                counters::device(&mut self.devices, device).activations += 1;
            }
            EventKind::DeviceReset { device, .. } => self.device_reset(device),
            EventKind::GateOpened { gate } => drop(self.open_gates.insert(gate.clone())),
            // Says nothing about what is held or counted.
            _ => {}
        }
    }

    /// At most `limit` open holds after the place `after`, the oldest first, by looking at no more than `looks` requests;
    /// and the place to go on from, if there may be more.
    pub(super) fn holds(
        &self,
        device: Option<&str>,
        after: u64,
        limit: usize,
        looks: usize,
    ) -> (Vec<InFlight>, Option<u64>) {
        let mut found = Vec::new();
        let mut requests = self
            .requests
            .range((Bound::Excluded(after), Bound::Unbounded));
        let mut place = after;
        for _ in 0..looks {
            let Some((next, it)) = requests.next() else {
                return (found, None);
            };
            place = *next;
            if it.hold.is_some() && device.is_none_or(|device| device == it.request.device) {
                found.push(it.clone());
                if found.len() == limit {
                    break;
                }
            }
        }
        let more = requests.next().is_some();
        (found, more.then_some(place))
    }

    fn fetched(&mut self, event: &Event) {
        let EventKind::Fetched {
            request,
            head,
            operation,
            sector,
            bytes,
            direction,
            ..
        } = &event.kind
        else {
            return;
        };
        let queue = counters::queue(&mut self.devices, &request.device, request.queue);
        queue.fetched += 1;
        queue.in_flight += 1;
        let it = InFlight {
            request: request.clone(),
            head: *head,
            operation: *operation,
            sector: *sector,
            bytes: *bytes,
            fetched_ns: event.time_ns,
            hold: None,
            waits: None,
            is_touching: false,
            direction: *direction,
        };
        self.places.insert(request.clone(), event.seq.0);
        self.requests.insert(event.seq.0, it);
    }

    fn change(
        &mut self,
        request: &RequestId,
        change: impl FnOnce(&mut counters::QueueCounters, &mut InFlight),
    ) {
        // One that was popped before anybody listened is unknown.
        let place = self.places.get(request);
        if let Some(it) = place.and_then(|place| self.requests.get_mut(place)) {
            let queue = counters::queue(&mut self.devices, &request.device, request.queue);
            change(queue, it);
        }
    }

    fn hold_closed(&mut self, request: &RequestId, how: HoldEnd, now_ns: u64) {
        self.change(request, |queue, it| {
            if let Some(hold) = it.hold.take() {
                queue.held -= 1;
                queue.abandoned += u64::from(how == HoldEnd::Abandoned);
                queue.hold_time.add(now_ns.saturating_sub(hold.opened_ns));
            }
        });
    }

    fn used(&mut self, request: &RequestId, status: Status, now_ns: u64) {
        self.change(request, |queue, it| {
            queue.used += 1;
            queue.failed += u64::from(status != Status::Ok);
            match it.direction {
                Some(Direction::ToDevice) => queue.bytes_to_device += it.bytes,
                Some(Direction::FromDevice) => queue.bytes_from_device += it.bytes,
                None => {}
            }
            queue.latency.add(now_ns.saturating_sub(it.fetched_ns));
        });
        if let Some(place) = self.places.get(request).copied() {
            self.forget(place);
        }
    }

    fn device_reset(&mut self, device: &str) {
        counters::device(&mut self.devices, device).resets += 1;
        let of_device =
            |(place, it): (&u64, &InFlight)| (it.request.device == device).then_some(*place);
        let places: Vec<_> = self.requests.iter().filter_map(of_device).collect();
        for place in places {
            self.forget(place);
        }
    }

    fn forget(&mut self, place: u64) {
        let Some(it) = self.requests.remove(&place) else {
            return;
        };
        self.places.remove(&it.request);
        let queue = counters::queue(&mut self.devices, &it.request.device, it.request.queue);
        queue.in_flight -= 1;
        queue.held -= u64::from(it.hold.is_some());
        queue.parked -= u64::from(it.waits.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pincushion_devices::trace::Seq;

    /// Applies events with the numbers and times 1, 2, 3, ...
    #[derive(Default)]
    struct Bench {
        live: Live,
        seq: u64,
    }

    impl Bench {
        fn tell(&mut self, kind: EventKind) -> &mut Self {
            self.seq += 1;
            let (seq, time_ns) = (Seq(self.seq), self.seq);
            self.live.apply(&Event { seq, time_ns, kind });
            self
        }

        fn fetch_and_hold(&mut self, device: &str, ordinal: u64) -> &mut Self {
            let request = request(device, ordinal);
            let direction = Direction::FromDevice;
            let ranges = vec![GuestRange {
                addr: 0x1000,
                len: 4096,
            }];
            self.tell(EventKind::Fetched {
                request: request.clone(),
                head: 3,
                operation: Operation::Read,
                sector: 8,
                bytes: 4096,
                direction: Some(direction),
                ranges: ranges.clone(),
            });
            self.tell(EventKind::HoldOpened {
                hold: HoldId(self.seq),
                request,
                direction,
                ranges,
            })
        }

        fn park(&mut self, device: &str, ordinal: u64) -> &mut Self {
            self.tell(EventKind::Parked {
                request: request(device, ordinal),
                point: Point::Fetched,
                until: Until::Gate("g".into()),
            })
        }

        fn end(&mut self, device: &str, ordinal: u64, status: Status) -> &mut Self {
            self.tell(EventKind::HoldClosed {
                hold: HoldId(0),
                request: request(device, ordinal),
                how: HoldEnd::Completed,
            });
            self.tell(EventKind::Used {
                request: request(device, ordinal),
                head: 3,
                status,
                written: 0,
            })
        }

        fn held(&self) -> Vec<String> {
            let (found, _) = self.live.holds(None, 0, 100, 100);
            found.iter().map(|it| it.request.to_string()).collect()
        }

        fn now(&self) -> (u64, u64, u64) {
            let queue = &self.live.devices["b"].queues[&0];
            (queue.in_flight, queue.held, queue.parked)
        }
    }

    fn request(device: &str, ordinal: u64) -> RequestId {
        RequestId {
            device: device.into(),
            queue: 0,
            ordinal,
        }
    }

    #[test]
    fn a_request_is_held_from_its_hold_to_its_end_and_counted_once() {
        let mut bench = Bench::default();
        bench.fetch_and_hold("b", 0).park("b", 0);
        assert_eq!(
            (bench.held(), bench.now()),
            (vec!["b:0#0".to_owned()], (1, 1, 1))
        );
        bench.tell(EventKind::Released {
            request: request("b", 0),
            by: pincushion_devices::trace::event::ReleaseCause::Elapsed,
        });
        assert_eq!(bench.now(), (1, 1, 0));
        bench.end("b", 0, Status::Ioerr);
        assert_eq!((bench.held(), bench.now()), (vec![], (0, 0, 0)));
        let queue = &bench.live.devices["b"].queues[&0];
        assert_eq!((queue.fetched, queue.used, queue.failed), (1, 1, 1));
        assert_eq!(queue.bytes_from_device, 4096);
        assert_eq!((queue.latency.count(), queue.hold_time.count()), (1, 1));
    }

    #[test]
    fn a_reset_forgets_the_requests_of_its_device_and_no_other() {
        let mut bench = Bench::default();
        bench
            .fetch_and_hold("b", 0)
            .park("b", 0)
            .fetch_and_hold("c", 0);
        bench.tell(EventKind::HoldClosed {
            hold: HoldId(2),
            request: request("b", 0),
            how: HoldEnd::Abandoned,
        });
        bench.tell(EventKind::DeviceReset {
            device: "b".into(),
            abandoned: 1,
        });
        assert_eq!(
            (bench.held(), bench.now()),
            (vec!["c:0#0".to_owned()], (0, 0, 0))
        );
        assert_eq!(bench.live.devices["b"].queues[&0].abandoned, 1);
    }

    #[test]
    fn holds_come_in_pages_the_oldest_first() {
        let mut bench = Bench::default();
        for ordinal in 0..5 {
            bench.fetch_and_hold(["b", "c"][usize::from(ordinal == 2)], ordinal);
        }
        let page = |device, after, limit, looks| {
            let (found, next) = bench.live.holds(device, after, limit, looks);
            let ordinals: Vec<_> = found.iter().map(|it| it.request.ordinal).collect();
            (ordinals, next)
        };
        assert_eq!(page(None, 0, 2, 99), (vec![0, 1], Some(3)));
        assert_eq!(page(None, 3, 9, 99), (vec![2, 3, 4], None));
        assert_eq!(page(Some("c"), 0, 9, 99), (vec![2], None));
        assert_eq!(page(Some("c"), 0, 9, 2), (vec![], Some(3)), "goes on later");
        assert_eq!(page(None, 0, 5, 99), (vec![0, 1, 2, 3, 4], None));
    }

    #[test]
    fn an_event_of_an_unknown_request_is_no_mistake() {
        let mut bench = Bench::default();
        bench.park("b", 7).end("b", 7, Status::Ok);
        assert!(bench.held().is_empty());
    }
}
