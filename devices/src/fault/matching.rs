//! Whether a request is what a rule is about.

use crate::trace::event::{FRAME_SIZE, GuestRange, Operation, Planted};

use super::action::{HoldUntil, RogueAt};
use super::condition::{Condition, Span};
use super::draw::{self, Purpose, Subject};
use super::injector::{Injector, Query};
use super::plan::Rule;

impl Rule {
    /// Whether its actions can be done to a request. A rule that cannot act does not match, so that a later one may.
    pub(super) fn fits(&self, query: &Query<'_>) -> bool {
        // A wait for a shared frame would never end for a request that has none.
        let waits_for_frame = matches!(self.hold, Some(HoldUntil::SameFrame(_)));
        let next_frame = self
            .rogue_touch
            .is_some_and(|rogue| rogue.at == RogueAt::NextFrame);
        let touches = self.late_touch.is_some() || next_frame;
        let needs_payload = waits_for_frame || self.damages() || touches;
        let lying = self.planted == Some(Planted::LyingFlush);
        (!needs_payload || !query.ranges.is_empty())
            && (!lying || query.operation == Operation::Flush)
    }
}

impl Injector {
    /// Whether all keys of a condition hold. What costs nothing is asked first.
    pub(super) fn matches(
        &self,
        condition: &Condition,
        query: &Query<'_>,
        subject: &Subject<'_>,
    ) -> bool {
        self.matches_at(condition, query, subject, 0)
    }

    /// `path` tells the nested conditions of a rule apart, for their draws.
    fn matches_at(
        &self,
        condition: &Condition,
        query: &Query<'_>,
        subject: &Subject<'_>,
        path: u64,
    ) -> bool {
        let inner = |kind: u64, index: usize, inner: &Condition| {
            let path = draw::number(path, kind << 32 | index as u64);
            self.matches_at(inner, query, subject, path)
        };
        let mut any = condition.any.iter().enumerate();
        let mut all = condition.all.iter().enumerate();
        condition.matches_request(query)
            && condition.probability.is_none_or(|share| {
                let key = subject.key(Purpose::Probability(path));
                draw::below(key, 0, 1_000_000) < u64::from(share.millionths())
            })
            && self.matches_machine(condition, query)
            && (condition.any.is_empty() || any.any(|(index, other)| inner(1, index, other)))
            && all.all(|(index, other)| inner(2, index, other))
            && condition
                .not
                .as_deref()
                .is_none_or(|other| !inner(3, 0, other))
    }

    /// The keys that take a look at gates, steps and the ledger.
    fn matches_machine(&self, condition: &Condition, query: &Query<'_>) -> bool {
        let gate = condition.after_gate.as_deref();
        let mark = condition.mark.as_deref();
        let shared = condition.shares_frame_with.as_deref();
        gate.is_none_or(|gate| self.gates.is_open(gate))
            && mark.is_none_or(|mark| self.marks.is_under_way(mark))
            && shared.is_none_or(|device| self.shares_frame(device, query))
    }

    fn shares_frame(&self, device: &str, query: &Query<'_>) -> bool {
        let own = if device == query.device {
            query.ranges
        } else {
            &[]
        };
        self.ledger.shares_frame(device, query.ranges, own)
    }
}

impl Condition {
    /// The keys that the request itself answers.
    fn matches_request(&self, query: &Query<'_>) -> bool {
        let sectors = query.bytes.div_ceil(512);
        let covers = |span: Span| {
            sectors > 0
                && query.sector < span.to
                && span.from < query.sector.saturating_add(sectors)
        };
        let device = self.device.as_deref();
        device.is_none_or(|device| device == query.device)
            && self.queue.is_none_or(|queue| queue == query.queue)
            && self
                .operation
                .is_none_or(|operation| operation == query.operation)
            && self.sectors.is_none_or(covers)
            && self
                .ordinals
                .is_none_or(|span| span.contains(query.ordinal))
            && self.size.is_none_or(|span| span.contains(query.bytes))
            && self
                .frame
                .is_none_or(|addr| covers_frame(query.ranges, addr))
    }
}

fn covers_frame(ranges: &[GuestRange], addr: u64) -> bool {
    let frame = addr / FRAME_SIZE;
    ranges
        .iter()
        .flat_map(|range| range.frames())
        .any(|other| other == frame)
}
