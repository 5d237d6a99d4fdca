//! `run-one`: the child's whole life, from `scenario.toml` to a complete event log.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use pincushion_devices::backend::Backend;
use pincushion_devices::balloon::BalloonHandle;
use pincushion_devices::console::{ConsoleConfig, ConsoleDevice, ConsoleInput};
use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::fault::Plan;
use pincushion_devices::trace::{EventKind, JsonLines, Tracer};
use pincushion_vmm::assembly;
use pincushion_vmm::config::BalloonConfig;
use pincushion_vmm::config::units::parse_size;
use pincushion_vmm::control::About;
use pincushion_vmm::machine::{MachineConfig, Transport};
use pincushion_vmm::persistent_memory::{self, Wanted};
use pincushion_vmm::program::{complain, tell};
use pincushion_vmm::region::Region;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use toml::Value;

use super::await_event::Ear;
use super::machine::{Booted, Recipe, config};
use super::power_cut::Records;
use super::stage::Stage;
use super::titles::title;
use super::trouble::Trouble;
use super::witness::Witness;
use super::{cards, control, disks, host_checks, snapshots};
use crate::rundir::{self, CONSOLE_LOG, RunDir, RunInfo, VIRTIO_CONSOLE_LOG};
use crate::scenario::model::{BALLOON, CONSOLE, KernelFormat, Pmem};
use crate::scenario::{Scenario, Values, fill, holds};

/// What a child is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Order {
    /// The run's directory, with `scenario.toml` and `run.toml`
    #[arg(long)]
    pub run_dir: PathBuf,
    /// The kernel to boot
    #[arg(long)]
    pub kernel: PathBuf,
    /// The initial RAM disk with the agent
    #[arg(long)]
    pub initrd: PathBuf,
    /// An empty or missing directory for the disks' images
    #[arg(long)]
    pub scratch: PathBuf,
    /// A directory for snapshots of guests that have booted; a run goes on from one if it can. Without it every guest boots
    #[arg(long)]
    pub snapshots: Option<PathBuf>,
    /// Process id of the parent, if this run is to end with it
    #[arg(long)]
    pub parent: Option<i32>,
}

/// Runs the scenario of `order.run_dir`. `Ok`: the event log tells everything, also what went wrong.
///
/// # Errors
/// Not even the log could be written, or the scenario cannot be read.
pub fn run_one(order: &Order) -> anyhow::Result<()> {
    if let Some(parent) = order.parent {
        end_with(parent)?;
    }
    let dir = RunDir::at(&order.run_dir);
    let (info, scenario) = (dir.info()?, dir.scenario()?);
    let tracer = Arc::new(Tracer::new());
    let events = dir.file("events.jsonl");
    let sink = JsonLines::create(&events)
        .with_context(|| format!("cannot create {}", events.display()))?;
    tracer.add_sink(Box::new(sink));
    fs::create_dir_all(&order.scratch)
        .with_context(|| format!("cannot make {}", order.scratch.display()))?;
    let result = perform(order, &dir, &scenario, &info, &tracer);
    if let Err(error) = &result {
        // The judge sees a setup error and its reason.
        let detail = format!("{error:#}");
        complain(format_args!("cannot run {}: {detail}", scenario.name));
        tracer.emit(|| EventKind::MachineEnded {
            how: "failed".into(),
            detail,
        });
    }
    match tracer.lost() {
        0 => Ok(()),
        lost => Err(anyhow!(
            "{lost} events could not be written to {}",
            events.display()
        )),
    }
}

/// From now on this process dies with its parent, or rather with the thread there that started it.
fn end_with(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot ask for a signal at the parent's end")?;
    // Whoever went before that sends none.
    match getppid() {
        Some(pid) if pid.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(anyhow!(
            "process {parent}, which started this run, has gone"
        )),
    }
}

