//! Synchronous reads and writes, from and to own buffers or mappings.

use std::os::fd::RawFd;

use pincushion_abi::Fault;
use pincushion_abi::step::{MAX_TRANSFER, Pattern};

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::files::file_offset;
use crate::sys::file;
use crate::sys::memory::{Buffer, Span};

/// Both ends of a transfer between a file and a mapping, as a step names them.
pub struct Ends<'s> {
    pub file: &'s str,
    pub offset: u64,
    pub map: &'s str,
    pub map_offset: u64,
    pub len: u64,
}

/// A part of a file or of a mapping, as a step names it.
pub struct Part<'s> {
    pub name: &'s str,
    pub offset: u64,
    pub len: u64,
}

impl<'s> Part<'s> {
    pub fn new(name: &'s str, offset: u64, len: u64) -> Self {
        Self { name, offset, len }
    }

    /// Of a file: its descriptor, the offset there, and a buffer for the bytes.
    fn in_file(&self, agent: &Agent) -> Result<(RawFd, i64, Buffer), Fault> {
        let (fd, offset) = (agent.file(self.name)?, file_offset(self.offset)?);
        Ok((fd, offset, own_buffer(self.len)?))
    }

    /// Of a mapping: where it is, and a buffer for the bytes.
    pub fn in_map(&self, agent: &Agent) -> Result<(Span, Buffer), Fault> {
        let span = agent.span(self.name, self.offset, Some(self.len))?;
        Ok((span, own_buffer(self.len)?))
    }
}

impl<'s> Ends<'s> {
    pub fn new(file: &'s str, offset: u64, map: &'s str, map_offset: u64, len: u64) -> Self {
        Self {
            file,
            offset,
            map,
            map_offset,
            len,
        }
    }

    /// What the names stand for: descriptor, part of the mapping, file offset.
    pub fn resolve(&self, agent: &Agent) -> Result<(RawFd, Span, i64), Fault> {
        let span = agent.span(self.map, self.map_offset, Some(self.len))?;
        Ok((agent.file(self.file)?, span, file_offset(self.offset)?))
    }
}

/// `pwrite(2)` of a pattern.
pub fn write_pattern(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    part: &Part<'_>,
    pattern: Pattern,
) -> StepResult {
    let (fd, offset, mut buffer) = part.in_file(agent)?;
    pattern.fill(buffer.bytes_mut());
    let written = stamp.around(|| file::pwrite(fd, buffer.bytes(), offset))?;
    whole("pwrite64", written, part.len)?;
    Ok(Found::nothing()
        .count("written", written)
        .hash(buffer.bytes()))
}

/// `pread(2)` and a hash.
pub fn read_hash(agent: &Agent, stamp: &mut Stamp<'_>, part: &Part<'_>) -> StepResult {
    let buffer = read(agent, stamp, part)?;
    Ok(Found::nothing()
        .number("read", part.len)
        .content(buffer.bytes()))
}

/// `pread(2)` and a comparison.
pub fn read_verify(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    part: &Part<'_>,
    pattern: Pattern,
) -> StepResult {
    let buffer = read(agent, stamp, part)?;
    Ok(Found::nothing()
        .number("read", part.len)
        .compared(buffer.bytes(), pattern))
}

fn read(agent: &Agent, stamp: &mut Stamp<'_>, part: &Part<'_>) -> Result<Buffer, Fault> {
    let (fd, offset, mut buffer) = part.in_file(agent)?;
    // Every page of the buffer exists before the call, so that the call does not fault them in.
    buffer.bytes_mut().fill(0);
    let read = stamp.around(|| file::pread(fd, buffer.bytes_mut(), offset))?;
    whole("pread64", read, part.len)?;
    Ok(buffer)
}

/// `pread(2)` into a mapping.
pub fn pread_into(agent: &Agent, stamp: &mut Stamp<'_>, ends: &Ends<'_>) -> StepResult {
    let (fd, span, offset) = ends.resolve(agent)?;
    let read = stamp.around(|| file::pread_span(fd, span, offset))?;
    whole("pread64", read, ends.len)?;
    Ok(Found::nothing().count("read", read))
}

