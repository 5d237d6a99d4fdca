//! The frame: a fixed header, then a short payload.
//!
//! ```text
//! offset  0     1..4      4..8       8..12     12..
//!         kind  b"pin"    channel    length    payload
//! ```
//!
//! Numbers are little endian. The three constant bytes make a stream that lost its place an error at once,
//! and not a wait for gigabytes. Both sides treat what the other says as hostile: lengths are
//! checked before memory is taken.

use std::io::{self, Read, Write};

/// Largest payload of a frame in bytes. Longer data is cut into several frames.
pub const MAX_PAYLOAD: usize = 128 << 10;

const HEADER_LEN: usize = 12;
const MARK: [u8; 3] = *b"pin";

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Agent: a [`super::Hello`] in JSON, on channel 0.
    Hello = 1,
    /// Host: a [`super::Request`] in JSON; opens a channel.
    Request = 2,
    /// Agent: a [`super::Reply`] in JSON.
    Reply = 3,
    /// Either: a [`Block`] of the file that is being transferred.
    Data = 4,
    /// Host: the file that is being put is complete. Empty.
    End = 5,
    /// Agent: an [`super::Entry`] in JSON; the `Data` frames after it belong to that file.
    Entry = 6,
    /// Host: the number of a signal for the command's whole process group, as an `i32`.
    Signal = 7,
    /// Host: as a `u32`, how many more bytes the agent may send on this channel.
    Credit = 8,
    /// Agent: bytes of the command's standard output.
    Stdout = 9,
    /// Agent: bytes of the command's standard error.
    Stderr = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Request,
            3 => Self::Reply,
            4 => Self::Data,
            5 => Self::End,
            6 => Self::Entry,
            7 => Self::Signal,
            8 => Self::Credit,
            9 => Self::Stdout,
            10 => Self::Stderr,
            _ => return None,
        })
    }
}

/// What can be wrong with a stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream failed, or ended inside a frame.
    #[error("the stream broke inside a frame")]
    Io(#[from] io::Error),
    /// The constant bytes of a header are missing.
    #[error("not a frame: the header begins with {0:02x?}")]
    Mark([u8; 4]),
    /// No such [`Kind`].
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// The announced payload is larger than [`MAX_PAYLOAD`].
    #[error("a frame announces {0} bytes, at most {MAX_PAYLOAD} are allowed")]
    TooLong(u32),
    /// The payload is not what its kind says.
    #[error("a {kind:?} frame of {len} bytes cannot be read: {why}")]
    Payload {
        /// Kind of the frame.
        kind: Kind,
        /// Length of its payload in bytes.
        len: usize,
        /// What the parser said.
        why: String,
    },
}

/// One message on one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// The conversation it belongs to; the host numbers them from 1.
    pub channel: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame with raw bytes.
    ///
    /// # Panics
    ///
    /// If the payload is longer than [`MAX_PAYLOAD`]: who makes frames cuts data to size.
    #[must_use]
    pub fn new(kind: Kind, channel: u32, payload: Vec<u8>) -> Self {
        assert!(
            payload.len() <= MAX_PAYLOAD,
            "a frame's maker cuts data to size"
        );
        Self {
            kind,
            channel,
            payload,
        }
    }

    /// A frame whose payload is `message` in JSON.
    ///
    /// # Errors
    ///
    /// [`WireError::Payload`] if the message is larger than a frame may be (a command line of more than
    /// 128 KiB) or has no JSON form (a path that is not UTF-8).
    pub fn json(
        kind: Kind,
        channel: u32,
        message: &impl serde::Serialize,
    ) -> Result<Self, WireError> {
        let refuse = |len, why| WireError::Payload { kind, len, why };
        let payload = serde_json::to_vec(message).map_err(|why| refuse(0, why.to_string()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(refuse(payload.len(), "too long for one frame".to_owned()));
        }
        Ok(Self::new(kind, channel, payload))
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    ///
    /// [`WireError::Payload`] if it is not a `T`.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(&self.payload).map_err(|why| self.refuse(&why.to_string()))
    }

    /// Reads the payload as the number of a `Signal` (`i32`).
    ///
    /// # Errors
    ///
    /// [`WireError::Payload`] unless it is four bytes long.
    pub fn parse_i32(&self) -> Result<i32, WireError> {
        let bytes = self.payload.as_slice().try_into();
        bytes
            .map(i32::from_le_bytes)
            .map_err(|_| self.refuse("four bytes were expected"))
    }

    /// Reads the payload as the number of a `Credit` (`u32`).
    ///
    /// # Errors
    ///
    /// [`WireError::Payload`] unless it is four bytes long.
    pub fn parse_u32(&self) -> Result<u32, WireError> {
        let bytes = self.payload.as_slice().try_into();
        bytes
            .map(u32::from_le_bytes)
            .map_err(|_| self.refuse("four bytes were expected"))
    }

    fn refuse(&self, why: &str) -> WireError {
        WireError::Payload {
            kind: self.kind,
            len: self.payload.len(),
            why: why.to_owned(),
        }
    }

    /// Writes the frame in one call, so that a virtio-serial port makes few buffers of it.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub fn write_to(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&MARK);
        bytes.extend_from_slice(&self.channel.to_le_bytes());
        let len = u32::try_from(self.payload.len()).expect("the constructor limits the payload");
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        stream.write_all(&bytes)
    }

    /// Reads the next frame, or `None` where the stream ended between two frames.
    ///
    /// # Errors
    ///
    /// Any [`WireError`]; the stream has then lost its place and must be closed.
    pub fn read_from(stream: &mut impl Read) -> Result<Option<Self>, WireError> {
        let mut header = [0; HEADER_LEN];
        if !read_unless_ended(stream, &mut header)? {
            return Ok(None);
        }
        let [kind, m0, m1, m2, c0, c1, c2, c3, l0, l1, l2, l3] = header;
        if [m0, m1, m2] != MARK {
            return Err(WireError::Mark([kind, m0, m1, m2]));
        }
        let kind = Kind::from_byte(kind).ok_or(WireError::Kind(kind))?;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        if size > MAX_PAYLOAD {
            return Err(WireError::TooLong(len));
        }
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload)?;
        Ok(Some(Self {
            kind,
            channel: u32::from_le_bytes([c0, c1, c2, c3]),
            payload,
        }))
    }
}

