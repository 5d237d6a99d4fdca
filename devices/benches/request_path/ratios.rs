//! The table of ratios, with their limits.

use std::time::{Duration, Instant};

use super::subject::{CHAINS, Shape, Subject};

/// Rounds; each measures every subject for a moment, so that all see the same machine.
const ROUNDS: usize = 60;
const MOMENT: Duration = Duration::from_millis(4);

/// Prints the table.
pub fn print() {
    println!("\nper request, best of {ROUNDS} rounds side by side:");
    println!(
        "{:<22}{:>10}{:>10}{:>12}{:>10}{:>14}{:>16}",
        "", "bare", "path", "path/bare", "ledger", "hashing", "hashing/alone"
    );
    let mut met = true;
    for shape in Shape::ALL {
        let [bare, without, path, hashing, alone] = measure(shape);
        let (ratio, ledger) = (path / bare, path - without);
        let hash_ratio = (hashing - path) / alone;
        println!(
            "{:<22}{bare:>7.0} ns{path:>7.0} ns{ratio:>11.2}x{ledger:>7.1} ns{:>11.0} ns{hash_ratio:>15.2}x",
            shape.name(),
            hashing - path,
        );
        met &= ratio <= 2.0 && ledger <= 30.0 && hash_ratio <= 1.1;
    }
    println!(
        "limits: path/bare 2.00x, ledger 30 ns up to 16 frames, hashing 1.10x of the three hashes alone"
    );
    println!(
        "{}",
        if met {
            "all limits are met"
        } else {
            "NOT all limits are met"
        }
    );
}

/// Nanoseconds per request of each subject, in the order of [`Subject::ALL`].
fn measure(shape: Shape) -> [f64; 5] {
    let mut subjects = Subject::ALL.map(|(_, make)| make(shape));
    let mut best = [f64::INFINITY; 5];
    for _ in 0..ROUNDS {
        for (subject, best) in subjects.iter_mut().zip(&mut best) {
            *best = best.min(moment(subject));
        }
    }
    best
}

fn moment(subject: &mut Subject) -> f64 {
    let start = Instant::now();
    let mut turns = 0u32;
    while start.elapsed() < MOMENT {
        for _ in 0..16 {
            subject.run();
        }
        turns += 16;
    }
    let requests = f64::from(turns) * f64::from(CHAINS);
    start.elapsed().as_secs_f64() * 1e9 / requests
}
