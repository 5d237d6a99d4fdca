//! The smallest XDP program: hands every frame of a queue to the AF_XDP socket of that queue, and lets the others pass.
#![expect(unsafe_code, reason = "bpf(2) with its C unions")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;
use crate::fault::Errno;

const MAP_CREATE: i64 = 0;
const MAP_UPDATE_ELEM: i64 = 2;
const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// In the stack, not in the driver: works with any offload.
const SKB_MODE: u32 = 2;
const QUEUES: u32 = 64;

/// The program at work. Dropping it ends it.
#[derive(Debug)]
pub struct Redirect {
    _link: OwnedFd,
}

/// `union bpf_attr`, as 32-bit words; longer than any that is used here.
type Attr = [u32; 32];

impl Redirect {
    /// Frames of `queue` of the interface `index` go to `socket`.
    pub fn new(index: u32, queue: u32, socket: RawFd) -> Result<Self, Errno> {
        let map = call(
            MAP_CREATE,
            "bpf map create",
            &attr(&[(0, MAP_TYPE_XSKMAP), (1, 4), (2, 4), (3, QUEUES)]),
        )?;
        let value = socket.cast_unsigned();
        let mut update = attr(&[(0, map.as_raw_fd().cast_unsigned())]);
        put_pointer(&mut update, 2, std::ptr::from_ref(&queue));
        put_pointer(&mut update, 4, std::ptr::from_ref(&value));
        // An update gives back 0 and no descriptor.
        raw(MAP_UPDATE_ELEM, "bpf map update", &update)?;
        let program = program(map.as_raw_fd());
        let license = c"GPL";
        let mut load = attr(&[(0, PROG_TYPE_XDP), (1, 6)]);
        put_pointer(&mut load, 2, program.as_ptr());
        put_pointer(&mut load, 4, license.as_ptr());
        let program = call(PROG_LOAD, "bpf program load", &load)?;
        let program = program.as_raw_fd().cast_unsigned();
        let link = attr(&[(0, program), (1, index), (2, ATTACH_XDP), (3, SKB_MODE)]);
        let link = call(LINK_CREATE, "bpf link create", &link)?;
        Ok(Self { _link: link })
    }
}

/// `return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS);`
fn program(map: RawFd) -> [u64; 6] {
    let instruction = |code: u8, registers: u8, offset: u8, value: u32| {
        let [a, b, c, d] = value.to_le_bytes();
        u64::from_le_bytes([code, registers, offset, 0, a, b, c, d])
    };
    [
        instruction(0x61, 0x12, 16, 0),
        instruction(0x18, 0x11, 0, map.cast_unsigned()),
        instruction(0, 0, 0, 0),
        instruction(0xb7, 0x03, 0, 2),
        instruction(0x85, 0, 0, 51),
        instruction(0x95, 0, 0, 0),
    ]
}

fn attr(words: &[(usize, u32)]) -> Attr {
    let mut attr = [0; 32];
    for (place, word) in words {
        attr[*place] = *word;
    }
    attr
}

fn put_pointer<T>(attr: &mut Attr, place: usize, pointer: *const T) {
    let [a, b, c, d, e, f, g, h] = (pointer.expose_provenance() as u64).to_le_bytes();
    attr[place] = u32::from_le_bytes([a, b, c, d]);
    attr[place + 1] = u32::from_le_bytes([e, f, g, h]);
}

fn call(command: i64, name: &'static str, attr: &Attr) -> Result<OwnedFd, Errno> {
    let fd = raw(command, name, attr)?;
    // SAFETY: these commands give back a new descriptor that is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(command: i64, name: &'static str, attr: &Attr) -> Result<i32, Errno> {
    // SAFETY: the kernel reads the words, and what they point to lives across the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    check(name, i32::try_from(result).unwrap_or(-1))
}
