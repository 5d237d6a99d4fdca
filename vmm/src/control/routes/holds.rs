//! What is held now.

use axum::Json;
use axum::extract::State;
use pincushion_devices::trace::event::{FRAME_SIZE, GuestRange, Until};
use serde::Serialize;

use crate::control::api::Api;
use crate::control::error::{ApiError, Named, Params, Refusal};
use crate::control::model::{Frame, Hold, Holder, Holds, HoldsQuery, Range, Wait};
use crate::control::observer::InFlight;

/// Most holds of a page.
const MAX_LIMIT: usize = 1000;

/// What is held now, the oldest first
#[utoipa::path(
    get, path = "/v1/holds", tag = "holds", params(HoldsQuery),
    responses(
        (status = 200, description = "A page of open holds", body = Holds),
        (status = 400, description = "A parameter is not possible", body = Refusal),
    )
)]
pub(in crate::control) async fn list(
    State(api): State<Api>,
    Params(query): Params<HoldsQuery>,
) -> Result<Json<Holds>, ApiError> {
    let HoldsQuery {
        device,
        after,
        limit,
    } = query;
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::bad_request(format!(
            "limit {limit}: a page has 1 to {MAX_LIMIT} holds"
        )));
    }
    let page = api.observer().holds(device.as_deref(), after, limit);
    let counted = api.observer().counted();
    let queues = counted
        .devices
        .values()
        .flat_map(|device| device.queues.values());
    let holds = page.holds.iter().filter_map(|it| hold(it, page.now_ns));
    Ok(Json(Holds {
        total: queues.map(|queue| queue.held).sum(),
        holds: holds.collect(),
        next: page.next,
    }))
}

/// Who holds a frame now, by the ledger that the rules are asked with
#[utoipa::path(
    get, path = "/v1/frames/{frame}", tag = "holds",
    params(("frame" = u64, Path, maximum = 4503599627370495i64, description = "Number of the frame: guest physical address / 4096")),
    responses(
        (status = 200, description = "Its holders", body = Frame),
        (status = 400, description = "Not the number of a frame", body = Refusal),
    )
)]
pub(in crate::control) async fn frame(
    State(api): State<Api>,
    Named(frame): Named<u64>,
) -> Result<Json<Frame>, ApiError> {
    let address = frame
        .checked_mul(FRAME_SIZE)
        .ok_or_else(|| ApiError::bad_request(format!("{frame} is not the number of a frame")))?;
    let holders = api.context().ledger().holders(frame);
    let holder = |held: pincushion_devices::hold::Held| Holder {
        device: held.device,
        to_device: held.to_device,
        from_device: held.from_device,
    };
    Ok(Json(Frame {
        frame,
        address,
        holders: holders.into_iter().map(holder).collect(),
    }))
}

fn hold(it: &InFlight, now_ns: u64) -> Option<Hold> {
    let open = it.hold.as_ref()?;
    let age_us = |since_ns: u64| now_ns.saturating_sub(since_ns) / 1000;
    Some(Hold {
        hold: open.id.0,
        device: it.request.device.clone(),
        queue: it.request.queue,
        ordinal: it.request.ordinal,
        head: it.head,
        operation: word(&it.operation),
        direction: word(&open.direction),
        sector: it.sector,
        bytes: it.bytes,
        ranges: open.ranges.iter().map(|piece| range(*piece)).collect(),
        age_us: age_us(open.opened_ns),
        touching: it.is_touching,
        waits: it.waits.as_ref().map(|wait| Wait {
            point: word(&wait.point),
            what: what(&wait.until),
            until: serde_json::to_value(&wait.until).unwrap_or_default(),
            age_us: age_us(wait.since_ns),
        }),
    })
}

fn range(range: GuestRange) -> Range {
    Range {
        address: range.addr,
        bytes: range.len,
        first_frame: range.addr / FRAME_SIZE,
        frames: range.frames().count() as u64,
    }
}

/// A word of the event log.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => other.unwrap_or_default().to_string(),
    }
}

fn what(until: &Until) -> String {
    match until {
        Until::Gate(gate) => format!("gate {gate}"),
        Until::SameFrame { point, device } => {
            let who = device.as_deref().unwrap_or("any device");
            format!("{who} on the same frame is {}", word(point))
        }
        Until::Duration { ns } => format!("{} ms", ns / 1_000_000),
    }
}
