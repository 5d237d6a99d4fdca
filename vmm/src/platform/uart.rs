//! A serial port: vm-superio's 16550 with an unbounded queue towards the guest.
//!
//! Promises: [`Uart::send`] never blocks and never loses a byte, however slowly the guest reads, as long as the
//! machine is not reset. Bytes wait in the host until the guest's driver has enabled the receive interrupt: a
//! driver that opens a port throws away what is in the FIFO.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use vm_superio::Serial;
use vm_superio::serial::{NoEvents, SerialState};

use crate::bus::{BusDevice, Flow};
use crate::irq::IrqLine;
use crate::lock::lock;

/// Interrupt enable register; bit 0 is "received data available".
const IER: u8 = 1;
const IER_RECEIVED: u8 = 1;
/// Interrupt identification register; bit 0 says "nothing", 4 is "received data available".
const IIR: u8 = 2;
const IIR_NOTHING: u8 = 1;
const IIR_RECEIVED: u8 = 4;
const IIR_FIFO: u8 = 0xc0;
/// Line status register; bit 0 is "data ready".
const LSR: u8 = 5;
const LSR_DATA: u8 = 1;
/// Modem control register; "output 2" connects the interrupt on a PC. A driver sets it when it opens the port; the
/// probe at boot, which enables every interrupt for a moment and throws away what it reads, does not.
const MCR: u8 = 4;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
/// Line control register; bit 7 hides the IER behind the divisor latch.
const LCR: u8 = 3;
const LCR_DIVISOR: u8 = 1 << 7;

/// Takes what the guest writes.
pub trait Output: Send {
    /// Some bytes, in order; today one at a time.
    fn write(&mut self, bytes: &[u8]);
    /// The machine is reset: whatever was half done is over.
    fn reset(&mut self) {}
}

/// An output shared by the port and those who look at it.
pub type SharedOutput = Arc<Mutex<dyn Output>>;

struct OutputWriter(SharedOutput);

impl Write for OutputWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Inner {
    serial: Serial<IrqLine, NoEvents, OutputWriter>,
    to_guest: VecDeque<u8>,
}

impl Inner {
    /// Whether received data asks for an interrupt. vm-superio forgets that with the first byte that is read, but a
    /// driver reads no more than 256 bytes before it asks again, and would leave the rest for ever.
    fn has_data(&mut self) -> bool {
        self.is_ready() && self.serial.read(IER) & IER_RECEIVED != 0
    }

    fn is_ready(&mut self) -> bool {
        self.serial.read(LSR) & LSR_DATA != 0
    }
}

/// A port's part of a snapshot: the registers by their usual names, and what is on its way to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedUart {
    dll: u8,
    dlh: u8,
    ier: u8,
    iir: u8,
    lcr: u8,
    lsr: u8,
    mcr: u8,
    msr: u8,
    scratch: u8,
    fifo: Vec<u8>,
    to_guest: Vec<u8>,
}

/// One serial port of eight I/O ports.
pub struct Uart {
    name: &'static str,
    irq: IrqLine,
    output: SharedOutput,
    inner: Mutex<Inner>,
}

impl Uart {
    /// Number of I/O ports.
    pub const LEN: u64 = 8;

    /// A port that signals by `irq` and writes to `output`.
    #[must_use]
    pub fn new(name: &'static str, irq: IrqLine, output: SharedOutput) -> Self {
        let serial = power_on(&irq, &output);
        let inner = Mutex::new(Inner {
            serial,
            to_guest: VecDeque::new(),
        });
        Self {
            name,
            irq,
            output,
            inner,
        }
    }

    /// The port's interrupt line.
    #[must_use]
    pub fn irq(&self) -> &IrqLine {
        &self.irq
    }

