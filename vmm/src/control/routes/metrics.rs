//! Counters and histograms, as JSON and as Prometheus wants them.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;

use crate::control::api::Api;
use crate::control::model::{DeviceMetrics, Durations, Metrics, QueueMetrics};
use crate::control::observer::{DeviceCounters, Histogram, QueueCounters};
use crate::control::prometheus;

/// Counters and histograms per device and queue
#[utoipa::path(
    get, path = "/v1/metrics", tag = "metrics",
    responses((status = 200, description = "Since the machine was started", body = Metrics))
)]
pub(in crate::control) async fn json(State(api): State<Api>) -> Json<Metrics> {
    let counted = api.observer().counted();
    Json(Metrics {
        devices: counted.devices.iter().map(device).collect(),
        events: counted.events,
        events_evicted: counted.evicted,
        events_lost: api.context().tracer().lost(),
    })
}

/// The same for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "metrics",
    responses((status = 200, description = "Text exposition format 0.0.4", body = String, content_type = "text/plain"))
)]
pub(in crate::control) async fn prometheus(State(api): State<Api>) -> impl IntoResponse {
    let lost = api.context().tracer().lost();
    let text = prometheus::text(&api.observer().counted(), lost, api.machine());
    ([("content-type", "text/plain; version=0.0.4")], text)
}

fn device((name, device): (&String, &DeviceCounters)) -> DeviceMetrics {
    DeviceMetrics {
        device: name.clone(),
        activations: device.activations,
        resets: device.resets,
        queues: device.queues.iter().map(queue).collect(),
    }
}

fn queue((index, queue): (&u16, &QueueCounters)) -> QueueMetrics {
    QueueMetrics {
        queue: *index,
        fetched: queue.fetched,
        used: queue.used,
        failed: queue.failed,
        bytes_to_device: queue.bytes_to_device,
        bytes_from_device: queue.bytes_from_device,
        faults: queue.faults,
        parkings: queue.parkings,
        abandoned: queue.abandoned,
        signals: queue.signals,
        guest_mistakes: queue.guest_mistakes,
        in_flight: queue.in_flight,
        held: queue.held,
        parked: queue.parked,
        latency: durations(&queue.latency),
        hold_time: durations(&queue.hold_time),
    }
}

fn durations(histogram: &Histogram) -> Durations {
    Durations {
        count: histogram.count(),
        sum_ns: u64::try_from(histogram.sum().as_nanos()).unwrap_or(u64::MAX),
        p50_ns: histogram.percentile_ns(50),
        p99_ns: histogram.percentile_ns(99),
        max_ns: histogram.max_ns(),
        buckets: histogram.counts().to_vec(),
    }
}
