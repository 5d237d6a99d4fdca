//! Many children that share the agent's memory and sleep.

use pincushion_abi::step::Crowd;

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::process::{self, Forked};

/// Most children of one crowd.
const MAX: u32 = 4096;

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &Crowd) -> StepResult {
    match act {
        Crowd::Fork { crowd, count } => fork(agent, stamp, crowd, *count),
        Crowd::End { crowd } => {
            let pids = agent.names().crowds.take("crowd", crowd)?;
            stamp.around(|| {
                for pid in &pids {
                    // One that is gone already is fine as well.
                    let _ = process::kill(*pid);
                }
                for pid in &pids {
                    agent.reaper.wait(*pid)?;
                }
                Ok::<_, pincushion_abi::Fault>(())
            })?;
            Ok(Found::nothing())
        }
    }
}

fn fork(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, count: u32) -> StepResult {
    if count > MAX {
        let text = format!("{count} children are more than a crowd may have ({MAX})");
        return Err(sentence("crowd", text));
    }
    agent.names().crowds.refuse_used("crowd", name)?;
    let mut pids = Vec::with_capacity(count as usize);
    let forked = stamp.around(|| {
        for _ in 0..count {
            let pid = agent.reaper.adopt(|| match process::fork()? {
                // It takes no lock and allocates nothing: it only waits for its end.
                Forked::Child => process::sleep_for_ever(),
                Forked::Parent(pid) => Ok::<_, crate::fault::Errno>(pid),
            })?;
            pids.push(pid);
        }
        Ok::<_, crate::fault::Errno>(())
    });
    // Also those that came before a fork failed are to be ended.
    let _ = agent.names().crowds.put(name, pids);
    forked?;
    Ok(Found::nothing())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn a_crowd_lives_until_it_is_ended_and_every_child_is_reaped() {
        let bench = Bench::with_reaper();
        bench.ok(json!({"op": "crowd", "do": "fork", "crowd": "c", "count": 5}));
        bench.ok(json!({"op": "crowd", "do": "end", "crowd": "c"}));
        let again = bench.fails(json!({"op": "crowd", "do": "end", "crowd": "c"}));
        assert!(again.name.contains("no crowd \"c\""), "{}", again.name);
        let much = bench.fails(json!({"op": "crowd", "do": "fork", "crowd": "c", "count": 5000}));
        assert!(much.name.contains("4096"), "{}", much.name);
    }
}
