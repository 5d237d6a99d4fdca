//! The same table in instructions instead of nanoseconds, counted by valgrind: for machines that do other work meanwhile.
//!
//! What it does not see: cache misses, stalls, and that some instructions take longer than others.

use std::process::Command;

use super::ratios::{Row, Unit, print_table};
use super::subject::{CHAINS, Shape, Subject};

/// First argument of the process whose instructions are counted; a shape, a subject and a number of turns follow.
pub const ONE: &str = "--one";

/// Turns of the shorter and of the longer process; the difference is free of what happens once.
const TURNS: [u32; 2] = [50, 350];

/// Prints the table.
pub fn print() {
    let rows = (0..Shape::ALL.len()).map(|shape| Row {
        shape: Shape::ALL[shape],
        costs: std::array::from_fn(|subject| cost(shape, subject)),
    });
    print_table(Unit::Instructions, rows);
}

/// Runs one subject for so many turns.
pub fn run_one(arguments: &[String]) {
    let numbers: Vec<usize> = arguments.iter().filter_map(|n| n.parse().ok()).collect();
    let [shape, subject, turns] = numbers[..] else {
        panic!("{ONE} takes the numbers of a shape, of a subject and of turns");
    };
    let mut subject = (Subject::ALL[subject].1)(Shape::ALL[shape]);
    (0..turns).for_each(|_| subject.run());
}

/// Instructions per request.
fn cost(shape: usize, subject: usize) -> f64 {
    let [short, long] = TURNS.map(|turns| counted(shape, subject, turns));
    (long - short) / f64::from((TURNS[1] - TURNS[0]) * u32::from(CHAINS))
}

/// Instructions of a whole process.
fn counted(shape: usize, subject: usize, turns: u32) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([
            ONE,
            &shape.to_string(),
            &subject.to_string(),
            &turns.to_string(),
        ])
        .output()
        .expect("valgrind is installed (apt-get install valgrind)");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("valgrind did not say how much it collected:\n{said}"))
}
