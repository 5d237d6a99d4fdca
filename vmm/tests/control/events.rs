//! The event stream: clients that come early, late, slowly, or go away.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pincushion_devices::trace::EventKind;
use pincushion_vmm::control::client::Client;
use serde_json::Value;

use crate::bench::{Bench, GATED};

fn emit(bench: &Bench, count: u64) {
    for number in 0..count {
        let fact = || EventKind::Fact {
            key: "n".into(),
            value: number.into(),
        };
        bench.context.tracer().emit(fact);
    }
}

#[test]
fn pages_of_events_have_no_gap() {
    let mut bench = Bench::new(GATED);
    bench.read(0);
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = bench.get(&format!("/v1/events?after={after}&limit=2"));
        assert_eq!(
            (page["lost"].as_u64(), page["ended"].as_bool()),
            (Some(0), Some(false))
        );
        let events = page["events"].as_array().unwrap();
        seen.extend(events.iter().map(|event| event["seq"].as_u64().unwrap()));
        after = page["next"].as_u64().unwrap();
        if events.is_empty() {
            break;
        }
    }
    let all: Vec<u64> = (1..=after).collect();
    assert_eq!(seen, all);
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn a_long_poll_ends_with_the_first_event() {
    let bench = Bench::new("");
    let newest = bench.get("/v1/machine")["events"].as_u64().unwrap();
    let begin = Instant::now();
    let none = bench.get(&format!("/v1/events?after={newest}&wait_ms=50"));
    assert!(none["events"].as_array().unwrap().is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(50));

    let path = bench.path.clone();
    let waiting = std::thread::spawn(move || {
        let client = Client::new(&path).unwrap();
        let address = format!("/v1/events?after={newest}&wait_ms=60000");
        client.get::<Value>(&address).unwrap()
    });
    emit(&bench, 1);
    let page = waiting.join().unwrap();
    assert_eq!(page["events"][0]["event"], "fact");
}

#[test]
fn two_followers_get_every_event_and_the_end() {
    let mut bench = Bench::new("");
    let (began, begun) = std::sync::mpsc::channel();
    let follow = |path: std::path::PathBuf| {
        let began = began.clone();
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            let client = Client::new(&path).unwrap();
            let ended = client.lines("/v1/events/stream?after=0", |line| {
                let event: Value = serde_json::from_slice(line).unwrap();
                seen.push(event["seq"].as_u64().expect("nothing is lost"));
                if seen.len() == 1 {
                    began.send(()).expect("somebody waits for the first event");
                }
                true
            });
            ended.unwrap();
            seen
        })
    };
    let followers = [follow(bench.path.clone()), follow(bench.path.clone())];
    // One that has not been accepted when the machine ends is sent away.
    for _ in 0..2 {
        begun
            .recv_timeout(Duration::from_secs(60))
            .expect("a follower begins");
    }
    for _ in 0..20 {
        emit(&bench, 50);
        bench.read(0);
        bench.driver.take_used();
    }
    let newest = bench.get("/v1/machine")["events"].as_u64().unwrap();
    bench.server = None;
    for follower in followers {
        assert_eq!(follower.join().unwrap(), (1..=newest).collect::<Vec<_>>());
    }
    assert!(!bench.path.exists());
}

#[test]
fn a_client_that_does_not_read_loses_events_and_nobody_waits_for_it() {
    let bench = Bench::new("");
    let mut slow = UnixStream::connect(&bench.path).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    slow.write_all(b"GET /v1/events/stream?after=0 HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 64];
    slow.read_exact(&mut first).unwrap();

    // Far more than the buffers of a socket and of the server hold.
    emit(&bench, 120_000);
    let metrics = bench.get("/v1/metrics");
    assert!(metrics["events_evicted"].as_u64().unwrap() > 0);
    let mut text = Vec::new();
    let mut piece = vec![0; 1 << 16];
    let lost = loop {
        let count = slow.read(&mut piece).unwrap();
        assert!(count > 0, "the stream goes on");
        text.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&text);
        if let Some(line) = text
            .lines()
            .find(|line| line.contains("events-lost") && line.ends_with('}'))
        {
            break serde_json::from_str::<Value>(line).unwrap()["lost"]
                .as_u64()
                .unwrap();
        }
    };
    assert!(lost > 1000, "{lost}");
}

#[test]
fn impossible_parameters_are_refused() {
    let bench = Bench::new("");
    for (address, reason) in [
        ("/v1/events?limit=0", "1 to 10000"),
        ("/v1/events?limit=10001", "1 to 10000"),
        ("/v1/events?wait_ms=60001", "at most 60000"),
        ("/v1/events?after=-1", "invalid digit"),
        ("/v1/events?afer=1", "did you mean `after`?"),
        ("/v1/events/stream?after=x", "invalid digit"),
        ("/v1/holds?limit=1001", "1 to 1000"),
        ("/v1/holds?devise=b", "did you mean `device`?"),
        ("/v1/frames/x", "u64"),
        (
            "/v1/frames/18446744073709551615",
            "not the number of a frame",
        ),
    ] {
        let (status, said) = bench.refusal(&hyper::Method::GET, address, "", "");
        assert_eq!(status, 400, "{address}: {said}");
        assert!(said.contains(reason), "{address}: {said}");
    }
}
