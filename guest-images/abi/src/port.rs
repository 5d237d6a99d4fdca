//! The agent's I/O ports: synchronous, 32 bits wide, guest to host.
//!
//! ```text
//! agent                                   host
//! outl(DATA, 4 bytes) ... ------------->  appended to the message buffer
//! outl(COMMIT, byte length) ----------->  message delivered, stamped at this exit
//! outl(MARK, step id << 1 | phase) ---->  mark delivered, stamped at this exit
//! ```
//!
//! The agent serialises its threads by a lock from the first `DATA` to the `COMMIT`; a `MARK` needs
//! no lock.

/// First port of the range; chosen outside what a PC has.
pub const BASE: u16 = 0x0e00;
/// Number of byte ports in the range.
pub const LEN: u16 = 16;
/// Four bytes of a message, little endian; the last group is padded with zeros.
pub const DATA: u16 = BASE;
/// Ends a message; the value is its length in bytes.
pub const COMMIT: u16 = BASE + 4;
/// One mark: `id << 1 | phase`, phase 0 when a step begins and 1 when it has ended.
pub const MARK: u16 = BASE + 8;

/// Longest message in bytes. A longer one is dropped by the host and logged as a guest mistake.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A step is about to begin ([`MARK`], lowest bit).
pub const PHASE_BEGIN: u32 = 0;
/// A step has ended ([`MARK`], lowest bit).
pub const PHASE_END: u32 = 1;
