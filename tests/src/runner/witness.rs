//! What a run's events have said so far, as far as the choreography asks for it.

use std::collections::{HashMap, HashSet};

use pincushion_abi::{Outcome, Report};
use pincushion_devices::trace::event::{Event, EventKind, Operation, RequestId};
use pincushion_devices::transport::has_driver;
use pincushion_vmm::config::units::parse_size;

use crate::scenario::model::{Await, Awaited};

/// Remembers.
#[derive(Debug, Default)]
pub(super) struct Witness {
    operations: HashMap<RequestId, Operation>,
    /// Requests that were parked and hold their frames still.
    parked: HashSet<RequestId>,
    sightings: Vec<Sighting>,
    outcomes: HashMap<u32, Outcome>,
    begun: HashSet<u32>,
    /// Each boot's agent that has said hello.
    pub(super) hellos: Vec<Hello>,
    /// The guest goes on from a snapshot.
    pub(super) restored: bool,
    /// Whether a driver of the guest has begun with a device.
    pub(super) driver_began: bool,
    /// How the machine ended.
    pub(super) ended: Option<Ended>,
    /// The last lines of the console, for messages.
    pub(super) last_console_line: String,
}

/// An agent's first word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) release: String,
    pub(super) module_errors: Vec<String>,
}

/// How the machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) how: String,
    pub(super) detail: String,
}

/// Something that can be awaited.
#[derive(Debug)]
struct Sighting {
    event: Awaited,
    device: Option<String>,
    operation: Option<Operation>,
    rule: Option<String>,
    /// Bytes of guest memory that the host had before and after.
    memory: Option<(u64, u64)>,
    /// Bytes that the guest gave up.
    freed: u64,
    taken: bool,
}

impl Witness {
    /// Takes an event.
    pub(super) fn note(&mut self, event: &Event) {
        let of = |awaited, request: &RequestId| (awaited, request.clone(), None);
        let sighting = match &event.kind {
            EventKind::Fetched {
                request, operation, ..
            } => {
                self.operations.insert(request.clone(), *operation);
                of(Awaited::Fetched, request)
            }
            EventKind::Parked { request, .. } => {
                self.parked.insert(request.clone());
                of(Awaited::Parked, request)
            }
            EventKind::HoldClosed { request, .. } if self.parked.remove(request) => {
                of(Awaited::HoldEnded, request)
            }
            EventKind::Released { request, .. } => of(Awaited::Released, request),
            EventKind::Executed { request, .. } => of(Awaited::Executed, request),
            EventKind::Used { request, .. } => of(Awaited::Used, request),
            EventKind::PlantedFault { request, .. } => of(Awaited::Planted, request),
            EventKind::FaultTouchEnded { request } => of(Awaited::FaultTouchEnded, request),
            EventKind::FramesFreed { .. }
            | EventKind::HostMemory { .. }
            | EventKind::BalloonActual { .. }
            | EventKind::BalloonStatistics { .. } => return self.see_memory(&event.kind),
            EventKind::FaultApplied { request, rule, .. } => {
                (Awaited::Rule, request.clone(), Some(rule.clone()))
            }
            EventKind::DeviceReset { device, .. } => {
                self.see(Awaited::DeviceReset, Some(device.clone()), None, None);
                return;
            }
            EventKind::MachineEnded { how, detail } => {
                self.ended = Some(Ended {
                    how: how.clone(),
                    detail: detail.clone(),
                });
                self.see(Awaited::MachineEnded, None, None, None);
                return;
            }
            EventKind::StepBegan { step } => {
                self.begun.insert(*step);
                return;
            }
            EventKind::Restored { .. } => {
                self.restored = true;
                return;
            }
            EventKind::DeviceStatus { status, .. } => {
                // A bus that is built in acknowledges its devices at boot, and reads nothing of what is on them.
                self.driver_began |= has_driver(*status);
                return;
            }
            EventKind::AgentReport { text } => return self.hear(text),
            EventKind::Console { line } => {
                self.last_console_line.clone_from(line);
                return;
            }
            _ => return,
        };
        let (awaited, request, rule) = sighting;
        let operation = self.operations.get(&request).copied();
        self.see(awaited, Some(request.device), operation, rule);
    }

