//! A tap of the host: frames go to and come from a network interface that the administrator made.
//!
//! The tap has to exist, so that a slip in its name makes no interface. It segments and puts together TCP, as far as the driver
//! negotiates that, and makes the checksums. With more than one queue pair it has to be made with `multi_queue`; the kernel then spreads
//! flows over the pairs in use.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
};

use super::header::{Header, LEN};
use super::port::{MAX_FRAME, Offloads, Port, Receiver, Sender};
use super::tun;

const TUN_F_CSUM: u32 = 1;
const TUN_F_TSO4: u32 = 2;
const TUN_F_TSO6: u32 = 4;

/// Why a tap is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can have this name.
    #[error("`{0}` is no name of an interface: it has 1 to 15 bytes, without a slash or a space")]
    Name(String),
    /// There is no such interface in this network namespace.
    #[error("there is no interface `{name}` here; make it as root: {way_out}")]
    Missing {
        /// Which.
        name: String,
        /// The lines that make it.
        way_out: String,
    },
    /// The kernel has no taps, or hides them.
    #[error(
        "cannot open /dev/net/tun: load the module `tun` (`modprobe tun`), or make the node in a container"
    )]
    NoDevice(#[source] io::Error),
    /// It belongs to somebody else.
    #[error("tap `{name}` may not be used by this user; give it to them as root: {way_out}")]
    NotAllowed {
        /// Which.
        name: String,
        /// The lines that make it.
        way_out: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another program has it.
    #[error("tap `{name}` is in use by another program; stop it, or make another tap: {way_out}")]
    Busy {
        /// Which.
        name: String,
        /// The lines that make one.
        way_out: String,
    },
    /// The interface is no tap, or its queues do not fit.
    #[error(
        "`{name}` is no tap for {pairs} queue pair(s); remove it and make it as root: {way_out}"
    )]
    WrongKind {
        /// Which.
        name: String,
        /// Queue pairs that are wanted.
        pairs: u16,
        /// The lines that make it.
        way_out: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot open tap `{name}`")]
    Open {
        /// Which.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The port.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<Queue>,
}

#[derive(Debug)]
struct Queue {
    file: Arc<File>,
    attached: bool,
}

/// One end for both directions.
struct End {
    file: Arc<File>,
    buffer: Vec<u8>,
}

impl Tap {
    /// Opens `pairs` queues of a tap.
    ///
    /// # Errors
    /// See [`TapError`]; each names the way out.
    pub fn open(name: &str, pairs: u16) -> Result<Self, TapError> {
        let possible = !name.is_empty()
            && name.len() <= tun::LONGEST_NAME
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if !possible {
            return Err(TapError::Name(name.to_owned()));
        }
        if !exists(name) {
            return Err(TapError::Missing {
                name: name.to_owned(),
                way_out: way_out(name, pairs),
            });
        }
        let open = |_| {
            tun::open(name, pairs > 1, LEN).map(|file| Queue {
                file: Arc::new(file),
                attached: true,
            })
        };
        let queues: io::Result<Vec<Queue>> = (0..pairs).map(open).collect();
        let queues = queues.map_err(|source| refused(name, pairs, source))?;
        Ok(Self {
            name: name.to_owned(),
            queues,
        })
    }
}

fn exists(name: &str) -> bool {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    socket.is_ok_and(|socket| rustix::net::netdevice::name_to_index(socket, name).is_ok())
}

fn way_out(name: &str, pairs: u16) -> String {
    let queues = if pairs > 1 { " multi_queue" } else { "" };
    format!("`ip tuntap add dev {name} mode tap user $USER{queues} && ip link set dev {name} up`")
}

fn refused(name: &str, pairs: u16, source: io::Error) -> TapError {
    let (name, way_out) = (name.to_owned(), way_out(name, pairs));
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDevice(source),
        Some(libc::EPERM | libc::EACCES) => TapError::NotAllowed {
            name,
            way_out,
            source,
        },
        Some(libc::EBUSY) => TapError::Busy { name, way_out },
        Some(libc::EINVAL | libc::E2BIG) => TapError::WrongKind {
            name,
            pairs,
            way_out,
            source,
        },
        _ => TapError::Open { name, source },
    }
}

impl Port for Tap {
    fn offloads(&self) -> Offloads {
        Offloads { segmentation: true }
    }

    fn pair(&mut self, index: u16) -> io::Result<(Box<dyn Sender>, Box<dyn Receiver>)> {
        let queue = self.queues.get(usize::from(index));
        let file = &queue.ok_or(io::ErrorKind::InvalidInput)?.file;
        let end = || End {
            file: file.clone(),
            buffer: Vec::new(),
        };
        Ok((Box::new(end()), Box::new(end())))
    }

    fn configure(&mut self, pairs: u16, features: u64) {
        let has = |bit: u32| features & (1 << bit) != 0;
        let wanted = [
            (has(VIRTIO_NET_F_GUEST_CSUM), TUN_F_CSUM),
            (has(VIRTIO_NET_F_GUEST_TSO4), TUN_F_TSO4),
            (has(VIRTIO_NET_F_GUEST_TSO6), TUN_F_TSO6),
        ];
        let offloads = wanted
            .iter()
            .filter(|(wanted, _)| *wanted)
            .fold(0, |bits, (_, bit)| bits | bit);
        let several = self.queues.len() > 1;
        for (index, queue) in (0..).zip(&mut self.queues) {
            let mut done = tun::set_offloads(&queue.file, offloads);
            let attached = index < pairs;
            if done.is_ok() && several && attached != queue.attached {
                done = tun::attach(&queue.file, attached);
                queue.attached = attached;
            }
            if let Err(error) = done {
                log::error!("tap {}: cannot set up queue {index}: {error}", self.name);
            }
        }
    }
}

