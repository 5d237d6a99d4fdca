//! What no machine can have logged: numbers beyond any guest and any disk. Refusing them where a log is read lets everybody
//! behind it count without fear of an overflow, and a damaged log cost no more than a good one.

use pincushion_devices::trace::event::{EventKind, FRAME_SIZE, Fault, GuestRange};

/// Physical addresses have 52 bits on x86-64.
const END_OF_MEMORY: u64 = 1 << 52;
/// Most guest memory that one event may name, in bytes: more than any request of any device has.
const MOST_MEMORY: u64 = 1 << 36;
/// Greatest sector and length of a disk, in bytes: 8 EiB, the greatest file of Linux.
const END_OF_DISK: u64 = 1 << 63;
/// Most bytes of one request; the longest discard has 16 GiB.
const MOST_BYTES: u64 = 1 << 36;

/// What is impossible about an event, if anything.
pub(super) fn defect(kind: &EventKind) -> Option<&'static str> {
    let mut total: u64 = 0;
    for range in ranges(kind) {
        let end = range.addr.checked_add(range.len);
        if end.is_none_or(|end| end > END_OF_MEMORY) {
            return Some("a range beyond any guest's memory");
        }
        total = total.saturating_add(range.len);
    }
    if total > MOST_MEMORY {
        return Some("more memory than any request has");
    }
    match kind {
        EventKind::DeviceAdded {
            region: Some(region),
            ..
        } => {
            let end = region.addr.checked_add(region.len);
            let whole = region.addr % FRAME_SIZE == 0 && region.len % FRAME_SIZE == 0;
            let good = whole && end.is_some_and(|end| end <= END_OF_MEMORY);
            (!good).then_some("a region that is not in whole frames of a guest's memory")
        }
        EventKind::Fetched { sector, bytes, .. } => {
            let start = sector.checked_mul(512);
            let end = start.and_then(|start| start.checked_add(*bytes));
            let good = *bytes <= MOST_BYTES && end.is_some_and(|end| end <= END_OF_DISK);
            (!good).then_some("sectors beyond any disk")
        }
        _ => None,
    }
}

/// The guest memory that an event is about, piece by piece.
fn ranges(kind: &EventKind) -> Vec<GuestRange> {
    match kind {
        EventKind::Fetched { ranges, .. } | EventKind::HoldOpened { ranges, .. } => ranges.clone(),
        EventKind::PayloadHashed { pages, .. } => pages.iter().map(|page| page.range).collect(),
        EventKind::FramesFreed { held, .. } => held.iter().map(|held| held.range).collect(),
        EventKind::FaultActed { fault, .. } => match fault {
            Fault::LateTouch { ranges } => ranges.clone(),
            Fault::RogueTouch { range } => vec![*range],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::timeline::Reader;

    /// The words with which a log of this one event is refused.
    fn refused(event: &str) -> Option<String> {
        let opened = r#"{"seq":1,"time_ns":0,"event":"log-opened","version":1}"#;
        let log = format!("{opened}\n{{\"seq\":2,\"time_ns\":0,{event}}}\n");
        let error = Reader::new(log.as_bytes()).find_map(Result::err)?;
        Some(error.to_string())
    }

    #[test]
    fn impossible_numbers_are_refused_with_their_line_and_possible_ones_are_not() {
        let request = r#""request":{"device":"a","queue":0,"ordinal":0}"#;
        let fetched = |sector: u64, bytes: u64, addr: u64, len: u64| {
            let ranges = format!(r#""ranges":[{{"addr":{addr},"len":{len}}}]"#);
            let size = format!(r#""sector":{sector},"bytes":{bytes}"#);
            refused(&format!(
                r#""event":"fetched",{request},"head":0,"operation":"read",{size},{ranges}"#
            ))
        };
        assert_eq!(fetched(8, 16 << 30, (1 << 52) - 4096, 4096), None);
        let wrong = [
            (8, 4096, u64::MAX, 2, "beyond any guest's memory"),
            (8, 4096, 1 << 52, 1, "beyond any guest's memory"),
            (8, 4096, 0, 1 << 40, "more memory than any request has"),
            (u64::MAX, 4096, 0, 4096, "beyond any disk"),
            (0, u64::MAX, 0, 4096, "beyond any disk"),
        ];
        for (sector, bytes, addr, len, words) in wrong {
            let said = fetched(sector, bytes, addr, len).expect("refused");
            assert!(
                said.starts_with("line 2 of the event log is damaged: ") && said.contains(words),
                "{said}"
            );
        }
        let region = |addr: u64| {
            refused(&format!(
                r#""event":"device-added","device":"p","kind":"virtio-pmem","fetch":"late","capacity_bytes":0,"region":{{"addr":{addr},"len":4096}}"#
            ))
        };
        assert_eq!(region(1 << 32), None);
        assert!(region(1).is_some_and(|said| said.contains("whole frames")));
    }

    #[test]
    fn a_page_number_at_the_end_of_all_numbers_is_a_number_like_others() {
        let page = format!(
            r#""event":"fact","key":"file-page","value":{{"device":"a","file":"f","frames":[4,5],"first_page":{}}}"#,
            u64::MAX
        );
        let log = format!(
            "{{\"seq\":1,\"time_ns\":0,\"event\":\"log-opened\",\"version\":1}}\n{{\"seq\":2,\"time_ns\":0,{page}}}\n"
        );
        let events: Vec<_> = Reader::new(log.as_bytes()).map(Result::unwrap).collect();
        let timeline = crate::timeline::Timeline::from_events(&events);
        assert_eq!(timeline.owner(5).map(|owner| owner.page), Some(u64::MAX));
    }
}
