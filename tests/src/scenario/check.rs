//! What may not be combined in a scenario. Runs before any guest does, so that a slip costs a second and not a boot.

use std::collections::BTreeSet;

use pincushion_devices::fault::Plan;
use pincushion_devices::pmem::ALIGNMENT as PMEM_ALIGNMENT;
use pincushion_devices::toml_error::{explain, nearest};
use pincushion_vmm::machine::MAX_WORKERS;
use toml::Value;

use super::condition;
use super::interpolate::placeholders;
use super::model::{
    BALLOON, Backend, BalloonAct, CONSOLE, Content, Disk, Expect, HostCheck, Pmem, Scenario, Step,
};
use super::outcome;

/// Where the problem is (`step`, `rule` or `disk`, and its index), and what it is.
type Problem = (Option<(&'static str, usize)>, String);

/// Refuses what cannot be meant.
pub(super) fn check(scenario: &Scenario) -> Result<(), Problem> {
    let whole = |problem: String| (None, problem);
    if scenario.name.is_empty()
        || !scenario
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        return Err(whole(format!(
            "name = {:?}: use letters, digits and `-`",
            scenario.name
        )));
    }
    if let Some(name) = scenario.steps.iter().flat_map(|step| &step.only).next() {
        return Err(whole(format!(
            "only = [{name:?}]: the file has no [[variant]]"
        )));
    }
    if scenario.expect.is_empty() {
        return Err(whole(
            "no expectation: add [expect.default] with a verdict".into(),
        ));
    }
    if scenario.kernels.is_empty() {
        return Err(whole(
            "kernels is empty: leave it away for the newest, or name some".into(),
        ));
    }
    if !(1..=16).contains(&scenario.vm.cpus) {
        return Err(whole(format!(
            "vm.cpus = {}: use 1 to 16",
            scenario.vm.cpus
        )));
    }
    if let Some(name) = scenario.vm.programs.iter().find(|name| !is_program(name)) {
        return Err(whole(format!(
            "vm.programs has {name:?}: name a program without its directory, as \"fio\""
        )));
    }
    if !(1..=MAX_WORKERS).contains(&scenario.vm.workers) {
        return Err(whole(format!(
            "vm.workers = {}: use 1 to {MAX_WORKERS}",
            scenario.vm.workers
        )));
    }
    size(&scenario.vm.memory).map_err(|problem| whole(format!("vm.memory: {problem}")))?;
    check_disks(scenario)?;
    check_nets(scenario)?;
    if let Some(balloon) = &scenario.balloon {
        check_target(scenario, &balloon.target)
            .map_err(|problem| whole(format!("balloon: {problem}")))?;
        if scenario.disks.iter().any(|disk| disk.id == BALLOON) {
            return Err(whole("disk `balloon`: the balloon has this name".into()));
        }
    }
    super::power_cut::check(scenario).map_err(whole)?;
    check_rules(scenario)?;
    check_steps(scenario)
}

/// A size in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    pincushion_vmm::config::units::parse_size(text).map_err(|error| error.to_string())
}

/// A balloon's target: whole pages, at most the guest's memory.
fn check_target(scenario: &Scenario, text: &str) -> Result<(), String> {
    let (target, memory) = (size(text)?, size(&scenario.vm.memory)?);
    if target > memory || !target.is_multiple_of(4096) {
        return Err(format!(
            "target = {text:?}: use whole pages of 4K, at most vm.memory = {:?}",
            scenario.vm.memory
        ));
    }
    Ok(())
}

