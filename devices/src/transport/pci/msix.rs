//! The MSI-X table and its pending bits (PCI Local Bus 3.0, 6.8.2), without a way to the guest.
//!
//! Promises: a vector that is signalled while it is masked is pending and comes when it is unmasked, once.

use super::layout::{MSIX_PBA_LEN, MSIX_TABLE_LEN};
use crate::transport::saved::SavedVector;

/// Bytes of one entry.
const ENTRY: usize = 16;
/// Vector control: masked.
const MASKED: u32 = 1;

/// Message control: vectors are used instead of the pin.
const ENABLE: u16 = 1 << 15;
/// Message control: all vectors are masked.
const FUNCTION_MASK: u16 = 1 << 14;

/// A message signalled interrupt: a write of `data` to `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Guest physical address, whatever the guest wrote.
    pub address: u64,
    /// What is written there.
    pub data: u32,
}

/// What has to be done for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Todo {
    /// From now on the vector is this message.
    Route(u16, Message),
    /// Send the vector's message.
    Send(u16),
}

#[derive(Debug, Clone, Copy)]
struct Vector {
    /// Address low, address high, data, control.
    words: [u32; 4],
    pending: bool,
    /// What [`Todo::Route`] said last.
    routed: Option<Message>,
}

impl Vector {
    const AT_RESET: Self = Self {
        words: [0, 0, 0, MASKED],
        pending: false,
        routed: None,
    };

    fn message(&self) -> Message {
        Message {
            address: u64::from(self.words[0]) | u64::from(self.words[1]) << 32,
            data: self.words[2],
        }
    }
}

/// All vectors of a function.
#[derive(Debug)]
pub(super) struct Msix {
    enabled: bool,
    function_masked: bool,
    /// A message is a write to memory, which the function may do.
    may_send: bool,
    vectors: Vec<Vector>,
}

