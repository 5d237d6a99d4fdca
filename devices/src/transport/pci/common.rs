//! The common configuration structure (virtio 1.2, 4.1.4.3): which field an access means, and what it does.
//!
//! A field is accessed in its own width; the 64-bit addresses also by halves. Everything else is ignored and told.

use super::interrupt::PciInterrupt;
use crate::transport::core::{Core, NO_QUEUE, Registers};
use crate::transport::queue_setup::{Half, QueueSetup, low, set_half};

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_MSIX_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const QUEUE_NOTIFY_DATA: u64 = 0x38;
const QUEUE_RESET: u64 = 0x3a;

/// Reads a field into `data`, which holds zeros.
pub(super) fn read(core: &Core<PciInterrupt>, offset: u64, data: &mut [u8]) {
    let value = match (offset, data.len()) {
        (DEVICE_FEATURE_SELECT | DEVICE_FEATURE | DRIVER_FEATURE_SELECT | DRIVER_FEATURE, 4)
        | (CONFIG_MSIX_VECTOR | NUM_QUEUES, 2)
        | (DEVICE_STATUS | CONFIG_GENERATION, 1) => Some(device_field(core, offset)),
        (QUEUE_SELECT..=QUEUE_NOTIFY_OFF | QUEUE_NOTIFY_DATA | QUEUE_RESET, 2)
        | (QUEUE_DESC..QUEUE_NOTIFY_DATA, 4 | 8) => queue_field(core, offset),
        _ => None,
    };
    match value.filter(|_| offset.is_multiple_of(data.len() as u64)) {
        Some(value) => data.copy_from_slice(&value.to_le_bytes()[..data.len()]),
        None => core.mistake(
            NO_QUEUE,
            "read what is no field of the common configuration",
            "zero",
        ),
    }
}

fn device_field(core: &Core<PciInterrupt>, offset: u64) -> u64 {
    match offset {
        DEVICE_FEATURE_SELECT => u64::from(core.registers().device_features_sel),
        DEVICE_FEATURE => u64::from(core.device_features()),
        DRIVER_FEATURE_SELECT => u64::from(core.registers().driver_features_sel),
        DRIVER_FEATURE => u64::from(core.registers().selected_driver_features()),
        CONFIG_MSIX_VECTOR => u64::from(core.interrupt.config_vector()),
        NUM_QUEUES => core.kicks().len() as u64,
        DEVICE_STATUS => u64::from(core.status()),
        _ => u64::from(core.device().config_generation()),
    }
}

/// `None` where there is no such field. A queue that does not exist has size 0, and zeros elsewhere.
fn queue_field(core: &Core<PciInterrupt>, offset: u64) -> Option<u64> {
    let registers = core.registers();
    let of_queue = |field: fn(&QueueSetup) -> u64| registers.selected().map_or(0, field);
    Some(match offset {
        QUEUE_SELECT => u64::from(registers.queue_sel),
        QUEUE_SIZE => of_queue(|queue| u64::from(queue.size)),
        QUEUE_MSIX_VECTOR => {
            let vector = core.interrupt.queue_vector(registers.queue_sel);
            u64::from(vector.unwrap_or(0))
        }
        QUEUE_ENABLE => of_queue(|queue| u64::from(queue.ready)),
        // Each queue is kicked at a place of its own, also one that does not exist.
        QUEUE_NOTIFY_OFF => u64::from(registers.queue_sel),
        QUEUE_DESC..QUEUE_DRIVER => of_queue(|queue| queue.desc) >> (8 * (offset - QUEUE_DESC)),
        QUEUE_DRIVER..QUEUE_DEVICE => {
            of_queue(|queue| queue.driver) >> (8 * (offset - QUEUE_DRIVER))
        }
        QUEUE_DEVICE..QUEUE_NOTIFY_DATA => {
            of_queue(|queue| queue.device) >> (8 * (offset - QUEUE_DEVICE))
        }
        // Neither feature is on offer.
        QUEUE_NOTIFY_DATA | QUEUE_RESET => 0,
        _ => return None,
    })
}

/// Writes a field.
pub(super) fn write(core: &Core<PciInterrupt>, offset: u64, data: &[u8]) {
    match *data {
        [value] if offset == DEVICE_STATUS => core.write_status(u32::from(value)),
        [a, b] => write_word(core, offset, u16::from_le_bytes([a, b])),
        [a, b, c, d] => write_dword(core, offset, u32::from_le_bytes([a, b, c, d])),
        [_, _, _, _, _, _, _, _] if is_address(offset) && offset.is_multiple_of(8) => {
            let (first, second) = data.split_at(4);
            write(core, offset, first);
            write(core, offset + 4, second);
        }
        _ => no_field(core),
    }
}

fn is_address(offset: u64) -> bool {
    (QUEUE_DESC..QUEUE_NOTIFY_DATA).contains(&offset)
}

fn write_word(core: &Core<PciInterrupt>, offset: u64, value: u16) {
    let mut registers = core.registers();
    match offset {
        CONFIG_MSIX_VECTOR => core.interrupt.set_config_vector(value),
        QUEUE_SELECT => registers.queue_sel = u32::from(value),
        QUEUE_SIZE => core.set_up(&mut registers, |queue| queue.size = u32::from(value)),
        QUEUE_MSIX_VECTOR => core.interrupt.set_queue_vector(registers.queue_sel, value),
        QUEUE_ENABLE if value == 1 => core.make_ready(&mut registers),
        QUEUE_ENABLE => core.mistake(
            registers.queue_index(),
            "wrote something else than 1 to queue_enable",
            "ignored",
        ),
        _ => no_field(core),
    }
}

fn write_dword(core: &Core<PciInterrupt>, offset: u64, value: u32) {
    let mut registers = core.registers();
    match offset {
        DEVICE_FEATURE_SELECT => registers.device_features_sel = value,
        DRIVER_FEATURE_SELECT => registers.driver_features_sel = value,
        DRIVER_FEATURE => core.write_features(&mut registers, value),
        _ if is_address(offset) && offset.is_multiple_of(4) => {
            write_address(core, &mut registers, offset, value);
        }
        _ => no_field(core),
    }
}

fn write_address(core: &Core<PciInterrupt>, registers: &mut Registers, offset: u64, value: u32) {
    let half = if low(offset).is_multiple_of(8) {
        Half::Low
    } else {
        Half::High
    };
    core.set_up(registers, |queue| {
        let address = match offset {
            QUEUE_DESC..QUEUE_DRIVER => &mut queue.desc,
            QUEUE_DRIVER..QUEUE_DEVICE => &mut queue.driver,
            _ => &mut queue.device,
        };
        set_half(address, half, value);
    });
}

fn no_field(core: &Core<PciInterrupt>) {
    core.mistake(
        NO_QUEUE,
        "wrote what is no writable field of the common configuration",
        "ignored",
    );
}
