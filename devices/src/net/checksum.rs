//! The Internet checksum (RFC 1071), for frames whose sender left it to the device.

use super::header::Header;

/// Makes the checksum that `header` asks for and writes it to its place. Does nothing where none is asked for or where
/// its place is outside the frame.
pub fn complete(header: Header, frame: &mut [u8]) {
    if !header.needs_checksum() {
        return;
    }
    let start = usize::from(header.csum_start);
    let place = start + usize::from(header.csum_offset);
    let Some(summed) = frame.get(start..) else {
        return;
    };
    // The field holds the sum of the pseudo header, so it is summed with the rest (virtio 1.2, 5.1.6.2). A sum of zero is sent as
    // all ones, which means the same and is not UDP's "no checksum".
    let sum = match !sum(summed) {
        0 => u16::MAX,
        sum => sum,
    };
    if let Some(field) = frame.get_mut(place..place + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Ones' complement sum of big endian words.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
        [high] => u64::from(u16::from_be_bytes([*high, 0])),
        _ => 0,
    };
    let mut total: u64 = bytes.chunks(2).map(word).sum();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    u16::try_from(total).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_sums_up() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        assert_eq!(sum(&[0xff]), 0xff00);
    }

    #[test]
    fn a_completed_checksum_makes_the_sum_all_ones() {
        let header = Header {
            flags: 1,
            csum_start: 2,
            csum_offset: 3,
            ..Header::default()
        };
        let mut frame = [9, 9, 1, 2, 3, 0x12, 0x34, 4, 5, 6];
        // The field lies at an odd place here, so look at it as the receiver does: its pseudo header's sum is in the field.
        complete(header, &mut frame);
        assert_ne!(frame[5..7], [0x12, 0x34]);
        let even = Header {
            csum_offset: 2,
            ..header
        };
        let mut frame = [9, 9, 1, 2, 0, 0, 3, 4, 5, 6];
        complete(even, &mut frame);
        assert_eq!(sum(&frame[2..]), 0xffff);
    }

    #[test]
    fn a_place_outside_the_frame_changes_nothing() {
        let header = Header {
            flags: 1,
            csum_start: 60,
            csum_offset: 16,
            ..Header::default()
        };
        let mut frame = [7; 61];
        complete(header, &mut frame);
        assert_eq!(frame, [7; 61]);
        complete(header, &mut frame[..10]);
        assert_eq!(frame, [7; 61]);
    }
}
