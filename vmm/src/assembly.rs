//! From a [`VmConfig`] to devices: opens the images, the event log and the plan's context.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pincushion_devices::backend::{
    Disk, DiskOptions, FileOptions, MemoryDisk, OpenError, open_disk,
};
use pincushion_devices::balloon::{self, BalloonDevice, BalloonHandle};
use pincushion_devices::blk::{self, BlkDevice};
use pincushion_devices::console::{ConsoleConfig, ConsoleDevice, ConsoleInput, Output};
use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::fault::{Plan, PlanError};
use pincushion_devices::trace::event::GuestRange;
use pincushion_devices::trace::{JsonLines, Tracer};

use crate::config::{BlkConfig, ConsoleTarget, DiskBackend, NetConfig, VmConfig};
use crate::machine::{MAX_WORKERS, MachineConfig};
use crate::memory;
use crate::net::{self, NetError};
use crate::persistent_memory::{self, PersistentMemoryError, Wanted};
use crate::region::Region;

/// What a machine's devices share, and the devices.
pub struct Assembly {
    /// The event log.
    pub tracer: Arc<Tracer>,
    /// Plan, gates, ledger and clock.
    pub context: Context,
    /// In the order of the configuration.
    pub devices: Vec<SharedDevice>,
    /// The host's side of the balloon, if there is one.
    pub balloon: Option<BalloonHandle>,
    /// Files that are guest memory.
    pub regions: Vec<Region>,
    /// The way for what is typed into the virtio console, if there is one.
    pub console_input: Option<ConsoleInput>,
}

