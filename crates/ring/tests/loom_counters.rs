//! What an observer may see of the counters while both sides run, in every interleaving and permitted reordering: never more
//! processed than received, never more received than sent.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{HEADER_BYTES, WORD};
use librpc_ring::{Consumer, Head, Memory, MemoryMut, Mode, Producer, ReceiverCounters, SenderCounters};
use loom::sync::atomic::AtomicU64;
use loom::thread;

const CAPACITY: u64 = 512;
/// The words of the header that are in use. The model leaves out the rest of the header.
const FRONT: usize = 64;

/// A memory of which every word is an atomic.
#[derive(Clone)]
struct Words(Rc<Vec<AtomicU64>>);

impl Words {
    fn new() -> Self {
        Self(Rc::new((0..FRONT + CAPACITY as usize / WORD).map(|_| AtomicU64::new(0)).collect()))
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        &self.0[if word < FRONT { word } else { FRONT + word - HEADER_BYTES / WORD }]
    }
}

impl Memory for Words {
    fn load(&self, word: usize, order: Ordering) -> u64 {
        self.word(word).load(order)
    }

    fn get(&self, word: usize) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    fn read(&self, _: usize, bytes: usize, _: &mut Vec<u8>) {
        assert_eq!(bytes, 0, "these messages are empty");
    }

    fn fence(&self, order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

impl MemoryMut for Words {
    fn store(&self, word: usize, value: u64, order: Ordering) {
        self.word(word).store(value, order);
    }

    fn put(&self, word: usize, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    fn write(&self, _: usize, from: &[u8]) {
        assert!(from.is_empty(), "these messages are empty");
    }
}

#[test]
fn no_observer_sees_more_received_than_sent() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(|| {
        let (data, ack) = (Words::new(), Words::new());
        let mut producer = Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless);
        let mut consumer = Consumer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless).expect("a good header");
        let sending = thread::spawn(move || producer.push(Head::MESSAGE, &[]).map(drop).expect("room"));
        let receiving = thread::spawn(move || {
            if consumer.pop(&mut Vec::new()).expect("an honest sender").is_some() {
                consumer.consume();
            }
        });
        let receiver = ReceiverCounters::read(&ack);
        let sender = SenderCounters::read(&data);
        assert!(receiver.processed <= receiver.received, "{receiver:?}");
        assert!(receiver.received <= sender.messages, "{receiver:?} {sender:?}");
        sending.join().expect("a sender that ends");
        receiving.join().expect("a receiver that ends");
    });
}
