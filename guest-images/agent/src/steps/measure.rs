//! How long the kernel takes: pins by gup_test, direct reads, fsync. Rounds of each, so that who reads them can tell what is usual from what is not.

use std::os::fd::RawFd;

use pincushion_abi::Fault;
use pincushion_abi::step::Measure;

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::maps::stopped_fault;
use crate::steps::transfer::whole;
use crate::sys::aio::{Context, Transfer};
use crate::sys::clock::monotonic_ns;
use crate::sys::memory::{PAGE, Span};
use crate::sys::{c_string, file, guard, gup_test};

/// Most rounds of one step.
const MAX_ROUNDS: u32 = 1000;
/// Turns of the loop that tells how quick the CPU is now: about a millisecond on an emulated one.
const TURNS: u32 = 200_000;
/// Most reads under way at once.
const MAX_DEPTH: u32 = 64;

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &Measure) -> StepResult {
    match act {
        Measure::Pin { map, pages, rounds } => {
            let span = agent.map(map)?;
            at_least_one("pages", *pages)?;
            pin(stamp, span, *pages, room(*rounds)?)
        }
        Measure::Read {
            file,
            span,
            map,
            depth,
            count,
            rounds,
        } => {
            at_least_one("reads", *count)?;
            let reads = Reads {
                fd: agent.file(file)?,
                blocks: span / PAGE as u64,
                pages: agent.map(map)?,
                depth: *depth,
                count: *count,
            };
            read(stamp, &reads, room(*rounds)?)
        }
        Measure::Fsync { file, map, rounds } => {
            let fd = agent.file(file)?;
            fsync(stamp, fd, agent.span(map, 0, Some(1))?, room(*rounds)?)
        }
    }
}

/// A place for what rounds take, so that nothing allocates while they do.
fn room(rounds: u32) -> Result<Rounds, Fault> {
    at_least_one("rounds", rounds)?;
    if rounds > MAX_ROUNDS {
        return Err(refusal(format!(
            "{rounds} rounds are more than {MAX_ROUNDS}"
        )));
    }
    Ok(Rounds {
        wanted: rounds,
        taken: Vec::with_capacity(rounds as usize),
        loops: Vec::with_capacity(rounds as usize),
    })
}

fn at_least_one(what: &str, count: u32) -> Result<(), Fault> {
    if count == 0 {
        return Err(refusal(format!("0 {what}: there is nothing to measure")));
    }
    Ok(())
}

fn refusal(text: String) -> Fault {
    sentence("measure", text)
}

/// Rounds that are wanted, and what those that were done have taken.
struct Rounds {
    wanted: u32,
    taken: Vec<u64>,
    loops: Vec<u64>,
}

impl Rounds {
    /// Does them all, with one before that is not counted; `round` gives the nanoseconds.
    fn all(&mut self, mut round: impl FnMut() -> Result<u64, Fault>) -> Result<(), Fault> {
        round()?;
        let mut before = a_loop();
        for _ in 0..self.wanted {
            let taken = round()?;
            let after = a_loop();
            self.taken.push(taken);
            self.loops.push(before.midpoint(after));
            before = after;
        }
        Ok(())
    }

    fn found(self, operations: u64) -> Found {
        Found::nothing()
            .numbers("round_ns", self.taken)
            .numbers("loop_ns", self.loops)
            .number("operations", operations)
    }
}

/// How long the same piece of work takes now, in nanoseconds: steps of xorshift, each of which needs the one before.
fn a_loop() -> u64 {
    let from = monotonic_ns();
    let mut state = 1_u64;
    for _ in 0..TURNS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    std::hint::black_box(state);
    monotonic_ns() - from
}

fn pin(stamp: &mut Stamp<'_>, span: Span, pages: u32, mut rounds: Rounds) -> StepResult {
    let fd = file::open(&c_string(gup_test::PATH)?, libc::O_RDWR | libc::O_CLOEXEC)?;
    let capacity = rounds.taken.capacity();
    let (mut pins, mut unpins) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
    let mut is_warm = false;
    let done = stamp.around(|| {
        rounds.all(|| {
            let taken = gup_test::pin_fast(fd, span, pages)?;
            whole(
                "gup_test",
                usize::try_from(taken.bytes).unwrap_or(0),
                span.len() as u64,
            )?;
            let (pin_ns, unpin_ns) = (taken.pin_us * 1000, taken.unpin_us * 1000);
            if std::mem::replace(&mut is_warm, true) {
                pins.push(pin_ns);
                unpins.push(unpin_ns);
            }
            Ok(pin_ns + unpin_ns)
        })
    });
    file::close(fd)?;
    done?;
    let found = rounds.found((span.len() / PAGE) as u64);
    Ok(found.numbers("pin_ns", pins).numbers("unpin_ns", unpins))
}

/// Reads that are to be done in a round.
struct Reads {
    fd: RawFd,
    /// Pages of the file to read from.
    blocks: u64,
    pages: Span,
    depth: u32,
    count: u32,
}

