//! Requests as drivers may and may not make them, with the answers of the specification.

use std::path::Path;
use std::sync::Arc;

use crate::backend::{Disk, MemoryDisk};
use crate::blk::{BlkConfig, BlkDevice};
use crate::context::Context;
use crate::device::VirtioDevice;
use crate::fault::Plan;
use crate::interrupt::Silent;
use crate::mock::ByHand;
use crate::mock::{Desc, Driver, UNANSWERED};
use crate::trace::event::GuestRange;
use crate::trace::{EventKind, Recording, Tracer};

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const SECTORS: u64 = 64;

struct Guest {
    device: BlkDevice,
    driver: Driver,
    recording: Recording,
}

impl Guest {
    fn new(change: impl FnOnce(&mut BlkConfig)) -> Self {
        let mut config = BlkConfig::new("disk0");
        change(&mut config);
        Self::on(
            config,
            Box::new(MemoryDisk::from_bytes(vec![0x5a; 64 * 512])),
        )
    }

    fn on(config: BlkConfig, disk: Box<dyn Disk>) -> Self {
        let (tracer, recording) = Tracer::recording();
        let plan = Plan::parse("", Path::new("plan.toml")).unwrap();
        let context = Context::new(plan, tracer).unwrap();
        let driver = Driver::new(config.queue_size, 64);
        let mut device = BlkDevice::new(config, disk, context).unwrap();
        assert!(device.accept_features(device.features()));
        let features = device.features();
        device
            .activate(driver.activation(features, Arc::new(Silent)))
            .unwrap();
        Self {
            device,
            driver,
            recording,
        }
    }

    /// Serves what was offered; status and used length of its only chain.
    fn serve(&mut self, head: u16) -> (u8, u32) {
        self.device.on_kick(0);
        let used = self.driver.take_used();
        assert_eq!(used.len(), 1, "one chain was offered");
        assert_eq!(used[0].head, head);
        (self.driver.status(head), used[0].len)
    }

    fn mistake(&self) -> Option<String> {
        let events = self.recording.take();
        events.iter().find_map(|event| match &event.kind {
            EventKind::GuestMistake { what, .. } => Some(what.clone()),
            _ => None,
        })
    }

    /// Offers a request whose descriptors are given, after its header was written for this head.
    fn chain(
        &mut self,
        kind: u32,
        sector: u64,
        chain: impl Fn(&Driver, u16) -> Vec<Desc>,
    ) -> (u8, u32) {
        let head = self.driver.next_head();
        self.driver.put_header(head, kind, sector);
        let chain = chain(&self.driver, head);
        let head = self.driver.offer(&chain);
        self.serve(head)
    }
}

fn out(addr: u64, len: u32) -> Desc {
    Desc {
        addr,
        len,
        writable: false,
    }
}

fn into(addr: u64, len: u32) -> Desc {
    Desc {
        addr,
        len,
        writable: true,
    }
}

#[test]
fn a_header_may_be_split_and_the_status_may_share_a_descriptor_with_data() {
    let mut guest = Guest::new(|_| ());
    let answer = guest.chain(0, 3, |driver, head| {
        let header = driver.header(head);
        vec![
            out(header, 3),
            out(header + 3, 0),
            out(header + 3, 13),
            into(driver.data(0), 513),
        ]
    });
    assert_eq!(answer, (UNANSWERED, 513), "the status byte is elsewhere");
    let frame = guest.driver.data(0);
    assert_eq!(
        guest.driver.get(frame, 513),
        [&[0x5a; 512][..], &[OK]].concat()
    );
    assert_eq!(guest.mistake(), None);

    let answer = guest.chain(1, 3, |driver, head| {
        driver.put(driver.data(1) - 16, &driver.get(driver.header(head), 16));
        driver.put(driver.data(1), &[7; 512]);
        vec![
            out(driver.data(1) - 16, 528),
            into(driver.status_addr(head), 1),
        ]
    });
    assert_eq!(answer, (OK, 1), "header and data in one descriptor");
    let read = guest.driver.read(3, &[guest.driver.range(2, 512)]);
    assert_eq!(guest.serve(read), (OK, 513));
    assert_eq!(guest.driver.get(guest.driver.data(2), 512), [7; 512]);
}

