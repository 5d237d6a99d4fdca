//! How long the kernel takes for something, again and again.

use serde::{Deserialize, Serialize};

/// `op = "measure"`, by its `do`. Values of each: `round_ns`, what each of `rounds` (at most 1000) has taken by the guest's clock, in their
/// order; `loop_ns`, what one and the same loop of the program took just before and after each round, in the mean: how quick the CPU was then,
/// for a host that has not always the same time for its guest; and `operations`, how many of what is measured were done in a round: pages,
/// reads, fsyncs.
///
/// A round before the first warms up and is not told. All is done between the marks of the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are plain")]
pub enum Measure {
    /// PIN_FAST_BENCHMARK of the kernel's gup_test (CONFIG_GUP_TEST): pins all pages of a mapping for writing, `pages` with each call, and unpins
    /// them all by one call. More values: `pin_ns` and `unpin_ns`, whose sum is `round_ns`.
    Pin {
        map: String,
        pages: u32,
        rounds: u32,
    },
    /// `count` reads of 4096 bytes of a file by libaio, `depth` (at most 64) of them under way at once, from the first `span` bytes of the
    /// file again and again, each into a page of the mapping.
    Read {
        file: String,
        span: u64,
        map: String,
        depth: u32,
        count: u32,
        rounds: u32,
    },
    /// The CPU stores to the first byte of the mapping, which belongs to the file, and then `fsync(2)`, which alone is measured.
    Fsync {
        file: String,
        map: String,
        rounds: u32,
    },
}
