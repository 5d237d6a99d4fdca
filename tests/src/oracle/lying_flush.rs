//! A flush that answered OK and did not make the writes before it durable.
//!
//! Verifies each `image` fact against what the log says must be there ([`crate::timeline::durable`]): bytes of a write that ended
//! well before a flush was fetched which ended well, and that nobody changed since. What is not there was lost by the disk, not by
//! the guest.
//!
//! Does not verify anything without `image` facts, and those only mean something when the image lost what was never flushed (a power cut): as
//! long as the host keeps running, its page cache hides a lie.

use super::bench::{Opinion, Oracle, machine_finding, merge};
use crate::timeline::durable::flushed_pieces;
use crate::timeline::{Fact, Timeline};

const NAME: &str = "lying-flush";

/// The oracle.
pub(super) struct LyingFlush;

impl Oracle for LyingFlush {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for device in timeline.devices.keys() {
            let seen = timeline.facts.iter().filter_map(|(at, fact)| match fact {
                Fact::Image(image) if image.device == *device => Some((*at, image)),
                _ => None,
            });
            let mut seen = seen.peekable();
            if seen.peek().is_none() {
                continue;
            }
            let pieces: std::collections::HashMap<u64, _> = flushed_pieces(timeline, device)
                .into_iter()
                .map(|piece| (piece.sector, piece))
                .collect();
            for (at, image) in seen {
                let piece = pieces
                    .get(&image.sector)
                    .filter(|piece| piece.bytes == image.bytes);
                let Some(piece) = piece else {
                    opinion.count("lying-flush.unsettled", 1);
                    continue;
                };
                if piece.hash == image.hash {
                    opinion.count("lying-flush.kept", 1);
                    continue;
                }
                let (write, flush) = (&timeline[piece.write], &timeline[piece.flush]);
                let text = format!(
                    "The {} ended well, then the {} ended well, and disk {device}'s image does not hold the {} bytes at sector {}.",
                    write.name(),
                    flush.name(),
                    piece.bytes,
                    piece.sector
                );
                let evidence = vec![write.fetched.seq, flush.fetched.seq, at.seq];
                findings.push(machine_finding(
                    NAME,
                    "flushed bytes are not in the image",
                    text,
                    evidence,
                ));
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{Fault, HoldEnd, Moment, Operation, Status};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    fn write(script: &mut Script, name: &str, hash: &str) {
        script.fetch(name, Operation::Write, frame(7));
        script.hash(name, Moment::Fetch, frame(7), hash);
        script.touch(name);
        script.hash(name, Moment::Transfer, frame(7), hash);
        script.execute(name, Status::Ok);
        script.close(name, HoldEnd::Completed);
        script.publish(name);
    }

    fn image(script: &mut Script, sector: u64, hash: &str) {
        script.fact(
            "image",
            json!({"device": "a", "sector": sector, "bytes": 4096, "hash": hash}),
        );
    }

    #[test]
    fn a_flushed_write_that_is_not_in_the_image_is_caught() {
        let mut script = Script::booted();
        write(&mut script, "a#1", "0a");
        script.whole("a#2", Operation::Flush, frame(0));
        image(&mut script, 8, "00");
        let opinion = ask(LyingFlush, &script);
        assert_eq!(
            opinion.findings[0].title,
            "flushed bytes are not in the image"
        );
    }

    #[test]
    fn a_flushed_write_that_is_in_the_image_passes() {
        let mut script = Script::booted();
        write(&mut script, "a#1", "0a");
        script.whole("a#2", Operation::Flush, frame(0));
        image(&mut script, 8, "0a");
        let opinion = ask(LyingFlush, &script);
        assert!(opinion.findings.is_empty());
        assert_eq!(opinion.counts["lying-flush.kept"], 1);
    }

    #[test]
    fn what_was_not_flushed_or_was_in_flight_during_the_flush_may_be_lost() {
        let mut unflushed = Script::booted();
        write(&mut unflushed, "a#1", "0a");
        let mut racing = Script::booted();
        racing.fetch("a#2", Operation::Flush, frame(0));
        write(&mut racing, "a#1", "0a");
        racing.finish("a#2");
        let mut rewritten = Script::booted();
        write(&mut rewritten, "a#1", "0a");
        rewritten.whole("a#2", Operation::Flush, frame(0));
        rewritten.fetch("a#1", Operation::Write, frame(9));
        for mut script in [unflushed, racing, rewritten] {
            image(&mut script, 8, "00");
            let opinion = ask(LyingFlush, &script);
            assert!(opinion.findings.is_empty(), "{opinion:?}");
            assert_eq!(opinion.counts["lying-flush.unsettled"], 1);
        }
    }

    #[test]
    fn a_write_that_the_plan_tore_and_a_flush_that_it_answered_itself_prove_nothing() {
        let mut torn = Script::booted();
        write(&mut torn, "a#1", "0a");
        torn.fault("a#1", Fault::Torn { arrived: vec![] });
        torn.whole("a#2", Operation::Flush, frame(0));
        let mut answered = Script::booted();
        write(&mut answered, "a#1", "0a");
        answered.fetch("a#2", Operation::Flush, frame(0));
        answered.fault("a#2", Fault::Status { worked: None });
        answered.finish("a#2");
        for mut script in [torn, answered] {
            image(&mut script, 8, "00");
            assert!(ask(LyingFlush, &script).findings.is_empty());
        }
    }
}