fn check_disks(scenario: &Scenario) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    let pmems: Vec<Disk> = scenario.pmems.iter().map(Pmem::as_disk).collect();
    let disks = scenario.disks.iter().enumerate().map(|one| ("disk", one));
    let pmems = pmems.iter().enumerate().map(|one| ("pmem", one));
    for (kind, (index, disk)) in disks.chain(pmems) {
        let wrong = |problem: String| {
            (
                Some((kind, index)),
                format!("{kind} `{}`: {problem}", disk.id),
            )
        };
        if disk.id.is_empty()
            || disk.id.len() > 20
            || !disk.id.chars().all(|c| c.is_ascii_alphanumeric())
        {
            return Err(wrong("the id must be 1 to 20 letters and digits".into()));
        }
        if !names.insert(disk.id.clone()) {
            return Err(wrong("there are two of this id".into()));
        }
        let bytes = size(&disk.size).map_err(|problem| wrong(format!("size: {problem}")))?;
        if bytes == 0 || bytes % 512 != 0 {
            return Err(wrong(format!(
                "size = {bytes} bytes: it must be a multiple of 512, and not 0"
            )));
        }
        if kind == "pmem" && !bytes.is_multiple_of(PMEM_ALIGNMENT) {
            return Err(wrong(format!(
                "size = {bytes} bytes: it must be a multiple of 2 MiB"
            )));
        }
        if !(1..=64).contains(&disk.queues) {
            return Err(wrong(format!("queues = {}: use 1 to 64", disk.queues)));
        }
        if disk.queues > 1 && disk.backend == Backend::Volatile {
            return Err(wrong(
                "backend = \"volatile\" has one queue: use `file` or `uring`".into(),
            ));
        }
        let holds_files = matches!(
            disk.content,
            Content::Ext4 | Content::Ext4Small | Content::Xfs
        );
        if !holds_files && !disk.files.is_empty() {
            return Err(wrong(
                "only content = \"ext4\", \"ext4-1k\" and \"xfs\" hold files".into(),
            ));
        }
        if let Some(file) = disk
            .files
            .iter()
            .find(|file| !file.path.starts_with('/') || file.path.contains(".."))
        {
            return Err(wrong(format!("{}: the path must be absolute", file.path)));
        }
        if disk.content == Content::Xfs
            && let Some(file) = disk
                .files
                .iter()
                .find(|file| file.path[1..].contains(['/', ' ']))
        {
            return Err(wrong(format!(
                "{}: files of a fresh xfs lie in its root, and their names have no space",
                file.path
            )));
        }
    }
    Ok(())
}

fn check_nets(scenario: &Scenario) -> Result<(), Problem> {
    for (index, net) in scenario.nets.iter().enumerate() {
        let id = net.id.as_deref().unwrap_or_default();
        let wrong = |problem: String| (Some(("net", index)), format!("net `{id}`: {problem}"));
        if id.is_empty() || id.len() > 20 || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(wrong("the id must be 1 to 20 letters and digits".into()));
        }
        let others = scenario.nets[..index]
            .iter()
            .filter_map(|net| net.id.as_deref());
        let disks = scenario.disks.iter().map(|disk| disk.id.as_str());
        if others.chain(disks).any(|other| other == id) {
            return Err(wrong("there are two devices of this id".into()));
        }
        net.check().map_err(wrong)?;
    }
    Ok(())
}

