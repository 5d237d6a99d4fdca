//! What a request costs from pop to used, and how that compares with the least it could cost.
//!
//! `cargo bench-devices` prints the times by criterion, then one table of ratios measured side by side in the same
//! run, which is what the limits are about: absolute times drift with the machine, ratios do not. On a machine that
//! does other work at the same time even ratios do; there `cargo bench-devices -- --instructions` counts instructions
//! instead (under valgrind, which must be installed), which no load changes.
//!
//! Both sides pop the same rings, whose chains are offered again and again, and no side touches a payload: the
//! device's backend does nothing. `bare` is the same work on virtio-queue alone: pop, walk, read the header, write
//! the status, add to the used ring, decide on a signal. It lives in the library, so that both sides run the same
//! machine code of virtio-queue and vm-memory (see `pincushion_devices::bare`).

mod instructions;
mod ratios;
mod subject;

use criterion::{Criterion, Throughput};
use subject::{CHAINS, Shape, Subject};

fn series(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut group = criterion.benchmark_group(shape.name());
        group.throughput(Throughput::Elements(CHAINS.into()));
        for (name, make) in Subject::ALL {
            group.bench_function(name, |bencher| {
                let mut subject = make(shape);
                bencher.iter(|| subject.run());
            });
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = arguments.as_slice()
        && first == instructions::ONE
    {
        return instructions::run_one(rest);
    }
    if arguments
        .iter()
        .any(|argument| argument == "--instructions")
    {
        return instructions::print();
    }
    let mut criterion = Criterion::default().configure_from_args();
    series(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` only asks whether it runs.
    if arguments.iter().any(|argument| argument == "--bench") {
        ratios::print();
    }
}
