//! AF_XDP in copy mode.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::bpf::Redirect;
use crate::sys::net;
use crate::sys::xdp::{FRAME, Socket};

/// Longest wait between two looks: the completion of a transmitted frame wakes nobody who polls for reading.
const LOOK: Duration = Duration::from_millis(5);

/// Registers a mapping as umem.
pub fn open(agent: &Agent, stamp: &mut Stamp<'_>, map: &str, name: &str) -> StepResult {
    agent.names().xdp.refuse_used("xdp socket", name)?;
    let umem = agent.map(map)?;
    let socket = stamp.around(|| Socket::new(umem))?;
    // A second one under the name at the same moment takes its place, and the first is closed.
    drop(agent.names().xdp.put(name, Arc::new(socket)));
    Ok(Found::nothing())
}

fn get(agent: &Agent, name: &str) -> Result<Arc<Socket>, pincushion_abi::Fault> {
    agent.names().xdp.get("xdp socket", name).cloned()
}

/// Binds to a queue of an interface.
pub fn bind(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    interface: &str,
    queue: u32,
) -> StepResult {
    let socket = get(agent, name)?;
    let index = net::index(interface)?;
    stamp.around(|| socket.bind(index, queue))?;
    Ok(Found::nothing())
}

/// Sends a piece of the umem.
pub fn send(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, offset: u64, len: u64) -> StepResult {
    let socket = get(agent, name)?;
    let fits = offset % u64::from(FRAME) + len <= u64::from(FRAME);
    let len = u32::try_from(len).ok().filter(|_| fits).ok_or_else(|| {
        let text = format!("{len} bytes from {offset} on are not inside one frame of {FRAME}");
        sentence("xdp-send", text)
    })?;
    stamp.around(|| {
        if socket.offer(offset, len) {
            socket.kick().map_err(Into::into)
        } else {
            Err(sentence("xdp-send", "the transmit ring is full"))
        }
    })?;
    Ok(Found::nothing())
}

/// Waits until pieces were sent.
pub fn wait(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    count: u32,
    limit_ms: u64,
) -> StepResult {
    let socket = get(agent, name)?;
    let limit = Instant::now() + Duration::from_millis(limit_ms);
    let mut places = Vec::new();
    stamp.begin();
    while places.len() < count as usize {
        if let Some(place) = socket.completed() {
            places.push(place);
            continue;
        }
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        net::wait_readable(socket.raw(), left.min(LOOK))?;
    }
    Ok(Found::nothing()
        .count("completed", places.len())
        .numbers("offsets", places))
}

/// Frames of the umem.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    pub offset: u64,
    pub count: u32,
}

/// Lets frames of a queue come in.
pub fn listen(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    interface: &str,
    queue: u32,
    frames: Frames,
) -> StepResult {
    let socket = get(agent, name)?;
    let index = net::index(interface)?;
    let redirect = stamp.around(|| {
        let mut places = (0..u64::from(frames.count)).map(|n| frames.offset + n * u64::from(FRAME));
        if !places.all(|place| socket.give(place)) {
            return Err(sentence("xdp-listen", "the fill ring is full"));
        }
        Redirect::new(index, queue, socket.raw()).map_err(Into::into)
    })?;
    drop(agent.names().redirects.put(name, redirect));
    Ok(Found::nothing())
}

/// Waits for frames.
pub fn receive(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    count: u32,
    limit_ms: u64,
) -> StepResult {
    let socket = get(agent, name)?;
    let limit = Instant::now() + Duration::from_millis(limit_ms);
    let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
    stamp.begin();
    while offsets.len() < count as usize {
        if let Some((offset, len)) = socket.received() {
            offsets.push(offset);
            lengths.push(len);
            continue;
        }
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        net::wait_readable(socket.raw(), left.min(LOOK))?;
    }
    let found = Found::nothing().count("received", offsets.len());
    Ok(found
        .numbers("offsets", offsets)
        .numbers("lengths", lengths))
}

/// Closes the socket, whatever is under way.
pub fn close(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let socket = agent.names().xdp.take("xdp socket", name)?;
    // Without a program there is nothing to take out.
    let redirect = agent.names().redirects.take("xdp program", name).ok();
    stamp.around(|| {
        drop(redirect);
        drop(socket);
    });
    Ok(Found::nothing())
}
