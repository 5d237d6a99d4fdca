//! Holds, gates, the plan, devices and orders, as a client sees them.

use hyper::Method;
use pincushion_vmm::machine::Order;
use serde_json::json;

use crate::bench::{Bench, GATED};

#[test]
fn a_held_request_is_listed_until_its_gate_is_opened() {
    let mut bench = Bench::new(GATED);
    let head = bench.read(3);
    let frame = bench.driver.data(3) / 4096;

    let page = bench.get("/v1/holds");
    assert_eq!(page["total"], 1);
    let hold = &page["holds"][0];
    assert_eq!(
        (
            &hold["device"],
            &hold["queue"],
            &hold["head"],
            &hold["direction"],
            &hold["bytes"]
        ),
        (
            &json!("b"),
            &json!(0),
            &json!(head),
            &json!("from-device"),
            &json!(4096)
        )
    );
    assert_eq!(hold["ranges"][0]["first_frame"], frame);
    assert_eq!(
        (&hold["waits"]["what"], &hold["waits"]["point"]),
        (&json!("gate go"), &json!("fetched"))
    );
    let holders = bench.get(&format!("/v1/frames/{frame}"));
    assert_eq!(
        holders["holders"],
        json!([{ "device": "b", "to_device": 0, "from_device": 1 }])
    );
    assert_eq!(
        bench.get("/v1/gates")["gates"],
        json!([{ "name": "go", "open": false, "waiting": 1, "in_plan": true }])
    );

    let gate = bench.post("/v1/gates/go/open");
    assert_eq!((&gate["open"], &gate["waiting"]), (&json!(true), &json!(0)));
    bench.wake();
    assert_eq!(bench.driver.take_used().len(), 1);
    assert_eq!(bench.get("/v1/holds"), json!({ "total": 0, "holds": [] }));
    let queue = &bench.get("/v1/metrics")["devices"][0]["queues"][0];
    let counted = ["fetched", "used", "parkings", "faults", "held", "parked"]
        .map(|key| queue[key].as_u64().unwrap());
    assert_eq!(counted, [1, 1, 1, 1, 0, 0]);
    assert_eq!(
        (&queue["bytes_from_device"], &queue["latency"]["count"]),
        (&json!(4096), &json!(1))
    );
}

#[test]
fn a_gate_of_which_nobody_speaks_is_opened_only_on_request() {
    let bench = Bench::new(GATED);
    let (status, reason) = bench.refusal(&Method::POST, "/v1/gates/g0/open", "", "");
    assert_eq!(status, 404);
    assert!(reason.contains("did you mean `go`?"), "{reason}");
    assert!(!bench.context.gates().is_open("g0"));
    assert_eq!(
        bench.post("/v1/gates/g0/open?undeclared=true")["open"],
        true
    );
    assert!(bench.context.gates().is_open("g0"));
    let twice = bench.post("/v1/gates/g0/open");
    assert_eq!(twice["open"], true, "it is known now");
}

#[test]
fn a_replaced_plan_leaves_what_is_parked_where_it_waits() {
    let mut bench = Bench::new(GATED);
    bench.read(0);
    let new = json!({ "toml": "[[rule]]\nname = 'n'\noperation = 'read'\nfail = 'ioerr'\n" });
    let plan = bench.send(&Method::PUT, "/v1/plan", &new);
    assert_eq!(plan["rules"], json!([{ "name": "n", "acted": 0 }]));

    let failed = bench.read(1);
    assert_eq!(bench.driver.take_used().len(), 1, "the new rule acts");
    assert_eq!(bench.driver.status(failed), 1);
    assert_eq!(bench.get("/v1/plan")["rules"][0]["acted"], 1);
    let page = bench.get("/v1/holds");
    assert_eq!(
        page["holds"][0]["waits"]["what"], "gate go",
        "the old one still waits"
    );
    bench.post("/v1/gates/go/open");
    bench.wake();
    assert_eq!(bench.driver.take_used().len(), 1);
}

#[test]
fn a_disarmed_plan_lets_requests_pass_and_an_armed_one_counts_on() {
    let once = "[[rule]]\nname = 'once'\noperation = 'read'\ntimes = 1\nfail = 'ioerr'\n";
    let mut bench = Bench::new(once);
    let read = |bench: &mut Bench| {
        let head = bench.read(0);
        bench.driver.take_used();
        bench.driver.status(head)
    };
    assert_eq!(bench.post("/v1/plan/disarm")["armed"], false);
    assert_eq!(read(&mut bench), 0);
    assert_eq!(bench.post("/v1/plan/arm")["armed"], true);
    assert_eq!(read(&mut bench), 1);
    bench.post("/v1/plan/disarm");
    let plan = bench.post("/v1/plan/arm");
    assert_eq!(plan["rules"], json!([{ "name": "once", "acted": 1 }]));
    assert_eq!(read(&mut bench), 0, "once is once");
}

