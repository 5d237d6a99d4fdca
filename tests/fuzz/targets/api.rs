//! Requests to the control socket, of a machine with one disk and no vCPU, without a socket.
//!
//! ```text
//!   PUT /v1/plan application/json      method, address, content type
//!   {"toml": ""}                       the body: all lines up to the next
//!   %%
//!   !read                              the guest's driver offers a read; also !flush, !wake (the device's thread wakes up)
//! ```
//!
//! Verifies: every answer is one that the OpenAPI document promises, with a body that fits its schema; a refusal has a reason, and is
//! never our fault (5xx) but where the host refuses a snapshot (a file `full`); the guest is reset or ends only where the body says so;
//! the socket counts the holds that the log has.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use pincushion_devices::backend::MemoryDisk;
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::device::VirtioDevice;
use pincushion_devices::fault::Plan;
use pincushion_devices::interrupt::Silent;
use pincushion_devices::mock::{ByHand, Driver};
use pincushion_devices::trace::{EventKind, Recording, Tracer};
use pincushion_vmm::control::observer::Observer;
use pincushion_vmm::control::{About, Controlled, Operate, openapi, router};
use pincushion_vmm::machine::{Order, OrderError, RunState};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::schema::Schemas;

const PLAN: &str =
    "[[rule]]\nname = 'r'\ndevice = 'b'\noperation = 'read'\nhold = { gate = 'go' }\n";
/// Most requests of the guest: each takes three of 256 descriptors.
const MOST: u32 = 60;
/// Most pieces of a stream that are read.
const PIECES: usize = 8;

/// Takes every order.
#[derive(Default)]
struct Orders(Mutex<Vec<Order>>);

impl Orders {
    fn given(&self) -> Vec<Order> {
        self.0.lock().expect("no panic").clone()
    }
}

impl Operate for Orders {
    fn state(&self) -> RunState {
        let given = self.given();
        match given.iter().rev().find(|order| **order != Order::Reset) {
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
        self.0.lock().expect("no panic").push(order);
        Ok(())
    }

    fn snapshot(&self, path: &Path) -> Result<u64, OrderError> {
        if path.ends_with("full") {
            return Err(OrderError::Failed("no space left".into()));
        }
        Ok(4096)
    }
}

struct Bench {
    device: Arc<Mutex<BlkDevice>>,
    driver: Driver,
    offered: u32,
    orders: Arc<Orders>,
    log: Recording,
    router: Router,
}

pub fn target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    thread_local! {
        static RUNTIME: Runtime = runtime();
    }
    RUNTIME.with(|runtime| {
        let mut bench = Bench::new();
        for part in text.split("\n%%\n") {
            bench.step(runtime, part);
        }
        bench.end(runtime);
    });
}

/// Its clock stands still, and goes on at once to where somebody waits.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .expect("a runtime")
}

fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_str(&openapi()).expect("JSON"))
}

/// The address of the document that an address is, and what there is about it.
fn entry(path: &str) -> Option<(&'static String, &'static Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        // The router takes a name that is empty, unless the address ends there.
        let is_name = |index, part: &str| !part.is_empty() || index + 1 < parts.len();
        let same = |(index, (wanted, part)): (usize, (&&str, &&str))| {
            wanted == part || wanted.starts_with('{') && is_name(index, part)
        };
        let pairs = template.iter().zip(&parts);
        template.len() == parts.len() && pairs.enumerate().all(same)
    };
    let paths = document()["paths"].as_object().expect("paths");
    paths.iter().find(|(template, _)| fits(template))
}

impl Bench {
    fn new() -> Self {
        let plan = Plan::parse(PLAN, "plan.toml".as_ref()).expect("a plan");
        let (tracer, log) = Tracer::recording();
        let observer = Observer::new();
        tracer.add_sink(Box::new(observer.clone()));
        let context = Context::new(plan.clone(), tracer).expect("a plan");
        let disk = Box::new(MemoryDisk::new(1 << 16));
        let config = BlkConfig::new("b");
        let driver = Driver::new(config.queue_size, 16);
        let mut device = BlkDevice::new(config, disk, context.clone()).expect("descriptors");
        let features = device.features();
        assert!(device.accept_features(features));
        let activation = driver.activation(features, Arc::new(Silent));
        device.activate(activation).expect("rings in memory");
        let device = Arc::new(Mutex::new(device));
        let orders = Arc::new(Orders::default());
        let controlled = Controlled {
            context,
            plan,
            observer,
            machine: orders.clone(),
            devices: vec![device.clone()],
            about: About::default(),
        };
        Self {
            device,
            driver,
            offered: 0,
            orders,
            log,
            router: router(controlled),
        }
    }