/// `Err`: the machine was not even started.
fn perform(
    order: &Order,
    dir: &RunDir,
    scenario: &Scenario,
    info: &RunInfo,
    tracer: &Arc<Tracer>,
) -> anyhow::Result<()> {
    say("making the disks");
    let mut values = Values::of_run(info.seed);
    let pmems: Vec<_> = scenario.pmems.iter().map(Pmem::as_disk).collect();
    for disk in scenario.disks.iter().chain(&pmems) {
        disks::make_image(disk, &order.scratch, &mut values)?;
    }
    let records = Records::begin(dir, scenario, &order.scratch)
        .context("cannot begin the record of a disk for power cuts")?;
    let plan = plan(scenario, info.seed, &values)?;
    dir.write("plan.toml", &toml::to_string(&plan)?)?;
    let context = Context::new(plan.clone(), tracer.clone())?;
    let disks = scenario.disks.iter();
    let devices =
        disks.map(|disk| disks::device(disk, &order.scratch, &context, records.of(&disk.id)));
    let mut devices = devices.collect::<Result<Vec<_>, _>>()?;
    let (cards, cables) = cards::make(scenario, &context)?;
    devices.extend(cards);
    let balloon = balloon(scenario, &context, &mut devices)?;
    let console = console(scenario, dir, &context, &mut devices)?;
    let mut config = machine_config(order, scenario, info)?;
    let ram = config.memory_bytes;
    let (pmem, regions) = regions(scenario, &order.scratch, ram, &records, &context)?;
    devices.extend(pmem);
    records.sample(scenario, &regions, tracer);
    let control = controlled(scenario, plan, &config, &devices, &context);
    let starts = regions.iter().map(Region::start).collect();
    let ear = Ear {
        events: tracer.subscribe(),
        witness: Witness::default(),
    };
    let all = order.snapshots.as_deref();
    let place = all.and_then(|all| snapshots::place(all, scenario, info, &config, &devices));
    // What is not there at boot is in no snapshot, which so serves machines with any devices.
    config.hot_plug = place.is_some() && config.transport == Transport::Pci;
    let devices_come_later = config.hot_plug && !devices.is_empty();
    let snapshot = place.clone().filter(|path| snapshots::is_there(path));
    let snapshot_to = place.filter(|_| snapshot.is_none());
    let machine = Booted::start(Recipe {
        config,
        snapshot,
        devices,
        regions,
        context: context.clone(),
        limit: Duration::from_secs(scenario.vm.limit_s),
        console: File::create(dir.file(CONSOLE_LOG))?,
        vcpus: dir.file("vcpus.txt"),
    })?;
    let control = control.map(|wanted| {
        let machine = machine.present();
        wanted.serve(&order.scratch, context.clone(), machine)
    });
    let stage = Stage {
        scenario,
        context,
        ear,
        machine,
        snapshot_to,
        devices_come_later,
        balloon,
        console,
        control: control.transpose()?,
        values,
        cables,
        pmem_starts: starts,
        last_id: 0,
        under_way: HashMap::new(),
        doing: "boot".into(),
    };
    play_out(order, dir, info, stage);
    Ok(())
}

/// Plays the scenario to its end, and looks at what it left.
fn play_out(order: &Order, dir: &RunDir, info: &RunInfo, mut stage: Stage<'_>) {
    let scenario = stage.scenario;
    let tracer = stage.context.tracer().clone();
    let played = play(&mut stage);
    if let Err(error) = dir.write_info(&info_of(info, &stage.ear.witness)) {
        say(&error.to_string());
    }
    if let Err(trouble) = &played {
        say(&format!("stopped: {trouble}"));
        stage
            .machine
            .stop_as(trouble.stop_as(), &trouble.to_string());
        tracer.emit(|| trouble.fact(stage.last_id, &stage.doing));
    }
    stage.context.finish();
    // The devices, and with them the locks on the images, go before anybody looks at these.
    let context = stage.context.clone();
    drop(stage);
    if played.is_ok() {
        look(order, dir, scenario, &context);
    }
}

/// What is known of the run now.
fn info_of(info: &RunInfo, witness: &Witness) -> RunInfo {
    let booted = match (witness.restored, witness.hellos.len()) {
        (true, _) => Some(rundir::Booted::Restored),
        (false, 0) => None,
        (false, _) => Some(rundir::Booted::Fresh),
    };
    RunInfo {
        booted,
        ..info.clone()
    }
}

