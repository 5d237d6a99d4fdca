//! The scenario agent's two roads: messages and marks from the guest by I/O ports, lines to the guest by the
//! second serial port. The ports are defined in [`pincushion_abi::port`].
//!
//! Promises: a message or mark reaches the handler before the guest's `outl` returns, so a counter that the handler
//! takes stamps it in the true order; sending never blocks. A reset of the guest drops half-sent messages.

use std::sync::{Arc, Mutex};

use pincushion_abi::port;
use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, Flow};
use crate::lock::lock;
use crate::platform::uart::Uart;

/// What the agent sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromAgent<'a> {
    /// A whole message, as the guest wrote it.
    Message(&'a [u8]),
    /// A mark.
    Mark(u32),
}

/// Called at the VM exit that completes a message or mark, on the vCPU's thread: the guest waits meanwhile.
pub type AgentHandler = Box<dyn FnMut(FromAgent<'_>) + Send>;

/// Sends lines to the agent. Clones send to the same agent.
#[derive(Clone)]
pub struct AgentSender(pub(crate) Arc<Uart>);

impl AgentSender {
    /// Queues `bytes` for `/dev/ttyS1`, in order. Kept in the host until the guest has opened the port.
    pub fn send(&self, bytes: &[u8]) {
        self.0.send(bytes);
    }
}

/// The port's part of a snapshot: a message that was sent in part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedAgentPort {
    message: Vec<u8>,
    overflow: bool,
}

struct Inner {
    handler: AgentHandler,
    message: Vec<u8>,
    /// The message is longer than allowed: its bytes are dropped up to its commit.
    overflow: bool,
}

/// The port range of the agent.
pub struct AgentPort {
    inner: Mutex<Inner>,
}

impl AgentPort {
    /// A port that delivers to `handler`.
    #[must_use]
    pub fn new(handler: AgentHandler) -> Self {
        Self {
            inner: Mutex::new(Inner {
                handler,
                message: Vec::new(),
                overflow: false,
            }),
        }
    }
}

impl AgentPort {
    /// For a snapshot: no vCPU runs.
    pub(crate) fn save(&self) -> SavedAgentPort {
        let inner = lock(&self.inner);
        SavedAgentPort {
            message: inner.message.clone(),
            overflow: inner.overflow,
        }
    }

    /// The message goes on where it was.
    pub(crate) fn restore(&self, saved: &SavedAgentPort) {
        let mut inner = lock(&self.inner);
        inner.message.clone_from(&saved.message);
        inner.overflow = saved.overflow;
    }
}

impl Inner {
    fn append(&mut self, data: &[u8]) {
        // A group may be padded, hence the three bytes of grace.
        if self.message.len() + data.len() > port::MAX_MESSAGE + 3 {
            self.overflow = true;
        } else if !self.overflow {
            self.message.extend_from_slice(data);
        }
    }

    fn commit(&mut self, len: u32) {
        let message = std::mem::take(&mut self.message);
        let overflow = std::mem::take(&mut self.overflow);
        let whole = usize::try_from(len).ok().and_then(|len| message.get(..len));
        match whole {
            Some(bytes) if !overflow && bytes.len() <= port::MAX_MESSAGE => {
                (self.handler)(FromAgent::Message(bytes));
            }
            _ => log::warn!(
                "agent: message of {len} bytes dropped: {} bytes came, {} may",
                message.len(),
                port::MAX_MESSAGE
            ),
        }
    }
}

impl BusDevice for AgentPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        const DATA: u64 = (port::DATA - port::BASE) as u64;
        const COMMIT: u64 = (port::COMMIT - port::BASE) as u64;
        const MARK: u64 = (port::MARK - port::BASE) as u64;
        let mut inner = lock(&self.inner);
        let word = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        match (offset, word) {
            // `rep outsl` arrives as one write of many groups.
            (DATA, _) if data.len().is_multiple_of(4) => inner.append(data),
            (COMMIT, Ok(len)) => inner.commit(len),
            (MARK, Ok(mark)) => (inner.handler)(FromAgent::Mark(mark)),
            _ => log::warn!(
                "agent: write of {} bytes to port {offset:#x} ignored",
                data.len()
            ),
        }
        Flow::Continue
    }

    fn reset(&self) {
        let mut inner = lock(&self.inner);
        inner.message.clear();
        inner.overflow = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Log = Arc<Mutex<Vec<String>>>;

    fn agent_port() -> (AgentPort, Log) {
        let log = Log::default();
        let sink = log.clone();
        let handler = move |event: FromAgent<'_>| {
            sink.lock().unwrap().push(match event {
                FromAgent::Message(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                FromAgent::Mark(mark) => format!("mark {mark}"),
            });
        };
        (AgentPort::new(Box::new(handler)), log)
    }

    fn commit(port: &AgentPort, len: u32) {
        port.write(4, &len.to_le_bytes());
    }

    #[test]
    fn messages_and_marks_arrive_in_order_and_unpadded() {
        let (port, log) = agent_port();
        port.write(0, b"hell");
        port.write(8, &7u32.to_le_bytes());
        port.write(0, b"o\0\0\0");
        commit(&port, 5);
        port.write(0, b"one\0two\0");
        commit(&port, 7);
        assert_eq!(*log.lock().unwrap(), ["mark 7", "hello", "one\0two"]);
    }

    #[test]
    fn the_longest_message_passes_and_a_longer_one_is_dropped_alone() {
        let (port, log) = agent_port();
        for len in [port::MAX_MESSAGE, port::MAX_MESSAGE + 4] {
            for _ in 0..len / 4 {
                port.write(0, b"xxxx");
            }
            commit(&port, u32::try_from(len).unwrap());
        }
        port.write(0, b"next");
        commit(&port, 4);
        let lens: Vec<_> = log.lock().unwrap().iter().map(String::len).collect();
        assert_eq!(lens, [port::MAX_MESSAGE, 4]);
    }

    #[test]
    fn nonsense_from_the_guest_is_dropped() {
        let (port, log) = agent_port();
        port.write(0, b"ab");
        port.write(0, b"four");
        commit(&port, 5);
        commit(&port, u32::MAX);
        port.write(4, b"x");
        port.write(12, b"xxxx");
        assert!(log.lock().unwrap().is_empty());
    }

    #[test]
    fn a_half_sent_message_goes_on_in_a_restored_port() {
        let (first, _) = agent_port();
        first.write(0, b"half");
        let (second, log) = agent_port();
        second.restore(&first.save());
        second.write(0, b"full");
        commit(&second, 8);
        assert_eq!(*log.lock().unwrap(), ["halffull"]);
    }

    #[test]
    fn a_reset_drops_a_half_sent_message() {
        let (port, log) = agent_port();
        port.write(0, b"half");
        port.reset();
        port.write(0, b"full");
        commit(&port, 4);
        assert_eq!(*log.lock().unwrap(), ["full"]);
    }
}
