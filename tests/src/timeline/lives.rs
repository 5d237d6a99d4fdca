//! How the timeline takes the events of requests: each is a step of one request's life, and what does not fit the life so far
//! is an anomaly.

use std::collections::BTreeMap;

use pincushion_devices::trace::event::{
    Direction, EventKind, FRAME_SIZE, GuestRange, HoldEnd, HoldId, RequestId,
};

use super::history::{Overlap, PageOwner, Timeline};
use super::request::{Applied, Executed, Hashed, Hold, Index, Misdeed, Park, Request, Span, Stamp};

impl Timeline {
    /// Events of requests. Whether they fit what was before.
    pub(super) fn feed_request(&mut self, at: Stamp, kind: &EventKind) -> bool {
        match kind {
            EventKind::Fetched { .. } => return self.fetched(at, kind),
            EventKind::HoldOpened {
                hold,
                request,
                direction,
                ranges,
            } => {
                let hold = Hold {
                    id: *hold,
                    direction: *direction,
                    ranges: ranges.clone(),
                    span: Span::open(at),
                    how: None,
                };
                return self.hold_opened(at, request, hold);
            }
            EventKind::HoldClosed { hold, request, how } => {
                return self.hold_closed(at, request, *hold, *how);
            }
            EventKind::TouchBegan { request } => return self.touch_began(at, request),
            EventKind::TouchEnded { request } => return self.touch_ended(at, request),
            EventKind::PayloadHashed { request, .. }
            | EventKind::FaultApplied { request, .. }
            | EventKind::FaultActed { request, .. }
            | EventKind::FaultTouchEnded { request }
            | EventKind::Parked { request, .. }
            | EventKind::Released { request, .. }
            | EventKind::Executed { request, .. }
            | EventKind::Used { request, .. }
            | EventKind::PlantedFault { request, .. } => {
                let Some(index) = self.touch_device(at, request) else {
                    return false;
                };
                return passed(&mut self.requests[index.0], at, kind);
            }
            EventKind::LogOpened { .. }
            | EventKind::DeviceAdded { .. }
            | EventKind::DeviceStatus { .. }
            | EventKind::Activated { .. }
            | EventKind::DeviceReset { .. }
            | EventKind::Signalled { .. }
            | EventKind::GuestMistake { .. }
            | EventKind::FrameDropped { .. }
            | EventKind::LinkChanged { .. }
            | EventKind::FramesFreed { .. }
            | EventKind::HostMemory { .. }
            | EventKind::BalloonTarget { .. }
            | EventKind::BalloonActual { .. }
            | EventKind::BalloonStatistics { .. }
            | EventKind::GateOpened { .. }
            | EventKind::Control { .. }
            | EventKind::RuleUnmatched { .. }
            | EventKind::PlanReplaced { .. }
            | EventKind::StepBegan { .. }
            | EventKind::StepEnded { .. }
            | EventKind::StepSent { .. }
            | EventKind::AgentReport { .. }
            | EventKind::Fact { .. }
            | EventKind::Console { .. }
            | EventKind::BootBegan { .. }
            | EventKind::Restored { .. }
            | EventKind::MachineEnded { .. } => {}
        }
        true
    }

    fn fetched(&mut self, at: Stamp, kind: &EventKind) -> bool {
        let EventKind::Fetched {
            request,
            operation,
            sector,
            bytes,
            ranges,
            ..
        } = kind
        else {
            return false;
        };
        let boot = self.boot_mut(at).number;
        let index = Index(self.requests.len());
        self.requests.push(Request {
            id: request.clone(),
            boot,
            operation: *operation,
            sector: *sector,
            bytes: *bytes,
            ranges: ranges.clone(),
            fetched: at,
            hold: None,
            parks: Vec::new(),
            touches: Vec::new(),
            hashes: Vec::new(),
            applied: Vec::new(),
            planted: Vec::new(),
            faults: Vec::new(),
            executed: None,
            used: None,
        });
        // A device that counts anew in another boot is none of our business; twice in one boot is.
        let before = self.by_id.insert(request.clone(), index);
        self.touch_device(at, request);
        before.is_none_or(|before| self[before].boot != boot)
    }

    fn hold_opened(&mut self, at: Stamp, request: &RequestId, hold: Hold) -> bool {
        let Some(index) = self.touch_device(at, request) else {
            return false;
        };
        if self.requests[index.0].hold.is_some() {
            return false;
        }
        let mut frames: Vec<u64> = hold
            .ranges
            .iter()
            .flat_map(|range| range.frames())
            .collect();
        frames.sort_unstable();
        frames.dedup();
        self.meet_others(at, index, &hold, &frames);
        for frame in frames {
            self.held.entry(frame).or_default().push(index);
        }
        self.requests[index.0].hold = Some(hold);
        true
    }

    fn hold_closed(&mut self, at: Stamp, request: &RequestId, hold: HoldId, how: HoldEnd) -> bool {
        let Some(index) = self.touch_device(at, request) else {
            return false;
        };
        let Some(held) = self.requests[index.0].hold.as_mut() else {
            return false;
        };
        if held.id != hold || held.span.ended.is_some() {
            return false;
        }
        held.span.ended = Some(at);
        held.how = Some(how);
        self.let_go(index);
        true
    }