/// The scenario's persistent memory: devices, and what they are in guest memory.
fn regions(
    scenario: &Scenario,
    scratch: &Path,
    memory_bytes: u64,
    records: &Records,
    context: &Context,
) -> anyhow::Result<(Vec<SharedDevice>, Vec<Region>)> {
    let wanted = scenario.pmems.iter().map(|pmem| Wanted {
        id: pmem.id.clone(),
        path: disks::image_path(scratch, &pmem.id),
        size: None,
        notes_stores: records.of(&pmem.id).is_some(),
    });
    let flusher =
        |id: &str, flusher: Box<dyn Backend>| -> Box<dyn Backend> { records.flusher(id, flusher) };
    let pmem = persistent_memory::open(memory_bytes, wanted, flusher, context)?;
    Ok(pmem.into_iter().unzip())
}

/// The scenario's balloon, added to the devices.
fn balloon(
    scenario: &Scenario,
    context: &Context,
    devices: &mut Vec<SharedDevice>,
) -> anyhow::Result<Option<BalloonHandle>> {
    let Some(balloon) = &scenario.balloon else {
        return Ok(None);
    };
    let size = |text| parse_size(text).map_err(anyhow::Error::msg);
    let config = BalloonConfig {
        id: BALLOON.to_owned(),
        target: size(&balloon.target)?,
        reporting: balloon.reporting,
        deflate_on_oom: balloon.deflate_on_oom,
    };
    let device = assembly::balloon(&config, size(&scenario.vm.memory)?, context)
        .context("cannot make the balloon")?;
    let handle = device.handle();
    devices.push(Arc::new(Mutex::new(device)));
    Ok(Some(handle))
}

/// The scenario's virtio console, added to the devices; what the guest writes goes to a file of the run.
fn console(
    scenario: &Scenario,
    dir: &RunDir,
    context: &Context,
    devices: &mut Vec<SharedDevice>,
) -> anyhow::Result<Option<ConsoleInput>> {
    if !scenario.vm.virtio_console {
        return Ok(None);
    }
    let output = Box::new(File::create(dir.file(VIRTIO_CONSOLE_LOG))?);
    let device = ConsoleDevice::new(ConsoleConfig::new(CONSOLE), output, context.clone())
        .context("cannot make the virtio console")?;
    let input = device.input();
    devices.push(Arc::new(Mutex::new(device)));
    Ok(Some(input))
}

/// What the control socket is to control, if the scenario wants one.
fn controlled(
    scenario: &Scenario,
    plan: Plan,
    config: &MachineConfig,
    devices: &[SharedDevice],
    context: &Context,
) -> Option<control::Wanted> {
    let about = About {
        vcpus: config.vcpus.into(),
        memory_bytes: config.memory_bytes,
        kernel: config.kernel.display().to_string(),
    };
    let wanted = scenario.vm.control;
    wanted.then(|| control::Wanted::new(context, plan, devices.to_vec(), about))
}

fn play(stage: &mut Stage<'_>) -> Result<(), Trouble> {
    let scenario = stage.scenario;
    let steps: Vec<_> = scenario
        .steps
        .iter()
        .filter(|step| step.host.is_none())
        .collect();
    say("starting the guest");
    stage.greet(1)?;
    for (index, step) in steps.iter().enumerate() {
        let is_there = holds(step.when.as_deref(), &stage.values).map_err(Trouble::Stuck)?;
        if step.fact.is_none() || step.say.is_some() {
            let left_out = if is_there { "" } else { "left out: " };
            let place = format!("[{}/{}]", index + 1, steps.len());
            say(&format!("{place} {left_out}{}", title(step)));
        }
        if !is_there {
            continue;
        }
        stage.doing = title(step);
        stage.perform(step)?;
    }
    stage.doing = "power off".into();
    stage.power_off()
}

/// The host checks, in order.
fn look(order: &Order, dir: &RunDir, scenario: &Scenario, context: &Context) {
    for check in scenario.steps.iter().filter_map(|step| step.host.as_ref()) {
        say("looking at the disks from the host");
        let facts = host_checks::check(check, &order.scratch, &dir.file("events.jsonl"));
        tell_facts(facts, "a look at the disks", context);
    }
}