    fn step(&mut self, runtime: &Runtime, part: &str) {
        let (first, body) = part.split_once('\n').unwrap_or((part, ""));
        let device = || self.device.lock().expect("no panic");
        match first {
            "!wake" => device().on_wake(),
            "!read" | "!flush" if self.offered < MOST => {
                self.offered += 1;
                if first == "!read" {
                    let range = self.driver.range(u64::from(self.offered % 16), 512);
                    self.driver.read(8, &[range]);
                } else {
                    self.driver.flush();
                }
                device().on_kick(0);
            }
            first if !first.starts_with('!') => {
                let mut words = first.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_default();
                let (method, address, content_type) = (word(), word(), word());
                self.ask(runtime, method, address, content_type, body);
            }
            _ => {}
        }
    }

    fn ask(
        &self,
        runtime: &Runtime,
        method: &str,
        address: &str,
        content_type: &str,
        body: &str,
    ) -> Option<Bytes> {
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            return None;
        };
        let mut request = Request::builder().method(method.clone()).uri(address);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Body::from(body.to_owned())).ok()?;
        let path = request.uri().path().to_owned();
        let before = self.orders.given().len();
        let (status, kind, answer) = runtime.block_on(self.answer(request));
        let what = format!("{method} {address}: {status}");
        let host_refuses = path == "/v1/machine/snapshot" && body.contains("full");
        assert!(!status.is_server_error() || host_refuses, "{what}");
        if method != Method::HEAD {
            check(&method, &path, status, &kind, &answer);
        }
        for order in &self.orders.given()[before..] {
            let word = match order {
                Order::Pause | Order::Resume => continue,
                Order::Reset => "reset",
                Order::PowerOff => "power-off",
            };
            let said: Value = serde_json::from_str(body).unwrap_or_default();
            assert_eq!(said["confirm"], word, "{what}: {body:?}");
            assert_eq!(path, format!("/v1/machine/{word}"));
        }
        Some(answer)
    }

    /// Status, content type and body; of a stream that never ends the first pieces.
    async fn answer(&self, request: Request<Body>) -> (StatusCode, String, Bytes) {
        let answer = self.router.clone().oneshot(request).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        let status = answer.status();
        let kind = answer.headers().get("content-type");
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let mut body = answer.into_body();
        let mut bytes = Vec::new();
        for _ in 0..PIECES {
            let Some(frame) = body.frame().await else {
                break;
            };
            if let Ok(data) = frame.expect("no body breaks off").into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        (status, kind, bytes.into())
    }

    fn end(self, runtime: &Runtime) {
        let answer = self.ask(runtime, "GET", "/v1/holds", "", "");
        let answer: Value = serde_json::from_slice(&answer.expect("an answer")).expect("JSON");
        let count = |is: fn(&EventKind) -> bool| {
            let events = self.log.events();
            events.iter().filter(|event| is(&event.kind)).count() as u64
        };
        let held = count(|kind| matches!(kind, EventKind::HoldOpened { .. }))
            - count(|kind| matches!(kind, EventKind::HoldClosed { .. }));
        assert_eq!(answer["total"], held, "holds of the socket and of the log");
    }
}

/// An answer is one of the document's.
fn check(method: &Method, path: &str, status: StatusCode, kind: &str, answer: &[u8]) {
    let what = format!("{method} {path}: {status}");
    if status.is_client_error() || status.is_server_error() {
        let refusal: Value = serde_json::from_slice(answer).unwrap_or_default();
        let reason = refusal["error"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "{what}: a refusal without a reason");
    }
    let Some((template, entry)) = entry(path) else {
        return assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
    };
    // `gET` is another method than `GET`.
    let mut operations = entry.as_object().expect("operations").iter();
    let operation = operations.find(|(name, _)| name.to_uppercase() == method.as_str());
    let Some((_, operation)) = operation else {
        return assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{what}");
    };
    let promised = &operation["responses"][status.as_str()];
    assert!(promised.is_object(), "{what} is not in the document");
    let contents = promised["content"].as_object().expect("a content");
    let (wanted, content) = contents.iter().next().expect("one kind");
    assert!(kind.starts_with(wanted.as_str()), "{what}: {kind}");
    if wanted == "application/json" {
        let value = serde_json::from_slice(answer).expect("JSON");
        Schemas::new(document()).check(&content["schema"], &value, template);
    }
}