    fn see_memory(&mut self, kind: &EventKind) {
        let operation = match kind {
            EventKind::FramesFreed { request, .. } => self.operations.get(request).copied(),
            _ => None,
        };
        let mut push = |event, device: &String, memory, freed| {
            self.sightings.push(Sighting {
                event,
                device: Some(device.clone()),
                operation,
                rule: None,
                memory,
                freed,
                taken: false,
            });
        };
        match kind {
            EventKind::FramesFreed {
                request,
                bytes,
                held,
            } => {
                push(Awaited::Freed, &request.device, None, *bytes);
                if !held.is_empty() {
                    push(Awaited::FreedWhileHeld, &request.device, None, *bytes);
                }
            }
            EventKind::HostMemory {
                device,
                before_bytes,
                resident_bytes,
            } => {
                let memory = Some((*before_bytes, *resident_bytes));
                push(Awaited::HostMemory, device, memory, 0);
            }
            EventKind::BalloonActual {
                device,
                bytes,
                target_bytes,
            } if bytes == target_bytes => push(Awaited::BalloonReached, device, None, 0),
            EventKind::BalloonStatistics { device, .. } => {
                push(Awaited::BalloonStatistics, device, None, 0);
            }
            _ => {}
        }
    }

    fn see(
        &mut self,
        event: Awaited,
        device: Option<String>,
        operation: Option<Operation>,
        rule: Option<String>,
    ) {
        self.sightings.push(Sighting {
            event,
            device,
            operation,
            rule,
            memory: None,
            freed: 0,
            taken: false,
        });
    }

    fn hear(&mut self, text: &str) {
        match serde_json::from_str::<Report>(text) {
            Ok(Report::Hello {
                version,
                release,
                module_errors,
            }) => self.hellos.push(Hello {
                version,
                release,
                module_errors,
            }),
            Ok(Report::Done { id, outcome, .. }) => {
                self.outcomes.insert(id, outcome);
            }
            Ok(Report::Refused {
                id: Some(id),
                reason,
            }) => {
                let fault = pincushion_abi::Fault {
                    call: "agent".into(),
                    errno: 0,
                    name: reason,
                };
                self.outcomes.insert(id, Outcome::Failed(fault));
            }
            Ok(Report::Refused { id: None, reason }) => {
                log::warn!("the agent refused a line: {reason}")
            }
            Ok(Report::Note { text }) => log::info!("agent: {text}"),
            Err(error) => log::warn!("the agent's report makes no sense ({error}): {text}"),
        }
    }

    /// The answer to a step.
    pub(super) fn outcome(&self, step: u32) -> Option<&Outcome> {
        self.outcomes.get(&step)
    }

    /// Whether the guest has begun a step that it has not answered.
    pub(super) fn is_inside(&self, step: u32) -> bool {
        self.begun.contains(&step) && !self.outcomes.contains_key(&step)
    }

    /// Takes as many sightings as are awaited, if there are so many that fit and that nobody has taken.
    pub(super) fn take(&mut self, awaited: &Await) -> bool {
        let fitting =
            (0..self.sightings.len()).filter(|index| self.sightings[*index].fits(awaited));
        let least = awaited.bytes.as_ref().map_or(0, |text| checked_size(text));
        let (mut taken, mut freed) = (Vec::new(), 0);
        for index in fitting {
            taken.push(index);
            freed += self.sightings[index].freed;
            if taken.len() >= awaited.count as usize && freed >= least {
                for index in taken {
                    self.sightings[index].taken = true;
                }
                return true;
            }
        }
        false
    }

    /// How much of what is awaited was seen and not taken, in words.
    pub(super) fn seen(&self, awaited: &Await) -> String {
        let fitting = self
            .sightings
            .iter()
            .filter(|sighting| sighting.fits(awaited));
        match &awaited.bytes {
            Some(wanted) => {
                let freed: u64 = fitting.map(|sighting| sighting.freed).sum();
                format!("{freed} bytes of {wanted}")
            }
            None => format!("{} times of {}", fitting.count(), awaited.count),
        }
    }
}

impl Sighting {
    fn fits(&self, awaited: &Await) -> bool {
        !self.taken
            && self.event == awaited.event
            && (awaited.device.is_none() || awaited.device == self.device)
            && (awaited.operation.is_none() || awaited.operation == self.operation)
            && (awaited.rule.is_none() || awaited.rule == self.rule)
            && self.memory.is_none_or(|(before, after)| {
                let limit = |text: &Option<String>| text.as_ref().map(|text| checked_size(text));
                limit(&awaited.above).is_none_or(|least| before >= least)
                    && limit(&awaited.below).is_none_or(|most| after <= most)
            })
    }
}

