//! How the timeline takes the events of the guest, the scenario and the machine.

use pincushion_abi::Report;
use pincushion_devices::trace::event::EventKind;

use super::fact::{Fact, FilePage};
use super::history::{Boot, PageOwner, Timeline};
use super::request::Stamp;
use super::step::{self, Step};

impl Timeline {
    /// Events of the guest, the scenario and the machine.
    pub(super) fn feed_machine(&mut self, at: Stamp, kind: &EventKind) {
        match kind {
            EventKind::DeviceAdded {
                device,
                kind,
                region,
                ..
            } => {
                let known = self.devices.entry(device.clone()).or_default();
                known.kind.clone_from(kind);
                known.region = *region;
            }
            EventKind::DeviceReset { device, abandoned } => {
                self.devices
                    .entry(device.clone())
                    .or_default()
                    .resets
                    .push((at, *abandoned));
            }
            EventKind::GateOpened { gate } => self.gates.push((at, gate.clone())),
            EventKind::GuestMistake { .. } => self.guest_mistakes += 1,
            EventKind::StepSent {
                step,
                thread,
                name,
                text,
            } => {
                let sent = self.step_mut(*step);
                sent.sent = Some(at);
                sent.thread.clone_from(thread);
                sent.op = step::op(text);
                sent.act = step::act(text);
                sent.name.clone_from(name);
            }
            EventKind::StepBegan { step } => self.step_mut(*step).began = Some(at),
            EventKind::StepEnded { step } => self.step_mut(*step).ended = Some(at),
            EventKind::AgentReport { text } => self.reported(at, text),
            EventKind::Fact { key, value } => match Fact::read(key, value) {
                Ok(fact) => self.learn(at, fact),
                Err(error) => self.malformed.push((at, key.clone(), error.to_string())),
            },
            EventKind::Console { line } => self.console.push((at, line.clone())),
            EventKind::BootBegan { boot } => {
                self.held.clear();
                self.owners.clear();
                // Only the last end is an event of its own: a boot that another follows ended by a reset.
                if let Some(last) = self.boots.last_mut() {
                    last.ended
                        .get_or_insert_with(|| (at, "reset".to_owned(), String::new()));
                }
                self.boots.push(Boot {
                    number: *boot,
                    began: at,
                    hello: None,
                    ended: None,
                });
            }
            EventKind::MachineEnded { how, detail } => {
                self.boot_mut(at).ended = Some((at, how.clone(), detail.clone()));
            }
            // All others were taken by `feed_request`, or say nothing that an oracle asks for.
            _ => {}
        }
    }

    fn reported(&mut self, at: Stamp, text: &str) {
        // A text that is no report is the agent's or the guest's mistake and says nothing that we could use.
        match serde_json::from_str::<Report>(text) {
            Ok(Report::Hello { release, .. }) => self.boot_mut(at).hello = Some((at, release)),
            Ok(Report::Done { id, outcome, .. }) => self.step_mut(id).outcome = Some((at, outcome)),
            Ok(Report::Refused { .. } | Report::Note { .. }) | Err(_) => {}
        }
    }

    fn learn(&mut self, at: Stamp, fact: Fact) {
        match &fact {
            Fact::FilePage(FilePage {
                device,
                file,
                frames,
                first_page,
            }) => {
                for (index, &frame) in (0..).zip(frames).filter(|(_, frame)| **frame != 0) {
                    let owner = PageOwner {
                        device: device.clone(),
                        file: file.clone(),
                        page: first_page.saturating_add(index),
                    };
                    self.owners.insert(frame, owner);
                }
            }
            Fact::FilePageGone(frames) => {
                for frame in frames {
                    self.owners.remove(frame);
                }
            }
            Fact::WrittenByCache(_)
            | Fact::StablePagesRequired(_)
            | Fact::FileBlocks(_)
            | Fact::Promised(_)
            | Fact::Found(_)
            | Fact::Image(_)
            | Fact::Fsck(_)
            | Fact::Pins(_)
            | Fact::ExpectedStop(_)
            | Fact::DiskName(_)
            | Fact::StepFailed(_)
            | Fact::PowerCut(_)
            | Fact::CrashImage(_)
            | Fact::NotApplicable(_)
            | Fact::MustHold(_)
            | Fact::Looked(_)
            | Fact::Frozen(_)
            | Fact::KernelTrace(_)
            | Fact::Other(_) => {}
        }
        self.facts.push((at, fact));
    }

    /// The present boot; a log without `boot-began` has one.
    pub(super) fn boot_mut(&mut self, at: Stamp) -> &mut Boot {
        if self.boots.is_empty() {
            self.boots.push(Boot {
                number: 1,
                began: at,
                hello: None,
                ended: None,
            });
        }
        self.boots.last_mut().expect("a boot was just added")
    }

    fn step_mut(&mut self, id: u32) -> &mut Step {
        let position = *self.by_step.entry(id).or_insert_with(|| {
            self.steps.push(Step::new(id));
            self.steps.len() - 1
        });
        &mut self.steps[position]
    }
}
