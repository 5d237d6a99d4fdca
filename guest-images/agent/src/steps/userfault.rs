//! Page faults that a program handles itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pincushion_abi::Fault;
use pincushion_abi::step::Userfault;

use crate::agent::Agent;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::transfer::Part;
use crate::sys::userfault;

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &Userfault) -> StepResult {
    match act {
        Userfault::Open { name, moves } => {
            agent.names().userfaults.refuse_used("userfault", name)?;
            let features = if *moves { userfault::FEATURE_MOVE } else { 0 };
            let fd = stamp.around(|| userfault::open(features))?;
            let _ = agent.names().userfaults.put(name, Arc::new(fd));
            Ok(Found::nothing())
        }
        Userfault::Register { name, map } => {
            let (fd, span) = (named(agent, name)?, agent.map(map)?);
            stamp.around(|| userfault::register(&fd, span))?;
            Ok(Found::nothing())
        }
        Userfault::Fill {
            name,
            map,
            offset,
            len,
            pattern,
        } => {
            let fd = named(agent, name)?;
            let (span, mut buffer) = Part::new(map, *offset, *len).in_map(agent)?;
            pattern.fill(buffer.bytes_mut());
            stamp.around(|| userfault::fill(&fd, span, buffer.bytes()))?;
            Ok(Found::nothing())
        }
        Userfault::Move {
            name,
            from,
            from_offset,
            map,
            offset,
            len,
        } => {
            let fd = named(agent, name)?;
            let from = agent.span(from, *from_offset, Some(*len))?;
            let to = agent.span(map, *offset, Some(*len))?;
            let moved = stamp.around(|| userfault::remap(&fd, from, to))?;
            Ok(Found::nothing().number("moved", moved))
        }
        Userfault::Close { name } => {
            let fd = agent.names().userfaults.take("userfault", name)?;
            stamp.around(|| drop(fd));
            Ok(Found::nothing())
        }
    }
}

fn named(agent: &Agent, name: &str) -> Result<Arc<OwnedFd>, Fault> {
    agent
        .names()
        .userfaults
        .get("userfault", name)
        .map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn a_missing_page_is_filled_with_what_the_step_says() {
        let bench = Bench::new();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 8192, "map": "m"}));
        let open = json!({"op": "userfault", "do": "open", "name": "u"});
        if let Err(fault) = bench.run(open) {
            println!("skipped: {} on this host: {}", fault.call, fault.name);
            return;
        }
        bench.ok(json!({"op": "userfault", "do": "register", "name": "u", "map": "m"}));
        bench.ok(json!({"op": "userfault", "do": "fill", "name": "u", "map": "m", "offset": 4096, "len": 4096, "pattern": {"byte": 9}}));
        let verify = json!({"op": "verify", "map": "m", "offset": 4096, "len": 4096, "pattern": {"byte": 9}});
        assert_eq!(bench.ok(verify)["equal"], Value::Bool(true));
        bench.ok(json!({"op": "userfault", "do": "close", "name": "u"}));
        assert_eq!(
            bench.ok(json!({"op": "load", "map": "m", "len": 1}))["first"],
            Value::Number(0)
        );
    }
}