impl Sender for End {
    fn send(&mut self, header: Header, frame: &mut [u8]) -> io::Result<()> {
        let header = header.bytes(0);
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        // The kernel takes a frame whole or not at all.
        (&*self.file).write_vectored(&parts).map(|_| ())
    }
}

impl Receiver for End {
    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<Header>> {
        self.buffer.resize(LEN + MAX_FRAME, 0);
        let len = match (&*self.file).read(&mut self.buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let whole = &self.buffer[..len];
        let Some((header, rest)) = whole.split_first_chunk::<LEN>() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        frame.clear();
        frame.extend_from_slice(rest);
        Ok(Some(Header::parse(*header)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::lab;

    #[test]
    fn a_tap_that_is_not_there_is_refused_with_the_line_that_makes_it() {
        let said = Tap::open("pinno0", 1).unwrap_err().to_string();
        assert!(
            said.contains(
                "`ip tuntap add dev pinno0 mode tap user $USER && ip link set dev pinno0 up`"
            ),
            "{said}"
        );
        let said = Tap::open("pinno0", 2).unwrap_err().to_string();
        assert!(said.contains("multi_queue"), "{said}");
        for name in ["", "a/b", "far-too-long-a-name", "a b"] {
            assert!(
                matches!(Tap::open(name, 1), Err(TapError::Name(_))),
                "{name}"
            );
        }
    }

    /// In a namespace and thread of its own; `None` with the reason printed where that is not possible.
    fn in_a_lab<T: Send + 'static>(
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let thread = std::thread::spawn(|| {
            if let Err(error) = lab::enter() {
                eprintln!("skipped: no network namespace: {error}");
                return None;
            }
            Some(work().unwrap())
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_tap_takes_frames_and_gives_those_of_the_host() {
        let received = in_a_lab(|| {
            lab::tap("pint0", 1)?;
            let mut tap = Tap::open("pint0", 1).unwrap();
            assert!(matches!(Tap::open("pint0", 1), Err(TapError::Busy { .. })));
            let said = Tap::open("lo", 1).unwrap_err().to_string();
            assert!(said.contains("`lo` is no tap"), "{said}");
            tap.configure(1, 1 << VIRTIO_NET_F_GUEST_CSUM);
            let (mut sender, mut receiver) = tap.pair(0)?;
            // An ARP request for the host's address: the kernel answers it.
            let mut arp = vec![0xff; 6];
            arp.extend([0x52, 0x50, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            arp.extend([0x52, 0x50, 0, 0, 0, 1, 10, 77, 0, 2, 0, 0, 0, 0, 0, 0]);
            arp.extend(lab::ADDRESS.0.octets());
            let mut frame = Vec::new();
            // Asked again and again, as every host does: a link that has just come up drops what it sends, until the kernel has heard of
            // it (`linkwatch` looks once in a second). The host also says things of its own (neighbour discovery).
            for _ in 0..60 {
                sender.send(Header::default(), &mut arp.clone())?;
                let readable = rustix::event::PollFlags::IN;
                let mut fds = [rustix::event::PollFd::new(&tap.queues[0].file, readable)];
                let limit = rustix::event::Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                };
                rustix::event::poll(&mut fds, Some(&limit))?;
                while let Some(header) = receiver.receive(&mut frame)? {
                    if frame[12..14] == [8, 6] {
                        return Ok((header, frame));
                    }
                }
            }
            panic!("no answer to 60 questions");
        });
        if let Some((header, frame)) = received {
            assert_eq!(header, Header::default());
            assert_eq!(frame[20..22], [0, 2], "an ARP reply");
            assert_eq!(frame[28..32], lab::ADDRESS.0.octets());
        }
    }

    #[test]
    fn a_tap_of_several_queues_opens_each_and_turns_them_on_and_off() {
        in_a_lab(|| {
            lab::tap("pint1", 4)?;
            let mut tap = Tap::open("pint1", 4).unwrap();
            for pairs in [1, 4, 2] {
                tap.configure(pairs, 0);
                let attached = tap.queues.iter().filter(|queue| queue.attached).count();
                assert_eq!(attached, usize::from(pairs));
            }
            drop(tap);
            let said = Tap::open("pint1", 1).unwrap_err().to_string();
            assert!(said.contains("no tap for 1 queue pair"), "{said}");
            Ok(())
        });
    }

    #[test]
    fn a_tap_of_another_user_is_refused_with_the_line_that_gives_it_away() {
        let refused = in_a_lab(|| {
            lab::tap("pint2", 1)?;
            // Only this thread becomes nobody, and it ends with the test.
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
            Ok(Tap::open("pint2", 1).unwrap_err())
        });
        if let Some(error) = refused {
            assert!(matches!(error, TapError::NotAllowed { .. }), "{error:?}");
            let said = error.to_string();
            assert!(
                said.contains("`pint2` may not be used by this user"),
                "{said}"
            );
            assert!(said.contains("user $USER"), "{said}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_has_a_way_out() {
        let refusal = |errno| refused("t0", 1, io::Error::from_raw_os_error(errno)).to_string();
        assert!(refusal(libc::EPERM).contains("may not be used by this user"));
        assert!(refusal(libc::EBUSY).contains("another program"));
        assert!(refusal(libc::EINVAL).contains("no tap for 1 queue pair"));
        assert!(refusal(libc::ENODEV).contains("modprobe tun"));
        assert_eq!(refusal(libc::EIO), "cannot open tap `t0`");
    }
}