    fn touch_began(&mut self, at: Stamp, request: &RequestId) -> bool {
        let Some(index) = self.touch_device(at, request) else {
            return false;
        };
        let touched = &mut self.requests[index.0];
        touched.touches.push(Span::open(at));
        if touched.hold.is_some() && !touched.is_held() {
            self.stray_touches.push((index, Span::open(at)));
        }
        true
    }

    fn touch_ended(&mut self, at: Stamp, request: &RequestId) -> bool {
        let Some(index) = self.touch_device(at, request) else {
            return false;
        };
        let touch = self.requests[index.0].touches.last_mut();
        let Some(touch) = touch.filter(|touch| touch.ended.is_none()) else {
            return false;
        };
        touch.ended = Some(at);
        let stray = self.stray_touches.last_mut();
        if let Some((_, span)) = stray.filter(|(of, span)| *of == index && span.ended.is_none()) {
            span.ended = Some(at);
        }
        true
    }

    /// Notes each request that holds bytes of this new hold in the opposite direction.
    fn meet_others(&mut self, at: Stamp, index: Index, hold: &Hold, frames: &[u64]) {
        let mut met: BTreeMap<Index, Vec<(u64, Option<PageOwner>)>> = BTreeMap::new();
        for &frame in frames {
            for &other in self.held.get(&frame).map_or(&[][..], Vec::as_slice) {
                let Some(theirs) = self.requests[other.0].hold.as_ref() else {
                    continue;
                };
                if theirs.direction == hold.direction {
                    continue;
                }
                if share_bytes(frame, &hold.ranges, &theirs.ranges) {
                    met.entry(other)
                        .or_default()
                        .push((frame, self.owners.get(&frame).cloned()));
                } else {
                    self.neighbours += 1;
                }
            }
        }
        for (other, frames) in met {
            let (write, read) = match hold.direction {
                Direction::ToDevice => (index, other),
                Direction::FromDevice => (other, index),
            };
            self.overlaps.push(Overlap {
                write,
                read,
                since: at,
                frames,
            });
        }
    }

    fn let_go(&mut self, index: Index) {
        let Some(hold) = self.requests[index.0].hold.as_ref() else {
            return;
        };
        for frame in hold.ranges.iter().flat_map(|range| range.frames()) {
            if let Some(holders) = self.held.get_mut(&frame) {
                holders.retain(|holder| *holder != index);
                if holders.is_empty() {
                    self.held.remove(&frame);
                }
            }
        }
    }

    /// Finds a request and notes that its device did something.
    fn touch_device(&mut self, at: Stamp, request: &RequestId) -> Option<Index> {
        if let Some(device) = self.devices.get_mut(&request.device) {
            device.last_event = at.seq;
        }
        self.find(request)
    }
}

/// The steps of a request's way that concern nobody else. Whether they fit what was before.
fn passed(request: &mut Request, at: Stamp, kind: &EventKind) -> bool {
    match kind {
        EventKind::PayloadHashed { moment, pages, .. } => {
            request.hashes.push(Hashed {
                at,
                moment: *moment,
                pages: pages.clone(),
            });
        }
        EventKind::FaultApplied {
            rule,
            point,
            action,
            ..
        } => request.applied.push(Applied {
            at,
            rule: rule.clone(),
            point: *point,
            action: action.clone(),
        }),
        EventKind::Parked { point, until, .. } => request.parks.push(Park {
            point: *point,
            until: until.clone(),
            span: Span::open(at),
            by: None,
        }),
        EventKind::Released { by, .. } => {
            let park = request
                .parks
                .last_mut()
                .filter(|park| park.span.ended.is_none());
            let Some(park) = park else { return false };
            park.span.ended = Some(at);
            park.by = Some(by.clone());
        }
        EventKind::Executed {
            status, host_error, ..
        } => {
            let host_error = host_error.clone();
            let first = request.executed.is_none();
            request.executed = Some(Executed {
                at,
                status: *status,
                host_error,
            });
            return first;
        }
        EventKind::Used { status, .. } => {
            return request.used.replace((at, *status)).is_none();
        }
        EventKind::PlantedFault { planted, .. } => request.planted.push((at, *planted)),
        EventKind::FaultActed { fault, .. } => request.faults.push(Misdeed {
            fault: fault.clone(),
            span: Span::open(at),
        }),
        EventKind::FaultTouchEnded { .. } => {
            let mut misdeeds = request.faults.iter_mut().rev();
            let Some(misdeed) = misdeeds.find(|misdeed| misdeed.touches_now()) else {
                return false;
            };
            misdeed.span.ended = Some(at);
        }
        _ => return false,
    }
    true
}

/// Whether two payloads share a byte of a frame.
fn share_bytes(frame: u64, ours: &[GuestRange], theirs: &[GuestRange]) -> bool {
    let page = GuestRange {
        addr: frame * FRAME_SIZE,
        len: FRAME_SIZE,
    };
    ours.iter()
        .map(|our| clip(*our, page))
        .any(|our| theirs.iter().any(|their| our.overlaps(*their)))
}

/// The part of a range that lies in another.
fn clip(range: GuestRange, within: GuestRange) -> GuestRange {
    let addr = range.addr.max(within.addr);
    let end = range
        .addr
        .saturating_add(range.len)
        .min(within.addr.saturating_add(within.len));
    GuestRange {
        addr,
        len: end.saturating_sub(addr),
    }
}
