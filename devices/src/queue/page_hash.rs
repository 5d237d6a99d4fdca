//! XXH3-64 of guest memory in place, without copying it out first.
//!
//! A page costs about as much to copy as half its hash, so copying before hashing would be half again as dear as the
//! hash alone. A safe hash function needs a `&[u8]`, which must not exist for memory that the guest may change
//! meanwhile; this one makes volatile loads of 16 bytes and nothing else. It reads each byte exactly once, and
//! changes under its eyes change the result and nothing more. It gives the same numbers as
//! `xxhash_rust::xxh3::xxh3_64`.

#![expect(
    unsafe_code,
    reason = "volatile loads from guest memory into vector registers"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi64, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_mul_epu32, _mm_set_epi64x,
    _mm_shuffle_epi32, _mm_slli_epi64, _mm_srli_epi64, _mm_unpackhi_epi64, _mm_xor_si128,
};

use vm_memory::VolatileSlice;
use xxhash_rust::const_xxh3::const_custom_default_secret;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes that are taken in together.
const STRIPE: usize = 64;
/// Stripes between two scrambles: as many as the secret has places for, 8 bytes apart.
const STRIPES_PER_BLOCK: usize = (SECRET_LEN - STRIPE) / 8;
/// Shorter inputs have another algorithm.
const SHORTEST: usize = 256;

const SECRET_LEN: usize = 192;
static SECRET: [u8; SECRET_LEN] = const_custom_default_secret(0);
const PRIME32_1: u64 = 0x9e37_79b1;
const PRIME32_2: u64 = 0x85eb_ca77;
const PRIME32_3: u64 = 0xc2b2_ae3d;
const PRIME64_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME64_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME64_3: u64 = 0x1656_67b1_9e37_79f9;
const AVALANCHE: u64 = 0x1656_6791_9e37_79f9;
const PRIME64_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME64_5: u64 = 0x27d4_eb2f_1656_67c5;

/// Secrets of all stripes of a block, of the scramble, and of the last stripe, as vectors.
type Keys = [__m128i; 4];
type Accumulators = [__m128i; 4];

/// Hashes guest memory; `scratch` is used where the memory is not whole aligned stripes.
#[inline]
pub(super) fn hash(memory: &VolatileSlice<'_>, scratch: &mut [u8; 4096]) -> u64 {
    let guard = memory.ptr_guard();
    let (start, len) = (guard.as_ptr(), memory.len());
    if len >= SHORTEST && len.is_multiple_of(STRIPE) && start.cast::<__m128i>().is_aligned() {
        // SAFETY: the guard keeps `start..start + len` mapped, the address is aligned, the length is whole stripes,
        // and every x86-64 has SSE2.
        return unsafe { hash_stripes(start.cast(), len) };
    }
    let copy = &mut scratch[..len.min(4096)];
    memory.copy_to(copy);
    xxh3_64(copy)
}

/// # Safety
/// `start` is aligned to 16 bytes, and `len` bytes from it are mapped; `len` is a multiple of [`STRIPE`]. Others may
/// write the memory meanwhile.
#[inline]
#[target_feature(enable = "sse2")]
unsafe fn hash_stripes(start: *const __m128i, len: usize) -> u64 {
    let mut acc = [
        vector(PRIME32_3, PRIME64_1),
        vector(PRIME64_2, PRIME64_3),
        vector(PRIME64_4, PRIME32_2),
        vector(PRIME64_5, PRIME32_1),
    ];
    let last = len / STRIPE - 1;
    let mut stripe = 0;
    while stripe < last {
        let end = last.min(stripe + STRIPES_PER_BLOCK);
        for in_block in 0..end - stripe {
            // SAFETY: the stripe is before `last`, inside the memory that the caller promises.
            let data = unsafe { load(start.add((stripe + in_block) * 4)) };
            accumulate(&mut acc, data, keys(in_block * 8));
        }
        if end - stripe == STRIPES_PER_BLOCK {
            scramble(&mut acc);
        }
        stripe = end;
    }
    // SAFETY: as above; `last` is the last stripe.
    let data = unsafe { load(start.add(last * 4)) };
    accumulate(&mut acc, data, keys(SECRET_LEN - STRIPE - 7));
    merge(acc, len as u64)
}