#[test]
fn chains_that_cannot_be_answered_are_given_back_with_length_zero() {
    let mut guest = Guest::new(|_| ());
    let answer = guest.chain(0, 0, |driver, head| vec![out(driver.header(head), 16)]);
    assert_eq!(answer, (UNANSWERED, 0));
    assert_eq!(
        guest.mistake().as_deref(),
        Some("a request without a status byte")
    );
    let answer = guest.chain(4, 0, |driver, head| {
        vec![out(driver.header(head), 16), into(u64::MAX, 1)]
    });
    assert_eq!(answer, (UNANSWERED, 0));
    assert_eq!(
        guest.mistake().as_deref(),
        Some("the status byte is not in guest memory")
    );
    let answer = guest.chain(4, 0, |driver, head| {
        vec![
            out(driver.header(head), 16),
            into(driver.status_addr(head), 0),
        ]
    });
    assert_eq!(answer, (UNANSWERED, 0));
}

#[test]
fn what_is_wrong_with_a_request_is_answered_with_ioerr() {
    let mut guest = Guest::new(|config| config.limits.seg_max = 2);
    let size_max = guest_size_max();
    let cases: [(&str, u32, u64, Vec<Desc>); 8] = [
        ("not a multiple of 512", 0, 0, vec![into(0, 511)]),
        ("beyond the end", 0, SECTORS, vec![into(0, 512)]),
        ("beyond the end", 0, SECTORS - 1, vec![into(0, 1024)]),
        ("beyond the end", 0, u64::MAX, vec![into(0, 512)]),
        ("beyond the end", 1, 1 << 55, vec![out(0, 512)]),
        ("not in guest memory", 0, 0, vec![into(1 << 40, 512)]),
        (
            "than seg_max",
            1,
            0,
            vec![out(0, 512), out(512, 512), out(1024, 512)],
        ),
        ("than size_max", 0, 0, vec![into(0, size_max + 512)]),
    ];
    for (mistake, kind, sector, payload) in cases {
        let answer = guest.chain(kind, sector, |driver, head| {
            let place = |desc: &Desc| Desc {
                addr: if desc.addr < 1 << 40 {
                    driver.data(0) + desc.addr
                } else {
                    desc.addr
                },
                ..*desc
            };
            let mut chain = vec![out(driver.header(head), 16)];
            chain.extend(payload.iter().map(place));
            chain.push(into(driver.status_addr(head), 1));
            chain
        });
        assert_eq!(answer.0, IOERR, "{mistake}");
        let said = guest.mistake().unwrap_or_default();
        assert!(said.contains(mistake), "{said:?} should say {mistake:?}");
    }
}

fn guest_size_max() -> u32 {
    BlkConfig::new("a").limits.size_max
}

#[test]
fn broken_headers_are_answered_where_there_is_a_place_for_it() {
    let mut guest = Guest::new(|_| ());
    let short = guest.chain(4, 0, |driver, head| {
        vec![
            out(driver.header(head), 15),
            into(driver.status_addr(head), 1),
        ]
    });
    assert_eq!(short.0, IOERR);
    let unordered = guest.chain(4, 0, |driver, head| {
        let status = driver.status_addr(head);
        vec![
            into(driver.data(0), 4),
            out(driver.header(head), 16),
            into(status, 1),
        ]
    });
    assert_eq!(unordered.0, IOERR);
    let outside = guest.chain(4, 0, |driver, head| {
        vec![out(u64::MAX - 8, 16), into(driver.status_addr(head), 1)]
    });
    assert_eq!(outside.0, IOERR);
    let unknown = guest.chain(77, 0, |driver, head| {
        vec![
            out(driver.header(head), 16),
            into(driver.status_addr(head), 1),
        ]
    });
    assert_eq!(unknown.0, UNSUPP);
}

#[test]
fn a_read_only_disk_refuses_writes_and_offers_no_discard() {
    let mut guest = Guest::new(|config| config.read_only = true);
    let write = guest.driver.write(0, &[guest.driver.range(0, 512)]);
    assert_eq!(guest.serve(write), (IOERR, 1));
    assert_eq!(
        guest.mistake().as_deref(),
        Some("a write to a read-only disk")
    );
    let discard = guest.driver.discard(guest.driver.range(0, 16));
    assert_eq!(guest.serve(discard).0, IOERR);
    let read = guest.driver.read(0, &[guest.driver.range(0, 512)]);
    assert_eq!(guest.serve(read), (OK, 513));
}