fn check_rules(scenario: &Scenario) -> Result<(), Problem> {
    let mut rules = Vec::new();
    for (index, rule) in scenario.rules.iter().enumerate() {
        let wrong = |problem: String| {
            (
                Some(("rule", index)),
                format!("rule {}: {problem}", index + 1),
            )
        };
        let (filled, names) = placeholders(rule);
        for name in &names {
            let known = name
                .strip_prefix("sectors.")
                .and_then(|rest| rest.split_once(':'));
            let exists = known.is_some_and(|(id, path)| {
                scenario.disks.iter().any(|disk| {
                    disk.id == id
                        && disk.content == Content::Ext4
                        && disk.files.iter().any(|file| file.path == path)
                })
            });
            if !exists {
                return Err(wrong(format!(
                    "`${{{name}}}`: a rule may use only ${{sectors.DISK:/PATH}} of a file in `files` of an ext4 disk"
                )));
            }
        }
        let rule: pincushion_devices::fault::Rule = filled
            .try_into()
            .map_err(|error: toml::de::Error| wrong(explain(error.message())))?;
        for device in rule.devices() {
            known_disk(scenario, &device).map_err(wrong)?;
        }
        // With those before it: rules may wait for each other.
        rules.push(rule);
        let plan = Plan {
            seed: 0,
            rules: rules.clone(),
        };
        plan.check().map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

pub(super) fn known_disk(scenario: &Scenario, id: &str) -> Result<(), String> {
    if scenario
        .nets
        .iter()
        .any(|net| net.id.as_deref() == Some(id))
    {
        return Ok(());
    }
    let disks = scenario.disks.iter().map(|disk| disk.id.as_str());
    let known = disks.chain(scenario.pmems.iter().map(|pmem| pmem.id.as_str()));
    if known.clone().any(|known| known == id) {
        return Ok(());
    }
    if scenario.balloon.is_some() && id == BALLOON || scenario.vm.virtio_console && id == CONSOLE {
        return Ok(());
    }
    let near = nearest(id, known);
    Err(format!(
        "there is no device `{id}` in this machine{}",
        near.map_or(String::new(), |near| format!("; did you mean `{near}`?"))
    ))
}

fn check_steps(scenario: &Scenario) -> Result<(), Problem> {
    // With an include still in place nobody knows which names there are.
    let is_whole = scenario.steps.iter().all(|step| step.include.is_none());
    let mut named = BTreeSet::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        let wrong = |problem: String| {
            (
                Some(("step", index)),
                format!("step {}: {problem}", index + 1),
            )
        };
        check_step(scenario, step).map_err(wrong)?;
        if is_whole {
            check_names(scenario, step, &named).map_err(wrong)?;
        }
        if let Some(name) = &step.name {
            if matches!(
                name.as_str(),
                "disk" | "bus" | "block" | "net" | "pmem" | "sectors" | "fs" | "seed" | "variant"
            ) || name.contains('.')
            {
                return Err(wrong(format!(
                    "`{name}` is taken for the machine's own values; choose another name"
                )));
            }
            if !named.insert(name.as_str()) {
                return Err(wrong(format!("there are two steps of the name `{name}`")));
            }
        }
    }
    if is_whole {
        for (index, step) in scenario.steps.iter().enumerate() {
            check_joined(scenario, index, step).map_err(|problem| {
                (
                    Some(("step", index)),
                    format!("step {}: {problem}", index + 1),
                )
            })?;
        }
    }
    Ok(())
}

fn check_step(scenario: &Scenario, step: &Step) -> Result<(), String> {
    does_one_thing(step)?;
    condition::check(step, None)?;
    let only_for_guest =
        step.thread.is_some() || step.expect.is_some() || step.needs.is_some() || step.abandon;
    if only_for_guest && step.guest.is_none() {
        return Err("thread, expect, needs and abandon go only with guest".into());
    }
    if !step.set.is_empty() && step.include.is_none() {
        return Err("set goes only with include".into());
    }
    if let Some(table) = &step.guest {
        let (filled, _) = placeholders(&Value::Table(table.clone()));
        let parsed: Result<pincushion_abi::Step, toml::de::Error> = filled.try_into();
        parsed.map_err(|error| format!("guest: {}", explain(error.message())))?;
    }
    if let Some(Expect::Values(wanted)) = &step.expect {
        let mut wanted = wanted.values();
        wanted.try_for_each(|value| outcome::only_exact("expect", value))?;
    }
    if let Some(fact) = &step.fact {
        outcome::only_exact("fact", &fact.value)?;
    }
    if let Some(awaited) = &step.r#await {
        awaited.check(scenario)?;
    }
    if let Some(link) = &step.link
        && !scenario
            .nets
            .iter()
            .any(|net| net.id.as_ref() == Some(&link.net))
    {
        return Err(format!(
            "link: there is no card `{}`: add a [[net]]",
            link.net
        ));
    }
    if let Some(inject) = &step.inject {
        has_loopback(scenario, &inject.net)?;
    }
    if step.r#type.is_some() {
        has_console(scenario)?;
    }
    if let Some(act) = &step.balloon {
        if scenario.balloon.is_none() {
            return Err("balloon: the machine has none: add [balloon]".into());
        }
        if let BalloonAct::Target(target) = act {
            check_target(scenario, target)?;
        }
    }
    if let Some(control) = &step.control {
        if !scenario.vm.control {
            return Err("control: the machine has no socket: add vm = { control = true }".into());
        }
        control.asked()?;
    }
    step.host
        .as_ref()
        .map_or(Ok(()), |check| check_host(scenario, check))
}

/// What is not installed is asked of the package manager by this name.
fn is_program(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
    !name.is_empty() && !name.starts_with(['-', '.']) && name.chars().all(is_fit)
}

