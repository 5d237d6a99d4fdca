//! 256 bytes of configuration space: what a guest reads, and which bits it can write.
//!
//! Promises: a write changes writable bits and nothing else, in any width and at any offset; a BAR reads back its size
//! after all ones were written. What a change means is the caller's business.

/// Bytes of the configuration space of a conventional function.
pub(super) const SIZE: usize = 256;

/// Header offsets (PCI Local Bus 3.0, 6.1).
pub(super) const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CLASS: usize = 0x08;
const HEADER_TYPE: usize = 0x0e;
const BAR0: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;

/// COMMAND: memory accesses are decoded.
pub(super) const MEMORY_SPACE: u16 = 1 << 1;
/// COMMAND: may send messages and do DMA.
pub(super) const BUS_MASTER: u16 = 1 << 2;
/// COMMAND: the interrupt pin is not asserted.
pub(super) const INTX_DISABLE: u16 = 1 << 10;
/// STATUS: there is a capability list.
const CAPABILITY_LIST: u16 = 1 << 4;
/// STATUS: the pin is asserted, whether or not the command lets it through.
pub(super) const INTERRUPT_STATUS: u8 = 1 << 3;
/// A 64-bit memory BAR that is not prefetchable.
const MEMORY_64: u32 = 0b100;

/// What a function says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) vendor: u16,
    pub(super) device: u16,
    /// Base class, subclass and programming interface, from the upper byte down.
    pub(super) class: u32,
    pub(super) revision: u8,
    /// 1 to 4 for INTA# to INTD#.
    pub(super) pin: u8,
}

/// The bytes and which of their bits are writable.
pub(super) struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    at_reset: [u8; SIZE],
    last_capability: usize,
    end: usize,
}

impl ConfigSpace {
    /// A type 0 header with one 64-bit BAR of `bar_size` bytes, a power of two of at least 16.
    pub(super) fn new(identity: Identity, bar_size: u64) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            at_reset: [0; SIZE],
            last_capability: 0,
            end: FIRST_CAPABILITY,
        };
        space.put(0, &identity.vendor.to_le_bytes());
        space.put(2, &identity.device.to_le_bytes());
        let class = identity.class << 8 | u32::from(identity.revision);
        space.put(CLASS, &class.to_le_bytes());
        space.put(SUBSYSTEM, &identity.vendor.to_le_bytes());
        space.put(SUBSYSTEM + 2, &identity.device.to_le_bytes());
        space.put(STATUS, &CAPABILITY_LIST.to_le_bytes());
        space.put(INTERRUPT_PIN, &[identity.pin]);
        space.put(BAR0, &MEMORY_64.to_le_bytes());
        let command = MEMORY_SPACE | BUS_MASTER | INTX_DISABLE;
        space.allow(COMMAND, &command.to_le_bytes());
        space.allow(BAR0, &(!(bar_size - 1)).to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xff]);
        space.at_reset = space.bytes;
        space
    }

    /// Says that the slot has more functions than this one.
    pub(super) fn set_multifunction(&mut self) {
        self.bytes[HEADER_TYPE] |= 0x80;
        self.at_reset = self.bytes;
    }

    /// Appends a capability: its id, the bytes behind id and link, and which of these are writable. Returns its offset.
    pub(super) fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> usize {
        let at = self.end;
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        let link = match self.last_capability {
            0 => CAPABILITIES,
            last => last + 1,
        };
        let offset = u8::try_from(at).expect("capabilities fit into 256 bytes");
        self.put(link, &[offset]);
        self.last_capability = at;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        self.at_reset = self.bytes;
        at
    }

    /// Everything that was written is forgotten.
    pub(super) fn reset(&mut self) {
        self.bytes = self.at_reset;
    }

    /// All bytes, for a snapshot.
    pub(super) fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// The writable bits as they were saved. `false` where the others differ: it was another function.
    pub(super) fn restore(&mut self, saved: &[u8]) -> bool {
        let same = |(at, (byte, saved)): (usize, (&u8, &u8))| {
            let status = if at == STATUS { INTERRUPT_STATUS } else { 0 };
            (byte ^ saved) & !(self.writable[at] | status) == 0
        };
        let mut pairs = self.bytes.iter().zip(saved).enumerate();
        if saved.len() != SIZE || !pairs.all(same) {
            return false;
        }
        self.write(0, saved);
        true
    }

    /// Copies from `offset`; there are zeros behind the end.
    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (byte, register) in data.iter_mut().zip(self.bytes.iter().skip(offset)) {
            *byte = *register;
        }
    }

    /// Changes the writable bits from `offset` on.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        let registers = self.bytes.iter_mut().zip(&self.writable).skip(offset);
        for ((register, writable), byte) in registers.zip(data) {
            *register = *register & !writable | byte & writable;
        }
    }

    /// Sixteen bits at an offset of ours.
    pub(super) fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }

    /// Thirty-two bits at an offset of ours.
    pub(super) fn dword(&self, offset: usize) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }

    /// Where the BAR is, if memory accesses are decoded.
    pub(super) fn decoded_bar(&self) -> Option<u64> {
        (self.word(COMMAND) & MEMORY_SPACE != 0).then(|| self.bar())
    }

    /// Where the BAR is.
    pub(super) fn bar(&self) -> u64 {
        let address = u64::from(self.dword(BAR0)) | u64::from(self.dword(BAR0 + 4)) << 32;
        address & !0xf
    }

    /// Places the BAR, as firmware does.
    pub(super) fn place_bar(&mut self, address: u64) {
        self.write(BAR0, &address.to_le_bytes());
    }

    /// Sets or clears read-only bits of a byte.
    pub(super) fn set_bits(&mut self, offset: usize, bits: u8, set: bool) {
        let byte = &mut self.bytes[offset];
        *byte = if set { *byte | bits } else { *byte & !bits };
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }
}

