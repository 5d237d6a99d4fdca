//! A function's registers through a snapshot into another function.

use virtio_queue::QueueT;

use super::super::layout::*;
use super::{Bench, Seen, bench};
use crate::transport::{SavedPci, StateError};

/// Through the text of a file.
fn saved(bench: &Bench) -> SavedPci {
    let text = serde_json::to_string(&bench.transport.save().unwrap()).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_function_without_a_driver_is_where_it_was_and_says_the_same() {
    let first = bench();
    first.transport.place_bar(0xc000_8000);
    first.set_config(4, 2, 0x406);
    first.set_config(0x3c, 1, 11);
    let second = bench();
    second.transport.restore(&saved(&first)).unwrap();
    assert_eq!(second.transport.decoded_bar(), Some(0xc000_8000));
    assert_eq!((second.config(4, 2), second.config(0x3c, 1)), (0x406, 11));
    assert_eq!((second.status(), second.seen()), (0, vec![]));
    second.start();
}

#[test]
fn a_driver_at_work_goes_on_with_its_queues_and_vectors() {
    let first = bench();
    first.set_config(4, 2, 6);
    let message = first.enable_msix(1);
    first.negotiate();
    first.set_up_queue(0, 0x1000);
    first.set(0x16, 2, 0);
    first.set(0x1a, 2, 1);
    first.set(0x14, 1, 15);
    let saved = saved(&first);
    let second = bench();
    second.transport.restore(&saved).unwrap();
    assert_eq!(second.status(), 15);
    let device = second.device.lock().unwrap();
    let activation = device.activation.as_ref().expect("it is at work");
    let queue = &activation.queues[0];
    assert_eq!((queue.size(), queue.desc_table()), (16, 0x1000));
    assert_eq!((queue.next_avail(), queue.next_used()), (7, 5));
    assert!(activation.resume[0].is_some() && !activation.queues[1].ready());
    // Routed anew, and told once of what may have been on its way.
    assert_eq!(second.seen(), [Seen::Route(1, message), Seen::Sent(1)]);
    activation.interrupt.signal_queue(0);
    assert_eq!(second.seen(), [Seen::Sent(1)]);
}

#[test]
fn a_signal_that_waits_behind_a_mask_still_waits() {
    let first = bench();
    first.start();
    let message = first.enable_msix(1);
    first.set(0x16, 2, 0);
    first.set(0x1a, 2, 1);
    first.set(MSIX_TABLE + 16 + 12, 4, 1);
    let interrupt = {
        let device = first.device.lock().unwrap();
        device.activation.as_ref().unwrap().interrupt.clone()
    };
    interrupt.signal_queue(0);
    let second = bench();
    second.transport.restore(&saved(&first)).unwrap();
    assert_eq!((second.get(MSIX_PBA, 4), second.seen()), (2, vec![]));
    second.set(MSIX_TABLE + 16 + 12, 4, 0);
    assert_eq!(second.seen(), [Seen::Route(1, message), Seen::Sent(1)]);
}

#[test]
fn state_that_is_not_the_functions_is_refused() {
    let first = bench();
    first.start();
    let good = saved(&first);
    let refused = |change: fn(&mut SavedPci)| {
        let mut bad = good.clone();
        change(&mut bad);
        let refused = bench().transport.restore(&bad);
        matches!(refused, Err(StateError::Restore { .. }))
    };
    assert!(!refused(|_| ()));
    assert!(refused(|bad| bad.config[0] ^= 1), "another vendor");
    assert!(refused(|bad| bad.config.truncate(10)));
    assert!(refused(|bad| assert!(
        bad.interrupt.vectors.pop().is_some()
    )));
    assert!(refused(|bad| assert!(
        bad.interrupt.queue_vectors.pop().is_some()
    )));
    assert!(refused(|bad| assert!(bad.core.queues.pop().is_some())));
    assert!(refused(|bad| bad.core.queues[0].desc = u64::MAX - 15));
    assert!(refused(|bad| bad.core.driver_features |= 1 << 63));
    assert!(refused(|bad| bad.core.device = None));
}
