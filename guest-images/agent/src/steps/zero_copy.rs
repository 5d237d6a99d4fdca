//! UDP sends whose pages the card takes from where they are.

use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pincushion_abi::Fault;
use pincushion_abi::step::ZeroCopy;

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::transfer::whole;
use crate::sys::{net, zero_copy};

/// Longest wait between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &ZeroCopy) -> StepResult {
    match act {
        ZeroCopy::Open { to, socket } => {
            let to: SocketAddrV4 = to
                .parse()
                .map_err(|_| sentence("zero-copy", format!("{to:?} is not like 10.0.0.9:9")))?;
            agent.names().zero_copy.refuse_used("socket", socket)?;
            let made = stamp.around(|| zero_copy::open(to))?;
            drop(agent.names().zero_copy.put(socket, Arc::new(made)));
            Ok(Found::nothing())
        }
        ZeroCopy::Send {
            socket,
            map,
            offset,
            len,
        } => {
            let socket = named(agent, socket)?;
            let span = agent.span(map, *offset, Some(*len))?;
            let sent = stamp.around(|| zero_copy::send(&socket, span))?;
            whole("send", sent, *len)?;
            Ok(Found::nothing().count("sent", sent))
        }
        ZeroCopy::Wait {
            socket,
            count,
            limit_ms,
        } => wait(&*named(agent, socket)?, stamp, *count, *limit_ms),
        ZeroCopy::Close { socket } => {
            let socket = agent.names().zero_copy.take("socket", socket)?;
            stamp.around(|| drop(socket));
            Ok(Found::nothing())
        }
    }
}

fn named(agent: &Agent, name: &str) -> Result<Arc<OwnedFd>, Fault> {
    let names = agent.names();
    names.zero_copy.get("socket", name).map(Arc::clone)
}

fn wait(socket: &OwnedFd, stamp: &mut Stamp<'_>, count: u32, limit_ms: u64) -> StepResult {
    let limit = Instant::now() + Duration::from_millis(limit_ms);
    let (mut done, mut copied) = (0_u64, 0_u64);
    stamp.begin();
    while done < count.into() {
        if let Some(ended) = zero_copy::ended(socket)? {
            done += ended.sends;
            copied += if ended.copied { ended.sends } else { 0 };
            continue;
        }
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        net::wait_readable(socket.as_raw_fd(), left.min(LOOK))?;
    }
    Ok(Found::nothing()
        .number("done", done)
        .number("copied", copied))
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn over_loopback_the_kernel_copies_and_says_so() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap().to_string();
        let bench = Bench::new();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 4096, "map": "m"}));
        bench.ok(json!({"op": "store", "map": "m", "len": 4096, "pattern": {"byte": 7}}));
        bench.ok(json!({"op": "zero-copy", "do": "open", "to": to, "socket": "s"}));
        let send = json!({"op": "zero-copy", "do": "send", "socket": "s", "map": "m", "offset": 96, "len": 1000});
        assert_eq!(bench.ok(send)["sent"], Value::Number(1000));
        let mut bytes = [0; 2000];
        assert_eq!(receiver.recv(&mut bytes).unwrap(), 1000);
        assert_eq!(bytes[..1000], [7; 1000]);
        let found = bench.ok(json!({"op": "zero-copy", "do": "wait", "socket": "s", "count": 1}));
        assert_eq!(found["done"], Value::Number(1));
        assert_eq!(found["copied"], Value::Number(1));
        bench.ok(json!({"op": "zero-copy", "do": "close", "socket": "s"}));
        let bad = json!({"op": "zero-copy", "do": "open", "to": "nowhere", "socket": "s"});
        assert!(bench.fails(bad).name.contains("10.0.0.9:9"));
    }
}
