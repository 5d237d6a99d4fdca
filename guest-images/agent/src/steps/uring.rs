//! Asynchronous transfers by io_uring, one ring per transfer; and registered buffers, one ring each.
#![expect(unsafe_code, reason = "an entry of the ring names memory by address")]

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, opcode, types::Fd};
use pincushion_abi::Fault;
use pincushion_abi::step::{IoDirection, UringFixed};

use crate::agent::Agent;
use crate::fault::{Errno, io as io_fault, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::transfer::{Ends, whole};
use crate::sys::memory::Span;

/// A ring with its one transfer.
pub struct Submitted {
    ring: IoUring,
    asked: u32,
}

/// Submits one transfer.
pub fn submit(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    direction: IoDirection,
    ends: &Ends<'_>,
    tag: &str,
) -> StepResult {
    let (fd, span, _) = ends.resolve(agent)?;
    let asked = u32::try_from(ends.len).map_err(|_| {
        sentence(
            "io_uring",
            format!("{} bytes do not fit into one entry (32 bits)", ends.len),
        )
    })?;
    agent.names().uring.refuse_used("io_uring transfer", tag)?;
    let mut ring = IoUring::new(1).map_err(|error| io_fault("io_uring_setup", &error))?;
    let address = std::ptr::with_exposed_provenance_mut::<u8>(span.address());
    let entry = match direction {
        IoDirection::Read => opcode::Read::new(Fd(fd), address, asked)
            .offset(ends.offset)
            .build(),
        IoDirection::Write => opcode::Write::new(Fd(fd), address, asked)
            .offset(ends.offset)
            .build(),
    };
    // SAFETY: the memory is a span, which belongs to no Rust object however long the transfer takes.
    unsafe { ring.submission().push(&entry) }.expect("a new ring has room for one entry");
    stamp
        .around(|| ring.submit())
        .map_err(|error| io_fault("io_uring_enter", &error))?;
    // A second transfer under the tag at the same moment would only leave the first without a name.
    let _ = agent.names().uring.put(tag, Submitted { ring, asked });
    Ok(Found::nothing())
}

/// Waits for its completion.
pub fn wait(agent: &Agent, stamp: &mut Stamp<'_>, tag: &str) -> StepResult {
    let mut submitted = agent.names().uring.take("io_uring transfer", tag)?;
    let result = stamp
        .around(|| completion(&mut submitted.ring))
        .map_err(|error| io_fault("io_uring_enter", &error))?;
    let bytes = usize::try_from(result).map_err(|_| Errno {
        call: "io_uring",
        number: -result,
    })?;
    whole("io_uring", bytes, submitted.asked.into())?;
    Ok(Found::nothing().count("result", bytes))
}

/// Rings that are there for their registered buffers.
pub struct Registered {
    rings: Vec<IoUring>,
    /// Where each buffer is, or was: what is registered stays pinned when the mapping has gone.
    span: Span,
}

/// How often a mapping is registered.
pub struct Count {
    /// In each ring.
    pub times: u32,
    /// So many rings.
    pub rings: u32,
}

/// Registers a part of a mapping as fixed buffers.
pub fn register(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    span: Span,
    count: &Count,
    tag: &str,
) -> StepResult {
    agent.names().registered.refuse_used("registration", tag)?;
    let buffer = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(span.address()),
        iov_len: span.len(),
    };
    let buffers = vec![buffer; count.times as usize];
    let mut rings = Vec::with_capacity(count.rings as usize);
    let registered = stamp.around(|| {
        for _ in 0..count.rings {
            let ring = IoUring::new(1).map_err(|error| io_fault("io_uring_setup", &error))?;
            // SAFETY: the memory is a span, which belongs to no Rust object however long it is registered.
            let registered = unsafe { ring.submitter().register_buffers(&buffers) };
            registered.map_err(|error| io_fault("io_uring_register", &error))?;
            rings.push(ring);
        }
        Ok::<_, Fault>(())
    });
    if !rings.is_empty() {
        let _ = agent
            .names()
            .registered
            .put(tag, Registered { rings, span });
    }
    registered?;
    Ok(Found::nothing())
}

/// Ends a ring with its registration.
pub fn release(agent: &Agent, stamp: &mut Stamp<'_>, tag: &str) -> StepResult {
    let registered = agent.names().registered.take("registration", tag)?;
    stamp.around(|| drop(registered.rings));
    Ok(Found::nothing())
}

/// One transfer by the first fixed buffer of a registration, to its end.
pub fn fixed(agent: &Agent, stamp: &mut Stamp<'_>, transfer: &UringFixed) -> StepResult {
    let tag = &transfer.registered;
    let fd = agent.file(&transfer.file)?;
    let mut registered = agent.names().registered.take("registration", tag)?;
    let result = transfer_fixed(&mut registered, stamp, fd, transfer);
    let _ = agent.names().registered.put(tag, registered);
    result
}

