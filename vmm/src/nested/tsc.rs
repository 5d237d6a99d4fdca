//! The rate of the host's time-stamp counter.
//!
//! QEMU's emulated RDTSC is the host's. The nested kernel calibrates it against emulated timers, which goes wrong on
//! a busy host; KVM in there then refuses the guests' rate and they hang when idle. So we measure, and tell the kernel by
//! `tsc_early_khz=`. KVM tolerates 250 parts per million (`tsc_tolerance_ppm`).

#![expect(unsafe_code, reason = "RDTSC is an intrinsic")]

use std::arch::x86_64::_rdtsc;
use std::io;
use std::time::Duration;

use rustix::event::{Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// How long the counter is watched. A reading is true to about 0.1 us, so this gives a few parts per million.
const WATCH_NS: i64 = 50_000_000;

/// Measures the counter's rate in kHz, in 50 ms.
///
/// # Errors
///
/// Only if the kernel refuses to wait.
pub(super) fn measure_khz() -> io::Result<u64> {
    let begin = Reading::best_of(20);
    // Nothing but time is waited for here.
    let watch = Timespec {
        tv_sec: 0,
        tv_nsec: WATCH_NS,
    };
    poll(&mut [], Some(&watch))?;
    let end = Reading::best_of(20);
    let micros = (end.time - begin.time).as_nanos() / 1000;
    let ticks = u128::from(end.ticks.wrapping_sub(begin.ticks));
    // Ticks in a microsecond are MHz; rounded, in kHz.
    Ok(u64::try_from((ticks * 1000 + micros / 2) / micros.max(1)).unwrap_or(u64::MAX))
}

struct Reading {
    ticks: u64,
    time: Duration,
    /// Ticks that passed while the clock was read.
    width: u64,
}

impl Reading {
    /// The tightest of some readings: one that was interrupted is wide.
    fn best_of(count: u32) -> Self {
        (0..count)
            .map(|_| Self::now())
            .min_by_key(|reading| reading.width)
            .expect("at least one reading is taken")
    }

    fn now() -> Self {
        let before = ticks();
        let time = clock_gettime(ClockId::MonotonicRaw);
        let after = ticks();
        let width = after.wrapping_sub(before);
        Self {
            ticks: before.wrapping_add(width / 2),
            time: Duration::try_from(time).unwrap_or_default(),
            width,
        }
    }
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and it touches no memory.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_within_what_kvm_tolerates() {
        let (a, b) = (measure_khz().unwrap(), measure_khz().unwrap());
        assert!(a > 100_000, "{a} kHz is no processor of today");
        assert!(a.abs_diff(b) * 1_000_000 / a < 250, "{a} and {b} kHz");
    }
}
