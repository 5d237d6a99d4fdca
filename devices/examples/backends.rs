//! How fast the backends are: `cargo run -p pincushion-devices --example backends [DIRECTORY]`.
//!
//! Random reads and writes of 4 KiB by batches of 32, as a guest at that queue depth makes them, in rounds that go
//! around all backends, so that a busy machine is unfair to each of them alike. Ratios are what to read.
#![expect(
    clippy::unwrap_used,
    reason = "a measurement ends at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pincushion_devices::backend::{
    Buffers, Completion, Disk, DiskOptions, Engine, FileOptions, Submitted, Transfer, Work,
    open_disk,
};
use pincushion_devices::device::Memory;
use pincushion_devices::trace::event::GuestRange;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const SIZE: u64 = 64 << 20;
const BLOCK: u64 = 4096;
const DEPTH: u64 = 32;
const BATCHES: u64 = 200;
const ROUNDS: usize = 15;

struct Subject {
    name: &'static str,
    disk: Box<dyn Disk>,
    epoll: Option<Epoll>,
    /// Nanoseconds per transfer of each round.
    times: Vec<f64>,
}

fn open(path: &Path, name: &'static str, backend: Engine, direct: bool) -> Subject {
    let path = path.join(format!("{name}.img").replace(' ', "-"));
    std::fs::write(&path, vec![1; usize::try_from(SIZE).unwrap()]).unwrap();
    let file = FileOptions {
        path,
        read_only: false,
        direct,
    };
    let disk = open_disk(&DiskOptions {
        engine: backend,
        file,
    })
    .unwrap();
    let epoll = disk.completion_fd().map(|fd| {
        let epoll = Epoll::new().unwrap();
        let readable = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, readable).unwrap();
        epoll
    });
    Subject {
        name,
        disk,
        epoll,
        times: Vec::new(),
    }
}

impl Subject {
    /// Does one batch and waits for all of it.
    fn batch(&mut self, work: Work, memory: &Memory, seed: &mut u64) {
        let mut done: Vec<Completion> = Vec::new();
        for index in 0..DEPTH {
            *seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let transfer = Transfer {
                token: index,
                ordinal: 0,
                work,
                offset: (*seed >> 33) % (SIZE / BLOCK) * BLOCK,
                len: BLOCK,
                buffers: Buffers::Guest {
                    memory: memory.clone(),
                    ranges: vec![GuestRange {
                        addr: index * BLOCK,
                        len: BLOCK,
                    }],
                },
            };
            match self.disk.submit(transfer) {
                Submitted::Done(completion) => done.push(completion),
                Submitted::Pending => {}
            }
        }
        self.disk.commit();
        while (done.len() as u64) < DEPTH {
            let epoll = self.epoll.as_ref().unwrap();
            match epoll.wait(10_000, &mut [EpollEvent::default()]) {
                Ok(count) => assert_eq!(count, 1, "no completion in 10 s"),
                // io_uring finishes its work in the thread that submitted it, and interrupts its waits for that.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
            }
            self.disk.completions(&mut done);
        }
        for completion in done {
            completion.result.unwrap();
        }
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let base = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let memory: Memory =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    for work in [Work::Read, Work::Write] {
        let mut subjects = [
            open(dir.path(), "file", Engine::File, false),
            open(dir.path(), "uring", Engine::Uring, false),
            open(dir.path(), "file direct", Engine::File, true),
            open(dir.path(), "uring direct", Engine::Uring, true),
        ];
        for _ in 0..ROUNDS {
            for subject in &mut subjects {
                let mut seed = 42;
                let batches = if subject.name.ends_with("direct") {
                    BATCHES / 20
                } else {
                    BATCHES
                };
                let begun = Instant::now();
                for _ in 0..batches {
                    subject.batch(work, &memory, &mut seed);
                }
                let spent: Duration = begun.elapsed();
                let count = batches * DEPTH;
                subject.times.push(spent.as_secs_f64() * 1e9 / count as f64);
            }
        }
        for pair in subjects.chunks_exact_mut(2) {
            let [file, uring] = pair else {
                unreachable!("pairs")
            };
            let (system_calls, ring) = (median(&mut file.times), median(&mut uring.times));
            println!(
                "{work:?}: {} {system_calls:.0} ns, {} {ring:.0} ns per 4 KiB, {:.2} times",
                file.name,
                uring.name,
                ring / system_calls
            );
        }
    }
}
