//! The host's end of the stream: one reader thread that hands frames to the channels they belong to.
//!
//! The reader never waits for a channel: what a slow channel has not taken is bounded by the credit it gave
//! ([`WINDOW`]). Writers take turns; a machine that stops reading makes them fail after [`WRITE_LIMIT`].

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pincushion_abi::nested::{Frame, Hello, Kind, Reply, Request, WINDOW, WireError};

use super::error::{NestedError, host};
use crate::lock::lock;

/// How long the machine may leave a full socket unread before it counts as hung.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// The conversation with one agent.
pub(super) struct Session {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    /// For writing whole frames. Taken alone.
    writer: Mutex<UnixStream>,
    /// Held for a moment; nothing else is taken under it.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<u32, Open>,
    last: u32,
    /// Set when the stream has ended, with the reason if it was a bad one.
    ended: Option<Option<String>>,
}

struct Open {
    sender: mpsc::Sender<Frame>,
    /// Whether a command runs in it: only these get the user's signals.
    is_command: bool,
}

/// Why there is no next frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The deadline is over.
    Deadline,
    /// The stream has ended; the reason if it made no sense.
    Gone(Option<String>),
}

impl Session {
    /// Takes the stream. The agent's hello arrives on the channel that is returned beside it.
    pub(super) fn begin(stream: UnixStream) -> Result<(Self, mpsc::Receiver<Frame>), NestedError> {
        stream
            .set_write_timeout(Some(WRITE_LIMIT))
            .map_err(host("limit the time of a write"))?;
        let reading = stream.try_clone().map_err(host("share a socket"))?;
        let (sender, greeting) = mpsc::channel();
        let hello = Open {
            sender,
            is_command: false,
        };
        let shared = Arc::new(Shared {
            writer: Mutex::new(stream),
            table: Mutex::new(Table {
                open: HashMap::from([(0, hello)]),
                ..Table::default()
            }),
        });
        let for_reader = Arc::clone(&shared);
        let reader = thread::Builder::new()
            .name("nested-reader".to_owned())
            .spawn(move || for_reader.read(reading))
            .map_err(host("start a thread"))?;
        let session = Self {
            shared,
            reader: Some(reader),
        };
        Ok((session, greeting))
    }

    /// Opens a channel with a request.
    pub(super) fn open(&self, request: &Request) -> Result<Channel, Trouble> {
        let (sender, inbox) = mpsc::channel();
        let id = {
            let mut table = lock(&self.shared.table);
            if let Some(why) = &table.ended {
                return Err(Trouble::Silence(Silence::Gone(why.clone())));
            }
            table.last += 1;
            let id = table.last;
            let is_command = matches!(request, Request::Run { .. });
            table.open.insert(id, Open { sender, is_command });
            id
        };
        let channel = Channel {
            id,
            shared: Arc::clone(&self.shared),
            inbox,
            taken: 0,
            is_over: false,
        };
        channel.send(&Frame::json(Kind::Request, id, request)?)?;
        Ok(channel)
    }

    /// A handle by which another thread can signal all that runs.
    pub(super) fn signaller(&self) -> Signaller {
        Signaller(Arc::clone(&self.shared))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The reader sees the end of the stream. An error says that it has ended already.
        let _ = lock(&self.shared.writer).shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            // A panic in there was printed by its thread.
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn read(&self, stream: UnixStream) {
        let mut stream = io::BufReader::with_capacity(256 << 10, stream);
        let reason = loop {
            match Frame::read_from(&mut stream) {
                Ok(Some(frame)) => {
                    let table = lock(&self.table);
                    // A channel that was given up gets no more; nor does one that never was.
                    if let Some(channel) = table.open.get(&frame.channel) {
                        let _ = channel.sender.send(frame);
                    }
                }
                Ok(None) | Err(WireError::Io(_)) => break None,
                Err(why) => break Some(why.to_string()),
            }
        };
        let mut table = lock(&self.table);
        table.ended = Some(reason);
        table.open.clear();
    }

    fn send(&self, frame: &Frame) -> Result<(), Silence> {
        let mut writer = lock(&self.writer);
        frame.write_to(&mut *writer).map_err(|why| {
            // Half a frame may be out: the stream is of no use any more, for anybody.
            let _ = writer.shutdown(Shutdown::Both);
            let timed_out = why.kind() == io::ErrorKind::WouldBlock;
            Silence::Gone(timed_out.then(|| {
                let limit = WRITE_LIMIT.as_secs();
                format!("it stopped reading for {limit} s")
            }))
        })
    }
}

/// What ends a conversation early: the stream, or a message that cannot be read or said.
#[derive(Debug)]
pub(super) enum Trouble {
    Silence(Silence),
    Wire(WireError),
}

impl From<Silence> for Trouble {
    fn from(silence: Silence) -> Self {
        Self::Silence(silence)
    }
}

impl From<WireError> for Trouble {
    fn from(why: WireError) -> Self {
        Self::Wire(why)
    }
}

/// One conversation. Dropped before its last reply, it is called off: a command is killed, a transfer given up.
pub(super) struct Channel {
    id: u32,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Frame>,
    /// Bytes taken since credit was last given.
    taken: u32,
    is_over: bool,
}

impl Channel {
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn send(&self, frame: &Frame) -> Result<(), Silence> {
        self.shared.send(frame)
    }

