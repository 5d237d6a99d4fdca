//! Looking at, and writing to, what the kernel shows of itself.

use std::fs::{self, File};
use std::io::{Read, Write};

use pincushion_abi::Fault;
use pincushion_abi::step::MAX_TEXT;

use crate::agent::Agent;
use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;

const VMSTAT: &str = "/proc/vmstat";
const ACQUIRED: &str = "nr_foll_pin_acquired";
const RELEASED: &str = "nr_foll_pin_released";

/// Writes a file of /proc or /sys by one `write(2)`.
pub fn write_file(stamp: &mut Stamp<'_>, path: &str, text: &str) -> StepResult {
    let mut file = File::options()
        .write(true)
        .open(path)
        .map_err(|error| fault::io("open", &error))?;
    let written = stamp
        .around(|| file.write(text.as_bytes()))
        .map_err(|error| fault::io("write", &error))?;
    if written != text.len() {
        return Err(sentence(
            "write",
            format!("short transfer: {written} of {} bytes", text.len()),
        ));
    }
    Ok(Found::nothing())
}

/// Reads a file whole, and finds these numbers in it.
pub fn read_file(stamp: &mut Stamp<'_>, path: &str, numbers: &[String]) -> StepResult {
    let file = File::open(path).map_err(|error| fault::io("open", &error))?;
    let mut bytes = Vec::with_capacity(MAX_TEXT + 1);
    let read = stamp.around(|| file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| fault::io("read", &error))?;
    let found = Found::nothing().long_text("text", &bytes);
    with_numbers(found, path, &String::from_utf8_lossy(&bytes), numbers)
}

/// Drops clean caches.
pub fn drop_caches(stamp: &mut Stamp<'_>) -> StepResult {
    write_file(stamp, "/proc/sys/vm/drop_caches", "3")
}

/// Counters of /proc/vmstat.
pub fn counters(stamp: &mut Stamp<'_>, names: &[String]) -> StepResult {
    stamp.around(|| counters_now(names))
}

/// The same without marks.
pub fn counters_now(names: &[String]) -> StepResult {
    // The counters lag by per-CPU batches until they are asked to be refreshed.
    fs::write("/proc/sys/vm/stat_refresh", "1")
        .map_err(|error| fault::io("write stat_refresh", &error))?;
    let text =
        fs::read_to_string(VMSTAT).map_err(|error| fault::io("read /proc/vmstat", &error))?;
    let pins = |name| counter(VMSTAT, &text, name);
    let (acquired, released) = (pins(ACQUIRED)?, pins(RELEASED)?);
    let found = Found::nothing()
        .number(ACQUIRED, acquired)
        .number(RELEASED, released)
        .number("pinned", acquired.saturating_sub(released));
    with_numbers(found, VMSTAT, &text, names)
}

fn with_numbers(found: Found, path: &str, text: &str, names: &[String]) -> StepResult {
    names.iter().try_fold(found, |found, name| {
        Ok(found.number(name, counter(path, text, name)?))
    })
}

fn counter(path: &str, text: &str, name: &str) -> Result<u64, Fault> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| sentence("read", format!("{path} has no number {name:?}")))
}

/// The kernel's log since the last call.
pub fn dmesg(agent: &Agent, stamp: &mut Stamp<'_>) -> StepResult {
    let mut log = agent
        .kernel_log
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let lines = stamp.around(|| log.read())?;
    let found = Found::nothing()
        .texts("lines", lines.lines)
        .number("lost", lines.lost);
    Ok(if lines.more {
        found.flag("more", true)
    } else {
        found
    })
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "nr_dirty_threshold 7\nnr_dirty 5\n";
        assert_eq!(counter("stat", text, "nr_dirty"), Ok(5));
        assert_eq!(
            counter("stat", text, "nr_dirt").unwrap_err().name,
            "stat has no number \"nr_dirt\""
        );
    }

    #[test]
    fn numbers_are_found_in_a_file_that_is_read() {
        let bench = Bench::new();
        fs::write(bench.path("a"), "design lru\nanswered_no 12\n").unwrap();
        let ask = |name| json!({"op": "read-file", "path": bench.path("a"), "numbers": [name]});
        assert_eq!(
            bench.ok(ask("answered_no"))["answered_no"],
            Value::Number(12)
        );
        let fault = bench.fails(ask("design"));
        assert!(
            fault.name.ends_with("has no number \"design\""),
            "{fault:?}"
        );
    }

    #[test]
    fn a_file_is_read_whole_and_a_long_one_is_cut() {
        let bench = Bench::new();
        fs::write(bench.path("a"), "hello\n").unwrap();
        assert_eq!(
            bench.ok(json!({"op": "read-file", "path": bench.path("a")}))["text"],
            Value::Text("hello\n".into())
        );
        fs::write(bench.path("b"), vec![b'x'; 2 * MAX_TEXT]).unwrap();
        assert_eq!(
            bench.ok(json!({"op": "read-file", "path": bench.path("b")}))["truncated"],
            Value::Bool(true)
        );
    }

    #[test]
    fn a_file_to_write_must_exist() {
        let bench = Bench::new();
        fs::write(bench.path("a"), "").unwrap();
        bench.ok(json!({"op": "write-file", "path": bench.path("a"), "text": "1"}));
        assert_eq!(fs::read_to_string(bench.path("a")).unwrap(), "1");
        assert_eq!(
            bench
                .fails(json!({"op": "write-file", "path": bench.path("b"), "text": "1"}))
                .name,
            "ENOENT"
        );
    }
}
