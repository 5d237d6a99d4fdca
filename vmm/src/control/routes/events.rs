//! The event log, for clients that follow a running machine.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::json;

use crate::control::api::Api;
use crate::control::error::{ApiError, Params, Refusal};
use crate::control::model::{Events, EventsQuery, StreamQuery};
use crate::control::observer::{Batch, Observer};

/// Most events of one answer.
const MAX_LIMIT: usize = 10_000;
/// Longest wait of one answer, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;
/// Events of one piece of a stream.
const PIECE: usize = 256;
/// A stream that has nothing to say for so long says an empty line, so that a client that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A piece of the event log, at once or as soon as there is one
///
/// Ask again with `after` of `next`. Events that were asked for too late are gone, and `lost` says how many.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses(
        (status = 200, description = "Events, or none where the wait was over", body = Events),
        (status = 400, description = "A parameter is not possible", body = Refusal),
    )
)]
pub(in crate::control) async fn page(
    State(api): State<Api>,
    Params(query): Params<EventsQuery>,
) -> Result<Json<Events>, ApiError> {
    let EventsQuery {
        after,
        limit,
        wait_ms,
    } = query;
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::bad_request(format!(
            "limit {limit}: an answer has 1 to {MAX_LIMIT} events"
        )));
    }
    if wait_ms > MAX_WAIT_MS {
        return Err(ApiError::bad_request(format!(
            "wait_ms {wait_ms}: an answer waits for at most {MAX_WAIT_MS} ms"
        )));
    }
    let observer = api.observer();
    let patience = Duration::from_millis(wait_ms);
    let batch = observer.next_events(after, limit, patience).await;
    let events = batch.events.iter();
    Ok(Json(Events {
        lost: batch.lost,
        next: batch.next,
        newest: batch.newest,
        ended: observer.has_ended() && batch.next >= batch.newest,
        events: events
            .map(|event| serde_json::to_value(event.as_ref()).unwrap_or_default())
            .collect(),
    }))
}

/// The event log as it grows, one JSON object per line, until the machine ends
///
/// A client that reads too slowly loses events: a line `{"event":"events-lost","lost":N}` says how many. An empty line comes
/// every 15 seconds where nothing else does.
#[utoipa::path(
    get, path = "/v1/events/stream", tag = "events", params(StreamQuery),
    responses(
        (status = 200, description = "Lines", body = String, content_type = "application/jsonl"),
        (status = 400, description = "A parameter is not possible", body = Refusal),
    )
)]
pub(in crate::control) async fn stream(
    State(api): State<Api>,
    Params(query): Params<StreamQuery>,
) -> Response {
    let observer = api.observer().clone();
    let after = query.after.unwrap_or_else(|| observer.counted().events);
    let lines = Lines {
        next: Box::pin(piece(observer.clone(), after)),
        observer,
    };
    ([("content-type", "application/jsonl")], Body::new(lines)).into_response()
}

type Piece = Pin<Box<dyn Future<Output = Option<(Bytes, u64)>> + Send>>;

/// The body of a stream. The next piece is only made when the client has taken the one before.
struct Lines {
    observer: Observer,
    next: Piece,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.next.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some((bytes, after))) => {
                self.next = Box::pin(piece(self.observer.clone(), after));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }
}

/// The lines that follow `after`; `None` at the end.
async fn piece(observer: Observer, after: u64) -> Option<(Bytes, u64)> {
    let batch = observer.next_events(after, PIECE, HEARTBEAT).await;
    if batch.events.is_empty() && observer.has_ended() {
        return None;
    }
    let after = batch.next;
    Some((lines(&batch).into(), after))
}

fn lines(batch: &Batch) -> Vec<u8> {
    let mut text = Vec::new();
    if batch.lost > 0 {
        text.extend(
            json!({ "event": "events-lost", "lost": batch.lost })
                .to_string()
                .bytes(),
        );
        text.push(b'\n');
    }
    for event in &batch.events {
        // An event is plain data, and a vector takes everything.
        if serde_json::to_writer(&mut text, event.as_ref()).is_ok() {
            text.push(b'\n');
        }
    }
    if text.is_empty() {
        text.push(b'\n');
    }
    text
}
