//! The order of events, as the table in the design draws it.

use crate::mock::ByHand;
use std::io;
use std::sync::{Arc, Mutex};

use super::{Bench, Room, config};
use crate::blk::BlkConfig;
use crate::device::VirtioDevice;
use crate::mock::{Driver, UNANSWERED, Used};
use crate::queue::handler::BATCH;
use crate::trace::event::Fetch;
use crate::trace::{Event, EventKind, Sink};

const READ: [&str; 8] = [
    "fetched",
    "hold-opened",
    "touch-began",
    "touch-ended",
    "executed",
    "hold-closed",
    "used",
    "signalled",
];

#[test]
fn a_read_goes_the_way_that_the_design_draws() {
    let room = Room::new("");
    let Bench {
        device,
        mut driver,
        interrupt,
    } = room.device(config("a"));
    let head = driver.read(3, &[driver.range(0, 512), driver.range(1, 512)]);
    device.on_kick(0);

    assert_eq!(room.words(), READ);
    assert_eq!(driver.take_used(), [Used { head, len: 1025 }]);
    assert_eq!(driver.status(head), 0);
    assert_eq!(driver.get(driver.data(0), 512), [3; 512]);
    assert_eq!(driver.get(driver.data(1), 512), [4; 512]);
    assert_eq!(interrupt.queue_signals(), 1);
}

#[test]
fn a_late_write_is_hashed_at_three_moments_around_its_touch() {
    let room = Room::new("");
    let mut bench = room.device(BlkConfig::new("a"));
    bench.driver.write(0, &[bench.driver.range(0, 512)]);
    bench.kick();
    assert_eq!(
        room.words(),
        [
            "fetched",
            "hold-opened",
            "payload-hashed fetch",
            "touch-began",
            "touch-ended",
            "payload-hashed transfer",
            "executed",
            "payload-hashed completion",
            "hold-closed",
            "used",
            "signalled"
        ]
    );
}

#[test]
fn an_early_write_does_not_touch_guest_memory_when_it_runs() {
    let room = Room::new("");
    let config = BlkConfig {
        fetch: Fetch::Early,
        ..BlkConfig::new("a")
    };
    let mut bench = room.device(config);
    bench.driver.write(0, &[bench.driver.range(0, 512)]);
    bench.kick();
    assert_eq!(
        room.words(),
        [
            "fetched",
            "hold-opened",
            "payload-hashed fetch",
            "payload-hashed transfer",
            "executed",
            "payload-hashed completion",
            "hold-closed",
            "used",
            "signalled"
        ]
    );
}

#[test]
fn a_flush_holds_nothing_and_a_batch_is_signalled_once() {
    let room = Room::new("");
    let mut bench = room.device(config("a"));
    let heads = [bench.driver.flush(), bench.driver.flush()];
    bench.kick();
    assert_eq!(
        room.words(),
        [
            "fetched",
            "fetched",
            "executed",
            "used",
            "executed",
            "used",
            "signalled"
        ]
    );
    assert_eq!(
        bench.driver.take_used(),
        heads.map(|head| Used { head, len: 1 })
    );
    assert_eq!(bench.interrupt.queue_signals(), 1);
}