fn does_one_thing(step: &Step) -> Result<(), String> {
    let all = "guest, await, gate, link, inject, type, join, reboot, power-off, fact, balloon, control, host, include";
    match step.acts().as_slice() {
        [] => Err(format!("does nothing: give it one of {all}")),
        [_] => Ok(()),
        several => Err(format!(
            "does two things ({}): make two steps of it",
            several.join(", ")
        )),
    }
}

fn check_host(scenario: &Scenario, check: &HostCheck) -> Result<(), String> {
    match check {
        HostCheck::Fsck { disk }
        | HostCheck::File { disk, .. }
        | HostCheck::Bytes { disk, .. }
        | HostCheck::Flushed { disk } => known_disk(scenario, disk),
        HostCheck::Console { .. } => has_console(scenario),
        HostCheck::Quiet { about } if about.is_empty() => {
            Err("quiet: `about` names no word that may not be there".into())
        }
        HostCheck::Said { texts } if texts.is_empty() => {
            Err("said: `texts` names nothing that must be there".into())
        }
        HostCheck::Quiet { .. } | HostCheck::Said { .. } => Ok(()),
    }
}

fn has_loopback(scenario: &Scenario, id: &str) -> Result<(), String> {
    let mut nets = scenario.nets.iter();
    let card = nets.find(|net| net.id.as_deref() == Some(id));
    if card.is_some_and(|card| card.loopback) {
        Ok(())
    } else {
        Err(format!(
            "inject: there is no card `{id}` with loopback = true"
        ))
    }
}

fn has_console(scenario: &Scenario) -> Result<(), String> {
    if scenario.vm.virtio_console {
        Ok(())
    } else {
        Err("the machine has no virtio console: add virtio-console = true to `vm`".into())
    }
}

/// Names in `${...}` must have been given by an earlier step, or be a disk's.
fn check_names(scenario: &Scenario, step: &Step, named: &BTreeSet<&str>) -> Result<(), String> {
    let texts = step
        .guest
        .clone()
        .map(Value::Table)
        .into_iter()
        .chain(step.fact.clone().map(|fact| fact.value));
    condition::check(step, Some(named))?;
    for name in texts.flat_map(|text| placeholders(&text).1) {
        let (first, rest) = name.split_once('.').unwrap_or((&name, ""));
        match first {
            "disk" | "bus" | "block" | "net" | "pmem" | "fs" => known_disk(scenario, rest)?,
            "sectors" | "seed" => {}
            step if named.contains(step) => {}
            step => return Err(format!("`${{{name}}}`: no earlier step is named `{step}`")),
        }
    }
    Ok(())
}

/// A step in a thread of its own must be waited for, or its answer be given up openly.
fn check_joined(scenario: &Scenario, index: usize, step: &Step) -> Result<(), String> {
    if let Some(name) = &step.join {
        let sent = scenario.steps[..index]
            .iter()
            .any(|other| other.name.as_ref() == Some(name) && other.thread.is_some());
        return if sent {
            Ok(())
        } else {
            Err(format!(
                "join: no earlier step with a thread is named `{name}`"
            ))
        };
    }
    if step.thread.is_none() || step.abandon {
        return Ok(());
    }
    let Some(name) = &step.name else {
        return Err("a step with a thread needs a name, so that a later step can join it".into());
    };
    let joined = scenario.steps[index..]
        .iter()
        .any(|other| other.join.as_ref() == Some(name));
    if joined {
        Ok(())
    } else {
        Err(format!(
            "nobody joins `{name}`: add a step `join = \"{name}\"`, or set abandon = true"
        ))
    }
}

impl Step {
    /// Names of what it does; a valid step does one thing.
    pub(super) fn acts(&self) -> Vec<&'static str> {
        [
            ("guest", self.guest.is_some()),
            ("await", self.r#await.is_some()),
            ("gate", self.gate.is_some()),
            ("link", self.link.is_some()),
            ("inject", self.inject.is_some()),
            ("type", self.r#type.is_some()),
            ("join", self.join.is_some()),
            ("reboot", self.reboot),
            ("power-off", self.power_off),
            ("fact", self.fact.is_some()),
            ("balloon", self.balloon.is_some()),
            ("control", self.control.is_some()),
            ("host", self.host.is_some()),
            ("include", self.include.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect()
    }
}