impl Msix {
    /// As after a reset: disabled, every vector masked.
    pub(super) fn new(vectors: usize) -> Self {
        Self {
            enabled: false,
            function_masked: false,
            may_send: false,
            vectors: vec![Vector::AT_RESET; vectors],
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn len(&self) -> usize {
        self.vectors.len()
    }

    /// The guest wrote message control, or said whether the function may write memory.
    pub(super) fn set_control(&mut self, control: u16, may_send: bool, todo: &mut Vec<Todo>) {
        self.enabled = control & ENABLE != 0;
        self.function_masked = control & FUNCTION_MASK != 0;
        self.may_send = may_send;
        if !self.enabled {
            self.forget_pending();
        }
        for vector in 0..self.vectors.len() {
            self.refresh(vector, todo);
        }
    }

    /// Nothing is pending any more.
    pub(super) fn forget_pending(&mut self) {
        for vector in &mut self.vectors {
            vector.pending = false;
        }
    }

    /// Table and pending bits, for a snapshot.
    pub(super) fn save(&self) -> Vec<SavedVector> {
        let save = |vector: &Vector| SavedVector {
            words: vector.words,
            pending: vector.pending,
        };
        self.vectors.iter().map(save).collect()
    }

    /// The same back, before message control is. `false` where it is of another number of vectors. What is not masked is routed anew.
    pub(super) fn restore(&mut self, saved: &[SavedVector]) -> bool {
        if saved.len() != self.vectors.len() {
            return false;
        }
        for (vector, saved) in self.vectors.iter_mut().zip(saved) {
            *vector = Vector {
                words: saved.words,
                pending: saved.pending,
                routed: None,
            };
            vector.words[3] &= MASKED;
        }
        true
    }

    /// The device signals `vector`; one that does not exist is no interrupt.
    pub(super) fn signal(&mut self, vector: u16) -> Option<Todo> {
        let masked = self.function_masked || !self.may_send;
        let entry = self.vectors.get_mut(usize::from(vector))?;
        if masked || entry.words[3] & MASKED != 0 {
            entry.pending = true;
            return None;
        }
        Some(Todo::Send(vector))
    }

    /// The guest reads at `offset` of the table: four or eight aligned bytes, else zeros.
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(words) = words(offset, data.len(), MSIX_TABLE_LEN) else {
            return;
        };
        for (word, bytes) in words.zip(data.chunks_exact_mut(4)) {
            let entry = self.vectors.get(word * 4 / ENTRY);
            let value = entry.map_or(0, |entry| entry.words[word % 4]);
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The guest writes at `offset` of the table. `false` where the width or the place is wrong, and nothing is changed.
    pub(super) fn write_table(&mut self, offset: u64, data: &[u8], todo: &mut Vec<Todo>) -> bool {
        let Some(words) = words(offset, data.len(), MSIX_TABLE_LEN) else {
            return false;
        };
        for (word, bytes) in words.zip(data.chunks_exact(4)) {
            let vector = word * 4 / ENTRY;
            let Some(entry) = self.vectors.get_mut(vector) else {
                return false;
            };
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            entry.words[word % 4] = if word % 4 == 3 { value & MASKED } else { value };
            self.refresh(vector, todo);
        }
        true
    }

    /// The guest reads pending bits: four or eight aligned bytes, else zeros.
    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(words) = words(offset, data.len(), MSIX_PBA_LEN) else {
            return;
        };
        for (word, bytes) in words.zip(data.chunks_exact_mut(4)) {
            let of_word = self.vectors.iter().skip(word * 32).take(32);
            let bits = (0..).zip(of_word).fold(0u32, |bits, (bit, vector)| {
                bits | u32::from(vector.pending) << bit
            });
            bytes.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// What a change of the table or of the masks means for one vector.
    fn refresh(&mut self, index: usize, todo: &mut Vec<Todo>) {
        let live = self.enabled && !self.function_masked;
        let entry = &mut self.vectors[index];
        if !live || entry.words[3] & MASKED != 0 {
            return;
        }
        let vector = u16::try_from(index).expect("at most 512 vectors");
        let message = entry.message();
        if entry.routed != Some(message) {
            entry.routed = Some(message);
            todo.push(Todo::Route(vector, message));
        }
        if self.may_send && std::mem::take(&mut entry.pending) {
            todo.push(Todo::Send(vector));
        }
    }
}

/// The numbers of the words that an access of `len` bytes means.
fn words(offset: u64, len: usize, limit: u64) -> Option<std::ops::Range<usize>> {
    let offset = usize::try_from(offset).ok().filter(|_| offset < limit)?;
    let good = matches!(len, 4 | 8) && offset.is_multiple_of(len);
    good.then(|| offset / 4..(offset + len) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Message = Message {
        address: 0xfee0_1000,
        data: 0x41,
    };

    fn set(msix: &mut Msix, vector: u64, word: u64, value: u32) -> Vec<Todo> {
        let mut todo = Vec::new();
        let offset = vector * 16 + word * 4;
        assert!(msix.write_table(offset, &value.to_le_bytes(), &mut todo));
        todo
    }

    fn control(msix: &mut Msix, value: u16) -> Vec<Todo> {
        let mut todo = Vec::new();
        msix.set_control(value, true, &mut todo);
        todo
    }

    fn pending(msix: &Msix) -> u64 {
        let mut data = [0; 8];
        msix.read_pending(0, &mut data);
        u64::from_le_bytes(data)
    }

    fn ready() -> Msix {
        let mut msix = Msix::new(3);
        assert_eq!(control(&mut msix, ENABLE), []);
        set(&mut msix, 1, 0, 0xfee0_1000);
        set(&mut msix, 1, 2, 0x41);
        msix
    }

    #[test]
    fn an_unmasked_vector_is_routed_once_and_then_sent() {
        let mut msix = ready();
        assert_eq!(set(&mut msix, 1, 3, 0), [Todo::Route(1, MESSAGE)]);
        assert_eq!(msix.signal(1), Some(Todo::Send(1)));
        assert_eq!(set(&mut msix, 1, 3, 1), []);
        assert_eq!(set(&mut msix, 1, 3, 0), [], "the message is still the same");
    }

    #[test]
    fn a_masked_vector_is_pending_until_it_is_unmasked() {
        let mut msix = ready();
        assert_eq!((msix.signal(1), msix.signal(1)), (None, None));
        assert_eq!(pending(&msix), 0b10);
        let todo = set(&mut msix, 1, 3, 0);
        assert_eq!(todo, [Todo::Route(1, MESSAGE), Todo::Send(1)]);
        assert_eq!(pending(&msix), 0);
    }

    #[test]
    fn the_function_mask_holds_all_vectors_back() {
        let mut msix = ready();
        set(&mut msix, 1, 3, 0);
        control(&mut msix, ENABLE | FUNCTION_MASK);
        assert_eq!(msix.signal(1), None);
        assert_eq!(pending(&msix), 0b10);
        assert_eq!(control(&mut msix, ENABLE), [Todo::Send(1)]);
    }

    #[test]
    fn a_function_that_must_not_write_memory_sends_when_it_may() {
        let mut msix = ready();
        set(&mut msix, 1, 3, 0);
        let mut todo = Vec::new();
        msix.set_control(ENABLE, false, &mut todo);
        assert_eq!((msix.signal(1), todo.len()), (None, 0));
        assert_eq!(pending(&msix), 0b10);
        assert_eq!(control(&mut msix, ENABLE), [Todo::Send(1)]);
    }

    #[test]
    fn disabled_vectors_forget_what_is_pending() {
        let mut msix = ready();
        msix.signal(1);
        control(&mut msix, 0);
        assert_eq!(pending(&msix), 0);
        assert!(!msix.is_enabled());
    }

    #[test]
    fn a_vector_that_does_not_exist_is_no_interrupt() {
        let mut msix = ready();
        assert_eq!((msix.signal(3), msix.signal(u16::MAX)), (None, None));
        assert_eq!(pending(&msix), 0);
    }

    #[test]
    fn only_aligned_words_inside_the_table_are_written() {
        let mut msix = ready();
        let mut todo = Vec::new();
        for offset in (0..0x40).chain([0x1ff8, 0x2000, u64::MAX - 3]) {
            for len in 0..10usize {
                let good = matches!(len, 4 | 8)
                    && offset.is_multiple_of(len as u64)
                    && offset.saturating_add(len as u64) <= 0x30;
                let written = msix.write_table(offset, &[0xff; 10][..len], &mut todo);
                assert_eq!(written, good, "{offset:#x}, {len} bytes");
                msix.read_table(offset, &mut [0; 10][..len]);
                msix.read_pending(offset, &mut [0; 10][..len]);
            }
        }
        let mut entry = [0; 4];
        msix.read_table(12, &mut entry);
        assert_eq!(u32::from_le_bytes(entry), MASKED, "reserved bits stay zero");
    }
}