fn read(stamp: &mut Stamp<'_>, reads: &Reads, mut rounds: Rounds) -> StepResult {
    if reads.depth == 0 || reads.depth > MAX_DEPTH {
        let text = format!("a depth of {} is not 1 to {MAX_DEPTH}", reads.depth);
        return Err(refusal(text));
    }
    if reads.blocks == 0 {
        return Err(refusal(format!("the span is less than {PAGE} bytes")));
    }
    let mut slots = Vec::with_capacity(reads.depth as usize);
    for slot in 0..reads.depth {
        let page = reads.pages.part(slot as usize * PAGE, PAGE);
        let page = page.ok_or_else(|| refusal("a page for each read under way".to_owned()))?;
        let mut transfer = Transfer::new(false, reads.fd, page, 0);
        transfer.number(slot.into());
        slots.push(transfer);
    }
    let context = Context::with_room(reads.depth)?;
    let done = stamp.around(|| rounds.all(|| one_round(&context, reads, &mut slots)));
    // Waits for what a failure has left under way.
    context.destroy();
    done?;
    Ok(rounds.found(reads.count.into()))
}

fn one_round(context: &Context, reads: &Reads, slots: &mut [Transfer]) -> Result<u64, Fault> {
    let mut begun = 0_u64;
    let mut begin = |transfer: &mut Transfer| {
        let block = begun % reads.blocks;
        begun += 1;
        transfer.at(i64::try_from(block * PAGE as u64).unwrap_or(i64::MAX));
        context.submit(transfer)
    };
    let from = monotonic_ns();
    for transfer in slots.iter_mut().take(reads.count as usize) {
        begin(transfer)?;
    }
    let at_first = reads.depth.min(reads.count);
    for ended in 1..=reads.count {
        let one = context.next()?;
        whole("aio", one.result?, PAGE as u64)?;
        if at_first + ended <= reads.count {
            let slot = usize::try_from(one.number).expect("a slot's number, from us");
            begin(&mut slots[slot])?;
        }
    }
    Ok(monotonic_ns() - from)
}

fn fsync(stamp: &mut Stamp<'_>, fd: RawFd, byte: Span, mut rounds: Rounds) -> StepResult {
    let mut value = [0_u8];
    stamp.around(|| {
        rounds.all(|| {
            value[0] = value[0].wrapping_add(1);
            guard::store(byte, &value).map_err(|stopped| stopped_fault("store", stopped))?;
            let from = monotonic_ns();
            file::fsync(fd)?;
            Ok(monotonic_ns() - from)
        })
    })?;
    Ok(rounds.found(1))
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    fn bench() -> Bench {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "write-pattern", "file": "a", "offset": 0, "len": 16384, "pattern": {"byte": 65}}));
        bench.ok(
            json!({"op": "mmap", "kind": "anonymous", "len": 16384, "map": "m", "populate": true}),
        );
        bench
            .ok(json!({"op": "mmap", "kind": "shared", "file": "a", "len": 4096, "map": "shared"}));
        bench
    }

    fn rounds(value: &Value) -> usize {
        match value {
            Value::Numbers(numbers) => numbers.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_round_is_told_and_the_first_warms_up() {
        let bench = bench();
        let found = bench
            .ok(json!({"op": "measure", "do": "fsync", "file": "a", "map": "shared", "rounds": 3}));
        assert_eq!(rounds(&found["round_ns"]), 3);
        match &found["loop_ns"] {
            Value::Numbers(loops) => assert!(loops.len() == 3 && loops.iter().all(|ns| *ns > 0)),
            other => panic!("{other:?}"),
        }
        assert_eq!(found["operations"], Value::Number(1));
        // Four stores, of 1 to 4.
        let first = bench.ok(json!({"op": "read-hash", "file": "a", "offset": 0, "len": 1}));
        assert_eq!(first["first"], Value::Number(4));
    }

    #[test]
    fn every_read_of_a_round_is_done_however_many_are_under_way() {
        if let Err(errno) = crate::sys::aio::Context::with_room(4).map(|context| context.destroy())
        {
            println!("skipped: io_setup on this host: {errno:?}");
            return;
        }
        let bench = bench();
        let read = |depth: u32, count: u32| {
            json!({
                "op": "measure", "do": "read", "file": "a", "span": 16384, "map": "m",
                "depth": depth, "count": count, "rounds": 2,
            })
        };
        for (depth, count) in [(1, 1), (1, 9), (4, 9), (4, 2)] {
            let found = bench.ok(read(depth, count));
            assert_eq!(found["operations"], Value::Number(count.into()));
            assert_eq!(rounds(&found["round_ns"]), 2, "{depth} {count}");
        }
        let verify = json!({"op": "verify", "map": "m", "len": 16384, "pattern": {"byte": 65}});
        assert_eq!(bench.ok(verify)["equal"], Value::Bool(true));
        let fault = bench.fails(read(5, 9));
        assert!(fault.name.contains("a page for each"), "{}", fault.name);
        bench.ok(json!({"op": "truncate", "file": "a", "len": 4097}));
        let fault = bench.fails(read(4, 9));
        assert!(fault.name.contains("short transfer"), "{}", fault.name);
    }

    #[test]
    fn what_measures_nothing_is_refused() {
        let bench = bench();
        for (step, said) in [
            (
                json!({"op": "measure", "do": "fsync", "file": "a", "map": "shared", "rounds": 0}),
                "0 rounds",
            ),
            (
                json!({"op": "measure", "do": "fsync", "file": "a", "map": "shared", "rounds": 1001}),
                "more than 1000",
            ),
            (
                json!({"op": "measure", "do": "pin", "map": "m", "pages": 0, "rounds": 1}),
                "0 pages",
            ),
            (
                json!({"op": "measure", "do": "read", "file": "a", "span": 4095, "map": "m", "depth": 1, "count": 1, "rounds": 1}),
                "less than 4096",
            ),
        ] {
            let fault = bench.fails(step);
            assert!(fault.name.contains(said), "{}", fault.name);
        }
    }
}