#[test]
fn get_id_answers_the_serial_in_twenty_bytes() {
    let mut guest = Guest::new(|_| ());
    let head = guest.driver.get_id(guest.driver.range(0, 20));
    assert_eq!(guest.serve(head), (OK, 21));
    assert_eq!(&guest.driver.get(guest.driver.data(0), 7), b"disk0\0\0");
    let head = guest.driver.get_id(guest.driver.range(0, 19));
    assert_eq!(guest.serve(head).0, IOERR);
}

/// A discard or write-zeroes segment in guest memory.
fn segment(driver: &Driver, sector: u64, sectors: u32, flags: u32) -> GuestRange {
    let range = driver.range(9, 16);
    driver.put(range.addr, &sector.to_le_bytes());
    driver.put(range.addr + 8, &sectors.to_le_bytes());
    driver.put(range.addr + 12, &flags.to_le_bytes());
    range
}

#[test]
fn discard_and_write_zeroes_do_what_their_segments_say() {
    let mut guest = Guest::new(|_| ());
    let answers = [
        (11, 1, 2, 0, OK),
        (13, 8, 1, 1, OK),
        (11, 0, 1, 1, UNSUPP),
        (13, 0, 1, 2, UNSUPP),
        (11, SECTORS, 1, 0, IOERR),
    ];
    for (kind, sector, sectors, flags, status) in answers {
        let range = segment(&guest.driver, sector, sectors, flags);
        let head = guest.driver.request(kind, 0, &[range], false);
        assert_eq!(
            guest.serve(head).0,
            status,
            "type {kind} at {sector} with flags {flags}"
        );
    }
    let head = guest.driver.read(
        0,
        &[guest.driver.range(0, 4096), guest.driver.range(1, 4096)],
    );
    assert_eq!(guest.serve(head).0, OK);
    let bytes = guest.driver.get(guest.driver.data(0), 8192);
    let zeroed: Vec<usize> = (0..16).filter(|sector| bytes[sector * 512] == 0).collect();
    assert_eq!(zeroed, [1, 2, 8]);

    let head = guest
        .driver
        .request(11, 0, &[guest.driver.range(9, 17)], false);
    assert_eq!(guest.serve(head).0, IOERR, "not whole segments");
}

#[test]
fn a_host_error_is_ioerr_and_its_reason_is_logged() {
    struct Full(MemoryDisk);
    impl Disk for Full {
        fn geometry(&self) -> crate::backend::Geometry {
            self.0.geometry()
        }
    }
    impl crate::backend::Backend for Full {
        fn submit(&mut self, transfer: crate::backend::Transfer) -> crate::backend::Submitted {
            let result = Err(std::io::ErrorKind::StorageFull.into());
            crate::backend::Submitted::Done(crate::backend::Completion { transfer, result })
        }
    }
    let disk = Full(MemoryDisk::new(SECTORS * 512));
    let mut guest = Guest::on(BlkConfig::new("a"), Box::new(disk));
    let head = guest.driver.write(0, &[guest.driver.range(0, 512)]);
    assert_eq!(guest.serve(head), (IOERR, 1));
    let reason = guest
        .recording
        .take()
        .into_iter()
        .find_map(|event| match &event.kind {
            EventKind::Executed { host_error, .. } => host_error.clone(),
            _ => None,
        });
    assert_eq!(reason.as_deref(), Some("no storage space"));
}

#[test]
fn configuration_space_ends_in_zeros_and_takes_only_what_a_driver_may_write() {
    let mut guest = Guest::new(|_| ());
    let mut bytes = [0xff; 8];
    guest.device.read_config(56, &mut bytes);
    assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0]);
    guest.device.read_config(u64::MAX, &mut bytes);
    assert_eq!(bytes, [0; 8]);
    let mode = |device: &BlkDevice| {
        let mut mode = [9];
        device.read_config(32, &mut mode);
        mode[0]
    };
    guest.device.write_config(0, &[1]);
    guest.device.write_config(32, &[2]);
    assert_eq!(mode(&guest.device), 1);
    guest.device.write_config(32, &[0]);
    assert_eq!(mode(&guest.device), 0);
    guest.device.reset();
    assert_eq!(mode(&guest.device), 1);
}

#[test]
fn features_that_were_not_offered_and_a_legacy_driver_are_refused() {
    let mut guest = Guest::new(|_| ());
    let offered = guest.device.features();
    assert!(!guest.device.accept_features(offered | 1 << 63));
    assert!(!guest.device.accept_features(0));
    assert!(guest.device.accept_features(1 << 32));
}
