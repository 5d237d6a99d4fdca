//! Where marks and reports leave the guest.
//!
//! [`Port`] is the seam: the I/O ports of [`pincushion_abi::port`] in a pincushion machine, lines on
//! the serial port in any other, a list in tests. Reports of several threads do not mix; marks need
//! no lock and may come in the midst of another thread's report.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use pincushion_abi::report::{Outcome, Report};
use pincushion_abi::{Fault, port};
use serde_json::json;

use crate::sys::ioport;

/// Which end of a step a mark tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The step's system call comes next.
    Begin,
    /// The step's system call has returned.
    End,
}

/// The way out of the guest.
pub trait Port: Send + Sync {
    /// Tells that step `id` begins or has ended. Takes no lock: a forked child may call it.
    fn mark(&self, id: u32, phase: Phase);
    /// Sends a report. Waits for another thread's report to be through.
    fn report(&self, report: &Report);
    /// Takes the lock of [`Port::report`] and never gives it back: no report leaves any more.
    fn seize(&self);
}

/// The ports of [`pincushion_abi::port`].
pub struct IoPorts {
    lock: Mutex<()>,
}

impl IoPorts {
    /// Gets leave to use the ports, for this thread and all it makes later.
    pub fn open() -> Result<Self, crate::fault::Errno> {
        ioport::allow()?;
        Ok(Self {
            lock: Mutex::new(()),
        })
    }
}

impl Port for IoPorts {
    fn mark(&self, id: u32, phase: Phase) {
        ioport::outl(port::MARK, mark_word(id, phase));
    }

    fn report(&self, report: &Report) {
        let message = serialise(report);
        let words: Vec<u32> = words(&message).collect();
        let len = u32::try_from(message.len()).expect("serialise keeps messages below MAX_MESSAGE");
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        for word in words {
            ioport::outl(port::DATA, word);
        }
        ioport::outl(port::COMMIT, len);
    }

    fn seize(&self) {
        std::mem::forget(self.lock.lock());
    }
}

/// JSON lines on a serial port. A line is one `write(2)`, which the tty layer does not mix with
/// another thread's or process's.
pub struct SerialLines {
    lock: Mutex<()>,
    tty: File,
}

impl SerialLines {
    /// Writes to `tty`, which is set to raw mode already.
    pub fn new(tty: File) -> Self {
        Self {
            lock: Mutex::new(()),
            tty,
        }
    }

    fn line(&self, mut bytes: Vec<u8>) {
        bytes.push(b'\n');
        if let Err(error) = (&self.tty).write_all(&bytes) {
            crate::console(&format!("a report could not be written to ttyS1: {error}"));
        }
    }
}

impl Port for SerialLines {
    fn mark(&self, id: u32, phase: Phase) {
        let phase = match phase {
            Phase::Begin => "begin",
            Phase::End => "end",
        };
        self.line(
            json!({"mark": {"id": id, "phase": phase}})
                .to_string()
                .into_bytes(),
        );
    }

    fn report(&self, report: &Report) {
        let message = serialise(report);
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.line(message);
    }

    fn seize(&self) {
        std::mem::forget(self.lock.lock());
    }
}

/// The value of one mark: `id << 1 | phase`.
fn mark_word(id: u32, phase: Phase) -> u32 {
    let phase = match phase {
        Phase::Begin => port::PHASE_BEGIN,
        Phase::End => port::PHASE_END,
    };
    id << 1 | phase
}

/// A message in groups of four bytes, little endian, the last padded with zeros.
fn words(message: &[u8]) -> impl Iterator<Item = u32> {
    message.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(word)
    })
}

