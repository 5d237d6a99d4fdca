//! A host for steps in unit tests: an agent whose reports are collected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pincushion_abi::{Fault, Step, Value};
use serde_json::json;

use crate::agent::Agent;
use crate::port::{Collector, Port};
use crate::reaper::Reaper;
use crate::stamp::Stamp;

/// An agent and what it sent.
pub struct Bench {
    pub agent: Arc<Agent>,
    pub port: Arc<Collector>,
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let port = Arc::new(Collector::default());
        Self {
            agent: Arc::new(Agent::new(Arc::clone(&port) as Arc<dyn Port>)),
            port,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs a step written as JSON in this thread.
    pub fn run(&self, step: serde_json::Value) -> Result<BTreeMap<String, Value>, Fault> {
        let step: Step = serde_json::from_value(step).unwrap();
        let mut stamp = Stamp::new(1, self.port.as_ref());
        let result = super::run(&self.agent, &mut stamp, &step);
        stamp.finish();
        result.map(|found| found.0)
    }

    /// Runs a step that must succeed.
    pub fn ok(&self, step: serde_json::Value) -> BTreeMap<String, Value> {
        let shown = step.to_string();
        self.run(step)
            .unwrap_or_else(|fault| panic!("{shown}: {fault:?}"))
    }

    /// Runs a step that must fail.
    pub fn fails(&self, step: serde_json::Value) -> Fault {
        let shown = step.to_string();
        self.run(step).expect_err(&shown)
    }

    /// A path in the bench's own directory.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Opens a new file there, readable and writable.
    pub fn create(&self, name: &str) {
        self.ok(json!({"op": "open", "path": self.path(name), "flags": ["rdwr", "creat"], "file": name}));
    }

    /// With the reaper of the test run: a process has one, as it waits for all children.
    pub fn with_reaper() -> Self {
        static REAPER: OnceLock<Arc<Reaper>> = OnceLock::new();
        let reaper = REAPER.get_or_init(|| {
            let reaper = Arc::new(Reaper::default());
            let for_ever = Arc::clone(&reaper);
            std::thread::spawn(move || for_ever.run());
            reaper
        });
        let mut bench = Self::new();
        let agent = Arc::get_mut(&mut bench.agent).expect("nobody else has the new agent yet");
        agent.reaper = Arc::clone(reaper);
        bench
    }

    /// Whether something is there.
    pub fn has(&self, name: &str) -> bool {
        Path::new(&self.path(name)).exists()
    }
}
