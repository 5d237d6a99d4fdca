//! ACPI power management: the PM1 event and control blocks and the PM timer (ACPI 6.4, section 4.8.3).
//!
//! Nothing here raises an interrupt: there is no power button. What works is what a guest does
//! by itself: sleep state S5 (power off) and reading the timer.

use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, Flow};
use crate::lock::lock;

/// `SLP_TYP` of S5, as the DSDT's `\_S5` package says it.
pub const SLEEP_TYPE_S5: u8 = 5;
/// What the guest writes to the reset register: the chipset's "full reset".
pub const RESET_VALUE: u8 = 6;

/// PM1 control: the machine is in ACPI mode.
const SCI_EN: u16 = 1;
/// PM1 control: enter the sleep state in bits 12:10. Write-only.
const SLP_EN: u16 = 1 << 13;
/// Frequency of the PM timer, in Hz.
const PM_TIMER_HZ: u128 = 3_579_545;

#[derive(Debug, Default)]
struct Registers {
    /// PM1 enable; PM1 status is always 0, since no event ever happens.
    enable: u16,
    control: u16,
    /// What the timer had counted when it was saved.
    before_ns: u64,
}

/// Power management's part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPm {
    enable: u16,
    control: u16,
    timer_ns: u64,
}

/// The twelve ports of power management: PM1a event at 0, PM1a control at 4, PM timer at 8.
#[derive(Debug)]
pub struct AcpiPm {
    registers: Mutex<Registers>,
    started: Instant,
}

impl AcpiPm {
    /// Number of I/O ports.
    pub const LEN: u64 = 12;

    /// Power-on state; the timer starts at 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            registers: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// For a snapshot.
    pub(crate) fn save(&self) -> SavedPm {
        let registers = lock(&self.registers);
        SavedPm {
            enable: registers.enable,
            control: registers.control,
            timer_ns: self.timer_ns(&registers),
        }
    }

    /// The registers as they were saved; the timer goes on from there.
    pub(crate) fn restore(&self, saved: SavedPm) {
        let mut registers = lock(&self.registers);
        let here = self.timer_ns(&Registers::default());
        *registers = Registers {
            enable: saved.enable,
            control: saved.control,
            before_ns: saved.timer_ns.wrapping_sub(here),
        };
    }

    fn timer_ns(&self, registers: &Registers) -> u64 {
        let here = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        here.wrapping_add(registers.before_ns)
    }

    fn timer(&self, registers: &Registers) -> u32 {
        let ticks = u128::from(self.timer_ns(registers)) * PM_TIMER_HZ / 1_000_000_000;
        u32::try_from(ticks & u128::from(u32::MAX)).expect("masked to 32 bits")
    }
}

impl Default for AcpiPm {
    fn default() -> Self {
        Self::new()
    }
}

impl BusDevice for AcpiPm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = lock(&self.registers);
        let mut image = [0; 12];
        image[2..4].copy_from_slice(&registers.enable.to_le_bytes());
        image[4..6].copy_from_slice(&(registers.control | SCI_EN).to_le_bytes());
        image[8..12].copy_from_slice(&self.timer(&registers).to_le_bytes());
        let at = usize::try_from(offset).unwrap_or(image.len());
        for (byte, register) in data.iter_mut().zip(image.iter().skip(at)) {
            *byte = *register;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        let Some(value) = data.first_chunk().copied().map(u16::from_le_bytes) else {
            return Flow::Continue;
        };
        let mut registers = lock(&self.registers);
        match offset {
            2 => registers.enable = value,
            4 => {
                registers.control = value & !SLP_EN;
                let sleep_type = value >> 10 & 7;
                if value & SLP_EN != 0 && sleep_type == u16::from(SLEEP_TYPE_S5) {
                    return Flow::PowerOff;
                }
            }
            _ => {}
        }
        Flow::Continue
    }

    fn reset(&self) {
        let mut registers = lock(&self.registers);
        // The timer is no register: it goes on through a reset.
        *registers = Registers {
            before_ns: registers.before_ns,
            ..Registers::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(pm: &AcpiPm) -> u16 {
        let mut data = [0; 2];
        pm.read(4, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn only_sleep_state_s5_powers_off() {
        let pm = AcpiPm::new();
        assert_eq!(control(&pm), SCI_EN);
        let s5 = u16::from(SLEEP_TYPE_S5) << 10;
        assert_eq!(pm.write(4, &s5.to_le_bytes()), Flow::Continue);
        assert_eq!(pm.write(4, &SLP_EN.to_le_bytes()), Flow::Continue);
        assert_eq!(pm.write(4, &(s5 | SLP_EN).to_le_bytes()), Flow::PowerOff);
        assert_eq!(control(&pm) & SLP_EN, 0, "write-only");
    }

    #[test]
    fn a_restored_timer_goes_on_where_it_was() {
        let pm = AcpiPm::new();
        pm.write(2, &[1, 0]);
        let saved = SavedPm {
            timer_ns: 1 << 40,
            ..pm.save()
        };
        let restored = AcpiPm::new();
        restored.restore(saved);
        assert_eq!(restored.save().enable, 1);
        let ran_ns = restored.save().timer_ns - (1 << 40);
        assert!(ran_ns < 1 << 36, "{ran_ns} ns since");
        restored.reset();
        assert!(restored.save().timer_ns > 1 << 40, "also through a reset");
    }

    #[test]
    fn the_timer_counts_and_the_status_is_quiet() {
        let pm = AcpiPm::new();
        let read = || {
            let mut data = [0; 4];
            pm.read(8, &mut data);
            u32::from_le_bytes(data)
        };
        let first = read();
        while read() == first {}
        assert!(read().wrapping_sub(first) < u32::MAX / 2);
        let mut status = [0xff; 2];
        pm.read(0, &mut status);
        assert_eq!(status, [0, 0]);
    }
}
