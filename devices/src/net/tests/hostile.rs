//! Chains that no driver should offer.

use proptest::prelude::*;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use super::*;
use crate::net::loopback::Loopback;

#[test]
fn each_wrong_chain_is_a_mistake_and_comes_back() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    let at = bench.tx.driver.data(0);
    let outside = 1 << 40;
    let wrong: [(&[Desc], &str); 6] = [
        (&[readable(at, 11)], "shorter than its header"),
        (&[readable(at, LEN)], "or empty"),
        (&[readable(at, LEN), writable(at, 60)], "may write"),
        (
            &[readable(at, LEN), readable(outside, 60)],
            "not in guest memory",
        ),
        (
            &[readable(u64::MAX - 3, LEN), readable(at, 60)],
            "not in guest memory",
        ),
        (&[readable(at, 0), readable(at, 0)], "or empty"),
    ];
    for (chain, expected) in wrong {
        bench.tx.driver.offer(chain);
        assert_eq!(bench.tx.serve().len(), 1, "{expected}");
        let said = bench.mistakes().pop().unwrap();
        assert!(said.contains(expected), "{said}");
    }
    let at = bench.rx.driver.data(0);
    let wrong: [(&[Desc], &str); 4] = [
        (&[readable(at, 2048)], "may not write"),
        (&[writable(at, LEN)], "no room"),
        (&[writable(at, 0)], "no room"),
        (
            &[writable(at, 60), writable(outside, 60)],
            "not in guest memory",
        ),
    ];
    for (chain, expected) in wrong {
        bench.rx.driver.offer(chain);
        assert_eq!(bench.rx.serve()[0].len, 0, "{expected}");
        let said = bench.mistakes().pop().unwrap();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_frame_that_asks_for_what_was_not_negotiated_is_not_sent() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    bench.post(0, 2048);
    bench.rx.serve();
    let mut header = [0; LEN];
    for (place, byte) in [(0, 1), (1, 1), (1, 3), (1, 0xff)] {
        header.fill(0);
        header[place] = byte;
        bench.offer_frame(&header, &[7; 60]);
        assert_eq!(bench.tx.serve().len(), 1);
    }
    bench.send(&[7; 1519]);
    assert_eq!(bench.mistakes().len(), 5);
    assert!(bench.rx.serve().is_empty());
    header.fill(0);
    header[0] = 0xfe;
    bench.offer_frame(&header, &[7; 60]);
    bench.tx.serve();
    assert_eq!(bench.rx.serve().len(), 1, "unknown flags mean nothing");
}

#[test]
fn a_frame_in_many_pieces_is_one_frame() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    let addr = bench.post(0, 2048);
    bench.rx.serve();
    let at = bench.tx.driver.data(0);
    let bytes: Vec<u8> = (0..112).collect();
    let mut zeroed = bytes.clone();
    zeroed[..LEN].fill(0);
    bench.tx.driver.put(at, &zeroed);
    // The header ends within the third piece.
    let pieces = [5, 5, 40, 0, 1, 61];
    let mut chain = Vec::new();
    let mut place = at;
    for len in pieces {
        chain.push(readable(place, len));
        place += len as u64;
    }
    bench.tx.driver.offer(&chain);
    bench.tx.serve();
    assert_eq!(bench.rx.serve()[0].len, 112);
    assert_eq!(bench.received(addr, 112)[LEN..], bytes[LEN..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_chain_of_any_queue_ends_the_device(
        chains in prop::collection::vec(
            prop::collection::vec((0_u64..0x50_000, 0_u32..70_000, any::<bool>()), 1..4), 1..5),
        bytes in prop::collection::vec(any::<u8>(), 64),
        merge in any::<bool>(),
    ) {
        let features = u64::from(merge) << VIRTIO_NET_F_MRG_RXBUF;
        let mut bench = Bench::new(Loopback::default(), features, "");
        for chain in &chains {
            let chain: Vec<Desc> = chain
                .iter()
                .map(|(addr, len, writable)| Desc { addr: 0x8000 + *addr, len: *len, writable: *writable })
                .collect();
            bench.tx.driver.put(0x8000, &bytes);
            bench.rx.driver.offer(&chain);
            bench.tx.driver.offer(&chain);
            bench.control.driver.offer(&chain);
        }
        bench.rx.serve();
        bench.tx.serve();
        bench.control.serve();
        bench.rx.serve();
        prop_assert!(!bench.mistakes().iter().any(String::is_empty));
    }
}
