//! Packet sockets: whole frames, with their Ethernet header.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pincushion_abi::step::{ETHER_TYPE, PacketVerify, Pattern};
use xxhash_rust::xxh3::Xxh3;

use crate::agent::Agent;
use crate::fault;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::net::wait_for;
use crate::sys::net;

/// Bytes before the payload of a frame.
const ETHERNET: usize = 14;

/// A socket for whole frames of an Ethernet type.
pub fn open(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    interface: &str,
    ether_type: u16,
    name: &str,
) -> StepResult {
    agent.names().packets.refuse_used("packet socket", name)?;
    let socket = stamp.around(|| {
        let socket = net::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        net::bind_packet(&socket, net::index(interface)?, ether_type)?;
        Ok::<_, fault::Errno>(socket)
    })?;
    // A second one under the name at the same moment takes its place, and the first is closed.
    drop(agent.names().packets.put(name, Arc::new(socket)));
    Ok(Found::nothing())
}

/// Frames by the socket's interface to everybody there: header, pattern.
pub fn send(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    len: u64,
    pattern: Pattern,
    count: u32,
) -> StepResult {
    let socket = agent.names().packets.get("packet socket", name)?.clone();
    let frame = frame(len, pattern);
    stamp.around(|| (0..count).try_for_each(|_| net::send(&socket, &frame).map(drop)))?;
    Ok(Found::nothing().number("sent", count.into()))
}

fn frame(len: u64, pattern: Pattern) -> Vec<u8> {
    let len = usize::try_from(len.clamp(1, 65_000)).unwrap_or(1);
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x50, 0x69, 0x6e, 0, 1]);
    frame.extend(ETHER_TYPE.to_be_bytes());
    frame.resize(ETHERNET + len, 0);
    pattern.fill(&mut frame[ETHERNET..]);
    frame
}

/// Waits for frames. Their bytes are hashed one after the other.
pub fn receive(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    count: u32,
    limit_ms: u64,
) -> StepResult {
    let socket = agent.names().packets.get("packet socket", name)?.clone();
    let limit = Instant::now() + Duration::from_millis(limit_ms);
    let (mut received, mut bytes, mut hash) = (0, 0, Xxh3::new());
    stamp.begin();
    wait_for(&socket, limit, |frame| {
        received += 1;
        bytes += frame.len();
        hash.update(frame);
        received == count
    })?;
    let found = Found::nothing().number("received", received.into());
    let found = found.count("bytes", bytes);
    Ok(found.text("hash", format!("{:016x}", hash.digest())))
}

/// Waits for a frame that is long enough, and compares its end.
pub fn verify(agent: &Agent, stamp: &mut Stamp<'_>, wanted: &PacketVerify) -> StepResult {
    let name = wanted.socket.as_str();
    let socket = agent.names().packets.get("packet socket", name)?.clone();
    let limit = Instant::now() + Duration::from_millis(wanted.limit_ms);
    let mut end = Vec::new();
    stamp.begin();
    let received = wait_for(&socket, limit, |frame| match end_of(frame, wanted.len) {
        Some(bytes) => {
            end = bytes.to_vec();
            true
        }
        None => false,
    })?;
    let found = Found::nothing().number("received", received.into());
    Ok(if received {
        found.compared(&end, wanted.pattern)
    } else {
        found
    })
}

/// The last `len` bytes of a frame, where so many are behind its header.
fn end_of(frame: &[u8], len: u64) -> Option<&[u8]> {
    let payload = frame.get(ETHERNET..)?;
    let start = payload.len().checked_sub(usize::try_from(len).ok()?)?;
    payload.get(start..)
}

/// Closes a socket.
pub fn close(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let socket = agent.names().packets.take("packet socket", name)?;
    stamp.around(|| drop(socket));
    Ok(Found::nothing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_frame_is_that_of_its_payload() {
        let frame = frame(10, Pattern::Byte(7));
        assert_eq!(end_of(&frame, 10), Some([7; 10].as_slice()));
        assert_eq!(end_of(&frame, 11), None);
        assert_eq!(end_of(&frame, u64::MAX), None);
        assert_eq!(end_of(&frame[..13], 0), None);
    }
}
