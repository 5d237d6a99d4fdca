//! The named threads in which steps run, one queue each.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use pincushion_abi::report::{Outcome, Report};
use pincushion_abi::{Fault, Request, Step};

use crate::agent::Agent;
use crate::fault::sentence;
use crate::stamp::Stamp;
use crate::steps;
use crate::sys::process;

/// Name of the thread for steps that name none.
pub const MAIN: &str = "main";
/// Most threads; a scenario with more has a mistake in its names.
const MAX_THREADS: usize = 256;

/// The threads made so far. They live as long as the agent.
pub struct Workers {
    agent: Arc<Agent>,
    queues: BTreeMap<String, Sender<Request>>,
}

impl Workers {
    /// None yet.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            queues: BTreeMap::new(),
        }
    }

    /// Queues a step in its thread, which is made first where it does not exist. The error says why
    /// that could not be.
    pub fn dispatch(&mut self, request: Request) -> Result<(), String> {
        let name = request.thread.clone().unwrap_or_else(|| MAIN.to_owned());
        let queue = match self.queues.get(&name) {
            Some(queue) => queue,
            None => {
                let queue = self.start(&name)?;
                self.queues.entry(name.clone()).or_insert(queue)
            }
        };
        self.agent.names().give_step(&name);
        queue
            .send(request)
            .map_err(|_| "the thread of this step has ended: it must not".to_owned())
    }

    fn start(&self, name: &str) -> Result<Sender<Request>, String> {
        if name.is_empty() || name.contains('\0') {
            return Err("a thread's name must not be empty nor have a zero byte in it".into());
        }
        if self.queues.len() >= MAX_THREADS {
            return Err(format!("there are {MAX_THREADS} threads already"));
        }
        let (queue, steps) = mpsc::channel();
        let (tell_tid, tid) = mpsc::channel();
        let agent = Arc::clone(&self.agent);
        let its_name = name.to_owned();
        let body = move || {
            let _ = tell_tid.send(process::thread_id());
            for request in steps {
                run(&agent, request);
                agent.names().take_step(&its_name);
            }
        };
        let made = thread::Builder::new().name(name.to_owned()).spawn(body);
        made.map_err(|error| format!("no thread {name:?}: {error}"))?;
        let tid = tid
            .recv()
            .map_err(|_| format!("thread {name:?} ended at its start"))?;
        // `where-blocked` finds it from its first step on.
        let _ = self.agent.names().threads.put(name, tid);
        Ok(queue)
    }
}

/// Runs one step and reports it.
fn run(agent: &Agent, request: Request) {
    let mut stamp = Stamp::new(request.id, agent.port.as_ref());
    let outcome = outcome(agent, &mut stamp, &request.step);
    let (began_ns, ended_ns) = stamp.finish();
    agent.port.report(&Report::Done {
        id: request.id,
        outcome,
        began_ns,
        ended_ns,
    });
}

/// What comes of a step; a panic is a fault of ours, told like one of the kernel's.
pub fn outcome(agent: &Agent, stamp: &mut Stamp<'_>, step: &Step) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| steps::run(agent, stamp, step)));
    match result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
        Ok(found) => Outcome::Ok(found.0),
        Err(fault) => Outcome::Failed(fault),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Fault {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into());
    sentence(
        "agent",
        format!("the agent's code for this step panicked: {text}"),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::port::{Phase, Port};

    /// Panics at the first mark, as a mistake in a step would.
    #[derive(Default)]
    struct Faulty(AtomicBool);

    impl Port for Faulty {
        fn mark(&self, _id: u32, _phase: Phase) {
            assert!(self.0.swap(true, Ordering::Relaxed), "a mistake of ours");
        }

        fn report(&self, _report: &Report) {}

        fn seize(&self) {}
    }

    #[test]
    fn a_panic_in_a_step_is_its_fault_and_not_the_end_of_the_agent() {
        let agent = Agent::new(Arc::new(Faulty::default()));
        let mut stamp = Stamp::new(1, agent.port.as_ref());
        let Outcome::Failed(fault) = outcome(&agent, &mut stamp, &Step::Sync {}) else {
            panic!("the step must fail");
        };
        assert!(
            fault.name.contains("panicked: a mistake of ours"),
            "{}",
            fault.name
        );
        stamp.finish();
        assert!(matches!(
            outcome(
                &agent,
                &mut Stamp::new(2, agent.port.as_ref()),
                &Step::Sync {}
            ),
            Outcome::Ok(_)
        ));
    }
}