fn transfer_fixed(
    registered: &mut Registered,
    stamp: &mut Stamp<'_>,
    fd: RawFd,
    transfer: &UringFixed,
) -> StepResult {
    let &UringFixed {
        direction,
        offset,
        buffer_offset,
        len,
        ..
    } = transfer;
    let all = registered.span.len();
    let outside = || {
        let said = format!("{len} bytes from {buffer_offset} are not in the buffer of {all} bytes");
        sentence("io_uring", said)
    };
    let asked = u32::try_from(len).map_err(|_| outside())?;
    let at = usize::try_from(buffer_offset).map_err(|_| outside())?;
    if all.checked_sub(at).is_none_or(|room| room < asked as usize) {
        return Err(outside());
    }
    let address = registered.span.address() + at;
    let address = std::ptr::with_exposed_provenance_mut::<u8>(address);
    let entry = match direction {
        IoDirection::Read => opcode::ReadFixed::new(Fd(fd), address, asked, 0)
            .offset(offset)
            .build(),
        IoDirection::Write => opcode::WriteFixed::new(Fd(fd), address, asked, 0)
            .offset(offset)
            .build(),
    };
    let ring = &mut registered.rings[0];
    // SAFETY: the kernel uses the pages that were registered, which stay pinned as long as the ring is there; it ends before this returns.
    unsafe { ring.submission().push(&entry) }.expect("nothing else is in the ring");
    let result = stamp
        .around(|| completion(ring))
        .map_err(|error| io_fault("io_uring_enter", &error))?;
    let bytes = usize::try_from(result).map_err(|_| Errno {
        call: "io_uring",
        number: -result,
    })?;
    whole("io_uring", bytes, len)?;
    Ok(Found::nothing().count("result", bytes))
}

/// The result of the one completion, negative for an errno.
fn completion(ring: &mut IoUring) -> io::Result<i32> {
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if let Some(entry) = ring.completion().next() {
            return Ok(entry.result());
        }
    }
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn a_write_and_a_read_back_carry_the_bytes_and_a_read_past_the_end_is_short() {
        if let Err(error) = io_uring::IoUring::new(1) {
            println!("skipped: io_uring on this host: {error}");
            return;
        }
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 4096, "map": "m"}));
        bench.ok(json!({"op": "store", "map": "m", "len": 4096, "pattern": {"seed": 3}}));
        let step = |direction: &str, offset: u64| {
            json!({
                "op": "uring-submit", "direction": direction, "file": "a", "offset": offset, "map": "m", "len": 4096, "tag": "t",
            })
        };
        bench.ok(step("write", 0));
        assert_eq!(
            bench.ok(json!({"op": "uring-wait", "tag": "t"}))["result"],
            Value::Number(4096)
        );
        bench.ok(json!({"op": "store", "map": "m", "len": 4096, "pattern": {"byte": 0}}));
        bench.ok(step("read", 0));
        bench.ok(json!({"op": "uring-wait", "tag": "t"}));
        let verify = json!({"op": "verify", "map": "m", "len": 4096, "pattern": {"seed": 3}});
        assert_eq!(bench.ok(verify)["equal"], Value::Bool(true));
        bench.ok(json!({"op": "uring-register", "map": "m", "tag": "r"}));
        // What is registered is the page, and not the address.
        bench.ok(json!({"op": "madvise", "map": "m", "advice": "dontneed"}));
        let fixed = |direction: &str, offset: u64, buffer_offset: u64| {
            json!({
                "op": "uring-fixed", "registered": "r", "direction": direction, "file": "a",
                "offset": offset, "buffer_offset": buffer_offset, "len": 4096,
            })
        };
        bench.ok(fixed("write", 4096, 0));
        let zeros = json!({"op": "verify", "map": "m", "len": 4096, "pattern": {"byte": 0}});
        assert_eq!(bench.ok(zeros)["equal"], Value::Bool(true));
        let copied = json!({"op": "read-verify", "file": "a", "offset": 4096, "len": 4096, "pattern": {"seed": 3}});
        assert_eq!(bench.ok(copied)["equal"], Value::Bool(true));
        let fault = bench.fails(fixed("read", 0, 1));
        assert!(fault.name.contains("not in the buffer"), "{}", fault.name);
        bench.ok(json!({"op": "uring-release", "tag": "r"}));
        bench.ok(json!({"op": "truncate", "file": "a", "len": 4096}));
        bench.ok(step("read", 100));
        let fault = bench.fails(json!({"op": "uring-wait", "tag": "t"}));
        assert_eq!(fault.name, "short transfer: 3996 of 4096 bytes");
    }
}
