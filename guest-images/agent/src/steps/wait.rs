//! Steps that wait for something to become true, each with a limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pincushion_abi::Fault;

use crate::agent::Agent;
use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::frames::Flags;
use crate::sys::c_string;
use crate::sys::clock::pause_between_looks;
use crate::sys::notify::Watch;

/// Between two looks at a thread's stack: the kernel tells no event when a thread falls asleep.
const LOOK: Duration = Duration::from_millis(2);
/// Longest wait for events: what the kernel makes without telling anybody is seen after this.
const SURE: Duration = Duration::from_millis(500);

/// Waits until a path exists.
pub fn path(stamp: &mut Stamp<'_>, path: &str, limit_ms: u64) -> StepResult {
    c_string(path)?;
    let wanted = Path::new(path);
    let watch = Watch::new()?;
    stamp.around(|| {
        let deadline = deadline(limit_ms);
        loop {
            // Watch first, look then: what comes between wakes the wait.
            watch_nearest(&watch, wanted)?;
            if wanted.exists() {
                return Ok(Found::nothing());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(timed_out(
                    "wait-path",
                    format!("{path} did not exist within {limit_ms} ms"),
                ));
            }
            watch.wait(left.min(SURE))?;
        }
    })
}

/// Watches the nearest directory above the path that exists.
fn watch_nearest(watch: &Watch, path: &Path) -> Result<(), Fault> {
    let nearest = path
        .ancestors()
        .skip(1)
        .find(|directory| directory.is_dir())
        .unwrap_or(Path::new("/"));
    watch.add(&c_string(&nearest.to_string_lossy())?)?;
    Ok(())
}

/// Where a thread or child sleeps, or that a thread has done its steps.
pub fn where_blocked(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    until: Option<&str>,
    or_done: bool,
    limit_ms: u64,
) -> StepResult {
    let directory = directory_of(agent, name)?;
    stamp.around(|| {
        let deadline = deadline(limit_ms);
        loop {
            // First this: a thread that is done later may have slept meanwhile.
            let is_done = or_done && agent.names().is_done(name);
            let seen = Sleeper::look(&directory)?;
            let there = until.is_none_or(|until| seen.stack.iter().any(|line| line.contains(until)));
            // One that runs is on its way through there.
            let sleeps = !or_done || seen.state != "R";
            if is_done || (there && sleeps) {
                return Ok(seen.tell().flag("blocked", !is_done));
            }
            if Instant::now() >= deadline {
                let until = until.unwrap_or_default();
                let text = format!(
                    "{name:?} did not sleep in {until:?} within {limit_ms} ms; it is in state {}, syscall {}, stack: {}",
                    seen.state,
                    seen.syscall,
                    seen.stack.join(" < ")
                );
                return Err(timed_out("where-blocked", text));
            }
            pause_between_looks(LOOK);
        }
    })
}

fn directory_of(agent: &Agent, name: &str) -> Result<PathBuf, Fault> {
    let names = agent.names();
    if let Ok(child) = names.children.get("child", name) {
        return Ok(format!("/proc/{}", child.pid).into());
    }
    let tid = names.threads.get("thread", name)?;
    Ok(format!("/proc/self/task/{tid}").into())
}

/// A thread as /proc shows it at one moment.
struct Sleeper {
    stack: Vec<String>,
    state: String,
    syscall: String,
}

impl Sleeper {
    fn look(directory: &Path) -> Result<Self, Fault> {
        let read = |name: &str| {
            let text = fs::read_to_string(directory.join(name));
            text.map_err(|error| fault::io(&format!("read {name}"), &error))
        };
        let stack = read("stack")?.lines().map(str::to_owned).collect();
        let state = state_of(&read("stat")?).to_owned();
        let syscall = read("syscall")?.trim().to_owned();
        Ok(Self {
            stack,
            state,
            syscall,
        })
    }

    fn tell(self) -> Found {
        Found::nothing()
            .texts("stack", self.stack)
            .text("state", self.state)
            .text("syscall", self.syscall)
    }
}

/// The third field of /proc/PID/stat; the second, the name, may hold spaces and brackets.
fn state_of(stat: &str) -> &str {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().next().unwrap_or("?")
}

/// Waits until a file has a text.
pub fn text(stamp: &mut Stamp<'_>, path: &str, wanted: &str, limit_ms: u64) -> StepResult {
    let wanted = wanted.trim_end();
    stamp.around(|| {
        let deadline = deadline(limit_ms);
        loop {
            // Some files cannot be read for a while, as `carrier` of an interface that is down.
            let seen = fs::read_to_string(path);
            let seen = seen.unwrap_or_else(|error| error.to_string());
            if seen.trim_end() == wanted {
                return Ok(Found::nothing().text("text", wanted));
            }
            if Instant::now() >= deadline {
                let text = format!("{path} was {seen:?} and not {wanted:?} after {limit_ms} ms");
                return Err(timed_out("wait-text", text));
            }
            pause_between_looks(LOOK);
        }
    })
}

