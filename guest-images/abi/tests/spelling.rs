//! Steps and reports keep their spelling: what one end writes the other reads back, in JSON and, for
//! the steps of scenario files, in TOML.

use std::collections::BTreeMap;

use pincushion_abi::step::{IoDirection, MapKind, Pattern};
use pincushion_abi::{Fault, Outcome, Report, Request, Step, Value};
use serde::Deserialize;

/// A scenario file's table around a step.
#[derive(Debug, Deserialize)]
struct Row {
    thread: Option<String>,
    step: Step,
}

fn from_toml(line: &str) -> Step {
    let row: Row = toml::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    row.step
}

#[test]
fn a_step_is_spelled_in_toml_as_in_json() {
    let toml =
        from_toml(r#"step = { op = "pread-into", file = "b", offset = 0, map = "m", len = 4096 }"#);
    let json: Step =
        serde_json::from_str(r#"{"op":"pread-into","file":"b","offset":0,"map":"m","len":4096}"#)
            .unwrap();
    let expected = Step::PreadInto {
        file: "b".into(),
        offset: 0,
        map: "m".into(),
        map_offset: 0,
        len: 4096,
    };
    assert_eq!(toml, expected);
    assert_eq!(json, expected);
}

#[test]
fn optional_fields_patterns_and_nested_steps_can_be_written_in_toml() {
    let cases = [
        (
            r#"step = { op = "mmap", kind = "anonymous", len = 8192, map = "m" }"#,
            Step::Mmap {
                file: None,
                kind: MapKind::Anonymous,
                offset: 0,
                len: 8192,
                map: "m".into(),
                populate: false,
            },
        ),
        (
            r#"step = { op = "store", map = "m", len = 16, pattern = { byte = 65 } }"#,
            Step::Store {
                map: "m".into(),
                offset: 0,
                len: 16,
                pattern: Pattern::Byte(65),
            },
        ),
        (
            r#"step = { op = "in-child", child = "c", step = { op = "verify", map = "m", len = 8, pattern = { seed = 9 } } }"#,
            Step::InChild {
                child: "c".into(),
                step: Box::new(Step::Verify {
                    map: "m".into(),
                    offset: 0,
                    len: 8,
                    pattern: Pattern::Seed(9),
                }),
            },
        ),
        (
            r#"step = { op = "where-blocked", thread = "t", until = "folio_wait" }"#,
            Step::WhereBlocked {
                thread: "t".into(),
                until: Some("folio_wait".into()),
                or_done: false,
                limit_ms: 10_000,
            },
        ),
        (r#"step = { op = "sync" }"#, Step::Sync {}),
        (
            r#"step = { op = "counters" }"#,
            Step::Counters {
                names: vec![],
                until_pinned: None,
                until_grown: None,
                limit_ms: 10_000,
            },
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(from_toml(line), expected, "{line}");
    }
}

#[test]
fn a_table_header_and_a_thread_read_like_an_inline_table() {
    let row: Row = toml::from_str(
        "thread = \"writer\"\n[step]\nop = \"aio-submit\"\ndirection = \"read\"\nfile = \"b\"\noffset = 4096\nmap = \"m\"\nlen = 512\ntag = \"x\"\n",
    )
    .unwrap();
    assert_eq!(row.thread.as_deref(), Some("writer"));
    assert!(matches!(
        row.step,
        Step::AioSubmit {
            direction: IoDirection::Read,
            offset: 4096,
            map_offset: 0,
            ..
        }
    ));
}

#[test]
fn unknown_operations_and_fields_are_refused_by_both_spellings() {
    let op = toml::from_str::<Row>(r#"step = { op = "fsynk", file = "a" }"#)
        .unwrap_err()
        .to_string();
    assert!(op.contains("unknown variant `fsynk`"), "{op}");
    let field = toml::from_str::<Row>(r#"step = { op = "fsync", file = "a", ofset = 1 }"#)
        .unwrap_err()
        .to_string();
    assert!(field.contains("ofset"), "{field}");
    let empty = serde_json::from_str::<Step>(r#"{"op":"sync","file":"a"}"#)
        .unwrap_err()
        .to_string();
    assert!(empty.contains("file"), "{empty}");
    let missing = serde_json::from_str::<Step>(r#"{"op":"fsync"}"#)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("missing field `file`"), "{missing}");
}

#[test]
fn a_request_comes_back_as_it_was_sent() {
    for thread in [None, Some("writer".to_owned())] {
        let request = Request {
            id: 7,
            thread,
            step: Step::Msync {
                map: "m".into(),
                offset: 0,
                len: None,
                flags: vec!["sync".into()],
            },
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'), "a request is one line: {line}");
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }
}

#[test]
fn each_report_comes_back_as_it_was_sent() {
    let values = BTreeMap::from([
        ("equal".to_owned(), Value::Bool(true)),
        ("read".to_owned(), Value::Number(u64::MAX)),
        ("hash".to_owned(), Value::Text("00ff".into())),
        ("frames".to_owned(), Value::Numbers(vec![4096, 0])),
        (
            "stack".to_owned(),
            Value::Texts(vec!["[<0>] folio_wait_bit".into()]),
        ),
    ]);
    let done = |outcome| Report::Done {
        id: 1,
        outcome,
        began_ns: 5,
        ended_ns: 6,
    };
    let reports = [
        Report::Hello {
            version: pincushion_abi::VERSION,
            release: "6.12".into(),
            module_errors: vec![],
        },
        done(Outcome::Ok(values)),
        done(Outcome::Failed(Fault {
            call: "pread64".into(),
            errno: 5,
            name: "EIO".into(),
        })),
        Report::Refused {
            id: None,
            reason: "not JSON".into(),
        },
        Report::Note {
            text: "two\nlines".into(),
        },
    ];
    for report in reports {
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            serde_json::from_str::<Report>(&text).unwrap(),
            report,
            "{text}"
        );
    }
}

#[test]
fn an_empty_list_of_texts_comes_back_as_an_empty_list_of_numbers() {
    // The values are untagged, so an empty list has no kind: a reader asks for its length only.
    let text = serde_json::to_string(&Value::Texts(vec![])).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        Value::Numbers(vec![])
    );
}

#[test]
fn a_step_of_a_family_says_what_it_does_and_its_slips_are_told() {
    use pincushion_abi::step::Swap;
    let step = from_toml(r#"step = { op = "swap", do = "on", path = "/mnt/swap" }"#);
    let expected = Step::Swap(Swap::On {
        path: "/mnt/swap".into(),
    });
    assert_eq!(step, expected);
    let json = serde_json::to_string(&step).unwrap();
    assert_eq!(json, r#"{"op":"swap","do":"on","path":"/mnt/swap"}"#);
    for (slip, said) in [
        (
            r#"{"op":"swap","do":"onn","path":"/x"}"#,
            "unknown variant `onn`",
        ),
        (
            r#"{"op":"swap","do":"on","paht":"/x"}"#,
            "unknown field `paht`",
        ),
    ] {
        let error = serde_json::from_str::<Step>(slip).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
