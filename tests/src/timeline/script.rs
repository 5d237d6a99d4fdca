//! Event logs for tests, written like a story.

use pincushion_devices::trace::event::{
    Direction, Event, EventKind, Fault, Fetch, GuestRange, HoldEnd, HoldId, Moment, Operation,
    PageHash, RequestId, Seq, Status,
};
use serde_json::Value;

use super::Timeline;

/// A log in the making.
pub(crate) struct Script {
    pub(crate) events: Vec<Event>,
}

/// `a#3` is request 3 of queue 0 of device `a`.
pub(crate) fn id(name: &str) -> RequestId {
    let (device, ordinal) = name.split_once('#').expect("device#ordinal");
    RequestId {
        device: device.to_owned(),
        queue: 0,
        ordinal: ordinal.parse().expect("an ordinal"),
    }
}

/// One whole frame.
pub(crate) fn frame(number: u64) -> GuestRange {
    GuestRange {
        addr: number * 4096,
        len: 4096,
    }
}

impl Script {
    /// A machine with the disks `a` and `b` whose guest has booted.
    pub(crate) fn booted() -> Self {
        let mut script = Self { events: Vec::new() };
        script.push(EventKind::LogOpened { version: 1 });
        for device in ["a", "b"] {
            script.push(EventKind::DeviceAdded {
                device: device.to_owned(),
                kind: "virtio-blk".to_owned(),
                fetch: Fetch::Late,
                capacity_bytes: 1 << 26,
                region: None,
            });
        }
        script.boot(1);
        script
    }

    /// A region of persistent memory.
    pub(crate) fn region(&mut self, device: &str, region: GuestRange) {
        self.push(EventKind::DeviceAdded {
            device: device.to_owned(),
            kind: "virtio-pmem".to_owned(),
            fetch: Fetch::Late,
            capacity_bytes: region.len,
            region: Some(region),
        });
    }

    /// Another boot, with the agent's hello.
    pub(crate) fn boot(&mut self, boot: u32) {
        self.push(EventKind::BootBegan { boot });
        self.push(EventKind::AgentReport {
            text: r#"{"report":"hello","version":1,"release":"6.12.117","module_errors":[]}"#
                .to_owned(),
        });
    }

    /// Adds an event 1 us after the last; its place in the order.
    pub(crate) fn push(&mut self, kind: EventKind) -> u64 {
        let seq = self.events.len() as u64 + 1;
        self.events.push(Event {
            seq: Seq(seq),
            time_ns: seq * 1000,
            kind,
        });
        seq
    }

    /// Fetches a request of one frame and opens its hold, as `a#3` names it.
    pub(crate) fn fetch(&mut self, name: &str, operation: Operation, range: GuestRange) -> u64 {
        let direction = match operation {
            Operation::Read => Some(Direction::FromDevice),
            Operation::Write => Some(Direction::ToDevice),
            _ => None,
        };
        let request = id(name);
        let ranges = direction.map(|_| range).into_iter().collect::<Vec<_>>();
        let hold = HoldId(self.events.len() as u64);
        let fetched = self.push(EventKind::Fetched {
            request: request.clone(),
            head: 0,
            operation,
            sector: request.ordinal * 8,
            bytes: ranges.iter().map(|range| range.len).sum(),
            direction,
            ranges: ranges.clone(),
        });
        match direction {
            Some(direction) => self.push(EventKind::HoldOpened {
                hold,
                request,
                direction,
                ranges,
            }),
            None => fetched,
        }
    }

    /// The device touches the payload from here to the returned place.
    pub(crate) fn touch(&mut self, name: &str) -> u64 {
        self.push(EventKind::TouchBegan { request: id(name) });
        self.push(EventKind::TouchEnded { request: id(name) })
    }

    /// The operation ends.
    pub(crate) fn execute(&mut self, name: &str, status: Status) -> u64 {
        self.push(EventKind::Executed {
            request: id(name),
            status,
            host_error: None,
        })
    }

    /// The hold ends, if there is one.
    pub(crate) fn close(&mut self, name: &str, how: HoldEnd) {
        let timeline = self.timeline();
        let index = timeline.find(&id(name)).expect("fetched before");
        if let Some(hold) = &timeline[index].hold {
            self.push(EventKind::HoldClosed {
                hold: hold.id,
                request: id(name),
                how,
            });
        }
    }

    /// The used element is published and the guest told.
    pub(crate) fn publish(&mut self, name: &str) -> u64 {
        self.push(EventKind::Used {
            request: id(name),
            head: 0,
            status: Status::Ok,
            written: 1,
        });
        self.push(EventKind::Signalled {
            device: id(name).device,
            queue: 0,
        })
    }

    /// The plan's fault acts on a request.
    pub(crate) fn fault(&mut self, name: &str, fault: Fault) -> u64 {
        self.push(EventKind::FaultActed {
            request: id(name),
            fault,
        })
    }

    /// Runs a request from its touch to its end.
    pub(crate) fn finish(&mut self, name: &str) {
        self.touch(name);
        self.execute(name, Status::Ok);
        self.close(name, HoldEnd::Completed);
        self.publish(name);
    }

    /// A whole request.
    pub(crate) fn whole(&mut self, name: &str, operation: Operation, range: GuestRange) {
        self.fetch(name, operation, range);
        self.finish(name);
    }

    /// A hash of one range of a payload.
    pub(crate) fn hash(
        &mut self,
        name: &str,
        moment: Moment,
        range: GuestRange,
        hash: &str,
    ) -> u64 {
        let pages = vec![PageHash {
            range,
            hash: hash.to_owned(),
        }];
        self.push(EventKind::PayloadHashed {
            request: id(name),
            moment,
            pages,
        })
    }

    /// A fact.
    pub(crate) fn fact(&mut self, key: &str, value: Value) -> u64 {
        self.push(EventKind::Fact {
            key: key.to_owned(),
            value,
        })
    }

    /// A guest step begins.
    pub(crate) fn begin(&mut self, step: u32, op: &str) -> u64 {
        self.push(EventKind::StepSent {
            step,
            thread: None,
            name: op.to_owned(),
            text: format!(r#"{{"op":"{op}"}}"#),
        });
        self.push(EventKind::StepBegan { step })
    }

    /// It ends well.
    pub(crate) fn end(&mut self, step: u32) -> u64 {
        self.push(EventKind::StepEnded { step });
        self.push(EventKind::AgentReport {
            text: format!(r#"{{"report":"done","id":{step},"outcome":{{"ok":{{}}}},"began_ns":0,"ended_ns":1}}"#),
        })
    }

    /// A line of the console.
    pub(crate) fn console(&mut self, line: &str) -> u64 {
        self.push(EventKind::Console {
            line: line.to_owned(),
        })
    }

    /// The machine ends.
    pub(crate) fn stop(&mut self, how: &str) -> u64 {
        self.push(EventKind::MachineEnded {
            how: how.to_owned(),
            detail: String::new(),
        })
    }

    /// What a reader would make of it so far.
    pub(crate) fn timeline(&self) -> Timeline {
        Timeline::from_events(&self.events)
    }
}
