//! The side of the device: a small adapter from `vhost-user-backend` to [`VirtioDevice`].
//!
//! Its worker thread is the device thread: kicks and wakes of the device come through one epoll descriptor. The
//! device is activated at the first event of its queue, when the driver has told everything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pincushion_devices::blk::BlkDevice;
use pincushion_devices::device::{Activation, Interrupt, Memory, VirtioDevice};
use pincushion_devices::mock::ByHand;
use tempfile::TempDir;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error, VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use virtio_queue::Queue;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// Events of the worker thread: the queue; then, by the library, the exit; then the device's own descriptor.
const KICK: u16 = 0;
const WAKE: u16 = 2;

/// A device that serves one connection.
pub struct Backend {
    directory: TempDir,
    socket: PathBuf,
    thread: JoinHandle<()>,
}

impl Backend {
    /// Listens on a socket of its own.
    pub fn listen(device: BlkDevice) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("device");
        let mut listener = Listener::new(&socket, true).expect("a socket in a new directory");
        let thread = std::thread::spawn(move || serve(device, &mut listener));
        Self {
            directory,
            socket,
            thread,
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the end of the device, which comes when the driver has hung up.
    pub fn join(self) {
        self.thread.join().expect("the device ended well");
        self.directory
            .close()
            .expect("the directory can be removed");
    }
}

fn serve(device: BlkDevice, listener: &mut Listener) {
    let wake = device.queues()[0].lock().expect("it is new").wake_fd();
    let adapter = Arc::new(Adapter {
        state: Mutex::new(State {
            device,
            memory: None,
            features: 0,
            active: false,
        }),
    });
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon =
        VhostUserDaemon::new("device".into(), adapter.clone(), memory).expect("a daemon");
    let workers = daemon.get_epoll_handlers();
    let listened = workers[0].register_listener(wake, EventSet::IN, WAKE.into());
    listened.expect("the wake descriptor is pollable");
    daemon.start(listener).expect("a connection");
    match daemon.wait() {
        // The driver hung up, which is the only way in which this protocol ends.
        Ok(()) | Err(Error::HandleRequest(VhostUserError::Disconnected)) => {}
        Err(error) => panic!("the connection ended with: {error}"),
    }
    workers.iter().for_each(|worker| worker.send_exit_event());
    adapter.lock().device.reset();
}

/// `vhost-user-backend` wants `Sync`, which a device is not: hence the lock.
struct Adapter {
    state: Mutex<State>,
}

struct State {
    device: BlkDevice,
    memory: Option<Memory>,
    features: u64,
    active: bool,
}

impl State {
    /// All of the driver's words are there: the queue's addresses, its descriptors and the memory.
    fn activate(&mut self, vring: &VringMutex) {
        let features = self.features & !VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        assert!(self.device.accept_features(features), "{features:#x}");
        let state = vring.get_ref().get_queue().state();
        let activation = Activation {
            memory: self.memory.clone().expect("memory comes before queues"),
            features,
            queues: vec![Queue::try_from(state).expect("the library checked its size")],
            interrupt: Arc::new(Call(vring.clone())),
            resume: Vec::new(),
        };
        self.device.activate(activation).expect("a usable queue");
        self.active = true;
    }
}

/// The way to the driver: the call eventfd.
struct Call(VringMutex);

impl Interrupt for Call {
    fn signal_queue(&self, _queue: u16) {
        self.0.signal_used_queue().expect("an eventfd takes a call");
    }
    fn signal_config(&self) {}
    fn signal_needs_reset(&self) {
        panic!("a correct driver was answered with DEVICE_NEEDS_RESET");
    }
}

impl Adapter {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("the device thread did not panic")
    }
}

impl VhostUserBackend for Adapter {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        self.lock().device.queue_max_sizes()[0].into()
    }

    fn features(&self) -> u64 {
        self.lock().device.features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        self.lock().features = features;
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The device learns it from the features.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        self.lock().device.read_config(offset.into(), &mut bytes);
        bytes
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let mut state = self.lock();
        assert!(
            !state.active,
            "this driver shares its memory before it begins"
        );
        state.memory = Some(memory.memory().into_inner());
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some(new_event_consumer_and_notifier(EventFlag::NONBLOCK).expect("a descriptor"))
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        let mut state = self.lock();
        match event {
            KICK => {
                if !state.active {
                    state.activate(&vrings[0]);
                }
                state.device.on_kick(0);
            }
            WAKE => state.device.on_wake(),
            _ => unreachable!("no other event was registered"),
        }
        Ok(())
    }
}