/// Facts into the log, or that there are none.
fn tell_facts(
    facts: Result<Vec<(String, serde_json::Value)>, String>,
    wanted: &str,
    context: &Context,
) {
    let facts = facts.unwrap_or_else(|error| {
        let value = serde_json::json!({ "step": 0, "wanted": wanted, "got": error });
        vec![("step-failed".to_owned(), value)]
    });
    for (key, value) in facts {
        context.tracer().emit(|| EventKind::Fact { key, value });
    }
}

fn plan(scenario: &Scenario, seed: u64, values: &Values) -> anyhow::Result<Plan> {
    let rules = scenario.rules.iter().map(|rule| {
        let filled: Value = fill(rule, values)?;
        Ok(filled.try_into()?)
    });
    Ok(Plan {
        seed,
        rules: rules.collect::<anyhow::Result<_>>()?,
    })
}

fn machine_config(
    order: &Order,
    scenario: &Scenario,
    info: &RunInfo,
) -> anyhow::Result<MachineConfig> {
    let kernel = kernel(order, scenario)?;
    Ok(config(
        &scenario.vm,
        &kernel,
        &info.kernel_parameters,
        &order.initrd,
    ))
}

/// The kernel to boot.
fn kernel(order: &Order, scenario: &Scenario) -> anyhow::Result<PathBuf> {
    match scenario.vm.format {
        KernelFormat::Elf | KernelFormat::Bzimage => Ok(order.kernel.clone()),
        KernelFormat::Garbage => garbage(&order.scratch),
    }
}

fn garbage(scratch: &Path) -> anyhow::Result<PathBuf> {
    let path = scratch.join("no-kernel");
    fs::write(&path, "this is no kernel\n".repeat(1000))?;
    Ok(path)
}

/// A line of progress; the parent decides whether anybody sees it.
fn say(text: &str) {
    // A parent that cannot hear does not matter to the run.
    let _ = tell(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_gets_the_sectors_that_were_found() {
        let text = "name = 'x'\nsummary = 'y'\n[expect.default]\nverdict = 'pass'\n[[disk]]\nid = 'a'\nsize = '16M'\ncontent = 'ext4'\n\
            files = [{ path = '/data', len = 4096, pattern = { byte = 65 } }]\n\
            [[rule]]\nsectors = '${sectors.a:/data}'\nhold = { gate = 'g' }\n";
        let scenario = crate::scenario::parse(text, Path::new("x.toml")).unwrap();
        let mut values = Values::default();
        let span: toml::Table = "from = 80\nto = 88".parse().unwrap();
        values.set("sectors.a:/data", Value::Table(span));
        let plan = plan(&scenario, 9, &values).unwrap();
        assert_eq!(plan.seed, 9);
        assert_eq!(
            plan.rules[0].sectors.map(|span| (span.from, span.to)),
            Some((80, 88))
        );
    }

    #[test]
    fn a_kernel_that_is_none_leaves_a_log_that_says_so() {
        let tmp = tempfile::tempdir().unwrap();
        let text = "name = 'x'\nsummary = 'y'\nvm.format = 'garbage'\n[expect.default]\nverdict = 'setup-error'\n";
        let scenario = crate::scenario::parse(text, Path::new("x.toml")).unwrap();
        let dir = RunDir::create(
            &tmp.path().join("run"),
            &crate::rundir::RunInfo::default(),
            &scenario,
        )
        .unwrap();
        let order = Order {
            run_dir: dir.path().to_owned(),
            kernel: "none".into(),
            initrd: "none".into(),
            scratch: tmp.path().join("disks"),
            snapshots: None,
            parent: None,
        };
        run_one(&order).unwrap();
        let log = fs::read_to_string(dir.file("events.jsonl")).unwrap();
        assert!(
            log.lines()
                .any(|line| line.contains("machine-ended") && line.contains("\"failed\"")),
            "{log}"
        );
    }
}
