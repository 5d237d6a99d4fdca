//! The guest's console: what it writes to the first serial port, and what the user types.
//!
//! Output goes to any number of sinks. On its way every line is looked at for the words of a kernel panic, the
//! primary sign of one: it needs nothing in the guest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use pincushion_devices::console::ConsoleInput;

use crate::machine::event::MachineEvent;
use crate::platform::uart::Output;

/// Longest line that is kept together; a longer one is cut into several.
const MAX_LINE: usize = 4096;

/// Why a console cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The output file could not be created.
    #[error("cannot create console file {path}: {source}")]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Where a console's output goes and whether the user types into it.
#[derive(Default)]
pub struct Console {
    pub(crate) sinks: Vec<Sink>,
    pub(crate) input: Input,
    pub(crate) typed_into: Option<ConsoleInput>,
}

/// Where what is typed comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nowhere.
    #[default]
    None,
    /// Standard input, a terminal in raw mode.
    Terminal,
}

type ByteSink = Box<dyn FnMut(&[u8]) + Send>;
type LineSink = Box<dyn FnMut(&str) + Send>;

pub(crate) enum Sink {
    File(BufWriter<File>),
    Stdout,
    /// Standard output, after its reader has gone.
    Unread,
    Bytes(ByteSink),
    Lines(LineSink),
}

impl Console {
    /// A console that nobody reads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also writes to the file at `path`, which is created or emptied.
    ///
    /// # Errors
    /// Where the file cannot be created.
    pub fn to_file(mut self, path: &Path) -> Result<Self, ConsoleError> {
        let file = File::create(path).map_err(|source| ConsoleError::Create {
            path: path.to_owned(),
            source,
        })?;
        self.sinks.push(Sink::File(BufWriter::new(file)));
        Ok(self)
    }

    /// Also writes to standard output, byte by byte. Standard input is left alone.
    #[must_use]
    pub fn to_stdout(mut self) -> Self {
        self.sinks.push(Sink::Stdout);
        self
    }

    /// Uses the terminal: output to standard output, and standard input in raw mode to the guest, where Ctrl-A x
    /// stops the machine. Without a terminal on standard input nothing is read.
    #[must_use]
    pub fn on_terminal(self) -> Self {
        Self {
            input: Input::Terminal,
            ..self.to_stdout()
        }
    }

    /// Uses the terminal's input for a virtio console instead, which writes to standard output itself.
    #[must_use]
    pub fn typed_into(self, console: ConsoleInput) -> Self {
        Self {
            input: Input::Terminal,
            typed_into: Some(console),
            ..self
        }
    }

    /// Also calls `sink` with the bytes as they come, on the vCPU's thread.
    #[must_use]
    pub fn to_bytes(mut self, sink: impl FnMut(&[u8]) + Send + 'static) -> Self {
        self.sinks.push(Sink::Bytes(Box::new(sink)));
        self
    }

    /// Also calls `sink` with each line, without its end, on the vCPU's thread. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn to_lines(mut self, sink: impl FnMut(&str) + Send + 'static) -> Self {
        self.sinks.push(Sink::Lines(Box::new(sink)));
        self
    }
}

/// The guest's side of a [`Console`].
pub(crate) struct ConsoleOutput {
    sinks: Vec<Sink>,
    line: Vec<u8>,
    events: Sender<MachineEvent>,
}

impl ConsoleOutput {
    pub(crate) fn new(sinks: Vec<Sink>, events: Sender<MachineEvent>) -> Self {
        Self {
            sinks,
            line: Vec::new(),
            events,
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches('\r');
        for sink in &mut self.sinks {
            match sink {
                Sink::Lines(call) => call(line),
                Sink::File(file) => report(file.flush()),
                Sink::Stdout | Sink::Unread | Sink::Bytes(_) => {}
            }
        }
        if let Some(event) = panic_event(line) {
            // A closed channel means that the machine is being taken down.
            let _ = self.events.send(event);
        }
        self.line = bytes;
        self.line.clear();
    }
}

impl Output for ConsoleOutput {
    fn write(&mut self, bytes: &[u8]) {
        for sink in &mut self.sinks {
            match sink {
                Sink::File(file) => report(file.write_all(bytes)),
                Sink::Stdout => {
                    let mut stdout = io::stdout().lock();
                    let result = stdout.write_all(bytes).and_then(|()| stdout.flush());
                    if is_unread(&result) {
                        log::warn!("console: nobody reads it any more; the guest goes on");
                        *sink = Sink::Unread;
                    } else {
                        report(result);
                    }
                }
                Sink::Unread => {}
                Sink::Bytes(call) => call(bytes),
                Sink::Lines(_) => {}
            }
        }
        for &byte in bytes {
            if byte == b'\n' || self.line.len() == MAX_LINE {
                self.end_line();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    fn reset(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

impl Drop for ConsoleOutput {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A console that cannot be written must not stop the guest; it is said once per failure in the log.
fn report(result: io::Result<()>) {
    if let Err(error) = result {
        log::error!("console: output lost: {error}");
    }
}

/// Whether this was the write of one to whom nobody listens (`| head`).
fn is_unread(result: &io::Result<()>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// What a console line says about a kernel panic. Linux prints a first line with the reason, then the stack, then an end
/// line (`panic()` in kernel/panic.c), each after an optional time stamp in brackets.
fn panic_event(line: &str) -> Option<MachineEvent> {
    const BEGIN: &str = "Kernel panic - not syncing: ";
    const END: &str = "---[ end Kernel panic - not syncing";
    let text = match line.strip_prefix('[') {
        Some(stamped) => stamped.split_once("] ")?.1,
        None => line,
    };
    if let Some(message) = text.strip_prefix(BEGIN) {
        return Some(MachineEvent::PanicBegan(message.to_owned()));
    }
    text.starts_with(END).then_some(MachineEvent::PanicEnded)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_panic_is_recognised_with_and_without_a_time_stamp() {
        let message = |line| match panic_event(line) {
            Some(MachineEvent::PanicBegan(message)) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            message("[    0.5] Kernel panic - not syncing: VFS: no root"),
            "VFS: no root"
        );
        assert_eq!(message("Kernel panic - not syncing: x"), "x");
        assert!(matches!(
            panic_event("[ 1.0] ---[ end Kernel panic - not syncing: x ]---"),
            Some(MachineEvent::PanicEnded)
        ));
    }

    #[test]
    fn words_inside_a_line_are_no_panic() {
        assert!(panic_event("echo Kernel panic - not syncing: x").is_none());
        assert!(panic_event("[ 1.0] Command line: panic=-1").is_none());
        assert!(panic_event("").is_none());
    }

    #[test]
    fn lines_come_without_their_ends_and_the_last_one_too() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        let console =
            Console::new().to_lines(move |line| seen.lock().unwrap().push(line.to_owned()));
        let (sender, _receiver) = channel();
        let mut output = ConsoleOutput::new(console.sinks, sender);
        output.write(b"one\r\ntwo\n\xff");
        output.write(b"three");
        drop(output);
        assert_eq!(*lines.lock().unwrap(), ["one", "two", "\u{fffd}three"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let count = Arc::new(Mutex::new(0));
        let seen = count.clone();
        let console = Console::new().to_lines(move |line| {
            assert!(line.len() <= MAX_LINE);
            *seen.lock().unwrap() += 1;
        });
        let (sender, _receiver) = channel();
        let mut output = ConsoleOutput::new(console.sinks, sender);
        output.write(&vec![b'x'; 3 * MAX_LINE]);
        drop(output);
        assert_eq!(*count.lock().unwrap(), 3);
    }
}
