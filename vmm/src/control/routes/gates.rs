//! Gates: who waits where, and opening one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use pincushion_devices::toml_error::nearest;

use crate::control::api::Api;
use crate::control::error::{ApiError, Named, Params, Refusal};
use crate::control::model::{Gate, Gates, OpenQuery};

/// The gates that the plan names, that were opened, or where a request waits
#[utoipa::path(
    get, path = "/v1/gates", tag = "gates",
    responses((status = 200, description = "By name", body = Gates))
)]
pub(in crate::control) async fn list(State(api): State<Api>) -> Json<Gates> {
    Json(Gates {
        gates: known(&api).into_values().collect(),
    })
}

/// Opens a gate for good: who waits there goes on, in the order of parking
///
/// Opening an open gate does nothing. A gate of which neither the plan nor a waiting request speaks is refused, unless
/// `undeclared=true`: it is a slip of the finger more often than not.
#[utoipa::path(
    post, path = "/v1/gates/{name}/open", tag = "gates",
    params(("name" = String, Path, description = "Its name"), OpenQuery),
    responses(
        (status = 200, description = "It is open", body = Gate),
        (status = 400, description = "A parameter is not possible", body = Refusal),
        (status = 404, description = "Nobody speaks of such a gate", body = Refusal),
    )
)]
pub(in crate::control) async fn open(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(query): Params<OpenQuery>,
) -> Result<Json<Gate>, ApiError> {
    let gates = known(&api);
    if !gates.contains_key(&name) && !query.undeclared {
        let near = nearest(&name, gates.keys().map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(ApiError::not_found(format!(
            "the plan names no gate `{name}` and nobody waits there{hint} (with `undeclared` it is opened all the same)"
        )));
    }
    let opened = name.clone();
    let open = move |api: &Api| {
        api.context().gates().open(&opened);
        Ok(())
    };
    api.aside(open).await?;
    let gate = known(&api).remove(&name);
    gate.map(Json)
        .ok_or_else(|| ApiError::not_found(format!("the gate `{name}` is gone")))
}

fn known(api: &Api) -> BTreeMap<String, Gate> {
    let in_plan = api.desk().gates();
    let waiting = api.context().gates().awaited();
    let opened = api.observer().open_gates();
    let names = in_plan
        .iter()
        .chain(&opened)
        .chain(waiting.iter().map(|(name, _)| name));
    let gate = |name: &String| Gate {
        name: name.clone(),
        open: api.context().gates().is_open(name),
        waiting: waiting
            .iter()
            .find(|(other, _)| other == name)
            .map_or(0, |(_, count)| *count as u64),
        in_plan: in_plan.contains(name),
    };
    names.map(|name| (name.clone(), gate(name))).collect()
}
