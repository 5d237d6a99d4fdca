//! The socket and its clients, good and bad.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pincushion_vmm::control::client::{Client, ClientError};
use serde_json::Value;

use crate::bench::Bench;

#[test]
fn a_client_says_what_is_wrong_with_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let ask = || {
        Client::new(&path)
            .unwrap()
            .get::<Value>("/v1/machine")
            .unwrap_err()
    };
    assert!(matches!(ask(), ClientError::NoSocket { .. }));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let said = ask();
    assert!(matches!(said, ClientError::NobodyListens { .. }));
    assert!(
        said.to_string()
            .contains("the machine that made it is gone"),
        "{said}"
    );
}

#[test]
fn garbage_hurts_nobody() {
    let bench = Bench::new("");
    let mut tooth: Vec<Vec<u8>> = vec![
        b"\0\0\0\0".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /v1/machine HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /v1/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n"
            .to_vec(),
        b"PUT /v1/plan HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"GET /%ff%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET /v1/gates/%ff/open HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
    ];
    tooth.push(
        [
            b"GET /".as_slice(),
            &b"a".repeat(1 << 20),
            b" HTTP/1.1\r\n\r\n",
        ]
        .concat(),
    );
    for bytes in tooth {
        let mut stream = UnixStream::connect(&bench.path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // The server may hang up while we still write.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{bytes:?}: {answer}"
        );
    }
    assert_eq!(bench.get("/v1/machine")["state"], "running");
    assert!(bench.orders.given.lock().unwrap().is_empty());
}

#[test]
fn a_body_that_is_too_long_is_refused_and_an_unknown_address_names_itself() {
    let bench = Bench::new("");
    let body = format!("{{\"toml\": \"{}\"}}", "#".repeat(5 << 20));
    let put = hyper::Method::PUT;
    let answer = bench
        .client
        .ask(&put, "/v1/plan", "application/json", body.into_bytes());
    match answer {
        Ok(answer) => assert_eq!(answer.status, 413),
        // The server has hung up within the body.
        Err(error) => assert!(matches!(error, ClientError::Garbled { .. }), "{error}"),
    }
    let (status, reason) = bench.refusal(&hyper::Method::GET, "/v2/x", "", "");
    assert_eq!(status, 404);
    assert!(
        reason.contains("/v2/x") && reason.contains("openapi"),
        "{reason}"
    );
}

#[test]
fn many_clients_that_say_nothing_do_not_keep_others_out_for_ever() {
    let bench = Bench::new("");
    let silent: Vec<_> = (0..63)
        .map(|_| UnixStream::connect(&bench.path).unwrap())
        .collect();
    assert_eq!(bench.get("/v1/machine")["state"], "running");
    drop(silent);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let path = bench.path.clone();
            std::thread::spawn(move || {
                let client = Client::new(&path).unwrap();
                (0..20).all(|_| client.get::<Value>("/v1/metrics").is_ok())
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
}