    /// Waits for the next frame; without a deadline, for as long as the machine lives.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Result<Frame, Silence> {
        let frame = match deadline {
            None => self
                .inbox
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(deadline) => self
                .inbox
                .recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        frame.map_err(|why| match why {
            mpsc::RecvTimeoutError::Timeout => Silence::Deadline,
            mpsc::RecvTimeoutError::Disconnected => {
                Silence::Gone(lock(&self.shared.table).ended.clone().flatten())
            }
        })
    }

    /// Waits for a reply. Anything else is a mistake of the agent.
    pub(super) fn reply(&mut self, deadline: Instant) -> Result<Reply, Trouble> {
        let frame = self.next(Some(deadline))?;
        self.read_reply(&frame)
    }

    /// Reads a frame that has to be a reply, and notes if it was the last one.
    pub(super) fn read_reply(&mut self, frame: &Frame) -> Result<Reply, Trouble> {
        if frame.kind != Kind::Reply {
            return Err(unexpected(frame));
        }
        let reply = frame.parse()?;
        self.is_over = reply != Reply::Send;
        Ok(reply)
    }

    /// Says that `len` bytes were used, and gives new credit when a good part of the window is gone.
    pub(super) fn took(&mut self, len: usize) -> Result<(), Silence> {
        self.taken += u32::try_from(len).expect("a frame is short");
        if self.taken >= WINDOW / 4 {
            let credit = std::mem::take(&mut self.taken).to_le_bytes().to_vec();
            self.send(&Frame::new(Kind::Credit, self.id, credit))?;
        }
        Ok(())
    }

    /// Sends a signal to the command's process group.
    pub(super) fn signal(&self, number: i32) -> Result<(), Silence> {
        self.send(&signal_frame(self.id, number))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let ended = {
            let mut table = lock(&self.shared.table);
            table.open.remove(&self.id);
            table.ended.is_some()
        };
        if self.is_over || ended {
            return;
        }
        let endless = Frame::new(Kind::Credit, self.id, u32::MAX.to_le_bytes().to_vec());
        // Nobody listens any more, so the agent may say the rest to nobody. If it cannot hear this it is gone anyway.
        let _ = self
            .signal(rustix::process::Signal::KILL.as_raw())
            .and_then(|()| self.send(&endless));
    }
}

/// A frame that does not belong where it came.
pub(super) fn unexpected(frame: &Frame) -> Trouble {
    Trouble::Wire(WireError::Payload {
        kind: frame.kind,
        len: frame.payload.len(),
        why: "it does not belong here".to_owned(),
    })
}

fn signal_frame(channel: u32, number: i32) -> Frame {
    Frame::new(Kind::Signal, channel, number.to_le_bytes().to_vec())
}

/// Sends signals to the commands of a nested machine, from any thread. It does not keep the machine alive.
#[derive(Clone)]
pub struct Signaller(Arc<Shared>);

impl Signaller {
    /// Sends signal `number` to every command that runs in the machine. A machine that is gone hears nothing.
    pub fn signal_all(&self, number: i32) {
        let commands: Vec<u32> = {
            let table = lock(&self.0.table);
            let commands = table.open.iter().filter(|(_, open)| open.is_command);
            commands.map(|(channel, _)| *channel).collect()
        };
        for channel in commands {
            let _ = self.0.send(&signal_frame(channel, number));
        }
    }
}

/// Reads the agent's first word.
pub(super) fn read_hello(frame: &Frame) -> Result<Hello, Trouble> {
    match frame.kind {
        Kind::Hello => Ok(frame.parse()?),
        _ => Err(unexpected(frame)),
    }
}
