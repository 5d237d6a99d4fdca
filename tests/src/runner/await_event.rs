//! Waits with limits, on the event log and nothing else, and says what it waited for when it gives up.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pincushion_devices::context::Context;
use pincushion_devices::trace::event::{Event, Until};

use super::witness::Witness;

/// Hears every event of the run.
pub(super) struct Ear {
    pub(super) events: Receiver<Arc<Event>>,
    pub(super) witness: Witness,
}

/// Why a wait did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GaveUp {
    /// The machine ended first.
    Ended,
    /// The limit was reached.
    Limit,
}

impl Ear {
    /// Takes what has happened until now.
    pub(super) fn catch_up(&mut self) {
        for event in self.events.try_iter() {
            self.witness.note(&event);
        }
    }

    /// Waits until `done` finds something in what was heard.
    pub(super) fn until<T>(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Witness) -> Option<T>,
    ) -> Result<T, GaveUp> {
        let deadline = Instant::now() + limit;
        self.catch_up();
        loop {
            if let Some(found) = done(&mut self.witness) {
                return Ok(found);
            }
            if self.witness.ended.is_some() {
                return Err(GaveUp::Ended);
            }
            match self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(event) => {
                    self.witness.note(&event);
                    // All at once: `done` looks at everything heard so far, and a busy card makes a hundred thousand events in one wait.
                    self.catch_up();
                }
                Err(RecvTimeoutError::Timeout) => return Err(GaveUp::Limit),
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the context keeps the tracer alive")
                }
            }
        }
    }
}

/// Who waits for what inside the machine, for the message of a wait that gave up: closed gates first.
pub(super) fn who_waits(context: &Context) -> String {
    let mut text = String::new();
    for waiting in context.waiting() {
        let request = &waiting.request;
        // Writing to a String cannot fail.
        let _ = match &waiting.until {
            Until::Gate(gate) => write!(
                text,
                "; gate `{gate}` was never opened: request {request} waits for it"
            ),
            Until::SameFrame { point, device } => {
                let whose = device
                    .as_ref()
                    .map_or(String::new(), |device| format!(" of {device}"));
                let point = serde_json::to_value(point).ok();
                let point = point
                    .as_ref()
                    .and_then(|value| value.as_str())
                    .unwrap_or_default();
                write!(
                    text,
                    "; request {request} waits until a request{whose} that shares a frame is {point}"
                )
            }
            Until::Duration { ns } => {
                write!(text, "; request {request} waits for {} ms", ns / 1_000_000)
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::{EventKind, Tracer};

    use super::*;

    fn ear(tracer: &Tracer) -> Ear {
        Ear {
            events: tracer.subscribe(),
            witness: Witness::default(),
        }
    }

    #[test]
    fn a_wait_ends_by_an_event_that_came_before_it_began() {
        let tracer = Tracer::new();
        let mut ear = ear(&tracer);
        tracer.emit(|| EventKind::StepBegan { step: 1 });
        assert_eq!(
            ear.until(Duration::ZERO, |witness| witness.is_inside(1).then_some(7)),
            Ok(7)
        );
    }

    #[test]
    fn a_wait_ends_by_its_limit_and_by_the_machines_end() {
        let tracer = Tracer::new();
        let mut ear = ear(&tracer);
        let never = |_: &mut Witness| None::<()>;
        assert_eq!(ear.until(Duration::ZERO, never), Err(GaveUp::Limit));
        tracer.emit(|| EventKind::MachineEnded {
            how: "panic".into(),
            detail: String::new(),
        });
        assert_eq!(
            ear.until(Duration::from_secs(60), never),
            Err(GaveUp::Ended)
        );
    }
}
