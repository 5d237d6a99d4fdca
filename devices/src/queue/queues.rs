//! All queues of a device: activated together, reset together, served each by itself.
//!
//! A device owns them and says nothing itself in the event log about its life cycle: that is done here, once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::context::Context;
use crate::device::{
    ActivateError, Activation, Interrupt, Memory, QueueService, SavedQueue, SharedQueue,
};
use crate::trace::event::EventKind;
use virtio_queue::{Queue, QueueT};

use super::device_queue::Halt;
use super::handler::Handler;
use super::logic::Logic;

/// The queues of one device.
pub struct Queues {
    name: String,
    context: Context,
    members: Vec<Arc<Mutex<dyn Member>>>,
    active: bool,
}

/// What a [`Handler`] is, whatever it serves.
trait Member: QueueService {
    fn activate(
        &mut self,
        memory: Memory,
        features: u64,
        queue: Queue,
        interrupt: Arc<dyn Interrupt>,
        halt: Halt,
        resume: Option<SavedQueue>,
    ) -> Result<(), ActivateError>;
    fn save(&mut self) -> Result<Option<SavedQueue>, String>;
    fn reset(&mut self) -> u64;
}

impl<L: Logic> Member for Handler<L> {
    fn activate(
        &mut self,
        memory: Memory,
        features: u64,
        queue: Queue,
        interrupt: Arc<dyn Interrupt>,
        halt: Halt,
        resume: Option<SavedQueue>,
    ) -> Result<(), ActivateError> {
        self.activate_among(memory, features, queue, interrupt, halt, resume)
    }

    fn save(&mut self) -> Result<Option<SavedQueue>, String> {
        Self::save(self)
    }

    fn reset(&mut self) -> u64 {
        Self::reset(self)
    }
}

impl Queues {
    /// No queue yet, of the device `name`.
    #[must_use]
    pub fn new(name: &str, context: Context) -> Self {
        Self {
            name: name.to_owned(),
            context,
            members: Vec::new(),
            active: false,
        }
    }

    /// Adds the next queue. The device may keep what it gets to reach its part of the handler.
    pub fn add<L: Logic + 'static>(&mut self, handler: Handler<L>) -> Arc<Mutex<Handler<L>>> {
        let handler = Arc::new(Mutex::new(handler));
        self.members.push(handler.clone());
        handler
    }

    /// Who serves them, by index.
    #[must_use]
    pub fn services(&self) -> Vec<SharedQueue> {
        let service = |member: &Arc<Mutex<dyn Member>>| -> SharedQueue { member.clone() };
        self.members.iter().map(service).collect()
    }

    /// Begins to serve every queue that the driver made ready.
    ///
    /// # Errors
    /// Queue 0, which every device needs, is not ready, or a ready one is not usable. Then none is served.
    pub fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        let Activation {
            memory,
            features,
            queues,
            interrupt,
            resume,
        } = activation;
        if !queues.first().is_some_and(QueueT::ready) {
            return Err(ActivateError::Queue { queue: 0 });
        }
        self.active = true;
        // Said before any queue is at work, because they are served by other threads.
        self.context.tracer().emit(|| EventKind::Activated {
            device: self.name.clone(),
            features,
        });
        let halt = Halt::default();
        let resume = resume.into_iter().chain(std::iter::repeat(None));
        for ((member, queue), resume) in self.members.iter().zip(queues).zip(resume) {
            if !queue.ready() {
                continue;
            }
            let (memory, interrupt, halt) = (memory.clone(), interrupt.clone(), halt.clone());
            let result = lock(member).activate(memory, features, queue, interrupt, halt, resume);
            if result.is_err() {
                self.reset();
                return result;
            }
        }
        Ok(())
    }

    /// Every queue for a snapshot; they go on afterwards.
    ///
    /// # Errors
    /// What is in the way, in words.
    pub fn save(&mut self) -> Result<Vec<Option<SavedQueue>>, String> {
        self.members.iter().map(|it| lock(it).save()).collect()
    }

    /// Stops every queue and abandons every hold. Legal at any moment, also twice.
    pub fn reset(&mut self) {
        if !std::mem::take(&mut self.active) {
            return;
        }
        let abandoned = self.members.iter().map(|member| lock(member).reset()).sum();
        self.context.tracer().emit(|| EventKind::DeviceReset {
            device: self.name.clone(),
            abandoned,
        });
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A handler that panicked has a thread that ended with a message; what is left is to reset it.
fn lock<T: ?Sized>(member: &Mutex<T>) -> MutexGuard<'_, T> {
    member.lock().unwrap_or_else(PoisonError::into_inner)
}
