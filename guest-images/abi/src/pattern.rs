//! Bytes that both ends can make without sending them.

use serde::{Deserialize, Serialize};

/// A pattern of bytes that both ends can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Pattern {
    /// The same byte everywhere.
    Byte(u8),
    /// Bytes that depend on the seed and the position: see [`pattern_byte`]. TOML's integers end at
    /// 2^63 - 1, so a scenario file's seeds do too.
    Seed(u64),
}

impl Pattern {
    /// The byte at `position` of the transfer (not of the file).
    #[must_use]
    pub fn byte(self, position: u64) -> u8 {
        match self {
            Self::Byte(byte) => byte,
            Self::Seed(seed) => pattern_byte(seed, position),
        }
    }

    /// Writes the pattern from position 0 on.
    pub fn fill(self, buffer: &mut [u8]) {
        match self {
            Self::Byte(byte) => buffer.fill(byte),
            Self::Seed(seed) => {
                for (word, chunk) in (0u64..).zip(buffer.chunks_mut(8)) {
                    chunk.copy_from_slice(&pattern_word(seed, word)[..chunk.len()]);
                }
            }
        }
    }

    /// Position of the first byte of `bytes` that is not the pattern's; `None` when all are.
    #[must_use]
    pub fn first_difference(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Byte(byte) => bytes.iter().position(|&found| found != byte),
            Self::Seed(seed) => (0u64..)
                .zip(bytes.chunks(8))
                .find_map(|(word, chunk)| {
                    let expected = pattern_word(seed, word);
                    let wrong = chunk.iter().zip(expected).position(|(&f, e)| f != e)?;
                    Some((word, wrong))
                })
                .and_then(|(word, wrong)| Some(usize::try_from(word).ok()? * 8 + wrong)),
        }
    }
}

/// The byte of `Pattern::Seed(seed)` at `position` of the transfer (not of the file).
#[must_use]
pub fn pattern_byte(seed: u64, position: u64) -> u8 {
    pattern_word(seed, position / 8)[(position % 8) as usize]
}

/// Eight bytes of `Pattern::Seed(seed)`, from position `word * 8` on.
fn pattern_word(seed: u64, word: u64) -> [u8; 8] {
    let mixed = word
        .wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_buffer_holds_the_byte_of_each_position_also_in_a_ragged_tail() {
        let mut buffer = [0u8; 21];
        Pattern::Seed(7).fill(&mut buffer);
        for (position, byte) in (0u64..).zip(buffer) {
            assert_eq!(byte, pattern_byte(7, position), "position {position}");
            assert_eq!(byte, Pattern::Seed(7).byte(position));
        }
    }

    #[test]
    fn the_first_difference_is_found_where_a_byte_was_changed() {
        for pattern in [Pattern::Byte(0x41), Pattern::Seed(3)] {
            let mut buffer = [0u8; 29];
            pattern.fill(&mut buffer);
            assert_eq!(pattern.first_difference(&buffer), None);
            buffer[27] ^= 1;
            buffer[28] ^= 1;
            assert_eq!(pattern.first_difference(&buffer), Some(27));
        }
    }

    #[test]
    fn seeds_make_different_bytes() {
        let (mut one, mut two) = ([0u8; 64], [0u8; 64]);
        Pattern::Seed(1).fill(&mut one);
        Pattern::Seed(2).fill(&mut two);
        assert_ne!(one, two);
    }
}