/// Loads a stripe.
///
/// # Safety
/// `from` is aligned to 16 bytes and 64 bytes from it are mapped. Others may write them meanwhile.
#[inline]
#[target_feature(enable = "sse2")]
unsafe fn load(from: *const __m128i) -> [__m128i; 4] {
    // SAFETY: the caller promises that all four are mapped and aligned; a volatile load is one access, whose bytes
    // may be any.
    [0, 1, 2, 3].map(|part| unsafe { from.add(part).read_volatile() })
}

#[inline]
#[target_feature(enable = "sse2")]
fn accumulate(acc: &mut Accumulators, data: [__m128i; 4], keys: Keys) {
    for ((acc, data), key) in acc.iter_mut().zip(data).zip(keys) {
        let mixed = _mm_xor_si128(data, key);
        let high = _mm_shuffle_epi32::<0b00_11_00_01>(mixed);
        let product = _mm_mul_epu32(mixed, high);
        let swapped = _mm_shuffle_epi32::<0b01_00_11_10>(data);
        *acc = _mm_add_epi64(product, _mm_add_epi64(*acc, swapped));
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn scramble(acc: &mut Accumulators) {
    let prime = vector(PRIME32_1, PRIME32_1);
    for (acc, key) in acc.iter_mut().zip(keys(SECRET_LEN - STRIPE)) {
        let mixed = _mm_xor_si128(_mm_xor_si128(*acc, _mm_srli_epi64::<47>(*acc)), key);
        let high = _mm_shuffle_epi32::<0b00_11_00_01>(mixed);
        let (low, high) = (_mm_mul_epu32(mixed, prime), _mm_mul_epu32(high, prime));
        *acc = _mm_add_epi64(low, _mm_slli_epi64::<32>(high));
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn merge(acc: Accumulators, len: u64) -> u64 {
    let mut hash = len.wrapping_mul(PRIME64_1);
    for (part, acc) in acc.into_iter().enumerate() {
        let low = _mm_cvtsi128_si64(acc).cast_unsigned() ^ secret(11 + 16 * part);
        let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(acc, acc)).cast_unsigned()
            ^ secret(19 + 16 * part);
        hash = hash.wrapping_add(fold(low, high));
    }
    hash ^= hash >> 37;
    hash = hash.wrapping_mul(AVALANCHE);
    hash ^ hash >> 32
}

/// Both halves of the product, xored.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the halves of a product are what is wanted"
)]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
#[target_feature(enable = "sse2")]
fn keys(at: usize) -> Keys {
    let from = SECRET[at..at + STRIPE].as_ptr().cast::<__m128i>();
    // SAFETY: `STRIPE` bytes from there are inside the secret, and this load needs no alignment.
    [0, 1, 2, 3].map(|part| unsafe { _mm_loadu_si128(from.add(part)) })
}

#[inline]
fn secret(at: usize) -> u64 {
    let bytes = SECRET[at..].first_chunk().expect("inside the secret");
    u64::from_le_bytes(*bytes)
}

#[inline]
#[target_feature(enable = "sse2")]
fn vector(low: u64, high: u64) -> __m128i {
    _mm_set_epi64x(high.cast_signed(), low.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| byte()).collect()
    }

    #[test]
    fn it_is_xxh3_whatever_length_and_alignment() {
        let mut bytes = noise(4096 + 64);
        let mut scratch = [0; 4096];
        for start in [0, 1, 16, 40] {
            for len in (0..=4096)
                .step_by(32)
                .chain([1, 3, 17, 255, 257, 511, 4095])
            {
                let part = &mut bytes[start..start + len];
                let expected = xxh3_64(part);
                let seen = hash(&VolatileSlice::from(part), &mut scratch);
                assert_eq!(seen, expected, "{len} bytes from {start}");
            }
        }
    }
}
