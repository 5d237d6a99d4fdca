//! Children: forked ones that keep the mappings and serve steps, and programs.
//!
//! A forked child talks with its parent over a socket, one message each way per step, and sends its
//! marks itself, since I/O ports are inherited. It has one thread, so it takes no lock that another
//! thread of the agent may have held at the fork: that is why it refuses some steps.

use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use pincushion_abi::step::MAX_TEXT;
use pincushion_abi::{Fault, Outcome, Step};
use serde::{Deserialize, Serialize};

use crate::agent::{Agent, Names};
use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::process::{self, Forked};
use crate::workers;

/// Longest message between parent and child.
const MESSAGE_BYTES: usize = 128 * 1024;
/// The kernel gives PID 1 no PATH.
const PROGRAM_DIRECTORIES: [&str; 4] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"];

/// A forked child, seen from its parent.
pub struct Child {
    /// Its process id.
    pub pid: i32,
    socket: OwnedFd,
    /// Held while the child is inside a step.
    busy: Mutex<()>,
}

/// From parent to child.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Run { id: u32, step: Step },
    End,
}

/// From child to parent.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    outcome: Outcome,
    began_ns: u64,
    ended_ns: u64,
}

/// `fork(2)`.
pub fn fork(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let mut names = Some(agent.names());
    if let Some(names) = &names {
        names.children.refuse_used("child", name)?;
    }
    let (ours, theirs) = process::socket_pair()?;
    let pid = agent.reaper.adopt(|| {
        stamp.begin();
        match process::fork()? {
            Forked::Child => {
                if let Some(names) = names.take() {
                    forget_the_parents(names);
                }
                serve(agent, &theirs)
            }
            Forked::Parent(pid) => Ok::<_, Fault>(pid),
        }
    });
    stamp.end();
    let pid = pid?;
    let child = Arc::new(Child {
        pid,
        socket: ours,
        busy: Mutex::default(),
    });
    if let Some(names) = &mut names {
        // The lock was held since the name was found free.
        let _ = names.children.put(name, child);
    }
    Ok(Found::nothing().number("pid", pid.unsigned_abs().into()))
}

/// Lets go of what a child cannot use: asynchronous transfers belong to the parent's memory, the
/// sockets of other children must close with the parent.
fn forget_the_parents(mut names: MutexGuard<'_, Names>) {
    std::mem::forget(std::mem::take(&mut names.aio));
    std::mem::forget(std::mem::take(&mut names.uring));
    names.threads = Default::default();
    names.children = Default::default();
}

/// The child's life: serves orders until there are no more.
fn serve(agent: &Agent, socket: &OwnedFd) -> ! {
    let mut message = vec![0; MESSAGE_BYTES];
    loop {
        let Ok(len @ 1..) = process::receive(socket, &mut message) else {
            process::exit_now(0);
        };
        let (id, step) = match serde_json::from_slice(&message[..len]) {
            Ok(Order::Run { id, step }) => (id, step),
            Ok(Order::End) | Err(_) => process::exit_now(0),
        };
        let mut stamp = Stamp::new(id, agent.port.as_ref());
        let outcome = workers::outcome(agent, &mut stamp, &step);
        let (began_ns, ended_ns) = stamp.finish();
        let answer = Answer {
            outcome,
            began_ns,
            ended_ns,
        };
        let bytes = serde_json::to_vec(&answer).expect("answers hold only texts and numbers");
        if process::send(socket, &bytes).is_err() {
            process::exit_now(1);
        }
    }
}

/// Whether a forked child can run this step.
pub(super) fn fit_for_child(step: &Step) -> bool {
    !matches!(
        step,
        Step::Fork { .. }
            | Step::InChild { .. }
            | Step::EndChild { .. }
            | Step::Crowd(_)
            | Step::Exec { .. }
            | Step::FsLoad(_)
            | Step::WhereBlocked { .. }
            | Step::Dmesg {}
            | Step::Reboot {}
            | Step::PowerOff {}
            | Step::Panic {}
            | Step::Hang {}
    )
}

/// Runs a step in a child.
pub fn in_child(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, step: &Step) -> StepResult {
    let child = Arc::clone(agent.names().children.get("child", name)?);
    if !fit_for_child(step) {
        return Err(sentence(
            "in-child",
            "a forked child does not run this step: give it to a thread of the agent",
        ));
    }
    let order = Order::Run {
        id: stamp.id(),
        step: step.clone(),
    };
    let order = serde_json::to_vec(&order).expect("steps hold only texts and numbers");
    let mut message = vec![0; MESSAGE_BYTES];
    let busy = child
        .busy
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    process::send(&child.socket, &order)?;
    let len = process::receive(&child.socket, &mut message)?;
    drop(busy);
    if len == 0 {
        stamp.begun_elsewhere();
        return Err(sentence(
            "in-child",
            format!("child {name:?} ended before it answered"),
        ));
    }
    let answer: Answer = serde_json::from_slice(&message[..len]).map_err(|error| {
        sentence(
            "in-child",
            format!("child {name:?} answered what cannot be read: {error}"),
        )
    })?;
    stamp.sent_elsewhere(answer.began_ns, answer.ended_ns);
    match answer.outcome {
        Outcome::Ok(values) => Ok(Found(values)),
        Outcome::Failed(fault) => Err(fault),
    }
}

/// Ends a child: an idle one exits, a busy one is killed.
pub fn end_child(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let child = agent.names().children.take("child", name)?;
    let order = serde_json::to_vec(&Order::End).expect("an order is plain");
    let ended = stamp.around(|| {
        match child.busy.try_lock() {
            // A child that is gone already is fine as well.
            Ok(_) | Err(TryLockError::Poisoned(_)) => drop(process::send(&child.socket, &order)),
            Err(TryLockError::WouldBlock) => process::kill(child.pid)?,
        }
        agent.reaper.wait(child.pid)
    })?;
    Ok(ended.tell(Found::nothing()))
}

