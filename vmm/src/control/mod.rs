//! Control of a running machine over a Unix socket: HTTP and JSON (`docs/control.md`, `vmm/openapi.json`).
//!
//! ```text
//!   client ──> server.rs ──> routes/  ──> desk.rs      what the plan is           ──> Context::replace_plan
//!                │ one thread   │   └───> observer/    what is held and counted   <── sink of the tracer
//!                │              └───────> api.rs       Operate: pause, reset, ... ──> machine::Remote
//!                └ socket.rs    0600, never taken from the living
//! ```
//!
//! Promises: nothing a client does makes a device wait; what is asked of the machine is carried out by the thread that waits
//! for it; every refusal has a reason; what ends a guest needs a body that says so. Without a control socket nothing of
//! this exists.

mod api;
pub mod client;
mod desk;
mod error;
pub mod model;
pub mod observer;
mod prometheus;
mod routes;
mod server;
mod socket;

pub use api::{About, Controlled, Operate};
pub use error::Refusal;
pub use routes::{openapi, router};
pub use server::Server;
pub use socket::SocketError;