/// Fills `buffer`, or returns `false` if the stream was at its end before the first byte.
fn read_unless_ended(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let first = loop {
        match stream.read(buffer) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(false);
    }
    stream.read_exact(&mut buffer[first..])?;
    Ok(true)
}

/// Payload of a [`Kind::Data`] frame: bytes and where in the file they belong. What no block covers is
/// a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The bytes there.
    pub bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Most bytes that one block can carry.
    pub const MAX_LEN: usize = MAX_PAYLOAD - 8;

    /// The frame that carries this block.
    ///
    /// # Panics
    ///
    /// If it is longer than [`Self::MAX_LEN`].
    #[must_use]
    pub fn frame(self, channel: u32) -> Frame {
        let mut payload = Vec::with_capacity(8 + self.bytes.len());
        payload.extend_from_slice(&self.offset.to_le_bytes());
        payload.extend_from_slice(self.bytes);
        Frame::new(Kind::Data, channel, payload)
    }

    /// Reads the block out of a data frame, and checks that it ends within a file of `file_len` bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Payload`] otherwise.
    pub fn parse(frame: &'a Frame, file_len: u64) -> Result<Self, WireError> {
        let Some((offset, bytes)) = frame.payload.split_first_chunk::<8>() else {
            return Err(frame.refuse("eight bytes of offset were expected"));
        };
        let offset = u64::from_le_bytes(*offset);
        let end = u64::try_from(bytes.len())
            .ok()
            .and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > file_len) {
            return Err(frame.refuse("the block lies outside the file"));
        }
        Ok(Self { offset, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_frame_comes_out_as_it_went_in() {
        for payload in [vec![], vec![7; 3], vec![0xff; MAX_PAYLOAD]] {
            let frame = Frame::new(Kind::Stdout, 0xdead_beef, payload);
            let bytes = bytes_of(&frame);
            assert_eq!(
                Frame::read_from(&mut bytes.as_slice()).unwrap(),
                Some(frame)
            );
        }
    }

    #[test]
    fn an_end_between_frames_is_the_end() {
        assert_eq!(Frame::read_from(&mut [].as_slice()).unwrap(), None);
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error_at_every_byte() {
        let bytes = bytes_of(&Frame::new(Kind::Data, 1, vec![1; 20]));
        for cut in 1..bytes.len() {
            let error = Frame::read_from(&mut &bytes[..cut]).unwrap_err();
            assert!(matches!(error, WireError::Io(_)), "cut at {cut}: {error}");
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_memory_is_taken() {
        let mut bytes = bytes_of(&Frame::new(Kind::Data, 1, vec![]));
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = Frame::read_from(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(error, WireError::TooLong(u32::MAX)), "{error}");
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        for kind in [0, 11, 255] {
            let mut bytes = bytes_of(&Frame::new(Kind::Data, 1, vec![]));
            bytes[0] = kind;
            let error = Frame::read_from(&mut bytes.as_slice()).unwrap_err();
            assert!(
                matches!(error, WireError::Kind(found) if found == kind),
                "{error}"
            );
        }
    }

    #[test]
    fn a_stream_that_lost_its_place_is_refused() {
        let error = Frame::read_from(&mut b"kernel panic - not syncing".as_slice()).unwrap_err();
        assert!(matches!(error, WireError::Mark(_)), "{error}");
    }

    #[test]
    fn a_block_outside_the_file_is_refused() {
        let block = |offset| {
            Block {
                offset,
                bytes: b"four",
            }
            .frame(1)
        };
        assert_eq!(Block::parse(&block(6), 10).unwrap().bytes, b"four");
        assert!(Block::parse(&block(7), 10).is_err());
        assert!(Block::parse(&block(u64::MAX - 1), u64::MAX).is_err());
        assert!(Block::parse(&Frame::new(Kind::Data, 1, vec![0; 7]), 10).is_err());
    }

    #[test]
    fn a_number_of_the_wrong_length_is_refused() {
        let frame = Frame::new(Kind::Signal, 1, 9_i32.to_le_bytes().to_vec());
        assert_eq!(frame.parse_i32().unwrap(), 9);
        assert!(Frame::new(Kind::Signal, 1, vec![9]).parse_i32().is_err());
        assert!(Frame::new(Kind::Credit, 1, vec![0; 5]).parse_u32().is_err());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_and_not_cut() {
        let long = "x".repeat(MAX_PAYLOAD);
        assert!(matches!(
            Frame::json(Kind::Request, 1, &long),
            Err(WireError::Payload { .. })
        ));
    }
}