/// Runs a program.
pub fn exec(agent: &Agent, stamp: &mut Stamp<'_>, argv: &[String]) -> StepResult {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(sentence("exec", "argv is empty: give at least the program"));
    };
    let (out, err) = (process::anonymous_file()?, process::anonymous_file()?);
    let copy = |file: &std::fs::File| file.try_clone().map_err(|error| fault::io("dup", &error));
    let mut command = Command::new(find_program(program));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(copy(&out)?)
        .stderr(copy(&err)?);
    let ended = stamp.around(|| {
        let pid = agent
            .reaper
            .adopt(|| command.spawn().map(|child| child.id().cast_signed()));
        let pid = pid.map_err(|error| fault::io("execve", &error))?;
        agent.reaper.wait(pid)
    })?;
    let found = ended.tell(Found::nothing());
    Ok(found
        .long_text("stdout", &written(out)?)
        .long_text("stderr", &written(err)?))
}

/// The path of a program; one without a slash is looked for where programs are.
fn find_program(program: &str) -> PathBuf {
    let with_path = program.contains('/').then(|| PathBuf::from(program));
    let found = || {
        PROGRAM_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(program))
            .find(|path| path.exists())
    };
    with_path.or_else(found).unwrap_or_else(|| program.into())
}

/// What a program wrote, one byte more than a report tells at most.
fn written(mut file: std::fs::File) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| fault::io("read", &error))?;
    Ok(bytes)
}

/// A handled signal for a thread.
pub fn interrupt(agent: &Agent, stamp: &mut Stamp<'_>, thread: &str) -> StepResult {
    let tid = *agent.names().threads.get("thread", thread)?;
    stamp.around(|| process::interrupt(tid))?;
    Ok(Found::nothing())
}

/// Gives this thread a real-time priority.
pub fn run_first(stamp: &mut Stamp<'_>) -> StepResult {
    stamp.around(process::run_first)?;
    Ok(Found::nothing())
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    #[test]
    fn a_thread_that_runs_first_has_a_real_time_priority() {
        let bench = Bench::new();
        let ran = std::thread::spawn(move || match bench.run(json!({"op": "run-first"})) {
            Ok(_) => {
                // proc_pid_stat(5): the 41st field is the policy, and the name before the third may have blanks.
                let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
                let (_, from_third) = stat.rsplit_once(") ").unwrap();
                let policy = from_third.split(' ').nth(41 - 3).unwrap();
                assert_eq!(policy, libc::SCHED_FIFO.to_string());
            }
            Err(fault) => assert_eq!(
                (fault.call.as_str(), fault.errno),
                ("sched_setscheduler", libc::EPERM)
            ),
        });
        ran.join().unwrap();
    }

    #[test]
    fn a_forked_child_keeps_its_copy_and_is_reaped() {
        let bench = Bench::with_reaper();
        let store =
            |byte: u8| json!({"op": "store", "map": "m", "len": 4096, "pattern": {"byte": byte}});
        let load = json!({"op": "load", "map": "m", "len": 4096});
        let in_child = |step| json!({"op": "in-child", "child": "c", "step": step});
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 4096, "map": "m"}));
        bench.ok(store(1));
        assert!(matches!(
            bench.ok(json!({"op": "fork", "child": "c"}))["pid"],
            Value::Number(1..)
        ));
        bench.ok(store(2));
        assert_eq!(bench.ok(in_child(load.clone()))["first"], Value::Number(1));
        bench.ok(in_child(store(3)));
        assert_eq!(bench.ok(in_child(load.clone()))["first"], Value::Number(3));
        assert_eq!(bench.ok(load)["first"], Value::Number(2));
        let fault = bench.fails(in_child(json!({"op": "fsync", "file": "none"})));
        assert!(fault.name.contains("no file \"none\""), "{}", fault.name);
        let fault = bench.fails(in_child(json!({"op": "fork", "child": "d"})));
        assert!(
            fault.name.contains("does not run this step"),
            "{}",
            fault.name
        );

        assert_eq!(
            bench.ok(json!({"op": "end-child", "child": "c"}))["status"],
            Value::Number(0)
        );
        assert!(
            bench
                .fails(in_child(json!({"op": "sync"})))
                .name
                .contains("no child \"c\"")
        );
    }

    #[test]
    fn a_program_is_run_and_its_output_and_status_told() {
        let bench = Bench::with_reaper();
        let script = "echo out; echo err >&2; exit 3";
        let found = bench.ok(json!({"op": "exec", "argv": ["sh", "-c", script]}));
        assert_eq!(found["status"], Value::Number(3));
        assert_eq!(found["stdout"], Value::Text("out\n".into()));
        assert_eq!(found["stderr"], Value::Text("err\n".into()));
        let found = bench.ok(json!({"op": "exec", "argv": ["/bin/sh", "-c", "kill -9 $$"]}));
        assert_eq!(found["signal"], Value::Number(9));
    }

    #[test]
    fn a_program_that_is_not_there_is_a_fault() {
        let bench = Bench::with_reaper();
        let fault = bench.fails(json!({"op": "exec", "argv": ["/no/such/program"]}));
        assert_eq!((fault.call.as_str(), fault.errno), ("execve", 2));
        assert!(
            bench
                .fails(json!({"op": "exec", "argv": []}))
                .name
                .contains("empty")
        );
    }
}
