//! The driver crate talks over our console, by registers and on a PCI bus.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pincushion_devices::console::ConsoleInput;
use virtio_drivers::transport::Transport;

use crate::machine::{Console, ConsoleTest, Machine};

const LIMIT: Duration = Duration::from_secs(60);

/// Hands on what is written.
struct Line(Sender<Vec<u8>>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Talk {
    input: ConsoleInput,
    written: Receiver<Vec<u8>>,
}

impl Talk {
    fn hear(&self) -> Vec<u8> {
        self.written.recv_timeout(LIMIT).expect("output comes")
    }
}

impl ConsoleTest for Talk {
    fn run<T: Transport>(self, console: &mut Console<T>) {
        let size = console.size().unwrap().unwrap();
        assert_eq!((size.columns, size.rows), (80, 25));
        console.send_bytes(b"hello").unwrap();
        assert_eq!(self.hear(), b"hello");
        console.send(b'!').unwrap();
        assert_eq!(self.hear(), b"!");
        console.emergency_write(b'?').unwrap();
        assert_eq!(self.hear(), b"?");

        assert_eq!(console.recv(true).unwrap(), None);
        for typed in [&b"a line\n"[..], &[b'x'; 5000]] {
            assert_eq!(self.input.send(typed), typed.len());
            let mut heard = Vec::new();
            while heard.len() < typed.len() {
                heard.extend(console.recv(true).unwrap());
            }
            assert_eq!(heard, typed);
        }
    }
}

fn talk(is_pci: bool) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        let (sender, written) = channel();
        let (machine, input) = Machine::console(Box::new(Line(sender)), is_pci);
        machine.drive_console(Talk { input, written });
        assert_eq!(machine.guest_mistakes(), []);
        done.send(()).unwrap();
    });
    // The driver spins while it waits.
    let ended = wait.recv_timeout(LIMIT);
    if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended {
        panic!("the driver still waits for the console after {LIMIT:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_driver_talks_over_registers() {
    talk(false);
}

#[test]
fn a_driver_talks_over_a_pci_bus() {
    talk(true);
}
