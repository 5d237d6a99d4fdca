//! Asynchronous transfers by libaio.

use pincushion_abi::step::IoDirection;

use crate::agent::Agent;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::transfer::{Ends, whole};
use crate::sys::aio::{Context, Transfer};

/// `io_submit(2)`.
pub fn submit(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    direction: IoDirection,
    ends: &Ends<'_>,
    tag: &str,
) -> StepResult {
    let (fd, span, offset) = ends.resolve(agent)?;
    agent.names().aio.refuse_used("aio transfer", tag)?;
    let context = Context::new()?;
    let mut transfer = Transfer::new(direction == IoDirection::Write, fd, span, offset);
    if let Err(errno) = stamp.around(|| context.submit(&mut transfer)) {
        context.destroy();
        return Err(errno.into());
    }
    // A second transfer under the tag at the same moment would only leave the first without a name.
    let _ = agent.names().aio.put(tag, (context, span.len()));
    Ok(Found::nothing())
}

/// `io_getevents(2)`.
pub fn wait(agent: &Agent, stamp: &mut Stamp<'_>, tag: &str) -> StepResult {
    let (context, asked) = agent.names().aio.take("aio transfer", tag)?;
    let result = stamp.around(|| context.wait());
    context.destroy();
    let bytes = result?;
    whole("aio", bytes, asked as u64)?;
    Ok(Found::nothing().count("result", bytes))
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    /// `None`, with the reason printed, where this host has no libaio.
    fn bench() -> Option<Bench> {
        match crate::sys::aio::Context::new() {
            Ok(context) => {
                context.destroy();
                let bench = Bench::new();
                bench.create("a");
                bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 8192, "map": "m"}));
                Some(bench)
            }
            Err(errno) => {
                println!("skipped: io_setup on this host: {errno:?}");
                None
            }
        }
    }

    #[test]
    fn a_write_and_a_read_back_carry_the_bytes() {
        let Some(bench) = bench() else { return };
        bench.ok(json!({"op": "store", "map": "m", "len": 4096, "pattern": {"seed": 3}}));
        let ends = json!({"op": "aio-submit", "file": "a", "offset": 0, "map": "m", "len": 4096});
        let with = |direction: &str, tag: &str, map_offset: u64| {
            let mut step = ends.clone();
            step["direction"] = direction.into();
            step["tag"] = tag.into();
            step["map_offset"] = map_offset.into();
            step
        };
        bench.ok(with("write", "w", 0));
        assert_eq!(
            bench.ok(json!({"op": "aio-wait", "tag": "w"}))["result"],
            Value::Number(4096)
        );
        bench.ok(with("read", "r", 4096));
        bench.ok(json!({"op": "aio-wait", "tag": "r"}));
        let verify = json!({"op": "verify", "map": "m", "offset": 4096, "len": 4096, "pattern": {"seed": 3}});
        assert_eq!(bench.ok(verify)["equal"], Value::Bool(true));
    }

    #[test]
    fn a_read_past_the_end_is_a_short_transfer_and_its_tag_is_free_again() {
        let Some(bench) = bench() else { return };
        let read = json!({"op": "aio-submit", "direction": "read", "file": "a", "offset": 0, "map": "m", "len": 4096, "tag": "r"});
        for _ in 0..2 {
            bench.ok(read.clone());
            let fault = bench.fails(json!({"op": "aio-wait", "tag": "r"}));
            assert_eq!(fault.name, "short transfer: 0 of 4096 bytes");
        }
        assert!(
            bench
                .fails(json!({"op": "aio-wait", "tag": "r"}))
                .name
                .contains("no aio transfer")
        );
    }
}
