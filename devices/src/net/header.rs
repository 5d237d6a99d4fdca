//! The header before each frame, `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
};

/// Its length in bytes.
pub const LEN: usize = 12;

/// What a header says, without the two fields that each hop computes anew: `hdr_len`, a hint, and `num_buffers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Payload of each segment in bytes.
    pub gso_size: u16,
    /// Where the bytes begin that a checksum is still to be made of.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start`.
    pub csum_offset: u16,
}

impl Header {
    /// Reads one as it lies in memory.
    #[must_use]
    pub fn parse(bytes: [u8; LEN]) -> Self {
        let [
            flags,
            gso_type,
            _,
            _,
            size0,
            size1,
            start0,
            start1,
            offset0,
            offset1,
            _,
            _,
        ] = bytes;
        Self {
            flags,
            gso_type,
            gso_size: u16::from_le_bytes([size0, size1]),
            csum_start: u16::from_le_bytes([start0, start1]),
            csum_offset: u16::from_le_bytes([offset0, offset1]),
        }
    }

    /// As it lies in memory.
    #[must_use]
    pub fn bytes(self, num_buffers: u16) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes[10..].copy_from_slice(&num_buffers.to_le_bytes());
        bytes
    }

    /// As the word that travels with a transfer ([`crate::backend::Transfer::offset`]).
    #[must_use]
    pub fn word(self) -> u64 {
        let [size0, size1] = self.gso_size.to_le_bytes();
        let [start0, start1] = self.csum_start.to_le_bytes();
        let [offset0, offset1] = self.csum_offset.to_le_bytes();
        let (flags, kind) = (self.flags, self.gso_type);
        u64::from_le_bytes([flags, kind, size0, size1, start0, start1, offset0, offset1])
    }

    /// The reverse of [`Self::word`].
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        let [
            flags,
            gso_type,
            size0,
            size1,
            start0,
            start1,
            offset0,
            offset1,
        ] = word.to_le_bytes();
        Self {
            flags,
            gso_type,
            gso_size: u16::from_le_bytes([size0, size1]),
            csum_start: u16::from_le_bytes([start0, start1]),
            csum_offset: u16::from_le_bytes([offset0, offset1]),
        }
    }

    /// The checksum is still to be made.
    #[must_use]
    pub fn needs_checksum(self) -> bool {
        u32::from(self.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0
    }

    /// The frame is to be cut into segments.
    #[must_use]
    pub fn is_segmented(self) -> bool {
        u32::from(self.gso_type) != VIRTIO_NET_HDR_GSO_NONE
    }

    /// What a driver may ask for with a frame of `len` bytes. Flags that nobody knows are forgotten (virtio 1.2, 5.1.6.2.2).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_driver(self, len: u64, features: u64) -> Result<Self, &'static str> {
        let has = |bit: u32| features & (1 << bit) != 0;
        let needs_checksum = self.needs_checksum();
        if needs_checksum && !has(VIRTIO_NET_F_CSUM) {
            return Err("a frame asks for a checksum, which was not negotiated");
        }
        let end = u64::from(self.csum_start) + u64::from(self.csum_offset) + 2;
        if needs_checksum && end > len {
            return Err("the place of a checksum is outside its frame");
        }
        let negotiated = match u32::from(self.gso_type) {
            VIRTIO_NET_HDR_GSO_NONE => true,
            VIRTIO_NET_HDR_GSO_TCPV4 => has(VIRTIO_NET_F_HOST_TSO4),
            VIRTIO_NET_HDR_GSO_TCPV6 => has(VIRTIO_NET_F_HOST_TSO6),
            _ => false,
        };
        if !negotiated {
            return Err("a frame asks for a segmentation that was not negotiated");
        }
        if self.is_segmented() && (!needs_checksum || self.gso_size == 0) {
            return Err("a frame to be segmented has no checksum or no segment size");
        }
        if !needs_checksum {
            return Ok(Self::default());
        }
        let gso_size = if self.is_segmented() {
            self.gso_size
        } else {
            0
        };
        Ok(Self {
            flags: needed(VIRTIO_NET_HDR_F_NEEDS_CSUM),
            gso_size,
            ..self
        })
    }

    /// What a driver that negotiated `features` may be told.
    #[must_use]
    pub fn for_driver(self, features: u64) -> Self {
        if features & (1 << VIRTIO_NET_F_GUEST_CSUM) == 0 {
            return Self::default();
        }
        let known = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
        Self {
            flags: self.flags & needed(known),
            ..self
        }
    }
}

fn needed(flags: u32) -> u8 {
    flags.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Header = Header {
        flags: 1,
        gso_type: 1,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };

    #[test]
    fn a_header_survives_its_bytes_and_its_word() {
        let bytes = FULL.bytes(3);
        assert_eq!(bytes, [1, 1, 0, 0, 0xa8, 5, 34, 0, 16, 0, 3, 0]);
        assert_eq!(Header::parse(bytes), FULL);
        assert_eq!(Header::from_word(FULL.word()), FULL);
    }

    #[test]
    fn only_what_was_negotiated_is_accepted() {
        let tso = 1 << VIRTIO_NET_F_HOST_TSO4 | 1 << VIRTIO_NET_F_CSUM;
        assert_eq!(FULL.from_driver(4000, tso), Ok(FULL));
        assert!(FULL.from_driver(4000, 1 << VIRTIO_NET_F_CSUM).is_err());
        assert!(FULL.from_driver(4000, 0).is_err());
        assert!(FULL.from_driver(51, tso).is_err(), "34 + 16 + 2 is 52");
        assert!(FULL.from_driver(52, tso).is_ok());
        let no_size = Header {
            gso_size: 0,
            ..FULL
        };
        assert!(no_size.from_driver(4000, tso).is_err());
        let unknown = Header {
            flags: 0x80,
            gso_type: 0,
            ..FULL
        };
        assert_eq!(unknown.from_driver(60, 0), Ok(Header::default()));
        let end_of_space = Header {
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..FULL
        };
        assert!(end_of_space.from_driver(60, tso).is_err());
    }
}
