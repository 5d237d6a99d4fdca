//! A machine without vCPUs: devices are served by calls of the test.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use pincushion_devices::backend::MemoryDisk;
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::device::{SharedDevice, VirtioDevice};
use pincushion_devices::fault::Plan;
use pincushion_devices::interrupt::Silent;
use pincushion_devices::mock::Driver;
use pincushion_devices::trace::Tracer;
use pincushion_vmm::control::client::Client;
use pincushion_vmm::control::observer::Observer;
use pincushion_vmm::control::{About, Controlled, Operate, Server};
use pincushion_vmm::machine::{Order, OrderError, RunState};
use serde_json::Value;

/// Takes every order.
#[derive(Default)]
pub struct Orders {
    pub given: Mutex<Vec<Order>>,
}

impl Operate for Orders {
    fn state(&self) -> RunState {
        let given = self.given.lock().expect("a test's bench");
        let last = given.iter().rev().find(|order| **order != Order::Reset);
        match last {
            Some(Order::Pause) => RunState::Paused,
            Some(Order::PowerOff) => RunState::Ended,
            _ => RunState::Running,
        }
    }

    fn boots(&self) -> u32 {
        1
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(7)
    }

    fn give(&self, order: Order) -> Result<(), OrderError> {
        if self.state() == RunState::Ended {
            return Err(OrderError::Ended);
        }
        self.given.lock().expect("a test's bench").push(order);
        Ok(())
    }

    fn snapshot(&self, path: &std::path::Path) -> Result<u64, OrderError> {
        if path == std::path::Path::new("/full") {
            return Err(OrderError::Failed("no space left".into()));
        }
        Ok(4096)
    }
}

/// A device `b` with its driver, and the socket. In the order in which they have to go.
pub struct Bench {
    pub server: Option<Server>,
    pub client: Client,
    pub orders: Arc<Orders>,
    pub context: Context,
    pub driver: Driver,
    device: SharedDevice,
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

pub const GATED: &str =
    "[[rule]]\nname = 'r'\ndevice = 'b'\noperation = 'read'\nhold = { gate = 'go' }\n";

impl Bench {
    pub fn new(plan: &str) -> Self {
        let plan = Plan::parse(plan, std::path::Path::new("plan.toml")).expect("a test's bench");
        let tracer = Arc::new(Tracer::new());
        let observer = Observer::new();
        tracer.add_sink(Box::new(observer.clone()));
        let context = Context::new(plan.clone(), tracer).expect("a test's bench");
        let config = BlkConfig {
            hash: false,
            ..BlkConfig::new("b")
        };
        let disk = Box::new(MemoryDisk::from_bytes(vec![0; 1 << 20]));
        let driver = Driver::new(config.queue_size, 64);
        let mut device = BlkDevice::new(config, disk, context.clone()).expect("a test's bench");
        let features = device.features();
        assert!(device.accept_features(features));
        let activation = driver.activation(features, Arc::new(Silent));
        device.activate(activation).expect("a test's bench");
        let device: SharedDevice = Arc::new(Mutex::new(device));
        let orders = Arc::new(Orders::default());
        let dir = tempfile::tempdir().expect("a test's bench");
        let path = dir.path().join("api.sock");
        let controlled = Controlled {
            context: context.clone(),
            plan,
            observer,
            machine: orders.clone(),
            devices: vec![device.clone()],
            about: About {
                vcpus: 1,
                memory_bytes: 1 << 20,
                kernel: "none".into(),
            },
        };
        Self {
            server: Some(Server::start(&path, controlled).expect("a test's bench")),
            client: Client::new(&path).expect("a test's bench"),
            orders,
            context,
            driver,
            device,
            path,
            _dir: dir,
        }
    }

    /// Offers a read of one page into the frame `frame` of the test's data, and kicks.
    pub fn read(&mut self, frame: u64) -> u16 {
        let range = self.driver.range(frame, 4096);
        let head = self.driver.read(8, &[range]);
        self.kick();
        head
    }

    pub fn kick(&self) {
        let queue = self
            .device
            .lock()
            .expect("a test's bench")
            .queues()
            .remove(0);
        queue.lock().expect("a test's bench").on_kick();
    }

    /// What the device thread does when the device's descriptor is readable.
    pub fn wake(&self) {
        let queue = self
            .device
            .lock()
            .expect("a test's bench")
            .queues()
            .remove(0);
        queue.lock().expect("a test's bench").on_wake();
    }

    pub fn get(&self, address: &str) -> Value {
        self.client.get(address).expect("a test's bench")
    }

    pub fn post(&self, address: &str) -> Value {
        self.client.post(address).expect("a test's bench")
    }

    pub fn send(&self, method: &Method, address: &str, body: &Value) -> Value {
        self.client
            .send(method, address, body)
            .expect("a test's bench")
    }

    /// Status and reason of a request that must be refused.
    pub fn refusal(
        &self,
        method: &Method,
        address: &str,
        content_type: &str,
        body: &str,
    ) -> (u16, String) {
        let answer = self
            .client
            .ask(method, address, content_type, body.as_bytes().to_vec())
            .expect("a test's bench");
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| {
            panic!(
                "{method} {address}: {error}: {:?}",
                String::from_utf8_lossy(&answer.body)
            )
        });
        let reason = value["error"].as_str().unwrap_or_default().to_owned();
        (answer.status, reason)
    }
}
