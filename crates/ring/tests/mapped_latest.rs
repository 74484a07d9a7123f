//! Mode Latest over real shared memory: a sender at full speed, receivers that keep up or do not, and an observer.

mod mapping;

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use librpc_ring::layout::data;
use librpc_ring::{
    Consumer, Corrupt, Counters, Head, Mapped, Memory, Mode, Producer, PushError, ReadOnly, ReceiverCounters, Record,
    SenderCounters, Writable,
};

use mapping::{Mapping, Memfd, smallest_capacity};

type Reader = Mapped<ReadOnly, Arc<Mapping>>;
type Writer = Mapped<Writable, Arc<Mapping>>;

/// Only one test runs at a time, because two sides that share a processor never meet.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Channel {
    producer: Producer<Writer, Reader>,
    data: Memfd,
    ack: Memfd,
    capacity: u64,
    mode: Mode,
}

impl Channel {
    fn new(capacity: u64, mode: Mode) -> Self {
        let (data, ack) = (Memfd::data(capacity), Memfd::ack());
        let producer = Producer::new(data.writable(), ack.read_only(), capacity, mode);
        Self { producer, data, ack, capacity, mode }
    }

    fn consumer<D: Memory>(&self, data: impl FnOnce(Reader) -> D) -> Consumer<D, Writer> {
        let data = data(self.data.read_only());
        Consumer::new(data, self.ack.writable(), self.capacity, self.mode).expect("the header just written")
    }
}