fn checked_size(text: &str) -> u64 {
    parse_size(text).expect("sizes were checked when the file was read")
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{Point, Seq, Until};

    use super::*;

    fn request(device: &str) -> RequestId {
        RequestId {
            device: device.into(),
            queue: 0,
            ordinal: 0,
        }
    }

    fn note(witness: &mut Witness, kind: EventKind) {
        witness.note(&Event {
            seq: Seq(1),
            time_ns: 0,
            kind,
        });
    }

    fn parked_read(witness: &mut Witness) {
        let fetched = EventKind::Fetched {
            request: request("b"),
            head: 0,
            operation: Operation::Read,
            sector: 0,
            bytes: 0,
            direction: None,
            ranges: vec![],
        };
        note(witness, fetched);
        note(
            witness,
            EventKind::Parked {
                request: request("b"),
                point: Point::Fetched,
                until: Until::Gate("g".into()),
            },
        );
    }

    fn parked(device: &str, operation: Operation) -> Await {
        Await {
            event: Awaited::Parked,
            device: Some(device.into()),
            operation: Some(operation),
            rule: None,
            above: None,
            below: None,
            bytes: None,
            count: 1,
        }
    }

    #[test]
    fn a_sighting_is_taken_once() {
        let mut witness = Witness::default();
        parked_read(&mut witness);
        assert!(!witness.take(&parked("a", Operation::Read)));
        assert!(!witness.take(&parked("b", Operation::Write)));
        assert!(witness.take(&parked("b", Operation::Read)));
        assert!(!witness.take(&parked("b", Operation::Read)));
        parked_read(&mut witness);
        assert!(witness.take(&parked("b", Operation::Read)));
    }

    #[test]
    fn only_the_hold_of_a_request_that_was_parked_is_seen_to_end() {
        let mut witness = Witness::default();
        let ended = Await {
            event: Awaited::HoldEnded,
            ..parked("b", Operation::Read)
        };
        let close = || EventKind::HoldClosed {
            hold: pincushion_devices::trace::event::HoldId(1),
            request: request("b"),
            how: pincushion_devices::trace::event::HoldEnd::Completed,
        };
        note(&mut witness, close());
        assert!(!witness.take(&ended));
        parked_read(&mut witness);
        assert!(!witness.take(&ended));
        note(&mut witness, close());
        assert!(witness.take(&ended));
    }

    #[test]
    fn a_count_is_taken_whole_or_not_at_all() {
        let mut witness = Witness::default();
        let two = Await {
            count: 2,
            ..parked("b", Operation::Read)
        };
        parked_read(&mut witness);
        assert!(!witness.take(&two));
        parked_read(&mut witness);
        assert!(witness.take(&two));
        assert_eq!(witness.seen(&two), "0 times of 2");
    }

    #[test]
    fn what_is_freed_may_be_counted_in_bytes() {
        let mut witness = Witness::default();
        let freed = |bytes| EventKind::FramesFreed {
            request: request("balloon"),
            bytes,
            held: vec![],
        };
        let much = Await {
            event: Awaited::Freed,
            device: None,
            operation: None,
            bytes: Some("12K".into()),
            ..parked("b", Operation::Read)
        };
        note(&mut witness, freed(8192));
        assert!(!witness.take(&much));
        assert_eq!(witness.seen(&much), "8192 bytes of 12K");
        note(&mut witness, freed(4096));
        assert!(witness.take(&much));
        assert!(!witness.take(&much), "each is counted once");
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let mut witness = Witness::default();
        note(&mut witness, EventKind::StepBegan { step: 4 });
        assert!(witness.is_inside(4));
        note(
            &mut witness,
            EventKind::AgentReport {
                text: r#"{"report":"refused","id":4,"reason":"no"}"#.into(),
            },
        );
        assert!(matches!(witness.outcome(4), Some(Outcome::Failed(fault)) if fault.name == "no"));
        assert!(!witness.is_inside(4));
    }

    #[test]
    fn nonsense_from_the_guest_is_no_answer() {
        let mut witness = Witness::default();
        note(&mut witness, EventKind::AgentReport { text: "{".into() });
        assert!(witness.hellos.is_empty() && witness.outcome(0).is_none());
    }
}
