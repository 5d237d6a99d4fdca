//! Where events go.
//!
//! A sink is called under the tracer's lock, in the order of the log. It must not block on anything but its own
//! file, and must not emit events or open gates itself: that would wait for the lock it is called under.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::event::Event;

/// Takes events, in order.
pub trait Sink: Send {
    /// Keeps one event.
    ///
    /// # Errors
    /// The event could not be kept. The tracer counts it as lost and goes on.
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()>;
}

/// One JSON object per line, in a file.
///
/// Each event is one `write(2)` of a whole line: once [`Sink::record`] returns, the line survives the death of this
/// process by any signal (not a crash of the host).
#[derive(Debug)]
pub struct JsonLines {
    file: File,
    line: Vec<u8>,
}

impl JsonLines {
    /// A new file.
    ///
    /// # Errors
    /// The file exists already (a log is never overwritten) or cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::create_new(path)?))
    }

    /// Goes on where the file stands.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self {
            file,
            line: Vec::with_capacity(512),
        }
    }
}

impl Sink for JsonLines {
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event.as_ref())?;
        self.line.push(b'\n');
        self.file.write_all(&self.line)
    }
}

/// Keeps events in memory, for tests and for oracles that run beside the machine. Clones share the events.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    events: Arc<Mutex<Vec<Arc<Event>>>>,
}

impl Recording {
    /// What was recorded so far.
    #[must_use]
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What was recorded so far; forgets it.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Event>> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Recording {
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{EventKind, Tracer};

    #[test]
    fn a_line_is_in_the_file_as_soon_as_it_was_emitted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let tracer = Tracer::new();
        tracer.add_sink(Box::new(JsonLines::create(&path).unwrap()));
        tracer.emit(|| EventKind::GateOpened { gate: "g".into() });

        // The tracer is still alive: nothing was flushed by a destructor.
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Event> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(events.len(), 2, "{text}");
        assert!(matches!(events[0].kind, EventKind::LogOpened { .. }));
        assert_eq!(events[1].seq.0, 2);
    }

    #[test]
    fn a_log_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        drop(JsonLines::create(&path).unwrap());
        assert_eq!(
            JsonLines::create(&path).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
