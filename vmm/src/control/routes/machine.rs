//! State, pause, resume, reset, power off.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::control::api::Api;
use crate::control::error::{ApiError, Body, Refusal};
use crate::control::model::{Machine, PowerOff, Reset, SnapshotMade, SnapshotOrder};
use crate::machine::Order;

/// The machine at a glance
#[utoipa::path(
    get, path = "/v1/machine", tag = "machine",
    responses((status = 200, description = "How it is", body = Machine))
)]
pub(in crate::control) async fn get(State(api): State<Api>) -> Json<Machine> {
    Json(glance(&api))
}

/// Stops the vCPUs between two instructions, and lets the devices take no new work
///
/// Host operations under way end, but nobody is told before the machine goes on. Gates may be opened, and the plan changed.
/// Guest time goes on; guests that use KVM's clock are told that they were stopped. A paused machine stays paused.
#[utoipa::path(
    post, path = "/v1/machine/pause", tag = "machine",
    responses(
        (status = 200, description = "It is paused", body = Machine),
        (status = 409, description = "It has ended", body = Refusal),
        (status = 500, description = "The host refused something", body = Refusal),
        (status = 504, description = "It did not answer", body = Refusal),
    )
)]
pub(in crate::control) async fn pause(State(api): State<Api>) -> Result<Json<Machine>, ApiError> {
    give(&api, Order::Pause, "pause").await
}

/// Goes on; a running machine goes on as it was
#[utoipa::path(
    post, path = "/v1/machine/resume", tag = "machine",
    responses(
        (status = 200, description = "It runs", body = Machine),
        (status = 409, description = "It has ended", body = Refusal),
        (status = 500, description = "The host refused something", body = Refusal),
        (status = 504, description = "It did not answer", body = Refusal),
    )
)]
pub(in crate::control) async fn resume(State(api): State<Api>) -> Result<Json<Machine>, ApiError> {
    give(&api, Order::Resume, "resume").await
}

/// Resets the machine, as the guest's own reset does
///
/// By `--on-reset`, the run ends or the guest boots again. What the devices hold is abandoned. A paused machine that boots
/// again stays paused.
#[utoipa::path(
    post, path = "/v1/machine/reset", tag = "machine", request_body = Reset,
    responses(
        (status = 200, description = "It was reset: it has ended, or it boots again", body = Machine),
        (status = 400, description = "The body does not confirm it", body = Refusal),
        (status = 409, description = "It has ended", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        (status = 415, description = "The body is not JSON", body = Refusal),
        (status = 500, description = "The host refused something", body = Refusal),
        (status = 504, description = "It did not answer", body = Refusal),
    )
)]
pub(in crate::control) async fn reset(
    State(api): State<Api>,
    Body(_): Body<Reset>,
) -> Result<Json<Machine>, ApiError> {
    give(&api, Order::Reset, "reset").await
}

/// Ends the run at once, as if the power cord was pulled
///
/// The guest hears nothing. The body has to say so: `{"confirm": "power-off"}`.
#[utoipa::path(
    post, path = "/v1/machine/power-off", tag = "machine", request_body = PowerOff,
    responses(
        (status = 200, description = "It is off", body = Machine),
        (status = 400, description = "The body does not confirm it", body = Refusal),
        (status = 409, description = "It has ended", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        (status = 415, description = "The body is not JSON", body = Refusal),
        (status = 500, description = "The host refused something", body = Refusal),
        (status = 504, description = "It did not answer", body = Refusal),
    )
)]
pub(in crate::control) async fn power_off(
    State(api): State<Api>,
    Body(_): Body<PowerOff>,
) -> Result<Json<Machine>, ApiError> {
    give(&api, Order::PowerOff, "power-off").await
}

/// Writes the machine into a file, from which `pincushion run --restore` goes on
///
/// The machine stands still meanwhile and goes on afterwards, unless it was paused before. Host operations under way end; requests that
/// are held stay held, and are fetched once more by a restored machine. Disk images are not in the file.
#[utoipa::path(
    post, path = "/v1/machine/snapshot", tag = "machine", request_body = SnapshotOrder,
    responses(
        (status = 200, description = "The file is whole", body = SnapshotMade),
        (status = 400, description = "The path is not absolute", body = Refusal),
        (status = 409, description = "It has ended", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        (status = 415, description = "The body is not JSON", body = Refusal),
        (status = 500, description = "The host refused something, or a device cannot be saved now", body = Refusal),
        (status = 504, description = "It did not answer", body = Refusal),
    )
)]
pub(in crate::control) async fn snapshot(
    State(api): State<Api>,
    Body(order): Body<SnapshotOrder>,
) -> Result<Json<SnapshotMade>, ApiError> {
    let path = PathBuf::from(&order.path);
    if !path.is_absolute() {
        let error = format!("`{}` is not an absolute path", order.path);
        return Err(ApiError::new(StatusCode::BAD_REQUEST, error));
    }
    let work = move |api: &Api| {
        api.log("snapshot", path.display().to_string());
        Ok(api.machine().snapshot(&path)?)
    };
    let bytes = api.aside(work).await?;
    let path = order.path;
    Ok(Json(SnapshotMade { path, bytes }))
}

async fn give(api: &Api, order: Order, word: &'static str) -> Result<Json<Machine>, ApiError> {
    let give = move |api: &Api| {
        // Before, so that what the order brings about has greater numbers.
        api.log(word, "");
        Ok(api.machine().give(order)?)
    };
    api.aside(give).await?;
    Ok(Json(glance(api)))
}

fn glance(api: &Api) -> Machine {
    let counted = api.observer().counted();
    let queues = || {
        counted
            .devices
            .values()
            .flat_map(|device| device.queues.values())
    };
    let about = api.about();
    Machine {
        state: api.machine().state().into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: u64::try_from(api.machine().uptime().as_millis()).unwrap_or(u64::MAX),
        boots: api.machine().boots(),
        vcpus: about.vcpus,
        memory_bytes: about.memory_bytes,
        kernel: about.kernel.clone(),
        holds: queues().map(|queue| queue.held).sum(),
        parked: queues().map(|queue| queue.parked).sum(),
        in_flight: queues().map(|queue| queue.in_flight).sum(),
        events: counted.events,
        plan_armed: api.desk().is_armed(),
    }
}