    /// For a snapshot: no vCPU runs.
    pub(crate) fn save(&self) -> SavedUart {
        let inner = lock(&self.inner);
        let state = inner.serial.state();
        SavedUart {
            dll: state.baud_divisor_low,
            dlh: state.baud_divisor_high,
            ier: state.interrupt_enable,
            iir: state.interrupt_identification,
            lcr: state.line_control,
            lsr: state.line_status,
            mcr: state.modem_control,
            msr: state.modem_status,
            scratch: state.scratch,
            fifo: state.in_buffer,
            to_guest: inner.to_guest.iter().copied().collect(),
        }
    }

    /// The port as it was saved, its line connected: an interrupt that waited is signalled again. What was queued here before goes
    /// behind what was on its way then.
    ///
    /// # Errors
    /// The line cannot be signalled, or there is more in the FIFO than it holds.
    pub(crate) fn restore(&self, saved: &SavedUart) -> Result<(), String> {
        let state = SerialState {
            baud_divisor_low: saved.dll,
            baud_divisor_high: saved.dlh,
            interrupt_enable: saved.ier,
            interrupt_identification: saved.iir,
            line_control: saved.lcr,
            line_status: saved.lsr,
            modem_control: saved.mcr,
            modem_status: saved.msr,
            scratch: saved.scratch,
            in_buffer: saved.fifo.clone(),
        };
        let writer = OutputWriter(self.output.clone());
        let serial = Serial::from_state(&state, self.irq.clone(), NoEvents, writer);
        let serial = serial.map_err(|error| format!("{}: {error}", self.name))?;
        let mut inner = lock(&self.inner);
        inner.serial = serial;
        let later = std::mem::take(&mut inner.to_guest);
        inner.to_guest.extend(&saved.to_guest);
        inner.to_guest.extend(later);
        self.feed(&mut inner);
        Ok(())
    }

    /// Queues `bytes` for the guest.
    pub fn send(&self, bytes: &[u8]) {
        let mut inner = lock(&self.inner);
        inner.to_guest.extend(bytes);
        self.feed(&mut inner);
    }

    /// Moves what fits into an empty FIFO. Only into an empty one: then one interrupt stands for
    /// up to 64 bytes.
    fn feed(&self, inner: &mut Inner) {
        if inner.to_guest.is_empty() {
            return;
        }
        let (lcr, mcr) = (inner.serial.read(LCR), inner.serial.read(MCR));
        let connected = mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        if lcr & LCR_DIVISOR != 0
            || !connected
            || inner.is_ready()
            || inner.serial.read(IER) & IER_RECEIVED == 0
        {
            return;
        }
        let count = inner.serial.fifo_capacity().min(inner.to_guest.len());
        let chunk: Vec<u8> = inner.to_guest.iter().take(count).copied().collect();
        match inner.serial.enqueue_raw_bytes(&chunk) {
            Ok(taken) => drop(inner.to_guest.drain(..taken)),
            // A full FIFO is not an error: the guest's next read comes back here.
            Err(vm_superio::serial::Error::FullFifo) => {}
            Err(error) => log::error!("{}: cannot signal the guest: {error}", self.name),
        }
    }
}

impl BusDevice for Uart {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut inner = lock(&self.inner);
        let register = u8::try_from(offset).expect("the bus gave us eight ports");
        for byte in data {
            *byte = inner.serial.read(register);
            if register == IIR && *byte & IIR_NOTHING != 0 && inner.has_data() {
                *byte = IIR_FIFO | IIR_RECEIVED;
            }
        }
        if register == 0 {
            self.feed(&mut inner);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        let mut inner = lock(&self.inner);
        let register = u8::try_from(offset).expect("the bus gave us eight ports");
        for byte in data {
            if let Err(error) = inner.serial.write(register, *byte) {
                log::error!("{}: cannot signal the guest: {error}", self.name);
            }
        }
        if register != 0 {
            self.feed(&mut inner);
        }
        Flow::Continue
    }

    fn reset(&self) {
        let mut inner = lock(&self.inner);
        inner.to_guest.clear();
        inner.serial = power_on(&self.irq, &self.output);
        lock(&self.output).reset();
    }
}

