//! The bytes of a fuzzer, read as choices.
//!
//! Promises: the same bytes are the same choices, and when they are used up every choice is zero, so each input has an end.

/// Bytes that are left.
#[derive(Debug, Clone)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of them.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether every choice from now on is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes, or as many as are left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, left) = self.0.split_at(count.min(self.0.len()));
        self.0 = left;
        taken
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little endian.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Eight bytes, little endian.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// One byte, as a number below `limit`.
    ///
    /// # Panics
    /// `limit` is 0.
    pub fn below(&mut self, limit: u8) -> u8 {
        self.byte() % limit
    }

    /// One of these, by one byte.
    ///
    /// # Panics
    /// There is none.
    pub fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[usize::from(self.byte()) % choices.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_bytes_is_zeros() {
        let mut input = Input::new(&[7, 1, 2, 9]);
        assert_eq!(
            (input.byte(), input.word(), input.is_empty()),
            (7, 0x201, false)
        );
        assert_eq!((input.number(), input.is_empty()), (9, true));
        assert_eq!((input.below(3), *input.pick(&["a", "b"])), (0, "a"));
        assert_eq!(input.take(5), []);
    }
}
