//! Reading requests: one JSON object per line, each answered by a report whatever it is.

use std::io::{self, Read};
use std::sync::Arc;

use pincushion_abi::step::MAX_LINE;
use pincushion_abi::{Report, Request};
use serde_json::Value;

use crate::agent::Agent;
use crate::port::Port;
use crate::workers::Workers;

/// Serves requests until `input` ends or fails.
pub fn serve(agent: &Arc<Agent>, mut input: impl Read) -> io::Result<()> {
    let mut workers = Workers::new(Arc::clone(agent));
    let mut lines = Lines::default();
    let mut chunk = [0; 4096];
    loop {
        let len = match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for &byte in &chunk[..len] {
            match lines.push(byte) {
                Some(Line::Whole(line)) => take(agent.port.as_ref(), &mut workers, &line),
                Some(Line::TooLong) => refuse(agent.port.as_ref(), None, too_long()),
                None => {}
            }
        }
    }
}

/// Cuts bytes into lines of at most [`MAX_LINE`] bytes.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    dropping: bool,
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

impl Lines {
    fn push(&mut self, byte: u8) -> Option<Line> {
        if byte == b'\n' {
            let line = std::mem::take(&mut self.line);
            if std::mem::take(&mut self.dropping) {
                return Some(Line::TooLong);
            }
            let empty = line.iter().all(u8::is_ascii_whitespace);
            return (!empty).then_some(Line::Whole(line));
        }
        if self.line.len() < MAX_LINE {
            self.line.push(byte);
        } else {
            self.dropping = true;
        }
        None
    }
}

fn take(port: &dyn Port, workers: &mut Workers, line: &[u8]) {
    let request = match parse(line) {
        Ok(request) => request,
        Err((id, reason)) => return refuse(port, id, reason),
    };
    let id = request.id;
    if let Err(reason) = workers.dispatch(request) {
        refuse(port, Some(id), reason);
    }
}

/// The request of a line, or the id where that much could be read and a reason.
fn parse(line: &[u8]) -> Result<Request, (Option<u32>, String)> {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return Err((None, format!("not a line of JSON: {error}"))),
    };
    let id = value
        .get("id")
        .and_then(Value::as_u64)
        .and_then(|id| u32::try_from(id).ok());
    let request = serde_json::from_value::<Request>(value)
        .map_err(|error| (id, format!("not a request: {error}")))?;
    if request.id >> 31 != 0 {
        return Err((id, format!("the id {} is not below 2^31", request.id)));
    }
    Ok(request)
}

fn refuse(port: &dyn Port, id: Option<u32>, reason: String) {
    port.report(&Report::Refused { id, reason });
}

