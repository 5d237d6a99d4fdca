//! A real machine under control: its guest marks its progress for ever. Skipped without KVM.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::Method;
use pincushion_abi::port;
use pincushion_devices::context::Context;
use pincushion_devices::fault::Plan;
use pincushion_vmm::agent_port::FromAgent;
use pincushion_vmm::control::client::Client;
use pincushion_vmm::control::observer::Observer;
use pincushion_vmm::control::{About, Controlled, Server};
use pincushion_vmm::machine::{Exit, MachineConfig, OnReset, Parts};
use serde_json::{Value, json};

use crate::support::{Payload, machine_with};

/// Far more than any of these guests needs, on a loaded host too.
const LIMIT: Duration = Duration::from_secs(60);

struct Live {
    client: Client,
    progress: Arc<AtomicU64>,
    ended: JoinHandle<Exit>,
    _server: Server,
    _dir: tempfile::TempDir,
}

impl Live {
    fn start(on_reset: OnReset) -> Option<Self> {
        // mov dx, MARK; mov eax, 2; l: out dx, eax; jmp l
        let kernel = Payload::new()
            .outl(port::MARK, 2)
            .code(&[0xeb, 0xfd])
            .to_kernel();
        let progress = Arc::new(AtomicU64::new(0));
        let count = progress.clone();
        let agent = Box::new(move |_: FromAgent<'_>| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let config = MachineConfig {
            memory_bytes: 4 << 20,
            vcpus: 2,
            on_reset,
            ..MachineConfig::new(kernel.path())
        };
        let machine = machine_with(
            config,
            Parts {
                agent: Some(agent),
                ..Parts::default()
            },
        )?;
        let dir = tempfile::tempdir().expect("a directory");
        let path: PathBuf = dir.path().join("s");
        let controlled = Controlled {
            context: Context::quiet(),
            plan: Plan::default(),
            observer: Observer::new(),
            machine: Arc::new(machine.remote()),
            devices: Vec::new(),
            about: About::default(),
        };
        let server = Server::start(&path, controlled).expect("a socket");
        let mut running = machine.start().expect("threads");
        let ended = std::thread::spawn(move || {
            // The file is read again at each boot.
            let _kernel = kernel;
            running.wait(Some(LIMIT))
        });
        let client = Client::new(&path).expect("descriptors");
        Some(Self {
            client,
            progress,
            ended,
            _server: server,
            _dir: dir,
        })
    }

    fn now(&self) -> u64 {
        self.progress.load(Ordering::SeqCst)
    }

    fn state(&self) -> Value {
        self.client.get("/v1/machine").expect("an answer")
    }

    fn post(&self, address: &str) -> Value {
        self.client.post(address).expect("an answer")
    }

    /// # Panics
    /// The guest makes no progress within the limit.
    fn await_progress(&self) {
        let (before, begin) = (self.now(), Instant::now());
        while self.now() == before {
            assert!(begin.elapsed() < LIMIT, "the guest stands still");
            self.state();
        }
    }
}

#[test]
fn a_paused_guest_stands_still_and_goes_on_and_is_powered_off_while_paused() {
    let Some(live) = Live::start(OnReset::Exit) else {
        return;
    };
    live.await_progress();
    for _ in 0..3 {
        assert_eq!(live.post("/v1/machine/pause")["state"], "paused");
        assert_eq!(
            live.post("/v1/machine/pause")["state"],
            "paused",
            "twice is fine"
        );
        let paused_at = live.now();
        for _ in 0..50 {
            assert_eq!(live.state()["state"], "paused");
        }
        assert_eq!(live.now(), paused_at, "not an instruction");
        assert_eq!(live.post("/v1/machine/resume")["state"], "running");
        live.await_progress();
    }
    live.post("/v1/machine/pause");
    let word = json!({ "confirm": "power-off" });
    let off: Value = live
        .client
        .send(&Method::POST, "/v1/machine/power-off", &word)
        .expect("an answer");
    assert_eq!(off["state"], "ended");
    assert_eq!(live.ended.join().expect("no panic"), Exit::Stopped);
}

#[test]
fn a_reset_boots_again_and_a_paused_machine_stays_paused() {
    let Some(live) = Live::start(OnReset::Reboot) else {
        return;
    };
    let reset = || {
        let word = json!({ "confirm": "reset" });
        let _: Value = live
            .client
            .send(&Method::POST, "/v1/machine/reset", &word)
            .expect("an answer");
    };
    let await_boot = |boots: u64| {
        let begin = Instant::now();
        while live.state()["boots"] != boots {
            assert!(begin.elapsed() < LIMIT, "no boot {boots}");
        }
    };
    live.await_progress();
    reset();
    await_boot(2);
    live.await_progress();
    live.post("/v1/machine/pause");
    reset();
    await_boot(3);
    let at = live.now();
    assert_eq!(live.state()["state"], "paused");
    assert_eq!(live.now(), at);
    live.post("/v1/machine/resume");
    live.await_progress();
    let word = json!({ "confirm": "power-off" });
    let _: Value = live
        .client
        .send(&Method::POST, "/v1/machine/power-off", &word)
        .expect("an answer");
    assert_eq!(live.ended.join().expect("no panic"), Exit::Stopped);
}
