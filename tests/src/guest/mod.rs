//! The guest's agent, seen from the host: what it says becomes events, what it should do becomes lines.

use pincushion_abi::{Request, port};
use pincushion_devices::context::Context;
use pincushion_devices::trace::EventKind;
use pincushion_vmm::agent_port::{AgentHandler, FromAgent};

/// What the guest says goes into the event log, stamped at the VM exit that brought it; rules with `mark` learn which steps
/// are under way before the guest goes on.
#[must_use]
pub fn to_events(context: Context) -> AgentHandler {
    Box::new(move |from| {
        match from {
            FromAgent::Mark(mark) if mark & 1 == port::PHASE_BEGIN => {
                context.marks().begin(mark >> 1);
            }
            FromAgent::Mark(mark) => context.marks().end(mark >> 1),
            FromAgent::Message(_) => {}
        }
        context.tracer().emit(|| match from {
            FromAgent::Message(bytes) => EventKind::AgentReport {
                text: String::from_utf8_lossy(bytes).into_owned(),
            },
            FromAgent::Mark(mark) if mark & 1 == port::PHASE_BEGIN => {
                EventKind::StepBegan { step: mark >> 1 }
            }
            FromAgent::Mark(mark) => EventKind::StepEnded { step: mark >> 1 },
        });
    })
}

/// A request as the line that the agent reads.
#[must_use]
pub fn line(request: &Request) -> Vec<u8> {
    let mut line = serde_json::to_vec(request).expect("a request has string keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Step;
    use pincushion_devices::fault::Plan;
    use pincushion_devices::trace::Tracer;

    use super::*;

    #[test]
    fn marks_and_messages_become_events_in_order() {
        let (tracer, recording) = Tracer::recording();
        let context = Context::new(Plan::default(), tracer).unwrap();
        context.marks().name(7, "read");
        let mut handler = to_events(context.clone());
        handler(FromAgent::Mark(7 << 1 | port::PHASE_BEGIN));
        assert!(context.marks().is_under_way("read"));
        handler(FromAgent::Message(b"{}"));
        handler(FromAgent::Mark(7 << 1 | port::PHASE_END));
        assert!(!context.marks().is_under_way("read"));
        let kinds: Vec<EventKind> = recording
            .events()
            .iter()
            .skip(1)
            .map(|event| event.kind.clone())
            .collect();
        assert_eq!(
            kinds,
            [
                EventKind::StepBegan { step: 7 },
                EventKind::AgentReport { text: "{}".into() },
                EventKind::StepEnded { step: 7 }
            ]
        );
    }

    #[test]
    fn a_request_is_one_line() {
        let request = Request {
            id: 1,
            thread: None,
            step: Step::WriteFile {
                path: "/x".into(),
                text: "a\nb".into(),
            },
        };
        let line = line(&request);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Request>(&line).unwrap(), request);
    }
}
