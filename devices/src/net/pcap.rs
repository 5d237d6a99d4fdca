//! Frames from a capture file, and what the guest sends into another one.
//!
//! The file is read whole when the port is made, so that a wrong one is refused with the offset of what is wrong, before any guest
//! runs. Frames come as fast as receive buffers are posted, to the first queue pair; their times are ignored. Only the classic format
//! with Ethernet frames is read; `editcap -F pcap` and `tcpdump -r IN -w OUT` make it of others.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pcap_file::pcap::{PcapPacket, PcapParser, PcapWriter};
use pcap_file::{DataLink, PcapError};

use super::checksum;
use super::header::Header;
use super::pattern::{Script, Sink};
use super::port::{MAX_FRAME, Port, Receiver, Sender};

/// Why a capture file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It could not be read.
    #[error("{}: cannot read it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no capture, or broken.
    #[error("{}: at byte {offset}: {problem}", path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// Where in it.
        offset: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The recording could not be made.
    #[error("{}: cannot record into it", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

type Recorder = Arc<Mutex<PcapWriter<BufWriter<File>>>>;

/// The port.
pub struct Capture {
    frames: Arc<[Vec<u8>]>,
    recorder: Option<Recorder>,
}

impl Capture {
    /// Reads `path`, and begins to record into the new file `record`.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open(path: &Path, record: Option<&Path>) -> Result<Self, CaptureError> {
        let bytes = std::fs::read(path).map_err(|source| CaptureError::Read {
            path: path.to_owned(),
            source,
        })?;
        let frames = frames(&bytes).map_err(|(offset, problem)| CaptureError::Broken {
            path: path.to_owned(),
            offset,
            problem,
        })?;
        let recorder = record
            .map(|record| {
                recorder(record).map_err(|source| CaptureError::Record {
                    path: record.to_owned(),
                    source,
                })
            })
            .transpose()?;
        Ok(Self {
            frames: frames.into(),
            recorder,
        })
    }

    /// How many frames will come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame will come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

fn recorder(path: &Path) -> io::Result<Recorder> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let writer = PcapWriter::new(BufWriter::new(file)).map_err(io::Error::other)?;
    Ok(Arc::new(Mutex::new(writer)))
}

/// All frames of a capture, or where it is broken and how.
fn frames(bytes: &[u8]) -> Result<Vec<Vec<u8>>, (usize, String)> {
    let (mut left, parser) = PcapParser::new(bytes).map_err(|error| (0, in_words(&error)))?;
    let link = parser.header().datalink;
    if link != DataLink::ETHERNET {
        return Err((20, format!("the frames are {link:?}, not ETHERNET")));
    }
    let mut frames = Vec::new();
    while !left.is_empty() {
        let offset = bytes.len() - left.len();
        let packet = parser.next_packet(left);
        let (rest, packet) = packet.map_err(|error| (offset, in_words(&error)))?;
        let len = packet.data.len();
        if !(14..=MAX_FRAME).contains(&len) {
            let problem = format!("a frame has {len} bytes: 14 to {MAX_FRAME} are possible");
            return Err((offset, problem));
        }
        frames.push(packet.data.into_owned());
        left = rest;
    }
    Ok(frames)
}

fn in_words(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => "the file ends in the middle of a record".into(),
        PcapError::InvalidField(what) => {
            format!("{what}; only the classic pcap format is read (`editcap -F pcap` makes it)")
        }
        other => other.to_string(),
    }
}

/// Writes what is sent into the recording.
struct Recording(Recorder);

impl Sender for Recording {
    fn send(&mut self, header: Header, frame: &mut [u8]) -> io::Result<()> {
        checksum::complete(header, frame);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let packet = PcapPacket::new(now.unwrap_or_default(), len, frame);
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer.write_packet(&packet);
        written.map(|_| ()).map_err(io::Error::other)
    }
}

impl Port for Capture {
    fn pair(&mut self, index: u16) -> io::Result<(Box<dyn Sender>, Box<dyn Receiver>)> {
        let frames = self.frames.clone();
        let count = if index == 0 { frames.len() } else { 0 };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let script = Script::new(count, move |index, frame: &mut Vec<u8>| {
            if let Some(next) = frames.get(index as usize) {
                frame.extend_from_slice(next);
            }
        })?;
        let sender: Box<dyn Sender> = match &self.recorder {
            Some(recorder) => Box::new(Recording(recorder.clone())),
            None => Box::new(Sink),
        };
        Ok((sender, Box::new(script)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        for frame in frames {
            let len = u32::try_from(frame.len()).unwrap();
            let packet = PcapPacket::new(std::time::Duration::ZERO, len, frame);
            writer.write_packet(&packet).unwrap();
        }
        writer.into_writer()
    }

    fn refusal(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.pcap");
        std::fs::write(&path, bytes).unwrap();
        let refused = Capture::open(&path, None).map(|capture| capture.len());
        let said = refused.unwrap_err().to_string();
        said.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn frames_come_in_order_and_what_is_sent_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (path, record) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        std::fs::write(&path, capture(&[&[1; 60], &[2; 1514]])).unwrap();
        let mut port = Capture::open(&path, Some(&record)).unwrap();
        let (mut sender, mut receiver) = port.pair(0).unwrap();
        let mut frame = Vec::new();
        for expected in [vec![1; 60], vec![2; 1514]] {
            receiver.receive(&mut frame).unwrap().unwrap();
            assert_eq!(frame, expected);
        }
        assert_eq!(receiver.receive(&mut frame).unwrap(), None);
        sender.send(Header::default(), &mut [3; 60]).unwrap();
        drop((sender, port));
        let recorded = Capture::open(&record, None).unwrap();
        assert_eq!(recorded.frames.as_ref(), [vec![3; 60]]);
        assert!(matches!(
            Capture::open(&path, Some(&record)),
            Err(CaptureError::Record { .. })
        ));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        let good = capture(&[&[1; 60], &[2; 60]]);
        assert!(refusal(b"hello, this is no capture").starts_with("DIR/in.pcap: at byte 0: "));
        let said = refusal(&good[..good.len() - 1]);
        let place = 24 + 16 + 60;
        assert_eq!(
            said,
            format!("DIR/in.pcap: at byte {place}: the file ends in the middle of a record")
        );
        assert!(refusal(&[]).contains("at byte 0"));
        let mut raw_ip = good.clone();
        raw_ip[20..24].copy_from_slice(&101_u32.to_be_bytes());
        assert!(
            refusal(&raw_ip).contains("not ETHERNET"),
            "{}",
            refusal(&raw_ip)
        );
        assert!(refusal(&capture(&[&[1; 13]])).contains("13 bytes"));
    }
}
