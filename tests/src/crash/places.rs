//! Where the power goes: places in the order of all events, from what a scenario says of them.

use pincushion_devices::trace::event::{Event, EventKind};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::scenario::power_cut::{CutAt, CutEvent, PowerCut};
use crate::timeline::Timeline;

/// The cuts, ascending, and how many were left out because there are too many.
#[must_use]
pub fn cuts(
    table: &PowerCut,
    events: &[Event],
    timeline: &Timeline,
    seed: u64,
) -> (Vec<u64>, usize) {
    let mut all: Vec<u64> = table
        .at
        .iter()
        .enumerate()
        .flat_map(|(index, at)| match (at.random, at.seq) {
            (Some(count), _) => random(events, count, seed, index as u64),
            (None, Some(seq)) => vec![seq],
            (None, None) => matching(at, events, timeline),
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    let most = usize::try_from(table.most).unwrap_or(usize::MAX);
    let left_out = all.len().saturating_sub(most);
    if left_out > 0 {
        all.sort_by_key(|seq| xxh3_64_with_seed(&seq.to_le_bytes(), seed));
        all.truncate(most);
        all.sort_unstable();
    }
    (all, left_out)
}

fn matching(at: &CutAt, events: &[Event], timeline: &Timeline) -> Vec<u64> {
    let fits = events
        .iter()
        .filter(|event| fits(at, &event.kind, timeline));
    let fits = fits.map(|event| event.seq.0);
    match at.count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => fits.skip(count.saturating_sub(1)).take(1).collect(),
        None => fits.collect(),
    }
}

fn fits(at: &CutAt, kind: &EventKind, timeline: &Timeline) -> bool {
    let request = match (at.event, kind) {
        (Some(CutEvent::Fetched), EventKind::Fetched { request, .. })
        | (Some(CutEvent::Executed), EventKind::Executed { request, .. })
        | (Some(CutEvent::Used), EventKind::Used { request, .. }) => request,
        (Some(CutEvent::StepBegan), EventKind::StepBegan { step })
        | (Some(CutEvent::StepEnded), EventKind::StepEnded { step }) => {
            let op = timeline.step(*step).map(|step| step.op.as_str());
            return at.op.is_none() || at.op.as_deref() == op;
        }
        _ => return false,
    };
    let operation = timeline
        .find(request)
        .map(|index| timeline[index].operation);
    at.device
        .as_ref()
        .is_none_or(|device| *device == request.device)
        && at.ordinal.is_none_or(|ordinal| ordinal == request.ordinal)
        && (at.operation.is_none() || at.operation == operation)
}

/// So many events, each by its own draw, of those after the first request.
fn random(events: &[Event], count: u32, seed: u64, which: u64) -> Vec<u64> {
    let first = events
        .iter()
        .position(|event| matches!(event.kind, EventKind::Fetched { .. }));
    let Some(events) = first.map(|first| &events[first..]) else {
        return Vec::new();
    };
    let draw = |index: u32| {
        let mut hash = Xxh3::with_seed(seed);
        hash.update(&which.to_le_bytes());
        hash.update(&index.to_le_bytes());
        let wide = u128::from(hash.digest()) * events.len() as u128;
        usize::try_from(wide >> 64).expect("below the number of events")
    };
    (0..count).map(|index| events[draw(index)].seq.0).collect()
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::Operation;

    use super::*;
    use crate::timeline::script::{Script, frame};

    fn script() -> Script {
        let mut script = Script::booted();
        for ordinal in 0..6 {
            let operation = if ordinal % 2 == 0 {
                Operation::Write
            } else {
                Operation::Flush
            };
            script.whole(&format!("a#{ordinal}"), operation, frame(7));
        }
        script.begin(1, "fsync");
        script.end(1);
        script
    }

    fn chosen(at: CutAt, most: u32) -> (Vec<u64>, usize) {
        let script = script();
        let table = PowerCut {
            devices: vec!["a".into()],
            images: 1,
            atomic: 512,
            most,
            at: vec![at],
        };
        cuts(&table, &script.events, &script.timeline(), 7)
    }

    #[test]
    fn each_event_that_fits_is_a_cut_and_a_count_chooses_one() {
        let at = CutAt {
            event: Some(CutEvent::Used),
            device: Some("a".into()),
            operation: Some(Operation::Flush),
            ..CutAt::default()
        };
        let (all, left_out) = chosen(at.clone(), 9);
        assert_eq!((all.len(), left_out), (3, 0));
        let second = CutAt {
            count: Some(2),
            ..at.clone()
        };
        assert_eq!(chosen(second, 9).0, all[1..2]);
        let ordinal = CutAt {
            ordinal: Some(5),
            ..at
        };
        assert_eq!(chosen(ordinal, 9).0, all[2..]);
    }

    #[test]
    fn a_step_is_found_by_its_kind() {
        let at = |op: &str| CutAt {
            event: Some(CutEvent::StepEnded),
            op: Some(op.into()),
            ..CutAt::default()
        };
        assert_eq!(chosen(at("fsync"), 9).0.len(), 1);
        assert_eq!(chosen(at("msync"), 9).0.len(), 0);
    }

    #[test]
    fn random_places_depend_on_the_seed_alone_and_too_many_are_told() {
        let at = CutAt {
            random: Some(20),
            ..CutAt::default()
        };
        let (all, left_out) = chosen(at.clone(), 5);
        assert_eq!(all.len(), 5);
        assert!(left_out > 0 && all.is_sorted());
        assert_eq!(chosen(at, 5).0, all);
    }
}
