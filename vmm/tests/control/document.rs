//! The OpenAPI document: checked in, and true of the server.

use hyper::Method;
use serde_json::Value;

use crate::bench::{Bench, GATED};
use crate::schema::Schemas;

const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

#[test]
fn the_document_that_is_checked_in_is_the_one_of_the_types() {
    let made = pincushion_vmm::control::openapi();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(CHECKED_IN, &made).unwrap();
    }
    let there = std::fs::read_to_string(CHECKED_IN).unwrap_or_default();
    assert!(
        made == there,
        "vmm/openapi.json is not what the types say: UPDATE_OPENAPI=1 cargo test -p pincushion-vmm --test control document"
    );
}

/// One request for each operation of the document, and more where an operation has more than one good answer: method,
/// path, address, and a JSON body or nothing.
const REQUESTS: &[(&str, &str, &str, &str)] = &[
    ("get", "/v1/machine", "/v1/machine", ""),
    ("post", "/v1/machine/pause", "/v1/machine/pause", ""),
    ("post", "/v1/machine/resume", "/v1/machine/resume", ""),
    (
        "post",
        "/v1/machine/snapshot",
        "/v1/machine/snapshot",
        r#"{"path": "/x"}"#,
    ),
    (
        "post",
        "/v1/machine/snapshot",
        "/v1/machine/snapshot",
        r#"{"path": "not/absolute"}"#,
    ),
    (
        "post",
        "/v1/machine/snapshot",
        "/v1/machine/snapshot",
        r#"{"path": "/full"}"#,
    ),
    (
        "post",
        "/v1/machine/reset",
        "/v1/machine/reset",
        r#"{"confirm": "reset"}"#,
    ),
    ("get", "/v1/devices", "/v1/devices", ""),
    ("get", "/v1/devices/{name}", "/v1/devices/b", ""),
    ("get", "/v1/devices/{name}", "/v1/devices/nobody", ""),
    (
        "patch",
        "/v1/devices/{name}",
        "/v1/devices/b",
        r#"{"hold_ms": 5}"#,
    ),
    ("get", "/v1/holds", "/v1/holds", ""),
    ("get", "/v1/holds", "/v1/holds?limit=1&device=b", ""),
    ("get", "/v1/holds", "/v1/holds?limit=0", ""),
    ("get", "/v1/frames/{frame}", "/v1/frames/16", ""),
    ("get", "/v1/frames/{frame}", "/v1/frames/x", ""),
    ("get", "/v1/gates", "/v1/gates", ""),
    ("post", "/v1/gates/{name}/open", "/v1/gates/nobody/open", ""),
    ("post", "/v1/gates/{name}/open", "/v1/gates/go/open", ""),
    ("get", "/v1/plan", "/v1/plan", ""),
    (
        "put",
        "/v1/plan",
        "/v1/plan",
        r#"{"plan": {"rule": [{"verify": true}]}}"#,
    ),
    ("put", "/v1/plan", "/v1/plan", r#"{"toml": "="}"#),
    ("post", "/v1/plan/disarm", "/v1/plan/disarm", ""),
    ("post", "/v1/plan/arm", "/v1/plan/arm", ""),
    ("get", "/v1/metrics", "/v1/metrics", ""),
    ("get", "/metrics", "/metrics", ""),
    ("get", "/v1/events", "/v1/events?limit=3", ""),
    ("get", "/v1/events", "/v1/events?limit=0", ""),
    ("get", "/v1/events/stream", "/v1/events/stream?after=x", ""),
    ("get", "/v1/openapi.json", "/v1/openapi.json", ""),
    // Last, since nothing is answered as before after it.
    (
        "post",
        "/v1/machine/power-off",
        "/v1/machine/power-off",
        "{}",
    ),
    (
        "post",
        "/v1/machine/power-off",
        "/v1/machine/power-off",
        r#"{"confirm": "power-off"}"#,
    ),
    ("post", "/v1/machine/pause", "/v1/machine/pause", ""),
];

#[test]
fn every_answer_is_one_that_the_document_promises() {
    let document: Value = serde_json::from_str(&pincushion_vmm::control::openapi()).unwrap();
    let schemas = Schemas::new(&document);
    let mut bench = Bench::new(GATED);
    bench.read(0);
    for (method, path, address, body) in REQUESTS {
        let what = format!("{method} {address}");
        let content_type = if body.is_empty() {
            ""
        } else {
            "application/json"
        };
        let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let body = body.as_bytes().to_vec();
        let answer = bench
            .client
            .ask(&verb, address, content_type, body)
            .unwrap();
        let operation = &document["paths"][path][method];
        let promised = &operation["responses"][answer.status.to_string()];
        assert!(
            promised.is_object(),
            "{what}: status {} is not in the document",
            answer.status
        );
        let contents = promised["content"]
            .as_object()
            .unwrap_or_else(|| panic!("{what}: no content"));
        let (kind, content) = contents.iter().next().unwrap();
        assert!(
            answer.content_type.starts_with(kind.as_str()),
            "{what}: {}",
            answer.content_type
        );
        if kind == "application/json" {
            let value: Value = serde_json::from_slice(&answer.body).unwrap();
            schemas.check(&content["schema"], &value, &what);
        }
    }
}

#[test]
fn every_operation_of_the_document_is_asked_for() {
    let document: Value = serde_json::from_str(&pincushion_vmm::control::openapi()).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let is_asked =
                |request: &&(&str, &str, &str, &str)| request.0 == method && request.1 == path;
            assert!(
                REQUESTS.iter().any(|request| is_asked(&request)),
                "{method} {path} is never asked for"
            );
        }
    }
}
