//! The least that serving a ring takes, on virtio-queue alone: the baseline that the benchmark of the request path is
//! compared with.
//!
//! It is in this crate, and not beside the benchmark, because vm-memory and virtio-queue are generic: each crate that
//! uses them gets machine code of its own. Compiled with the benchmark, the same loop kept calls that are inlined
//! here, ran a third more instructions per request and took three times as long, and every comparison with it was
//! flattering. Here both sides run the same code for each access to guest memory.
//!
//! It answers every chain at once, touches no payload, checks nothing, and panics at a ring that a driver got wrong.

use std::hint::black_box;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::device::Memory;

/// Chains that are popped together, as many as the handler pops.
const BATCH: usize = 64;

/// Serves what is in the ring: pops, walks each chain, reads its 16-byte header, writes its status byte, adds it to the
/// used ring, decides whether to signal.
///
/// # Panics
/// The rings or a chain are not as a driver makes them.
pub fn serve(queue: &mut Queue, memory: &Memory) {
    const RINGS: &str = "rings in guest memory";
    let memory = memory.as_ref();
    queue.disable_notification(memory).expect(RINGS);
    loop {
        let mut served = [0; BATCH];
        let mut count = 0;
        for mut chain in queue.iter(memory).expect(RINGS).take(BATCH) {
            served[count] = chain.head_index();
            count += 1;
            let header = chain.next().expect("a header");
            let header: [u64; 2] = memory.read_obj(header.addr()).expect("a header in memory");
            black_box(header);
            let mut status = GuestAddress(0);
            for descriptor in chain {
                status = black_box(descriptor.addr());
            }
            memory.write_obj(0u8, status).expect("a status in memory");
        }
        for head in &served[..count] {
            queue.add_used(memory, *head, 1).expect(RINGS);
        }
        if !queue.enable_notification(memory).expect(RINGS) {
            break;
        }
    }
    black_box(queue.needs_notification(memory).expect(RINGS));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::interrupt::Silent;
    use crate::mock::Driver;

    #[test]
    fn every_chain_is_answered() {
        let mut driver = Driver::new(256, 8);
        let activation = driver.activation(0, Arc::new(Silent));
        let mut queue = activation.queues.into_iter().next().unwrap();
        let payload = [driver.range(0, 4096), driver.range(2, 512)];
        let heads: Vec<u16> = (0..BATCH / 2 + 1)
            .map(|_| driver.write(0, &payload))
            .collect();
        serve(&mut queue, &activation.memory);
        let used: Vec<u16> = driver.take_used().iter().map(|used| used.head).collect();
        assert_eq!(used, heads);
        assert!(heads.iter().all(|head| driver.status(*head) == 0));
    }
}