/// The words of message number n, one to eight: the first is its number, and each of the others depends on it.
fn words(number: u64) -> impl Iterator<Item = u64> {
    let seed = (number ^ number >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    std::iter::once(number).chain((1..=seed >> 61).map(move |at| seed.rotate_left(at as u32)))
}

fn push(producer: &mut Producer<Writer, Reader>, number: u64) -> Result<u64, PushError> {
    let mut payload = [0; 64];
    let mut bytes = 0;
    for (at, word) in payload.chunks_exact_mut(8).zip(words(number)) {
        at.copy_from_slice(&word.to_le_bytes());
        bytes += 8;
    }
    producer.push(Head { correlation: Some(number), ..Head::MESSAGE }, &payload[..bytes])
}

fn is_whole(record: &Record, payload: &[u8]) -> bool {
    let found = payload.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    record.head.correlation == Some(record.sequence) && found.eq(words(record.sequence))
}

/// What a receiver has seen of the messages.
#[derive(Debug, Default)]
struct Seen {
    received: u64,
    missed: u64,
    gaps: u64,
}

/// Sends at full speed in another thread, and receives what comes, with a pause of this many spins after each message.
fn run(messages: u64, capacity: u64, pause: u32) -> Seen {
    let mut channel = Channel::new(capacity, Mode::Latest);
    let mut consumer = channel.consumer(|data| data);
    let sending = thread::spawn(move || {
        for number in 0..messages {
            assert_eq!(push(&mut channel.producer, number), Ok(number), "never full");
        }
        channel.producer.close();
        channel
    });
    let (mut seen, mut next, mut payload) = (Seen::default(), 0, Vec::new());
    loop {
        let closed = consumer.is_closed();
        while let Some(record) = consumer.pop(&mut payload).expect("an honest sender") {
            assert!(is_whole(&record, &payload), "torn: message {} is {payload:x?}", record.sequence);
            assert_eq!(record.sequence, next + record.missed);
            next = record.sequence + 1;
            seen.received += 1;
            seen.missed += record.missed;
            seen.gaps += u64::from(record.missed > 0);
            payload.clear();
            consumer.consume();
            (0..pause).for_each(|_| spin_loop());
        }
        assert!(payload.is_empty(), "a copy that was dropped");
        if closed {
            break;
        }
    }
    let mut channel = sending.join().expect("a sender that ends");
    assert_eq!(
        (next, seen.received + seen.missed),
        (messages, messages),
        "the last one is there, and the sum is exact"
    );
    assert_eq!(channel.producer.outstanding(), Ok(0));
    assert_eq!(channel.producer.consumed(), Ok(channel.producer.committed()));
    let counters = Counters::read(&channel.data.read_only(), &channel.ack.read_only());
    assert_eq!((counters.sender.messages, counters.queued()), (messages, 0));
    let receiver = counters.receiver;
    assert_eq!((receiver.processed, receiver.missed), (seen.received, seen.missed));
    println!("{messages} messages, ring of {capacity}, pause {pause}: {seen:?}");
    seen
}

#[test]
fn a_receiver_that_may_be_overtaken_gets_whole_messages() {
    let _alone = alone();
    run(2_000_000, smallest_capacity(), 0);
    run(1_000_000, 256 * 1024, 0);
}

#[test]
fn a_slow_receiver_gets_whole_messages_and_counts_the_others() {
    let _alone = alone();
    let seen = run(2_000_000, smallest_capacity(), 20);
    assert!(seen.missed > 0 && seen.gaps > 0, "never overtaken: this tested little");
}

/// The same for longer: half a minute in a release build.
#[test]
#[ignore = "long: cargo test -p librpc-ring --release --test mapped_latest -- --ignored --nocapture"]
fn a_hundred_million_messages_are_whole_or_counted() {
    let _alone = alone();
    for (capacity, pause) in [(smallest_capacity(), 0), (smallest_capacity(), 20), (256 * 1024, 20)] {
        let begun = std::time::Instant::now();
        let seen = run(100_000_000, capacity, pause);
        println!("{:?} in {:?}", seen, begun.elapsed());
    }
}

/// Memory in which the sender's intent is invisible.
struct Blind(Reader);

impl Memory for Blind {
    fn load(&self, word: usize, order: Ordering) -> u64 {
        if word == data::INTENT { 0 } else { self.0.load(word, order) }
    }

    fn get(&self, word: usize) -> u64 {
        self.0.get(word)
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        self.0.read(word, bytes, into);
    }

    fn fence(&self, order: Ordering) {
        self.0.fence(order);
    }
}

/// What the tests above would see if the receiver did not check the intent. It shows that they can fail.
#[test]
fn a_receiver_that_does_not_see_the_intent_gets_torn_messages() {
    let _alone = alone();
    let mut channel = Channel::new(smallest_capacity(), Mode::Latest);
    let mut consumer = channel.consumer(Blind);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let sending = thread::spawn(move || {
        for number in 0.. {
            push(&mut channel.producer, number).expect("never full");
            if stopped.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    let mut payload = Vec::new();
    loop {
        payload.clear();
        match consumer.pop(&mut payload) {
            Ok(Some(record)) if is_whole(&record, &payload) => (0..20).for_each(|_| spin_loop()),
            Ok(None) => {}
            Ok(Some(_)) | Err(Corrupt::Commit { .. } | Corrupt::Length { .. } | Corrupt::Sequence { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    sending.join().expect("a sender that ends");
}

/// For an observer that reads the dependent counters first, no counter gets ahead of those that it depends on, and no
/// counter falls.
#[test]
fn an_observer_sees_consistent_counters() {
    let _alone = alone();
    const MESSAGES: u64 = 1_000_000;
    for mode in [Mode::Lossless, Mode::Latest] {
        let mut channel = Channel::new(smallest_capacity(), mode);
        let mut consumer = channel.consumer(|data| data);
        let (data, ack) = (channel.data.read_only(), channel.ack.read_only());
        let sending = thread::spawn(move || {
            let mut number = 0;
            while number < MESSAGES {
                match push(&mut channel.producer, number) {
                    Ok(_) => number += 1,
                    Err(PushError::Full { .. }) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let receiving = thread::spawn(move || {
            let mut payload = Vec::new();
            while consumer.received() + consumer.counters().missed < MESSAGES {
                payload.clear();
                match consumer.pop(&mut payload).expect("an honest sender") {
                    Some(record) if record.sequence % 3 == 0 => consumer.consume(),
                    Some(_) => {}
                    None => {
                        consumer.consume();
                        thread::yield_now();
                    }
                }
            }
            consumer.consume();
        });
        let (mut before, mut looks) = (Counters::default(), 0u64);
        loop {
            let receiver = ReceiverCounters::read(&ack);
            let sender = SenderCounters::read(&data);
            assert!(receiver.processed <= receiver.received, "{receiver:?}");
            assert!(receiver.received + receiver.missed <= sender.messages, "{receiver:?} of {sender:?}");
            assert!(receiver.bytes <= sender.bytes, "{receiver:?} of {sender:?}");
            assert!(sender.depth_max <= smallest_capacity() && sender.committed >= before.sender.committed);
            assert!(sender.messages >= before.sender.messages && sender.bytes >= before.sender.bytes);
            assert!(receiver.received >= before.receiver.received && receiver.missed >= before.receiver.missed);
            (before.sender, before.receiver) = (sender, receiver);
            looks += 1;
            if receiver.processed + receiver.missed == MESSAGES {
                break;
            }
        }
        sending.join().expect("a sender that ends");
        receiving.join().expect("a receiver that ends");
        let counters = Counters::read(&data, &ack);
        assert_eq!((counters.sender.messages, counters.queued()), (MESSAGES, 0));
        assert!(mode == Mode::Latest || counters.sender.bytes == counters.receiver.bytes);
        println!("{looks} looks in mode {mode:?}, {} missed", counters.receiver.missed);
    }
}
