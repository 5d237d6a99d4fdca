//! Which function a virtio device is, and its capabilities (virtio 1.2, 4.1.2 and 4.1.4).

use super::config_space::{ConfigSpace, Identity};
use super::layout::*;

const VIRTIO_VENDOR: u16 = 0x1af4;
/// Device ids of modern devices begin here (virtio 1.2, 4.1.2.1).
const MODERN_DEVICE: u16 = 0x1040;
/// "Non-transitional devices SHOULD have a PCI Revision ID of 1 or higher."
const REVISION: u8 = 1;

const CAP_VENDOR: u8 = 0x09;
const CAP_MSIX: u8 = 0x11;
const CAP_ADVANCED_FEATURES: u8 = 0x13;

/// `cfg_type` of a virtio capability.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Where the capabilities that a guest writes to are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// Message control of MSI-X.
    pub(super) msix_control: usize,
    /// The byte with "initiate FLR".
    pub(super) flr: usize,
    /// `cap.bar` of the PCI configuration access capability.
    pub(super) window_bar: usize,
    /// `cap.offset` there.
    pub(super) window_offset: usize,
    /// `cap.length` there.
    pub(super) window_length: usize,
    /// `pci_cfg_data` there: four bytes.
    pub(super) window_data: usize,
}

/// The configuration space of a virtio device with so many vectors.
pub(super) fn config_space(device_type: u32, vectors: usize, pin: u8) -> (ConfigSpace, Places) {
    let id = u16::try_from(device_type).expect("virtio device ids are small");
    let identity = Identity {
        vendor: VIRTIO_VENDOR,
        device: MODERN_DEVICE + id,
        class: class(device_type),
        revision: REVISION,
        pin,
    };
    let mut space = ConfigSpace::new(identity, BAR_SIZE);
    let msix = add_msix(&mut space, vectors);
    // Advanced features (PCI ECN "Advanced Capabilities for Conventional PCI"): length, TP and FLR, control, status.
    let features = space.add_capability(CAP_ADVANCED_FEATURES, &[6, 0b11, 0, 0], &[]);
    add_virtio(&mut space, COMMON_CFG, COMMON, COMMON_LEN);
    add_virtio(&mut space, ISR_CFG, ISR, ISR_LEN);
    add_virtio(&mut space, DEVICE_CFG, DEVICE, DEVICE_LEN);
    let mut notify = virtio_body(20, NOTIFY_CFG, NOTIFY, NOTIFY_LEN);
    notify.extend(NOTIFY_MULTIPLIER.to_le_bytes());
    space.add_capability(CAP_VENDOR, &notify, &[]);
    let mut window = virtio_body(20, PCI_CFG, 0, 0);
    window.extend([0; 4]);
    // Writable: bar, offset and length (virtio 1.2, 4.1.4.9); the data are not kept here.
    let mut writable = vec![0; window.len()];
    writable[2] = 0xff;
    writable[6..14].fill(0xff);
    let window = space.add_capability(CAP_VENDOR, &window, &writable);
    let places = Places {
        msix_control: msix + 2,
        flr: features + 4,
        window_bar: window + 4,
        window_offset: window + 8,
        window_length: window + 12,
        window_data: window + 16,
    };
    (space, places)
}

/// MSI-X with table and pending bits in the BAR; Enable and Function Mask are writable.
fn add_msix(space: &mut ConfigSpace, vectors: usize) -> usize {
    let last = u16::try_from(vectors - 1).expect("at most 512 vectors");
    let mut body = last.to_le_bytes().to_vec();
    for structure in [MSIX_TABLE, MSIX_PBA] {
        body.extend(dword(structure).to_le_bytes());
    }
    space.add_capability(CAP_MSIX, &body, &[0, 0xc0])
}

fn add_virtio(space: &mut ConfigSpace, cfg_type: u8, offset: u64, len: u64) {
    let body = virtio_body(16, cfg_type, offset, len);
    space.add_capability(CAP_VENDOR, &body, &[]);
}

/// `struct virtio_pci_cap` behind its id and link.
fn virtio_body(cap_len: u8, cfg_type: u8, offset: u64, len: u64) -> Vec<u8> {
    let bar = 0;
    let mut body = vec![cap_len, cfg_type, bar, 0, 0, 0];
    body.extend(dword(offset).to_le_bytes());
    body.extend(dword(len).to_le_bytes());
    body
}

fn dword(value: u64) -> u32 {
    u32::try_from(value).expect("offsets in a BAR of 32 KiB")
}

/// Class code: where there is a fitting one, so that `lspci` reads well. Drivers go by the ids.
fn class(device_type: u32) -> u32 {
    match device_type {
        1 => 0x02_00_00,
        2 => 0x01_80_00,
        3 => 0x07_80_00,
        _ => 0xff_00_00,
    }
}
