//! Reads an event log line by line.
//!
//! Promises: events come in strictly ascending order of `seq`, and the log's version is ours. A last line without its line feed that is
//! not valid JSON is the mark of a machine that was killed while it wrote: reading ends there without an error, and [`Reader::torn`] says so.
//! Anything else that is wrong is an error with its line number.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use pincushion_devices::trace::event::{Event, EventKind, Seq, VERSION};
use serde::Deserialize;

use super::plausible;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("cannot open the event log {}", path.display())]
    Open {
        /// Where it should be.
        path: PathBuf,
        /// The host's reason.
        source: std::io::Error,
    },
    /// The host could not read on.
    #[error("cannot read line {line} of the event log")]
    Read {
        /// From 1.
        line: u64,
        /// The host's reason.
        source: std::io::Error,
    },
    /// A whole line that is not an event.
    #[error("line {line} of the event log is not an event")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The order is broken.
    #[error("line {line} of the event log has seq {seq} after {previous}: the order is broken")]
    Order {
        /// From 1.
        line: u64,
        /// Its number.
        seq: u64,
        /// The number before it.
        previous: u64,
    },
    /// Nothing that a machine can have logged.
    #[error("line {line} of the event log is damaged: {defect}")]
    Impossible {
        /// From 1.
        line: u64,
        /// What is impossible about it.
        defect: &'static str,
    },
    /// The first line is not `log-opened`.
    #[error("the event log does not begin with a log-opened event")]
    NoOpening,
    /// Another vocabulary.
    #[error(
        "the event log has version {found}, this judge knows version {VERSION}: judge it with the pincushion that made it"
    )]
    Version {
        /// What the log says.
        found: u32,
    },
}

/// An iterator over the events of a log.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    text: Vec<u8>,
    line: u64,
    previous: u64,
    ended: bool,
    torn: bool,
}

/// The fields that each line has. Read apart from the event's own, since two passes over a borrowed line take half the time of one
/// through serde's flattening buffer.
#[derive(Deserialize)]
struct Place {
    seq: Seq,
    time_ns: u64,
}

impl Reader<BufReader<File>> {
    /// Opens a log.
    ///
    /// # Errors
    /// [`ReadError::Open`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(BufReader::with_capacity(1 << 16, file)))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from anything.
    pub fn new(input: R) -> Self {
        Self {
            input,
            text: Vec::new(),
            line: 0,
            previous: 0,
            ended: false,
            torn: false,
        }
    }

    /// Whether the log ended in the middle of a line.
    pub fn torn(&self) -> bool {
        self.torn
    }

    fn read(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            self.text.clear();
            self.line += 1;
            let line = self.line;
            let read = self.input.read_until(b'\n', &mut self.text);
            read.map_err(|source| ReadError::Read { line, source })?;
            if self.text.is_empty() {
                return if self.previous == 0 && !self.torn {
                    Err(ReadError::NoOpening)
                } else {
                    Ok(None)
                };
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            return match parse(&self.text) {
                Ok(event) => self.check(event).map(Some),
                Err(_) if self.text.last() != Some(&b'\n') => {
                    self.torn = true;
                    Ok(None)
                }
                Err(source) => Err(ReadError::Line { line, source }),
            };
        }
    }

    fn check(&mut self, event: Event) -> Result<Event, ReadError> {
        let Seq(seq) = event.seq;
        let first = self.previous == 0;
        match event.kind {
            EventKind::LogOpened { version } if version != VERSION => {
                return Err(ReadError::Version { found: version });
            }
            EventKind::LogOpened { .. } => {}
            _ if first => return Err(ReadError::NoOpening),
            _ => {}
        }
        if seq <= self.previous {
            return Err(ReadError::Order {
                line: self.line,
                seq,
                previous: self.previous,
            });
        }
        if let Some(defect) = plausible::defect(&event.kind) {
            let line = self.line;
            return Err(ReadError::Impossible { line, defect });
        }
        self.previous = seq;
        Ok(event)
    }
}

fn parse(line: &[u8]) -> Result<Event, serde_json::Error> {
    let Place { seq, time_ns } = serde_json::from_slice(line)?;
    let kind = serde_json::from_slice(line)?;
    Ok(Event { seq, time_ns, kind })
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: &str = r#"{"seq":1,"time_ns":0,"event":"log-opened","version":1}"#;
    const GATE: &str = r#"{"seq":3,"time_ns":9,"event":"gate-opened","gate":"read"}"#;

    fn read(text: &str) -> (Vec<Event>, bool, Option<String>) {
        let mut reader = Reader::new(text.as_bytes());
        let mut events = Vec::new();
        let mut error = None;
        for item in reader.by_ref() {
            match item {
                Ok(event) => events.push(event),
                Err(found) => error = Some(found.to_string()),
            }
        }
        (events, reader.torn(), error)
    }

    #[test]
    fn events_come_as_they_were_written() {
        let (events, torn, error) = read(&format!("{OPENED}\n{GATE}\n"));
        assert_eq!((events.len(), torn, error), (2, false, None));
        assert_eq!(
            events[1],
            serde_json::from_str::<Event>(GATE).expect("an event")
        );
    }

    #[test]
    fn a_torn_last_line_ends_the_log_and_is_told() {
        let (events, torn, error) = read(&format!("{OPENED}\n{GATE}\n{{\"seq\":4,\"time"));
        assert_eq!((events.len(), torn, error), (2, true, None));
    }

    #[test]
    fn a_bad_line_in_the_middle_is_named_by_its_number() {
        let (events, _, error) = read(&format!("{OPENED}\nnonsense\n{GATE}\n"));
        assert_eq!(events.len(), 1);
        assert_eq!(
            error.as_deref(),
            Some("line 2 of the event log is not an event")
        );
    }

    #[test]
    fn a_number_that_does_not_ascend_is_refused() {
        let (_, _, error) = read(&format!("{OPENED}\n{GATE}\n{GATE}\n"));
        let error = error.expect("refused");
        assert!(
            error.starts_with("line 3 of the event log has seq 3 after 3"),
            "{error}"
        );
    }

    #[test]
    fn another_version_and_a_missing_opening_are_refused() {
        let (_, _, error) = read(&OPENED.replace("\"version\":1", "\"version\":2"));
        assert!(error.expect("refused").contains("version 2"));
        for text in ["", "\n", GATE] {
            let (_, _, error) = read(text);
            assert!(error.expect("refused").contains("log-opened"), "{text:?}");
        }
    }
}