/// Looks at the used index whenever a hold closes or an element is used.
struct Look<F>(F, Arc<Mutex<Vec<(&'static str, u16)>>>);

impl<F: Fn() -> u16 + Send> Sink for Look<F> {
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()> {
        let word = match event.kind {
            EventKind::HoldClosed { .. } => "closed",
            EventKind::Signalled { .. } => "signalled",
            _ => return Ok(()),
        };
        self.1.lock().unwrap().push((word, self.0()));
        Ok(())
    }
}

#[test]
fn the_ledger_closes_before_the_used_index_is_visible() {
    let room = Room::new("");
    let mut bench = room.device(config("a"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = Look(bench.driver.used_idx_reader(), seen.clone());
    room.context.tracer().add_sink(Box::new(look));
    bench.driver.read(0, &[bench.driver.range(0, 512)]);
    bench.driver.read(0, &[bench.driver.range(1, 512)]);
    bench.kick();
    assert_eq!(
        *seen.lock().unwrap(),
        [("closed", 0), ("closed", 1), ("signalled", 2)]
    );
}

/// The driver goes on offering while the device works: sets the available index when the first request is done.
struct OfferMore {
    driver: Driver,
    to: Option<u16>,
}

impl Sink for OfferMore {
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()> {
        if matches!(event.kind, EventKind::Executed { .. })
            && let Some(to) = self.to.take()
        {
            self.driver.publish(to);
        }
        Ok(())
    }
}

/// A kick finds one request, and `more` come while it is served: all are served, and the rings are not taken for broken.
fn served_when_more_come(more: u16) {
    let room = Room::new("");
    let config = BlkConfig {
        queue_size: 1024,
        ..config("a")
    };
    let mut bench = room.device(config);
    for _ in 0..=more {
        bench.driver.flush();
    }
    bench.driver.publish(1);
    room.context.tracer().add_sink(Box::new(OfferMore {
        driver: Driver::within(bench.driver.memory().clone(), 0x1000, 1024),
        to: Some(more + 1),
    }));
    bench.kick();
    assert_eq!(bench.driver.used_idx(), more + 1, "{more} more");
    assert_eq!(bench.interrupt.resets_needed(), 0, "{more} more");
}

#[test]
fn any_number_may_come_while_a_batch_is_served() {
    // Those that end with a batch, one before and one behind.
    let batch = u16::try_from(BATCH).unwrap();
    for more in [
        1,
        batch - 1,
        batch,
        batch + 1,
        2 * batch - 1,
        2 * batch,
        2 * batch + 1,
    ] {
        served_when_more_come(more);
    }
}

#[test]
fn a_failed_rule_answers_without_touching_or_after_it() {
    let room = Room::new(
        "[[rule]]\nordinals = { from = 0, to = 1 }\nfail = \"ioerr\"\n\
         [[rule]]\npoint = \"executed\"\nordinals = { from = 1, to = 2 }\nfail = \"unsupp\"\n",
    );
    let mut bench = room.device(config("a"));
    let first = bench.driver.read(0, &[bench.driver.range(0, 512)]);
    bench.kick();
    assert_eq!(
        room.words(),
        [
            "fetched",
            "hold-opened",
            "fault-applied",
            "fault-acted",
            "executed ioerr",
            "hold-closed",
            "used ioerr",
            "signalled"
        ]
    );
    let second = bench.driver.read(0, &[bench.driver.range(1, 512)]);
    bench.kick();
    let words = room.words();
    assert_eq!(
        words[4..],
        [
            "executed",
            "fault-applied",
            "fault-acted",
            "hold-closed",
            "used unsupp",
            "signalled"
        ],
        "{words:?}"
    );
    assert_eq!(
        (bench.driver.status(first), bench.driver.status(second)),
        (1, 2)
    );
    let used: Vec<_> = bench
        .driver
        .take_used()
        .iter()
        .map(|used| used.len)
        .collect();
    assert_eq!(used, [0, 0], "nothing may be relied on");
}

#[test]
fn planted_faults_are_what_they_say() {
    let plan = |planted: &str| format!("[[rule]]\ntimes = 1\nplanted = \"{planted}\"\n");
    let room = Room::new(&plan("touch-after-completion"));
    let mut bench = room.device(config("a"));
    bench.driver.read(0, &[bench.driver.range(0, 512)]);
    bench.kick();
    let words = room.words();
    assert_eq!(
        words[6..],
        [
            "hold-closed",
            "used",
            "planted-fault",
            "touch-began",
            "touch-ended",
            "signalled"
        ],
        "{words:?}"
    );

    let room = Room::new(&plan("lying-flush"));
    let mut bench = room.device(config("a"));
    let head = bench.driver.flush();
    bench.kick();
    assert_eq!(
        room.words(),
        [
            "fetched",
            "fault-applied",
            "planted-fault",
            "executed",
            "used",
            "signalled"
        ]
    );
    assert_eq!(bench.driver.status(head), 0);

    let room = Room::new(&plan("dropped-completion"));
    let mut bench = room.device(config("a"));
    bench.driver.read(0, &[bench.driver.range(0, 512)]);
    bench.kick();
    let words = room.words();
    assert_eq!(
        words[5..],
        ["executed", "hold-closed", "planted-fault"],
        "{words:?}"
    );
    assert!(bench.driver.take_used().is_empty());
    bench.device.reset();
}

#[test]
fn nothing_is_answered_before_it_was_kicked() {
    let room = Room::new("");
    let mut bench = room.device(config("a"));
    let head = bench.driver.read(0, &[bench.driver.range(0, 512)]);
    assert_eq!(bench.driver.status(head), UNANSWERED);
    // The wake that activation left behind looks into the ring once, in case that a kick came too early.
    bench.device.on_wake();
    assert_eq!(bench.driver.status(head), 0);
}
