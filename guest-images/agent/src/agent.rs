//! What the agent's threads share: names of files, mappings, transfers, children and threads.

use std::collections::BTreeMap;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pincushion_abi::Fault;

use crate::fault::sentence;
use crate::kmsg::KernelLog;
use crate::port::Port;
use crate::reaper::Reaper;
use crate::steps::process::Child;
use crate::sys::aio;
use crate::sys::memory::Span;

/// The agent, in PID 1 or in a forked child.
pub struct Agent {
    /// The way out of the guest.
    pub port: Arc<dyn Port>,
    /// Reaps the agent's children.
    pub reaper: Arc<Reaper>,
    /// Where the reading of the kernel's log stands.
    pub kernel_log: Mutex<KernelLog>,
    names: Mutex<Names>,
}

/// The tables. Their lock is held for look-ups only, never across a blocking call; [`Agent::names`]
/// is also held across `fork`, so that the child has them whole.
#[derive(Default)]
pub struct Names {
    /// Open files.
    pub files: Table<RawFd>,
    /// Mappings.
    pub maps: Table<Span>,
    /// libaio transfers in flight or ended and not waited for.
    pub aio: Table<(aio::Context, usize)>,
    /// The same by io_uring.
    pub uring: Table<crate::steps::uring::Submitted>,
    /// Sockets for whole frames.
    pub packets: Table<Arc<OwnedFd>>,
    /// Sockets whose sends leave their pages where they are.
    pub zero_copy: Table<Arc<OwnedFd>>,
    /// AF_XDP sockets.
    pub xdp: Table<Arc<crate::sys::xdp::Socket>>,
    /// Programs that give frames to them.
    pub redirects: Table<crate::sys::bpf::Redirect>,
    /// Rings that are there for their registered buffers.
    pub registered: Table<crate::steps::uring::Registered>,
    /// userfaultfds.
    pub userfaults: Table<Arc<OwnedFd>>,
    /// Pipes.
    pub pipes: Table<Arc<crate::sys::pipe::Ends>>,
    /// Process ids of sleeping children.
    pub crowds: Table<Vec<i32>>,
    /// Forked children.
    pub children: Table<Arc<Child>>,
    /// Thread ids of the named threads.
    pub threads: Table<i32>,
    /// Steps that each of them was given and has not done.
    pub to_do: BTreeMap<String, u32>,
}

impl Names {
    /// A thread was given a step.
    pub fn give_step(&mut self, thread: &str) {
        *self.to_do.entry(thread.to_owned()).or_default() += 1;
    }

    /// It has done one.
    pub fn take_step(&mut self, thread: &str) {
        if let Some(left) = self.to_do.get_mut(thread) {
            *left = left.saturating_sub(1);
        }
    }

    /// Whether a thread has done all that it was given.
    #[must_use]
    pub fn is_done(&self, thread: &str) -> bool {
        self.to_do.get(thread) == Some(&0)
    }
}

impl Agent {
    /// With nothing in its tables.
    pub fn new(port: Arc<dyn Port>) -> Self {
        Self {
            port,
            reaper: Arc::default(),
            kernel_log: Mutex::default(),
            names: Mutex::default(),
        }
    }

    /// The tables, locked. A thread that panicked with them locked leaves them usable: each change
    /// is a single insertion or removal.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor of an open file.
    pub fn file(&self, name: &str) -> Result<RawFd, Fault> {
        self.names().files.get("file", name).copied()
    }

    /// A whole mapping.
    pub fn map(&self, name: &str) -> Result<Span, Fault> {
        self.names().maps.get("mapping", name).copied()
    }

    /// `len` bytes of a mapping, from `offset` on; to its end where `len` is `None`.
    pub fn span(&self, name: &str, offset: u64, len: Option<u64>) -> Result<Span, Fault> {
        let whole = self.map(name)?;
        let outside = || {
            let wanted = len.map_or("all".to_owned(), |len| len.to_string());
            let size = whole.len();
            sentence(
                "mapping",
                format!("{wanted} bytes from {offset} on are not inside {name:?} of {size} bytes"),
            )
        };
        let offset = usize::try_from(offset).map_err(|_| outside())?;
        let len = match len {
            Some(len) => usize::try_from(len).map_err(|_| outside())?,
            None => whole.len().checked_sub(offset).ok_or_else(outside)?,
        };
        whole.part(offset, len).ok_or_else(outside)
    }
}

/// Things by the name that a step gave them.
pub struct Table<T>(BTreeMap<String, T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Table<T> {
    /// The thing of that name; `kind` is for the message where there is none.
    pub fn get(&self, kind: &str, name: &str) -> Result<&T, Fault> {
        self.0.get(name).ok_or_else(|| self.unknown(kind, name))
    }

    /// Takes the thing of that name out.
    pub fn take(&mut self, kind: &str, name: &str) -> Result<T, Fault> {
        match self.0.remove(name) {
            Some(thing) => Ok(thing),
            None => Err(self.unknown(kind, name)),
        }
    }

    /// Refuses a name that is in use.
    pub fn refuse_used(&self, kind: &str, name: &str) -> Result<(), Fault> {
        if self.0.contains_key(name) {
            let text =
                format!("the name {name:?} is in use: end that {kind} first or take another name");
            return Err(sentence(kind, text));
        }
        Ok(())
    }

    /// Puts a thing in; gives the one that another thread put there since [`Table::refuse_used`].
    #[must_use]
    pub fn put(&mut self, name: &str, thing: T) -> Option<T> {
        self.0.insert(name.to_owned(), thing)
    }

    fn unknown(&self, kind: &str, name: &str) -> Fault {
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let known = if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        };
        sentence(kind, format!("there is no {kind} {name:?}; known: {known}"))
    }
}
