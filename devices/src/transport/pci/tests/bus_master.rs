//! A function that the guest does not let reach its memory.

use super::*;

#[test]
fn a_device_at_work_that_is_no_bus_master_any_more_stops_as_a_whole() {
    let bench = bench();
    let message = bench.enable_msix(1);
    bench.start();
    bench.set(0x10, 2, 1);
    bench.set_config(4, 2, 2);
    assert_eq!(bench.status(), 64 | 15, "only a reset brings it back");
    assert!(bench.device.lock().unwrap().activation.is_none());
    assert_eq!(bench.seen(), [Seen::Route(1, message)], "a message is DMA");
    assert_eq!(bench.get(MSIX_PBA, 4), 2);
    bench.set_config(4, 2, 6);
    assert_eq!(bench.seen(), [Seen::Sent(1)]);
    assert_eq!((bench.status(), bench.mistakes()), (64 | 15, 1));
    bench.set(0x14, 1, 0);
    bench.start();
    bench.set_config(4, 2, 7 | 1 << 10);
    assert_eq!(bench.status(), 15, "other bits of the command stop nothing");
}

#[test]
fn a_device_that_is_no_bus_master_does_not_begin() {
    let bench = bench();
    bench.negotiate();
    bench.set_up_queue(0, 0x1000);
    bench.set(0x14, 1, 15);
    assert_eq!((bench.status(), bench.mistakes()), (64 | 15, 1));
    assert!(bench.device.lock().unwrap().activation.is_none());
    bench.set(0x14, 1, 0);
    bench.start();
}