/// Waits until so many pins are left. What it says at the limit is what was seen last.
pub fn pinned(stamp: &mut Stamp<'_>, names: &[String], wanted: u64, limit_ms: u64) -> StepResult {
    let deadline = deadline(limit_ms);
    stamp.around(|| {
        loop {
            let seen = super::observe::counters_now(names)?;
            let reached = seen.0.get("pinned") == Some(&pincushion_abi::Value::Number(wanted));
            if reached || Instant::now() >= deadline {
                return Ok(seen);
            }
            pause_between_looks(LOOK);
        }
    })
}

/// Waits until a counter is above what it was at the first look.
pub fn grown(stamp: &mut Stamp<'_>, names: &[String], counter: &str, limit_ms: u64) -> StepResult {
    let deadline = deadline(limit_ms);
    let mut asked = names.to_vec();
    asked.push(counter.to_owned());
    stamp.around(|| {
        let first = super::observe::counters_now(&asked)?;
        loop {
            let seen = super::observe::counters_now(&asked)?;
            if seen.0.get(counter) != first.0.get(counter) {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                let text = format!("{counter} did not grow within {limit_ms} ms");
                return Err(timed_out("counters", text));
            }
            pause_between_looks(LOOK);
        }
    })
}

/// Waits until a frame has the flags that are wanted. What it says at the limit is what was seen last.
pub fn flags(stamp: &mut Stamp<'_>, address: u64, wanted: &Flags, limit_ms: u64) -> StepResult {
    let deadline = deadline(limit_ms);
    stamp.around(|| {
        loop {
            let (reached, found) = super::frames::flags_now(address, wanted)?;
            if reached || Instant::now() >= deadline {
                return Ok(found);
            }
            pause_between_looks(LOOK);
        }
    })
}

fn deadline(limit_ms: u64) -> Instant {
    const LONGEST: u64 = 24 * 3600 * 1000;
    Instant::now() + Duration::from_millis(limit_ms.min(LONGEST))
}

fn timed_out(call: &str, text: String) -> Fault {
    Fault {
        errno: libc::ETIMEDOUT,
        ..sentence(call, text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn a_text_that_does_not_come_is_told_with_what_was_there() {
        let bench = Bench::new();
        std::fs::write(bench.path("f"), "up\n").unwrap();
        let step =
            |text| json!({"op": "wait-text", "path": bench.path("f"), "text": text, "limit_ms": 5});
        bench.ok(step("up"));
        let fault = bench.fails(step("down"));
        assert!(
            fault.name.contains("was \"up\\n\" and not \"down\""),
            "{}",
            fault.name
        );
    }

    #[test]
    fn a_path_that_exists_is_not_waited_for() {
        let bench = Bench::new();
        bench.ok(json!({"op": "wait-path", "path": bench.path(""), "limit_ms": 0}));
    }

    #[test]
    fn a_path_that_is_made_deep_below_ends_the_wait() {
        let bench = Bench::new();
        let (path, agent) = (bench.path("a/b/c"), bench.agent.clone());
        let made = path.clone();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mut stamp = Stamp::new(1, agent.port.as_ref());
                super::path(&mut stamp, &path, 10_000)
            });
            fs::create_dir_all(&made).unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(Found::nothing()));
        });
    }

    #[test]
    fn a_wait_that_gives_up_says_for_what_it_waited() {
        let bench = Bench::new();
        let fault =
            bench.fails(json!({"op": "wait-path", "path": bench.path("none"), "limit_ms": 5}));
        assert_eq!(fault.errno, libc::ETIMEDOUT);
        assert!(
            fault.name.contains("none did not exist within 5 ms"),
            "{}",
            fault.name
        );
    }

    #[test]
    fn an_unknown_thread_is_refused() {
        let bench = Bench::new();
        assert!(
            bench
                .fails(json!({"op": "where-blocked", "thread": "t"}))
                .name
                .contains("no thread \"t\"")
        );
    }

    #[test]
    fn a_thread_that_has_done_its_steps_ends_the_wait_and_one_that_has_not_does_not() {
        let bench = Bench::new();
        let tid = crate::sys::process::thread_id();
        let _ = bench.agent.names().threads.put("t", tid);
        let look = json!({"op": "where-blocked", "thread": "t", "until": "nowhere", "or_done": true, "limit_ms": 1});
        bench.agent.names().give_step("t");
        assert_eq!(bench.fails(look.clone()).call, "where-blocked");
        bench.agent.names().take_step("t");
        assert_eq!(
            bench.ok(look)["blocked"],
            pincushion_abi::Value::Bool(false)
        );
        // Without `or_done` it is looked for where it sleeps, whatever it has done.
        let look = json!({"op": "where-blocked", "thread": "t"});
        assert_eq!(bench.ok(look)["blocked"], pincushion_abi::Value::Bool(true));
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state_of("7 (a) D (b) S 1 2"), "S");
        assert_eq!(state_of(""), "?");
    }
}