/// JSON of a report. One that the host would drop for its length is replaced by a short one that
/// says so, since a host that waits for `done` must get it.
fn serialise(report: &Report) -> Vec<u8> {
    let bytes = serde_json::to_vec(report).expect("reports hold only texts and numbers");
    if bytes.len() <= port::MAX_MESSAGE {
        return bytes;
    }
    let text = format!(
        "the report of {} bytes is longer than a message may be ({})",
        bytes.len(),
        port::MAX_MESSAGE
    );
    let short = match report {
        Report::Done {
            id,
            began_ns,
            ended_ns,
            ..
        } => Report::Done {
            id: *id,
            outcome: Outcome::Failed(Fault {
                call: "report".into(),
                errno: 0,
                name: text,
            }),
            began_ns: *began_ns,
            ended_ns: *ended_ns,
        },
        Report::Refused { id, .. } => Report::Refused {
            id: *id,
            reason: text,
        },
        Report::Hello { .. } | Report::Note { .. } => Report::Note { text },
    };
    serde_json::to_vec(&short).expect("reports hold only texts and numbers")
}

/// Collects what would leave the guest.
#[cfg(test)]
#[derive(Default)]
pub struct Collector {
    sent: Mutex<Vec<Sent>>,
    arrived: std::sync::Condvar,
}

/// One thing that a [`Collector`] got.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Mark(u32, Phase),
    Report(Report),
}

#[cfg(test)]
impl Collector {
    /// All so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    /// Waits, at most ten seconds, until `count` reports came.
    pub fn wait_for_reports(&self, count: usize) -> Vec<Report> {
        let reports = |sent: &Vec<Sent>| -> Vec<Report> {
            let report = |one: &Sent| match one {
                Sent::Report(report) => Some(report.clone()),
                Sent::Mark(..) => None,
            };
            sent.iter().filter_map(report).collect()
        };
        let guard = self.sent.lock().unwrap();
        let limit = std::time::Duration::from_secs(10);
        let (guard, result) = self
            .arrived
            .wait_timeout_while(guard, limit, |sent| reports(sent).len() < count)
            .unwrap();
        assert!(
            !result.timed_out(),
            "waited for {count} reports, got {:?}",
            *guard
        );
        reports(&guard)
    }

    fn push(&self, one: Sent) {
        self.sent.lock().unwrap().push(one);
        self.arrived.notify_all();
    }
}

#[cfg(test)]
impl Port for Collector {
    fn mark(&self, id: u32, phase: Phase) {
        self.push(Sent::Mark(id, phase));
    }

    fn report(&self, report: &Report) {
        self.push(Sent::Report(report.clone()));
    }

    fn seize(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_in_little_endian_groups_of_four_with_a_padded_tail() {
        assert_eq!(words(b"abcde").collect::<Vec<_>>(), [0x6463_6261, 0x65]);
    }

    #[test]
    fn a_mark_carries_its_phase_in_the_lowest_bit() {
        assert_eq!(mark_word(5, Phase::Begin), 10);
        assert_eq!(mark_word(5, Phase::End), 11);
        assert_eq!(mark_word((1 << 31) - 1, Phase::End), u32::MAX);
    }

    #[test]
    fn a_report_too_long_for_a_message_becomes_a_short_one_for_the_same_step() {
        let report = Report::Done {
            id: 9,
            outcome: Outcome::Ok([("text".to_owned(), "x".repeat(70_000).into_value())].into()),
            began_ns: 1,
            ended_ns: 2,
        };
        let bytes = serialise(&report);
        assert!(bytes.len() < 1000);
        let Report::Done {
            id: 9,
            outcome: Outcome::Failed(fault),
            ..
        } = serde_json::from_slice(&bytes).unwrap()
        else {
            panic!("not a failed done: {}", String::from_utf8_lossy(&bytes));
        };
        assert!(
            fault.name.contains("longer than a message"),
            "{}",
            fault.name
        );
    }

    trait IntoValue {
        fn into_value(self) -> pincushion_abi::Value;
    }

    impl IntoValue for String {
        fn into_value(self) -> pincushion_abi::Value {
            pincushion_abi::Value::Text(self)
        }
    }
}