/// Why a machine's parts could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A disk image.
    #[error("--blk id={id}")]
    Disk {
        /// Name of the disk.
        id: String,
        /// What is wrong with it.
        source: OpenError,
    },
    /// A disk image that is to be kept in memory could not be read.
    #[error("--blk id={id}: cannot read {} into memory", path.display())]
    ReadImage {
        /// Name of the disk.
        id: String,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The size of an image in memory is not a whole number of sectors.
    #[error("--blk id={id}: {} has {size} bytes, which is not a multiple of 512", path.display())]
    ImageSize {
        /// Name of the disk.
        id: String,
        /// Which.
        path: PathBuf,
        /// Its size in bytes.
        size: usize,
    },
    /// The host refused a descriptor for a device.
    #[error("--blk id={id}: cannot make the device")]
    Device {
        /// Name of the disk.
        id: String,
        /// Why.
        source: std::io::Error,
    },
    /// The virtio console's file could not be created, or the device not be made.
    #[error("--virtio-console {}: cannot create it{}", String::from(target.clone()), way_out(source))]
    VirtioConsole {
        /// Where it was to go.
        target: ConsoleTarget,
        /// Why.
        source: std::io::Error,
    },
    /// The balloon could not be made.
    #[error("--balloon: cannot make the device")]
    Balloon(#[source] std::io::Error),
    /// Persistent memory.
    #[error(transparent)]
    Pmem(#[from] PersistentMemoryError),
    /// The event log's file.
    #[error("--events {}: cannot create it{}", path.display(), way_out(source))]
    Events {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A network card.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The plan has a rule that cannot be meant.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A log is never written over another.
fn way_out(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => "; name a new file or remove this one",
        std::io::ErrorKind::NotFound => "; its directory has to be there",
        _ => "",
    }
}

impl Assembly {
    /// Opens everything that `config` names. The configuration is resolved: disks have names.
    ///
    /// # Errors
    /// The first thing that could not be had.
    pub fn new(config: &VmConfig, plan: Plan) -> Result<Self, AssemblyError> {
        let tracer = Arc::new(Tracer::new());
        if let Some(path) = &config.events {
            let sink = JsonLines::create(path).map_err(|source| AssemblyError::Events {
                path: path.clone(),
                source,
            })?;
            tracer.add_sink(Box::new(sink));
        }
        Self::with_tracer(config, plan, tracer)
    }

    /// The same with an event log that the caller has set up.
    ///
    /// # Errors
    /// The first thing that could not be had.
    pub fn with_tracer(
        config: &VmConfig,
        plan: Plan,
        tracer: Arc<Tracer>,
    ) -> Result<Self, AssemblyError> {
        let context = Context::new(plan, tracer.clone())?;
        let mut devices = config
            .blk
            .iter()
            .map(|blk| device(blk, &context))
            .chain(config.net.iter().map(|net| card(net, &context)))
            .collect::<Result<Vec<_>, _>>()?;
        let balloon = config
            .balloon
            .as_ref()
            .map(|balloon| self::balloon(balloon, config.memory, &context))
            .transpose()
            .map_err(AssemblyError::Balloon)?;
        let balloon = balloon.map(|balloon| {
            let handle = balloon.handle();
            devices.push(Arc::new(Mutex::new(balloon)));
            handle
        });
        let pmem = config.pmem.iter().map(|pmem| Wanted {
            id: pmem.id.clone().unwrap_or_default(),
            path: pmem.path.clone(),
            size: pmem.size,
            notes_stores: false,
        });
        let pmem = persistent_memory::open(config.memory, pmem, |_, flusher| flusher, &context)?;
        let (pmem, regions): (Vec<_>, _) = pmem.into_iter().unzip();
        devices.extend(pmem);
        let console = config.virtio_console.as_ref().map_or(Ok(None), |target| {
            virtio_console(target, &context).map_err(|source| AssemblyError::VirtioConsole {
                target: target.clone(),
                source,
            })
        })?;
        let console_input = console.map(|console| {
            let input = console.input();
            devices.push(Arc::new(Mutex::new(console)));
            input
        });
        Ok(Self {
            tracer,
            context,
            devices,
            balloon,
            regions,
            console_input,
        })
    }
}

/// A console that goes to the terminal or to a file, which is created or emptied.
fn virtio_console(
    target: &ConsoleTarget,
    context: &Context,
) -> std::io::Result<Option<ConsoleDevice>> {
    let output: Output = match target {
        ConsoleTarget::Off => return Ok(None),
        ConsoleTarget::Stdio => Box::new(std::io::stdout()),
        ConsoleTarget::File(path) => Box::new(File::create(path)?),
    };
    ConsoleDevice::new(ConsoleConfig::new("hvc0"), output, context.clone()).map(Some)
}

/// The balloon of a machine with so many bytes of RAM, all of which it may give back.
///
/// # Errors
/// The host has no descriptor left, or the target is more than the RAM.
pub fn balloon(
    config: &crate::config::BalloonConfig,
    memory_bytes: u64,
    context: &Context,
) -> std::io::Result<BalloonDevice> {
    let ram = memory::ranges(memory_bytes)
        .into_iter()
        .map(|(addr, len)| GuestRange { addr, len });
    let device = balloon::BalloonConfig {
        target_bytes: config.target,
        reporting: config.reporting,
        deflate_on_oom: config.deflate_on_oom,
        ..balloon::BalloonConfig::new(&config.id, ram.collect())
    };
    BalloonDevice::new(device, context.clone())
}

fn device(config: &BlkConfig, context: &Context) -> Result<SharedDevice, AssemblyError> {
    let id = config.id.clone().unwrap_or_default();
    let disk = open(config, &id)?;
    let blk = blk::BlkConfig {
        fetch: config.fetch,
        read_only: config.read_only,
        queues: config.queues,
        hash: context.tracer().is_on(),
        ..blk::BlkConfig::new(&id)
    };
    let device = BlkDevice::new(blk, disk, context.clone())
        .map_err(|source| AssemblyError::Device { id, source })?;
    Ok(Arc::new(Mutex::new(device)))
}

fn card(config: &NetConfig, context: &Context) -> Result<SharedDevice, AssemblyError> {
    let card = net::card(config, config.id.as_deref().unwrap_or_default(), context)?;
    Ok(Arc::new(Mutex::new(card)))
}

fn open(config: &BlkConfig, id: &str) -> Result<Box<dyn Disk>, AssemblyError> {
    let file = FileOptions {
        path: config.path.clone(),
        read_only: config.read_only,
        direct: config.direct,
    };
    let backend = match config.backend {
        DiskBackend::Image(backend) => backend,
        DiskBackend::Memory => return in_memory(config, id),
    };
    open_disk(&DiskOptions {
        engine: backend,
        file,
    })
    .map_err(|source| AssemblyError::Disk {
        id: id.to_owned(),
        source,
    })
}

fn in_memory(config: &BlkConfig, id: &str) -> Result<Box<dyn Disk>, AssemblyError> {
    let (id, path) = (id.to_owned(), config.path.clone());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(AssemblyError::ReadImage { id, path, source }),
    };
    if bytes.is_empty() || !bytes.len().is_multiple_of(512) {
        return Err(AssemblyError::ImageSize {
            id,
            path,
            size: bytes.len(),
        });
    }
    let disk = MemoryDisk::from_bytes(bytes);
    Ok(Box::new(if config.read_only {
        disk.read_only()
    } else {
        disk
    }))
}

impl VmConfig {
    /// What the machine itself needs of it.
    #[must_use]
    pub fn machine(&self) -> MachineConfig {
        MachineConfig {
            initrd: self.initrd.clone(),
            cmdline: self.cmdline.clone(),
            vcpus: u8::try_from(self.cpus).unwrap_or(u8::MAX),
            memory_bytes: self.memory,
            on_reset: self.on_reset,
            transport: self.transport,
            workers: self.workers.unwrap_or_else(|| {
                let most = self.blk.iter().map(|blk| blk.queues).max().unwrap_or(1);
                u8::try_from(most).unwrap_or(MAX_WORKERS)
            }),
            cpu_affinity: self.cpu_affinity.clone(),
            ..MachineConfig::new(self.kernel.clone().unwrap_or_default())
        }
    }
}