/// Offset of the status byte with [`INTERRUPT_STATUS`].
pub(super) const STATUS_LOW: usize = STATUS;

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x1042,
            class: 0x01_80_00,
            revision: 1,
            pin: 1,
        };
        ConfigSpace::new(identity, 0x8000)
    }

    #[test]
    fn a_bar_says_its_size_and_keeps_its_address() {
        let mut space = space();
        space.write(BAR0, &[0xff; 8]);
        assert_eq!(space.dword(BAR0), 0xffff_8004);
        assert_eq!(space.dword(BAR0 + 4), u32::MAX);
        space.write(BAR0, &0x1_2345_ffffu64.to_le_bytes());
        assert_eq!(space.bar(), 0x1_2345_8000);
        assert_eq!(space.decoded_bar(), None);
        space.write(COMMAND, &MEMORY_SPACE.to_le_bytes());
        assert_eq!(space.decoded_bar(), Some(0x1_2345_8000));
        space.reset();
        assert_eq!((space.bar(), space.decoded_bar()), (0, None));
    }

    #[test]
    fn capabilities_are_a_list_that_ends() {
        let mut space = space();
        let first = space.add_capability(9, &[1, 2, 3], &[]);
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]);
        assert_eq!(usize::from(space.bytes[CAPABILITIES]), first);
        assert_eq!(usize::from(space.bytes[first + 1]), second);
        assert_eq!(space.bytes[second + 1], 0);
        space.write(second, &[0xff; 12]);
        assert_eq!(&space.bytes[second..second + 5], &[0x11, 0, 0, 0xc0, 0]);
    }

    #[test]
    fn no_width_or_offset_writes_what_is_read_only_or_leaves_the_space() {
        let mut space = space();
        space.add_capability(9, &[7; 14], &[]);
        let before = space.bytes;
        for offset in (0..SIZE + 20).chain([usize::MAX - 1, usize::MAX]) {
            for width in 0..9 {
                space.write(offset, &[0xff; 8][..width]);
                let mut data = [0xee; 8];
                space.read(offset, &mut data[..width]);
            }
        }
        for (at, (now, then)) in space.bytes.iter().zip(&before).enumerate() {
            assert_eq!(
                now & !space.writable[at],
                then & !space.writable[at],
                "{at:#x}"
            );
        }
    }
}