#[test]
fn a_wrong_plan_is_refused_with_its_reason_and_changes_nothing() {
    let bench = Bench::new(GATED);
    let before = bench.get("/v1/plan");
    for (body, reason) in [
        (
            r#"{"toml": "[[rule]]\ndevise = 'b'\nverify = true"}"#,
            "did you mean `device`?",
        ),
        (
            r#"{"plan": {"rule": [{"devise": "b", "verify": true}]}}"#,
            "did you mean `device`?",
        ),
        (r#"{"plan": {}, "toml": ""}"#, "either"),
        ("{}", "either"),
        (r#"{"plam": {}}"#, "did you mean `plan`?"),
        ("[", "EOF"),
    ] {
        let (status, said) = bench.refusal(&Method::PUT, "/v1/plan", "application/json", body);
        assert_eq!(status, 400, "{body}: {said}");
        assert!(said.contains(reason), "{body}: {said}");
    }
    assert_eq!(bench.get("/v1/plan"), before);
}

#[test]
fn a_hold_of_a_device_acts_on_what_no_rule_speaks_of() {
    let mut bench = Bench::new("");
    let change = json!({ "hold_ms": 3_600_000 });
    let device = bench.send(&Method::PATCH, "/v1/devices/b", &change);
    assert_eq!(device["hold_ms"], 3_600_000);
    bench.read(0);
    assert_eq!(
        bench.get("/v1/holds")["holds"][0]["waits"]["what"],
        "3600000 ms"
    );
    bench.send(&Method::PATCH, "/v1/devices/b", &json!({ "hold_ms": 0 }));
    bench.read(1);
    assert_eq!(bench.driver.take_used().len(), 1, "the second passes");
    assert_eq!(
        bench.get("/v1/holds")["total"],
        1,
        "the first keeps its wait"
    );

    let json = "application/json";
    for (address, body, status, reason) in [
        (
            "/v1/devices/c",
            r#"{"hold_ms": 1}"#,
            404,
            "did you mean `b`?",
        ),
        ("/v1/devices/b", r#"{"hold_ms": 3600001}"#, 400, "at most"),
        ("/v1/devices/b", r#"{"hold_ms": -1}"#, 400, "-1"),
        (
            "/v1/devices/b",
            r#"{"settings": {"rate": 1}}"#,
            400,
            "it has none",
        ),
    ] {
        let (code, said) = bench.refusal(&Method::PATCH, address, json, body);
        assert_eq!(code, status, "{body}: {said}");
        assert!(said.contains(reason), "{body}: {said}");
    }
}

#[test]
fn what_ends_a_guest_needs_its_own_word() {
    let bench = Bench::new("");
    let json = "application/json";
    for (address, content_type, body, status) in [
        ("/v1/machine/power-off", "", "", 415),
        ("/v1/machine/power-off", "text/plain", "power-off", 415),
        ("/v1/machine/power-off", json, "", 400),
        ("/v1/machine/power-off", json, "{}", 400),
        (
            "/v1/machine/power-off",
            json,
            r#"{"confirm": "reset"}"#,
            400,
        ),
        ("/v1/machine/power-off", json, r#"{"confirm": true}"#, 400),
        (
            "/v1/machine/power-off",
            json,
            r#"{"confirm": "power-off", "x": 1}"#,
            400,
        ),
        (
            "/v1/machine/reset",
            json,
            r#"{"confirm": "power-off"}"#,
            400,
        ),
    ] {
        let (code, reason) = bench.refusal(&Method::POST, address, content_type, body);
        assert_eq!(code, status, "{address} {body}: {reason}");
        assert!(!reason.is_empty());
    }
    let (code, _) = bench.refusal(&Method::GET, "/v1/machine/power-off", "", "");
    assert_eq!(code, 405);
    assert!(
        bench.orders.given.lock().unwrap().is_empty(),
        "nothing was ordered"
    );

    bench.post("/v1/machine/pause");
    bench.post("/v1/machine/pause");
    assert_eq!(bench.post("/v1/machine/resume")["state"], "running");
    bench.send(
        &Method::POST,
        "/v1/machine/reset",
        &json!({ "confirm": "reset" }),
    );
    let off = bench.send(
        &Method::POST,
        "/v1/machine/power-off",
        &json!({ "confirm": "power-off" }),
    );
    assert_eq!(off["state"], "ended");
    let orders = [
        Order::Pause,
        Order::Pause,
        Order::Resume,
        Order::Reset,
        Order::PowerOff,
    ];
    assert_eq!(*bench.orders.given.lock().unwrap(), orders);
    let (code, reason) = bench.refusal(&Method::POST, "/v1/machine/resume", "", "");
    assert_eq!((code, reason.as_str()), (409, "the machine has ended"));
}

#[test]
fn metrics_for_prometheus_count_the_same() {
    let mut bench = Bench::new("");
    bench.read(0);
    bench.read(1);
    let text = bench.client.text("/metrics").unwrap();
    let labels = "device=\"b\",queue=\"0\"";
    for line in [
        "pincushion_up 1".to_owned(),
        format!("pincushion_requests_used_total{{{labels}}} 2"),
        format!("pincushion_from_device_bytes_total{{{labels}}} 8192"),
        format!("pincushion_holds_open{{{labels}}} 0"),
        format!("pincushion_request_seconds_count{{{labels}}} 2"),
        format!("pincushion_request_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "{line} is missing:\n{text}"
        );
    }
    let families = text.lines().filter(|line| line.starts_with("# TYPE"));
    let names: std::collections::BTreeSet<_> = families.clone().collect();
    assert_eq!(names.len(), families.count(), "a family is declared once");
}

#[test]
fn a_thousand_holds_come_in_pages() {
    let mut bench = Bench::new(GATED);
    let range = bench.driver.range(0, 512);
    for _ in 0..60 {
        bench.driver.read(0, &[range]);
    }
    bench.kick();
    let (mut after, mut heads) = (0, std::collections::BTreeSet::new());
    loop {
        let page = bench.get(&format!("/v1/holds?limit=7&after={after}"));
        assert_eq!(page["total"], 60);
        for hold in page["holds"].as_array().unwrap() {
            heads.insert(hold["head"].as_u64().unwrap());
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(heads.len(), 60);
}
