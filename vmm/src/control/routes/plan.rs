//! The fault plan of a running machine.

use axum::Json;
use axum::extract::State;

use crate::control::api::Api;
use crate::control::desk;
use crate::control::error::{ApiError, Body, Refusal};
use crate::control::model::{NewPlan, Plan, Rule};

/// The plan and how often its rules acted
#[utoipa::path(
    get, path = "/v1/plan", tag = "plan",
    responses((status = 200, description = "The plan", body = Plan))
)]
pub(in crate::control) async fn get(State(api): State<Api>) -> Json<Plan> {
    Json(view(&api))
}

/// Puts another plan in the place of this one
///
/// Each queue obeys it from its next turn on. What is parked keeps its wait: it goes on when its gate is opened, its frame is
/// touched or its time is over, whatever the new plan says. Rules count anew for `times`. A wrong plan changes nothing.
#[utoipa::path(
    put, path = "/v1/plan", tag = "plan", request_body = NewPlan,
    responses(
        (status = 200, description = "The new plan", body = Plan),
        (status = 400, description = "The plan is wrong", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        (status = 415, description = "The body is not JSON", body = Refusal),
    )
)]
pub(in crate::control) async fn replace(
    State(api): State<Api>,
    Body(new): Body<NewPlan>,
) -> Result<Json<Plan>, ApiError> {
    let plan = desk::read(new.plan, new.toml.as_deref()).map_err(refused)?;
    // Before, so that what the new rules do has greater numbers; under the lock, so that two clients are told apart.
    let mut desk = api.desk();
    plan.check().map_err(|error| refused(error.into()))?;
    let text = serde_json::to_string(&plan).unwrap_or_default();
    api.log(
        "plan",
        if new.armed {
            text
        } else {
            format!("{text} disarmed")
        },
    );
    desk.replace(plan, new.armed).map_err(refused)?;
    drop(desk);
    Ok(Json(view(&api)))
}

/// Lets the rules act
#[utoipa::path(
    post, path = "/v1/plan/arm", tag = "plan",
    responses((status = 200, description = "They act", body = Plan))
)]
pub(in crate::control) async fn arm(State(api): State<Api>) -> Result<Json<Plan>, ApiError> {
    set_armed(&api, true)
}

/// Lets no rule act; what is parked keeps its wait, and the holds of devices stay
#[utoipa::path(
    post, path = "/v1/plan/disarm", tag = "plan",
    responses((status = 200, description = "They do not act", body = Plan))
)]
pub(in crate::control) async fn disarm(State(api): State<Api>) -> Result<Json<Plan>, ApiError> {
    set_armed(&api, false)
}

fn set_armed(api: &Api, is_armed: bool) -> Result<Json<Plan>, ApiError> {
    api.log("plan", if is_armed { "arm" } else { "disarm" });
    api.desk().arm(is_armed).map_err(refused)?;
    Ok(Json(view(api)))
}

fn refused(error: desk::DeskError) -> ApiError {
    ApiError::bad_request(error.to_string())
}

fn view(api: &Api) -> Plan {
    let desk = api.desk();
    let plan = desk.plan();
    let matches = desk.matches();
    let rule = |(index, rule): (usize, &pincushion_devices::fault::Rule)| Rule {
        name: rule.title(index),
        acted: matches[index],
    };
    Plan {
        armed: desk.is_armed(),
        plan: serde_json::to_value(plan).unwrap_or_default(),
        toml: toml::to_string(plan).unwrap_or_default(),
        rules: plan.rules.iter().enumerate().map(rule).collect(),
    }
}