/// `pwrite(2)` from a mapping.
pub fn pwrite_from(agent: &Agent, stamp: &mut Stamp<'_>, ends: &Ends<'_>) -> StepResult {
    let (fd, span, offset) = ends.resolve(agent)?;
    let written = stamp.around(|| file::pwrite_span(fd, span, offset))?;
    whole("pwrite64", written, ends.len)?;
    Ok(Found::nothing().count("written", written))
}

/// A buffer of the agent's own, as long as a step asks.
pub fn own_buffer(len: u64) -> Result<Buffer, Fault> {
    let too_long = || {
        sentence(
            "buffer",
            format!("{len} bytes are more than one step transfers ({MAX_TRANSFER}): use several"),
        )
    };
    if len > MAX_TRANSFER {
        return Err(too_long());
    }
    Ok(Buffer::new(usize::try_from(len).map_err(|_| too_long())?)?)
}

/// A short transfer is a fault.
pub fn whole(call: &str, done: usize, asked: u64) -> Result<(), Fault> {
    if done as u64 == asked {
        return Ok(());
    }
    Err(sentence(
        call,
        format!("short transfer: {done} of {asked} bytes"),
    ))
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn what_was_written_reads_back_equal_and_a_changed_byte_is_found() {
        let bench = Bench::new();
        bench.create("a");
        let seed = json!({"seed": 5});
        let written = bench.ok(json!({"op": "write-pattern", "file": "a", "offset": 512, "len": 5000, "pattern": seed}));
        let read = bench.ok(json!({"op": "read-hash", "file": "a", "offset": 512, "len": 5000}));
        assert_eq!(written["hash"], read["hash"]);
        assert_eq!(read["uniform"], Value::Bool(false));
        let verify =
            json!({"op": "read-verify", "file": "a", "offset": 512, "len": 5000, "pattern": seed});
        assert_eq!(bench.ok(verify.clone())["equal"], Value::Bool(true));

        bench.ok(json!({"op": "write-pattern", "file": "a", "offset": 1512, "len": 1, "pattern": {"byte": 0}}));
        let found = bench.ok(verify);
        assert_eq!(found["equal"], Value::Bool(false));
        assert_eq!(found["first_difference"], Value::Number(1000));
    }

    #[test]
    fn a_read_past_the_end_is_a_short_transfer() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "write-pattern", "file": "a", "offset": 0, "len": 10, "pattern": {"byte": 7}}));
        let fault = bench.fails(json!({"op": "read-hash", "file": "a", "offset": 0, "len": 20}));
        assert_eq!(
            (fault.errno, fault.name.as_str()),
            (0, "short transfer: 10 of 20 bytes")
        );
    }

    #[test]
    fn a_transfer_beyond_the_limit_is_refused() {
        let bench = Bench::new();
        bench.create("a");
        let fault =
            bench.fails(json!({"op": "read-hash", "file": "a", "offset": 0, "len": u64::MAX}));
        assert!(fault.name.contains("use several"), "{}", fault.name);
    }

    #[test]
    fn a_file_is_read_into_and_written_from_a_mapping() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 8192, "map": "m"}));
        bench.ok(
            json!({"op": "store", "map": "m", "offset": 4096, "len": 4096, "pattern": {"seed": 1}}),
        );
        bench.ok(json!({"op": "pwrite-from", "file": "a", "offset": 0, "map": "m", "map_offset": 4096, "len": 4096}));
        bench.ok(json!({"op": "pread-into", "file": "a", "offset": 0, "map": "m", "len": 4096}));
        let found =
            bench.ok(json!({"op": "verify", "map": "m", "len": 4096, "pattern": {"seed": 1}}));
        assert_eq!(found["equal"], Value::Bool(true));
        let outside = json!({"op": "pread-into", "file": "a", "offset": 0, "map": "m", "map_offset": 8000, "len": 4096});
        assert!(
            bench
                .fails(outside)
                .name
                .contains("not inside \"m\" of 8192")
        );
    }
}