fn too_long() -> String {
    format!("the line is longer than {MAX_LINE} bytes")
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Outcome;

    use super::*;
    use crate::port::{Collector, Phase, Sent};

    /// Serves the lines and gives all reports; there is one per line that is not empty.
    fn answers(input: &str) -> (Vec<Report>, Vec<Sent>) {
        let port = Arc::new(Collector::default());
        let agent = Arc::new(Agent::new(Arc::clone(&port) as Arc<dyn Port>));
        serve(&agent, input.as_bytes()).unwrap();
        let expected = input.lines().filter(|line| !line.trim().is_empty()).count();
        (port.wait_for_reports(expected), port.sent())
    }

    fn refusal(line: &str) -> (Option<u32>, String) {
        match &answers(&format!("{line}\n")).0[..] {
            [Report::Refused { id, reason }] => (*id, reason.clone()),
            other => panic!("not a refusal: {other:?}"),
        }
    }

    #[test]
    fn a_step_is_marked_and_then_reported() {
        let (reports, sent) = answers("{\"id\":4,\"step\":{\"op\":\"mark\",\"name\":\"here\"}}\n");
        assert!(
            matches!(
                &reports[..],
                [Report::Done {
                    id: 4,
                    outcome: Outcome::Ok(_),
                    ..
                }]
            ),
            "{reports:?}"
        );
        assert_eq!(
            sent[..2],
            [Sent::Mark(4, Phase::Begin), Sent::Mark(4, Phase::End)]
        );
        assert!(matches!(sent[2], Sent::Report(_)));
    }

    #[test]
    fn what_is_not_json_is_refused_without_an_id() {
        let (id, reason) = refusal("hello");
        assert_eq!(id, None);
        assert!(reason.contains("not a line of JSON"), "{reason}");
        let (_, reason) = refusal("{\"id\":1,");
        assert!(reason.contains("EOF"), "{reason}");
    }

    #[test]
    fn an_unknown_operation_is_refused_with_the_id_and_its_name() {
        let (id, reason) = refusal(r#"{"id":12,"step":{"op":"fsynk","file":"a"}}"#);
        assert_eq!(id, Some(12));
        assert!(reason.contains("unknown variant `fsynk`"), "{reason}");
    }

    #[test]
    fn an_id_that_does_not_fit_into_a_mark_is_refused() {
        let (id, reason) = refusal(r#"{"id":2147483648,"step":{"op":"sync"}}"#);
        assert_eq!(id, Some(1 << 31));
        assert!(reason.contains("2^31"), "{reason}");
        assert_eq!(refusal(r#"{"id":-1,"step":{"op":"sync"}}"#).0, None);
    }

    #[test]
    fn a_line_too_long_is_refused_and_the_next_one_is_served() {
        let long = "x".repeat(MAX_LINE + 1);
        let (reports, _) = answers(&format!(
            "{long}\n\n  \n{{\"id\":1,\"step\":{{\"op\":\"mark\",\"name\":\"n\"}}}}\n"
        ));
        assert!(
            matches!(&reports[0], Report::Refused { id: None, reason } if reason.contains("longer"))
        );
        assert!(matches!(reports[1], Report::Done { id: 1, .. }));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        let port = Arc::new(Collector::default());
        let agent = Arc::new(Agent::new(Arc::clone(&port) as Arc<dyn Port>));
        serve(&agent, &b"{\"id\":1,\"x\":\"\xff\"}\n"[..]).unwrap();
        assert!(matches!(
            &port.wait_for_reports(1)[0],
            Report::Refused { .. }
        ));
    }

    #[test]
    fn a_thread_without_a_name_is_refused() {
        let (id, reason) = refusal(r#"{"id":1,"thread":"","step":{"op":"sync"}}"#);
        assert_eq!(id, Some(1));
        assert!(reason.contains("name"), "{reason}");
    }

    #[test]
    fn an_unknown_name_is_a_fault_of_the_step_and_names_the_known_ones() {
        let (reports, _) = answers("{\"id\":1,\"step\":{\"op\":\"fsync\",\"file\":\"a\"}}\n");
        let Report::Done {
            outcome: Outcome::Failed(fault),
            ..
        } = &reports[0]
        else {
            panic!("{reports:?}");
        };
        assert_eq!(fault.errno, 0);
        assert!(
            fault.name.contains("no file \"a\"; known: none"),
            "{}",
            fault.name
        );
    }

    #[test]
    fn a_blocked_thread_does_not_keep_another_from_its_step() {
        // `b` waits for what `c` makes; were they one queue, the wait would end by its limit.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made");
        let path = path.display();
        let wait =
            format!(r#"{{"id":1,"thread":"b","step":{{"op":"wait-path","path":"{path}"}}}}"#);
        let make = format!(r#"{{"id":2,"thread":"c","step":{{"op":"mkdir","path":"{path}"}}}}"#);
        let (reports, _) = answers(&format!("{wait}\n{make}\n"));
        for report in reports {
            assert!(
                matches!(
                    report,
                    Report::Done {
                        outcome: Outcome::Ok(_),
                        ..
                    }
                ),
                "{report:?}"
            );
        }
    }
}
