//! The stage: does a scenario's steps one after the other.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use pincushion_abi::{Outcome, Request, Step as Act};
use pincushion_devices::balloon::BalloonHandle;
use pincushion_devices::console::ConsoleInput;
use pincushion_devices::context::Context;
use pincushion_devices::trace::EventKind;
use toml::Value;

use super::await_event::{Ear, GaveUp, who_waits};
use super::control::Control;
use super::machine::Booted;
use super::titles::{describe, title};
use super::trouble::Trouble;
use super::witness::Hello;
use crate::guest;
use crate::scenario::model::{Await, Awaited, Expect, Fact, Scenario, Step};
use crate::scenario::{REFUSED, Values, fill, unmet};

/// How long a step may take where it does not say: long, since a loaded host inside an emulated one is slow, and a step that
/// never ends is rare.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(120);
/// How long a guest may take to boot.
/// An emulated guest whose host has four times as much to do as it can was seen to need more than two minutes, all of them at work.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// How a kernel says that it does not know a call, an ioctl, a flag, a file system or a file of its own.
const LACKING: [&str; 6] = [
    "ENOSYS",
    "EOPNOTSUPP",
    "ENOTTY",
    "ENODEV",
    "EINVAL",
    "ENOENT",
];

/// How the agent says that the image, which has what the kernel's package has, lacks a module.
const NO_MODULE: &str = "load-module";

/// Where steps are done.
pub(super) struct Stage<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) context: Context,
    pub(super) ear: Ear,
    pub(super) machine: Booted,
    /// Where a snapshot of the guest is wanted, as soon as it has booted.
    pub(super) snapshot_to: Option<PathBuf>,
    /// The guest has booted without its devices, which are still to be plugged in.
    pub(super) devices_come_later: bool,
    pub(super) balloon: Option<BalloonHandle>,
    /// What is typed goes there.
    pub(super) console: Option<ConsoleInput>,
    /// The control socket, if the scenario wants one.
    pub(super) control: Option<Control>,
    pub(super) values: Values,
    /// The cables of the network cards.
    pub(super) cables: super::cards::Cables,
    /// Where the scenario's pmem regions begin in guest memory.
    pub(super) pmem_starts: Vec<u64>,
    /// Number of the last step that was sent to the agent.
    pub(super) last_id: u32,
    /// Steps in threads of their own, by name.
    pub(super) under_way: HashMap<String, Sent>,
    /// What is being done, for a reader.
    pub(super) doing: String,
}

/// A step that the agent was sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    id: u32,
    title: String,
    name: Option<String>,
    expect: Option<Expect>,
    /// What a kernel lacks that refuses the call.
    needs: Option<String>,
    /// A refusal by this errno is an outcome like success.
    may_refuse: Option<String>,
}

