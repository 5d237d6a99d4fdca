//! A network of its own, for tests and scenarios: a namespace that nobody else sees, a tap in it with an address, and a TCP server that
//! sends back what it gets. Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN).
//!
//! It touches nothing of the host's own network. The namespace lives as long as one of its threads or taps.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::tun;

/// Address of the host's end, and its prefix.
pub const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 77, 0, 1), 24);
/// Port of the server that sends back what it gets once its client has sent all of it.
pub const ECHO_PORT: u16 = 7;
/// Most bytes that the server takes from one client.
const MOST: u64 = 256 << 20;

/// Moves the calling thread, and those that it starts from now on, into a new network namespace.
///
/// # Errors
/// The process is not root.
pub fn enter() -> io::Result<()> {
    tun::own_namespace()?;
    tun::set_up("lo")
}

/// Makes a tap that can be opened with so many queue pairs, gives it [`ADDRESS`] and brings it up.
///
/// # Errors
/// The process is not root, or the kernel has no taps.
pub fn tap(name: &str, pairs: u16) -> io::Result<()> {
    tun::create(name, pairs > 1)?;
    tun::set_address(name, ADDRESS.0, ADDRESS.1)?;
    tun::set_up(name)
}

/// Serves [`ECHO_PORT`] of every address of this thread's namespace, one client after the other, for ever.
///
/// # Errors
/// The port is taken, or the host refuses a thread.
pub fn serve_echo() -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, ECHO_PORT)))?;
    let serve = move || {
        for client in listener.incoming() {
            if let Err(error) = client.and_then(echo) {
                log::warn!("echo: a client was lost: {error}");
            }
        }
    };
    let thread = std::thread::Builder::new().name("echo".into());
    thread.spawn(serve).map(drop)
}

fn echo(mut client: std::net::TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    (&mut client).take(MOST).read_to_end(&mut bytes)?;
    client.write_all(&bytes)
}
