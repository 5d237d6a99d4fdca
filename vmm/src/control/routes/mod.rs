//! The addresses, and the OpenAPI document that is made from them.

mod devices;
mod events;
mod gates;
mod holds;
mod machine;
mod metrics;
mod plan;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use utoipa::OpenApi;

use super::api::{Api, Controlled};
use super::error::{ApiError, Refusal};

/// Longest body of a request in bytes: a plan of some ten thousand rules.
const MAX_BODY: usize = 4 << 20;

/// All that the socket answers, for a server or for whoever brings requests in another way.
pub fn router(controlled: Controlled) -> Router {
    let api = Api::new(controlled);
    Router::new()
        .route("/v1/machine", get(machine::get))
        .route("/v1/machine/pause", post(machine::pause))
        .route("/v1/machine/resume", post(machine::resume))
        .route("/v1/machine/reset", post(machine::reset))
        .route("/v1/machine/power-off", post(machine::power_off))
        .route("/v1/machine/snapshot", post(machine::snapshot))
        .route("/v1/devices", get(devices::list))
        .route(
            "/v1/devices/{name}",
            get(devices::get).patch(devices::change),
        )
        .route("/v1/holds", get(holds::list))
        .route("/v1/frames/{frame}", get(holds::frame))
        .route("/v1/gates", get(gates::list))
        .route("/v1/gates/{name}/open", post(gates::open))
        .route("/v1/plan", get(plan::get).put(plan::replace))
        .route("/v1/plan/arm", post(plan::arm))
        .route("/v1/plan/disarm", post(plan::disarm))
        .route("/v1/metrics", get(metrics::json))
        .route("/metrics", get(metrics::prometheus))
        .route("/v1/events", get(events::page))
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/openapi.json", get(openapi_file))
        .fallback(unknown_address)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// The OpenAPI document, as it is checked in.
///
/// # Panics
/// Never: it is plain data.
#[must_use]
pub fn openapi() -> String {
    let mut text = Document::openapi()
        .to_pretty_json()
        .expect("the document is plain data");
    text.push('\n');
    text
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pincushion's control socket",
        description = "Control of a running machine over a Unix socket: `pincushion run --api-sock PATH`. Every refusal is \
                       `{\"error\": \"reason\"}`. What is parked keeps its wait whatever happens to the plan.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
        version = "1"
    ),
    servers((url = "http://localhost", description = "over the socket; the host name means nothing")),
    paths(
        machine::get, machine::pause, machine::resume, machine::reset, machine::power_off, machine::snapshot,
        devices::list, devices::get, devices::change,
        holds::list, holds::frame,
        gates::list, gates::open,
        plan::get, plan::replace, plan::arm, plan::disarm,
        metrics::json, metrics::prometheus,
        events::page, events::stream,
        openapi_file,
    ),
    components(schemas(Refusal))
)]
struct Document;

/// This document
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "about",
    responses((status = 200, description = "The OpenAPI document", body = serde_json::Value))
)]
async fn openapi_file() -> impl axum::response::IntoResponse {
    ([("content-type", "application/json")], openapi())
}

async fn unknown_address(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::not_found(format!(
        "there is nothing at {path}; GET /v1/openapi.json lists what there is"
    ))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let error = format!("{path} does not take {method}; GET /v1/openapi.json says what it takes");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
