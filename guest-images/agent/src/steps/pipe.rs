//! Pipes, and memory that is put into them without a copy.

use std::io::Read;
use std::sync::Arc;

use pincushion_abi::Fault;
use pincushion_abi::step::Pipe;

use crate::agent::Agent;
use crate::fault::{io as io_fault, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::transfer::own_buffer;
use crate::sys::memory::PAGE;
use crate::sys::pipe::{self, Ends};

/// Pages that a pipe has room for by default: more would block the step for ever.
const MAX_PAGES: u64 = 16;

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &Pipe) -> StepResult {
    match act {
        Pipe::Open { pipe } => {
            agent.names().pipes.refuse_used("pipe", pipe)?;
            let ends = stamp.around(pipe::open)?;
            let _ = agent.names().pipes.put(pipe, Arc::new(ends));
            Ok(Found::nothing())
        }
        Pipe::Splice {
            pipe,
            map,
            offset,
            len,
        } => {
            fits(*len)?;
            let (ends, span) = (named(agent, pipe)?, agent.span(map, *offset, Some(*len))?);
            let spliced = stamp.around(|| pipe::splice(&ends, span))?;
            Ok(Found::nothing().count("spliced", spliced))
        }
        Pipe::Verify { pipe, len, pattern } => {
            fits(*len)?;
            let ends = named(agent, pipe)?;
            let mut buffer = own_buffer(*len)?;
            let read = stamp.around(|| (&ends.out).read_exact(buffer.bytes_mut()));
            read.map_err(|error| io_fault("read", &error))?;
            Ok(Found::nothing().compared(buffer.bytes(), *pattern))
        }
        Pipe::Close { pipe } => {
            let ends = agent.names().pipes.take("pipe", pipe)?;
            stamp.around(|| drop(ends));
            Ok(Found::nothing())
        }
    }
}

fn fits(len: u64) -> Result<(), Fault> {
    let most = MAX_PAGES * PAGE as u64;
    if len <= most {
        return Ok(());
    }
    let text = format!("a pipe has room for {most} bytes, not for {len}");
    Err(sentence("pipe", text))
}

fn named(agent: &Agent, name: &str) -> Result<Arc<Ends>, Fault> {
    agent.names().pipes.get("pipe", name).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn a_spliced_page_is_the_page_itself_and_not_a_copy() {
        let bench = Bench::new();
        let store =
            |byte: u8| json!({"op": "store", "map": "m", "len": 4096, "pattern": {"byte": byte}});
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 4096, "map": "m"}));
        bench.ok(store(1));
        bench.ok(json!({"op": "pipe", "do": "open", "pipe": "p"}));
        let splice =
            bench.ok(json!({"op": "pipe", "do": "splice", "pipe": "p", "map": "m", "len": 4096}));
        assert_eq!(splice["spliced"], Value::Number(4096));
        bench.ok(store(2));
        let verify =
            json!({"op": "pipe", "do": "verify", "pipe": "p", "len": 4096, "pattern": {"byte": 2}});
        assert_eq!(bench.ok(verify)["equal"], Value::Bool(true));
        let much = json!({"op": "pipe", "do": "splice", "pipe": "p", "map": "m", "len": 1_000_000});
        assert!(bench.fails(much).name.contains("room for 65536"));
        bench.ok(json!({"op": "pipe", "do": "close", "pipe": "p"}));
    }
}