/// A port as after power-on. vm-superio starts with "output 2" set, as firmware might leave it; hardware does not.
fn power_on(irq: &IrqLine, output: &SharedOutput) -> Serial<IrqLine, NoEvents, OutputWriter> {
    let mut serial = Serial::new(irq.clone(), OutputWriter(output.clone()));
    serial
        .write(MCR, 0)
        .expect("the modem control register signals nothing");
    serial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<u8>);

    impl Output for Seen {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }

    fn uart() -> (Uart, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        (
            Uart::new("com2", IrqLine::new(3).unwrap(), seen.clone()),
            seen,
        )
    }

    /// As Linux' driver opens the port.
    fn open(uart: &Uart) {
        uart.write(4, &[0x0b]);
        let mut discarded = [0];
        uart.read(0, &mut discarded);
        uart.write(1, &[0x05]);
    }

    /// Reads like Linux' interrupt handler: while the line status says "data ready".
    fn drain(uart: &Uart) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            uart.read(5, &mut byte);
            if byte[0] & 1 == 0 {
                return bytes;
            }
            uart.read(0, &mut byte);
            bytes.extend(byte);
        }
    }

    #[test]
    fn what_the_guest_writes_reaches_the_output() {
        let (uart, seen) = uart();
        uart.write(0, b"a");
        uart.write(0, b"bc");
        assert_eq!(seen.lock().unwrap().0, b"abc");
    }

    #[test]
    fn bytes_wait_until_the_driver_has_enabled_the_interrupt() {
        let (uart, _) = uart();
        uart.send(b"early");
        assert_eq!(drain(&uart), b"");
        open(&uart);
        assert_eq!(uart.irq().event().read().unwrap(), 1);
        assert_eq!(drain(&uart), b"early");
    }

    #[test]
    fn a_probe_that_tries_every_interrupt_gets_and_loses_nothing() {
        let (uart, _) = uart();
        uart.send(b"early");
        uart.write(1, &[0x0f]);
        uart.write(4, &[0x1a]);
        assert_eq!(drain(&uart), b"");
        uart.write(1, &[0]);
        open(&uart);
        assert_eq!(drain(&uart), b"early");
    }

    #[test]
    fn more_than_a_fifo_arrives_whole_and_in_order() {
        let (uart, _) = uart();
        open(&uart);
        let message: Vec<u8> = (0..=255).cycle().take(1000).collect();
        uart.send(&message);
        assert_eq!(drain(&uart), message);
    }

    #[test]
    fn a_driver_that_reads_a_part_is_told_that_there_is_more() {
        let (uart, _) = uart();
        open(&uart);
        uart.send(b"two");
        let mut byte = [0];
        for expected in [0xc4, 0xc4, 0xc4, 0xc1] {
            uart.read(2, &mut byte);
            assert_eq!(byte, [expected]);
            uart.read(0, &mut byte);
        }
    }

    #[test]
    fn what_is_on_its_way_arrives_at_a_restored_port_before_what_comes_later() {
        let (first, _) = uart();
        open(&first);
        first.send(&[b'x'; 70]);
        let saved = first.save();
        let (second, seen) = uart();
        second.send(b"later");
        second.restore(&saved).unwrap();
        assert!(second.irq().event().read().is_ok(), "it is told again");
        let expected = [&[b'x'; 70][..], b"later"].concat();
        assert_eq!(drain(&second), expected);
        second.write(0, b"a");
        assert_eq!(seen.lock().unwrap().0, b"a");
        let mut mcr = [0];
        second.read(4, &mut mcr);
        assert_eq!(mcr, [0x0b], "the registers are as they were");
    }

    #[test]
    fn a_reset_forgets_what_was_on_its_way() {
        let (uart, _) = uart();
        uart.send(b"old");
        uart.reset();
        open(&uart);
        assert_eq!(drain(&uart), b"");
    }
}
