//! The loop that reads the port and starts what is asked for.
//!
//! The reader itself writes incoming files, which go to memory and so never wait for long. What can take time
//! (commands, outgoing files) has a thread and a [`Flow`] of its own, and ends with one reply.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use pincushion_abi::nested::{Frame, Hello, Kind, Reply, Request, WireError};

use super::command::{self, Order};
use super::files::{self, FileError, Incoming, Known};
use super::flow::Flow;
use super::outbox::Outbox;

/// Why serving ended, other than by the host's wish.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The host sent what is not in the vocabulary; the stream cannot be trusted any more.
    #[error("the host's stream makes no sense")]
    Wire(#[from] WireError),
    /// The port failed.
    #[error("the port failed")]
    Port(#[from] io::Error),
    /// The host opened a channel that is open.
    #[error("channel {0} is open already")]
    ChannelInUse(u32),
    /// The host sent what only an agent says.
    #[error("the host sent a {0:?} frame")]
    WrongDirection(Kind),
}

/// Says `hello`, then serves until the host closes the stream or asks to power off. All commands are gone when
/// it returns.
///
/// `cgroups` is a directory of the control group file system in which each command gets a group; `None`: process
/// groups alone have to do.
///
/// # Errors
///
/// [`ServeError`] if the stream failed or carried nonsense.
pub fn serve(
    reader: &mut impl Read,
    writer: impl Write + Send + 'static,
    hello: &Hello,
    cgroups: Option<PathBuf>,
) -> Result<(), ServeError> {
    let mut server = Server {
        outbox: Arc::new(Outbox::new(writer)),
        flows: Arc::default(),
        incoming: HashMap::new(),
        known: Known::default(),
        cgroups,
    };
    server.outbox.send(&Frame::json(Kind::Hello, 0, hello)?)?;
    while let Some(frame) = Frame::read_from(reader)? {
        if !server.handle(&frame)? {
            break;
        }
    }
    Ok(())
}

/// Channels whose thread is at work. One lock, held for a moment, nothing else taken under it.
type Flows = Arc<Mutex<HashMap<u32, (Arc<Flow>, Option<JoinHandle<()>>)>>>;

struct Server {
    outbox: Arc<Outbox>,
    flows: Flows,
    incoming: HashMap<u32, Incoming>,
    known: Known,
    cgroups: Option<PathBuf>,
}

impl Server {
    /// Handles one frame; `false` ends the service.
    fn handle(&mut self, frame: &Frame) -> Result<bool, ServeError> {
        let channel = frame.channel;
        match frame.kind {
            Kind::Request => return self.request(channel, frame.parse()?),
            Kind::Data => self.data(frame)?,
            Kind::End => self.end(channel)?,
            // A channel that is not there has just ended; its reply is under way.
            Kind::Signal => {
                let signal = frame.parse_i32()?;
                // Or the host gives up a file that it was sending, and listens no more.
                self.incoming.remove(&channel);
                if let Some(flow) = self.flow(channel) {
                    flow.add_signal(signal);
                }
            }
            Kind::Credit => {
                let bytes = frame.parse_u32()?;
                if let Some(flow) = self.flow(channel) {
                    flow.add_credit(bytes);
                }
            }
            Kind::Hello | Kind::Reply | Kind::Entry | Kind::Stdout | Kind::Stderr => {
                return Err(ServeError::WrongDirection(frame.kind));
            }
        }
        Ok(true)
    }

    fn request(&mut self, channel: u32, request: Request) -> Result<bool, ServeError> {
        if self.flow(channel).is_some() || self.incoming.contains_key(&channel) {
            return Err(ServeError::ChannelInUse(channel));
        }
        match request {
            Request::Run { argv, env, cwd } => {
                let order = Order {
                    argv,
                    env,
                    cwd,
                    cgroups: self.cgroups.clone(),
                };
                self.spawn(channel, move |flow, outbox| {
                    command::run(&order, channel, flow, outbox)
                })?;
            }
            Request::Get { path } => self.spawn(channel, move |flow, outbox| {
                let sent = files::send_tree(&path, channel, flow, outbox);
                reply_of(sent, &format!("read {}", path.display()))
            })?,
            Request::Put {
                path,
                mode,
                len,
                digest,
            } => self.put(channel, path, mode, len, digest)?,
            Request::MakeDir { path } => {
                let made = fs::create_dir_all(&path).map_err(FileError::from);
                let reply = reply_of(made, &format!("make {}", path.display()));
                self.outbox.reply(channel, &reply)?;
            }
            Request::Remove { path } => {
                let removed = remove(&path).map_err(FileError::from);
                let reply = reply_of(removed, &format!("remove {}", path.display()));
                self.outbox.reply(channel, &reply)?;
            }
            Request::Ping => self.outbox.reply(channel, &Reply::Done)?,
            Request::PowerOff => return Ok(false),
        }
        Ok(true)
    }

    fn put(
        &mut self,
        channel: u32,
        path: PathBuf,
        mode: u32,
        len: u64,
        digest: Option<String>,
    ) -> Result<(), ServeError> {
        let what = format!("write {}", path.display());
        let reply = match self.begin(channel, path, mode, len, digest) {
            Ok(Some(incoming)) => {
                self.incoming.insert(channel, incoming);
                Reply::Send
            }
            Ok(None) => Reply::Done,
            Err(why) => reply_of(Err(why.into()), &what),
        };
        Ok(self.outbox.reply(channel, &reply)?)
    }

    /// The file to receive, or `None` if its bytes were here and are in place.
    fn begin(
        &mut self,
        channel: u32,
        path: PathBuf,
        mode: u32,
        len: u64,
        digest: Option<String>,
    ) -> io::Result<Option<Incoming>> {
        if let Some(digest) = &digest
            && self.known.place(channel, digest, &path, mode)?
        {
            return Ok(None);
        }
        Incoming::begin(channel, path, mode, len, digest).map(Some)
    }

    fn data(&mut self, frame: &Frame) -> Result<(), ServeError> {
        // A put that failed was answered; what the host sent before it heard of that is dropped.
        if let Some(incoming) = self.incoming.get(&frame.channel)
            && let Err(why) = incoming.write(frame)
        {
            self.incoming.remove(&frame.channel);
            let reply = reply_of(Err(why), "write the file");
            self.outbox.reply(frame.channel, &reply)?;
        }
        Ok(())
    }

    fn end(&mut self, channel: u32) -> Result<(), ServeError> {
        if let Some(incoming) = self.incoming.remove(&channel) {
            let finished = incoming.finish(&mut self.known).map_err(FileError::from);
            self.outbox
                .reply(channel, &reply_of(finished, "complete the file"))?;
        }
        Ok(())
    }

    /// Does `work` on a thread, then says its reply as the channel's last word.
    fn spawn(
        &mut self,
        channel: u32,
        work: impl FnOnce(&Flow, &Outbox) -> Reply + Send + 'static,
    ) -> Result<(), ServeError> {
        let flow = Arc::new(Flow::new()?);
        let (outbox, flows) = (Arc::clone(&self.outbox), Arc::clone(&self.flows));
        lock(&self.flows).insert(channel, (Arc::clone(&flow), None));
        let work = move || {
            let reply = work(&flow, &outbox);
            // Off the list before the reply: the host may use the number again as soon as it hears it.
            lock(&flows).remove(&channel);
            // An error means that the host is gone, which the reader notices too.
            let _ = outbox.reply(channel, &reply);
        };
        let thread = thread::Builder::new()
            .name(format!("channel-{channel}"))
            .spawn(work)?;
        if let Some((_, handle)) = lock(&self.flows).get_mut(&channel) {
            *handle = Some(thread);
        }
        Ok(())
    }

    fn flow(&self, channel: u32) -> Option<Arc<Flow>> {
        lock(&self.flows)
            .get(&channel)
            .map(|(flow, _)| Arc::clone(flow))
    }
}

impl Drop for Server {
    /// Ends all commands and waits until they are gone.
    fn drop(&mut self) {
        let open: Vec<_> = lock(&self.flows).drain().map(|(_, open)| open).collect();
        for (flow, _) in &open {
            flow.close();
        }
        for thread in open.into_iter().filter_map(|(_, thread)| thread) {
            // A panic in there was printed by its thread.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The tables are whole after any panic: each change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply_of(result: Result<(), FileError>, what: &str) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(why) => Reply::Failed {
            why: format!("cannot {what}: {why}"),
        },
    }
}

/// Removes whatever is at `path`.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(why) => Err(why),
    };
    match removed {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use pincushion_abi::nested::VERSION;

    use super::*;

    /// Serves `frames` to the end of the stream, with answers to nobody.
    fn served(frames: &[Frame]) -> Result<(), ServeError> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.write_to(&mut bytes).unwrap();
        }
        serve_bytes(&bytes)
    }

    fn serve_bytes(bytes: &[u8]) -> Result<(), ServeError> {
        let hello = Hello {
            version: VERSION,
            sources: String::new(),
            kernel: String::new(),
            kvm_trouble: None,
            tsc_trouble: None,
            warnings: Vec::new(),
        };
        serve(&mut &*bytes, io::sink(), &hello, None)
    }

    fn request(channel: u32, request: &Request) -> Frame {
        Frame::json(Kind::Request, channel, request).unwrap()
    }

    fn endless(channel: u32) -> Frame {
        let run = Request::Run {
            argv: vec!["sleep".into(), "1000".into()],
            env: Default::default(),
            cwd: "/".into(),
        };
        request(channel, &run)
    }

    #[test]
    fn what_runs_when_the_host_goes_is_ended() {
        served(&[endless(1), endless(2)]).unwrap();
    }

    #[test]
    fn a_stream_that_makes_no_sense_ends_the_service_and_what_runs() {
        let mut bytes = Vec::new();
        endless(1).write_to(&mut bytes).unwrap();
        bytes.extend_from_slice(b"\x63pin nonsense");
        let error = serve_bytes(&bytes).unwrap_err();
        assert!(
            matches!(error, ServeError::Wire(WireError::Kind(0x63))),
            "{error}"
        );
    }

    #[test]
    fn requests_that_cannot_be_read_are_refused() {
        for json in [
            "",
            "{}",
            r#"{"do":"fly"}"#,
            r#"{"do":"get","path":"/","more":1}"#,
        ] {
            let frame = Frame::new(Kind::Request, 1, json.into());
            let error = served(&[frame]).unwrap_err();
            assert!(matches!(error, ServeError::Wire(_)), "{json}: {error}");
        }
    }

    #[test]
    fn a_channel_is_opened_once() {
        let error = served(&[endless(7), endless(7)]).unwrap_err();
        assert!(matches!(error, ServeError::ChannelInUse(7)), "{error}");
    }

    #[test]
    fn only_an_agent_says_what_an_agent_says() {
        for kind in [
            Kind::Hello,
            Kind::Reply,
            Kind::Entry,
            Kind::Stdout,
            Kind::Stderr,
        ] {
            let error = served(&[Frame::new(kind, 1, Vec::new())]).unwrap_err();
            assert!(matches!(error, ServeError::WrongDirection(_)), "{error}");
        }
    }

    #[test]
    fn words_for_a_channel_that_is_gone_are_not_heard() {
        let number = 9_i32.to_le_bytes().to_vec();
        served(&[
            Frame::new(Kind::Data, 1, vec![0; 8]),
            Frame::new(Kind::End, 1, Vec::new()),
            Frame::new(Kind::Signal, 1, number.clone()),
            Frame::new(Kind::Credit, 1, number),
        ])
        .unwrap();
    }

    #[test]
    fn a_file_that_was_not_completed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let put = Request::Put {
            path: dir.path().join("file"),
            mode: 0o644,
            len: 4,
            digest: None,
        };
        let outside = Frame::new(Kind::Data, 1, vec![0; 8 + 5]);
        served(&[request(1, &put), outside]).unwrap();
        served(&[request(1, &put)]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