impl Stage<'_> {
    /// Waits for the agent of boot number `boot` (from 1) and finds the disks.
    pub(super) fn greet(&mut self, boot: usize) -> Result<(), Trouble> {
        let heard = self
            .ear
            .until(BOOT_LIMIT, |witness| witness.hellos.get(boot - 1).cloned());
        let hello = heard.map_err(|why| match why {
            GaveUp::Ended => self.ended_while("the guest booted"),
            GaveUp::Limit => {
                let last = &self.ear.witness.last_console_line;
                Trouble::Hang(format!(
                    "the guest did not boot within {} s; its console's last line: {last:?}",
                    BOOT_LIMIT.as_secs()
                ))
            }
        })?;
        check_hello(&hello)?;
        if let Some(path) = self.snapshot_to.take() {
            self.keep_snapshot(&path, &hello)?;
        }
        if std::mem::take(&mut self.devices_come_later) {
            self.plug_in()?;
        }
        self.load_drivers()?;
        for disk in &self.scenario.disks {
            let sent = self.send(
                Act::FindDisk {
                    serial: disk.id.clone(),
                },
                None,
                format!("find disk {}", disk.id),
                None,
                None,
            )?;
            let Outcome::Ok(found) = self.answer(&sent, STEP_LIMIT)? else {
                continue;
            };
            if let Some(pincushion_abi::Value::Text(path)) = found.get("path") {
                self.values.set(format!("disk.{}", disk.id), path.clone());
                let name = path.trim_start_matches("/dev/");
                self.values.set(format!("block.{}", disk.id), name);
                let value = serde_json::json!({ "device": disk.id, "name": name });
                self.context.tracer().emit(|| EventKind::Fact {
                    key: "disk-name".into(),
                    value,
                });
            }
            if let Some(pincushion_abi::Value::Text(bus)) = found.get("bus") {
                self.values.set(format!("bus.{}", disk.id), bus.clone());
            }
        }
        self.find_cards()?;
        self.find_pmem()
    }

    /// A file system that the kernel does not know once its module was loaded: the scenario is not applicable.
    fn refuse_unknown(&mut self, file_systems: &[&str]) -> Result<(), Trouble> {
        if file_systems.is_empty() {
            return Ok(());
        }
        let path = "/proc/filesystems";
        let act = Act::ReadFile {
            path: path.into(),
            numbers: Vec::new(),
        };
        let sent = self.send(act, None, format!("read {path}"), None, None)?;
        let Outcome::Ok(found) = self.answer(&sent, STEP_LIMIT)? else {
            return Ok(());
        };
        let Some(pincushion_abi::Value::Text(known)) = found.get("text") else {
            return Ok(());
        };
        let is_known = |name: &str| known.split_whitespace().any(|word| word == name);
        match file_systems.iter().find(|name| !is_known(name)) {
            Some(name) => Err(Trouble::NotApplicable {
                step: sent.id,
                needs: format!("CONFIG_{}_FS", name.to_uppercase()),
            }),
            None => Ok(()),
        }
    }

    /// Loads what file systems and regions need, and finds the regions.
    fn find_pmem(&mut self) -> Result<(), Trouble> {
        let scenario = self.scenario;
        let file_systems = scenario.file_system_modules();
        let mut modules = file_systems.clone();
        if !scenario.pmems.is_empty() {
            modules.extend(["virtio_pmem", "nd_pmem"]);
        }
        for name in modules {
            self.load_module(name)?;
        }
        self.refuse_unknown(&file_systems)?;
        for (pmem, start) in scenario.pmems.iter().zip(self.pmem_starts.clone()) {
            let act = Act::FindPmem {
                start,
                limit_ms: 10_000,
            };
            let sent = self.send(act, None, format!("find pmem {}", pmem.id), None, None)?;
            let Outcome::Ok(found) = self.answer(&sent, STEP_LIMIT)? else {
                return Err(Trouble::NotApplicable {
                    step: sent.id,
                    needs: "CONFIG_VIRTIO_PMEM and CONFIG_BLK_DEV_PMEM".into(),
                });
            };
            for (kind, key) in [("pmem", "path"), ("bus", "bus")] {
                if let Some(pincushion_abi::Value::Text(text)) = found.get(key) {
                    self.values.set(format!("{kind}.{}", pmem.id), text.clone());
                }
            }
        }
        Ok(())
    }

    /// Does one step. Host checks are not for here.
    pub(super) fn perform(&mut self, step: &Step) -> Result<(), Trouble> {
        let limit = step.limit_s.map_or(STEP_LIMIT, Duration::from_secs);
        if let Some(table) = &step.guest {
            self.guest(step, table, limit)
        } else if let Some(awaited) = &step.r#await {
            self.wait_for(awaited, limit)
        } else if let Some(gate) = &step.gate {
            self.context.gates().open(gate);
            Ok(())
        } else if let Some(link) = &step.link {
            self.pull(link)
        } else if let Some(inject) = &step.inject {
            self.inject(inject)
        } else if let Some(text) = &step.r#type {
            self.type_text(text)
        } else if let Some(name) = &step.join {
            let sent = self
                .under_way
                .remove(name)
                .ok_or_else(|| Trouble::Stuck(format!("`{name}` is not under way")))?;
            self.conclude(&sent, limit)
        } else if step.reboot {
            self.reboot()
        } else if step.power_off {
            self.power_off()
        } else if let Some(act) = &step.balloon {
            self.ask_balloon(act)
        } else if let Some(asked) = &step.control {
            self.ask_control(asked)
        } else if let Some(fact) = &step.fact {
            self.tell(fact)
        } else {
            Ok(())
        }
    }

    fn guest(&mut self, step: &Step, table: &toml::Table, limit: Duration) -> Result<(), Trouble> {
        let filled = fill(&Value::Table(table.clone()), &self.values)
            .map_err(|missing| Trouble::Stuck(missing.to_string()))?;
        let act: Act = filled
            .try_into()
            .map_err(|error: toml::de::Error| Trouble::Stuck(error.message().to_owned()))?;
        let sent = self.send(
            act,
            step.thread.clone(),
            title(step),
            step.name.clone(),
            step.expect.clone(),
        )?;
        let sent = Sent {
            needs: step.needs.clone(),
            may_refuse: step.may_refuse.clone(),
            ..sent
        };
        if step.abandon {
            return Ok(());
        }
        match (&step.thread, &step.name) {
            (Some(_), Some(name)) => {
                self.under_way.insert(name.clone(), sent);
                Ok(())
            }
            _ => self.conclude(&sent, limit),
        }
    }

    pub(super) fn send(
        &mut self,
        act: Act,
        thread: Option<String>,
        title: String,
        name: Option<String>,
        expect: Option<Expect>,
    ) -> Result<Sent, Trouble> {
        self.last_id += 1;
        let id = self.last_id;
        let text = serde_json::to_string(&act).expect("a step has string keys only");
        let kind = EventKind::StepSent {
            step: id,
            thread: thread.clone(),
            name: title.clone(),
            text,
        };
        self.context.tracer().emit(|| kind);
        // Before the guest hears of the step: a rule with `mark` must know its name when it begins.
        self.context
            .marks()
            .name(id, name.as_deref().unwrap_or(&title));
        if let Some(name) = &name {
            self.values.set(format!("{name}.id"), i64::from(id));
        }
        let sent = Sent {
            id,
            title,
            name,
            expect,
            needs: None,
            may_refuse: None,
        };
        if self.machine.send(&guest::line(&Request {
            id,
            thread,
            step: act,
        })) {
            Ok(sent)
        } else {
            self.ear.catch_up();
            Err(self.ended_while(&sent.title))
        }
    }

    /// Waits for a step's answer and compares it with what is expected.
    fn conclude(&mut self, sent: &Sent, limit: Duration) -> Result<(), Trouble> {
        let outcome = self.answer(sent, limit)?;
        if let (Some(name), Outcome::Ok(found)) = (&sent.name, &outcome) {
            self.values.set_found(name, found);
        }
        if let (Some(needs), Outcome::Failed(fault)) = (&sent.needs, &outcome)
            && (LACKING.contains(&fault.name.as_str()) || fault.call == NO_MODULE)
        {
            return Err(Trouble::NotApplicable {
                step: sent.id,
                needs: needs.clone(),
            });
        }
        if let (Some(errno), Some(name)) = (&sent.may_refuse, &sent.name) {
            let refused = matches!(&outcome, Outcome::Failed(fault) if fault.name == *errno);
            self.values.set(format!("{name}.{REFUSED}"), refused);
            if refused {
                return Ok(());
            }
        }
        match unmet(sent.expect.as_ref(), &outcome) {
            None => Ok(()),
            Some((wanted, got)) => Err(Trouble::Unmet {
                step: sent.id,
                title: sent.title.clone(),
                wanted,
                got,
            }),
        }
    }

    pub(super) fn answer(&mut self, sent: &Sent, limit: Duration) -> Result<Outcome, Trouble> {
        let heard = self
            .ear
            .until(limit, |witness| witness.outcome(sent.id).cloned());
        heard.map_err(|why| match why {
            GaveUp::Ended => self.ended_while(&sent.title),
            GaveUp::Limit => {
                let state = if self.ear.witness.is_inside(sent.id) {
                    "did not end"
                } else {
                    "did not begin"
                };
                let waits = who_waits(&self.context);
                Trouble::Hang(format!(
                    "step {} ({}) {state} within {} s{waits}",
                    sent.id,
                    sent.title,
                    limit.as_secs()
                ))
            }
        })
    }

    fn wait_for(&mut self, awaited: &Await, limit: Duration) -> Result<(), Trouble> {
        let what = describe(awaited);
        self.ear
            .until(limit, |witness| witness.take(awaited).then_some(()))
            .map_err(|why| match why {
                GaveUp::Ended => self.ended_while(&format!("the scenario waited until {what}")),
                GaveUp::Limit => {
                    let seen = self.ear.witness.seen(awaited);
                    let waits = who_waits(&self.context);
                    let text = format!(
                        "waited {} s until {what}: it happened {seen}{waits}",
                        limit.as_secs()
                    );
                    match awaited.event {
                        Awaited::MachineEnded => Trouble::Hang(text),
                        _ => Trouble::Stuck(text),
                    }
                }
            })
    }

    fn reboot(&mut self) -> Result<(), Trouble> {
        let boots = self.ear.witness.hellos.len();
        self.machine.allow_reboot();
        self.send(
            Act::Reboot {},
            Some("reboot".into()),
            "reboot".into(),
            None,
            None,
        )?;
        self.greet(boots + 1)
    }

    /// Powers off, and waits until the machine has ended.
    pub(super) fn power_off(&mut self) -> Result<(), Trouble> {
        self.ear.catch_up();
        if self.ear.witness.ended.is_some() {
            return Ok(());
        }
        let sent = self.send(Act::PowerOff {}, None, "power off".into(), None, None)?;
        let ended = self.ear.until(STEP_LIMIT, |witness| witness.ended.clone());
        match ended {
            Ok(ended) if ended.how == "power-off" => Ok(()),
            Ok(_) | Err(GaveUp::Ended) => Err(self.ended_while(&sent.title)),
            Err(GaveUp::Limit) => {
                let waits = who_waits(&self.context);
                Err(Trouble::Hang(format!(
                    "the guest did not power off within {} s{waits}",
                    STEP_LIMIT.as_secs()
                )))
            }
        }
    }

    fn tell(&mut self, fact: &Fact) -> Result<(), Trouble> {
        let filled = fill(&fact.value, &self.values)
            .map_err(|missing| Trouble::Stuck(missing.to_string()))?;
        let value =
            serde_json::to_value(filled).map_err(|error| Trouble::Stuck(error.to_string()))?;
        self.context.tracer().emit(|| EventKind::Fact {
            key: fact.key.clone(),
            value,
        });
        Ok(())
    }

    fn ended_while(&self, doing: &str) -> Trouble {
        let ended = self.ear.witness.ended.as_ref();
        let how = ended.map_or_else(
            || "it is gone".to_owned(),
            |ended| format!("{}: {}", ended.how, ended.detail),
        );
        Trouble::Ended {
            doing: doing.to_owned(),
            how,
        }
    }
}

fn check_hello(hello: &Hello) -> Result<(), Trouble> {
    log::info!("the guest runs {}", hello.release);
    if hello.version != pincushion_abi::VERSION {
        let (theirs, ours) = (hello.version, pincushion_abi::VERSION);
        return Err(Trouble::Setup(format!(
            "the agent speaks version {theirs}, this program {ours}: build the guest image again"
        )));
    }
    if !hello.module_errors.is_empty() {
        return Err(Trouble::Setup(format!(
            "modules could not be loaded: {}",
            hello.module_errors.join("; ")
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_another_version_or_without_its_modules_is_refused() {
        let hello = |version, errors: &[&str]| Hello {
            version,
            release: "6".into(),
            module_errors: errors.iter().map(|error| (*error).to_owned()).collect(),
        };
        assert!(check_hello(&hello(pincushion_abi::VERSION, &[])).is_ok());
        assert!(check_hello(&hello(pincushion_abi::VERSION + 1, &[])).is_err());
        assert!(check_hello(&hello(pincushion_abi::VERSION, &["ext4: ENOENT"])).is_err());
    }
}
