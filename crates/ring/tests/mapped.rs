//! The ring over real shared memory: two threads that really sleep, and the limits of a mapping.

mod mapping;

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use librpc_ring::layout::{self, WORD, ack};
use librpc_ring::{
    Armed, Consumer, Head, Mapped, Memory, MemoryMut, Mode, Producer, PushError, ReadOnly, Writable, ack_segment,
    stop_waiting, wait_for_receiver,
};

use mapping::{Mapping, Memfd, smallest_capacity};

/// The side of a channel that the sender's thread has.
struct Sender {
    producer: Producer<Mapped<Writable, Arc<Mapping>>, Mapped<ReadOnly, Arc<Mapping>>>,
    data: Mapped<Writable, Arc<Mapping>>,
    ack: Mapped<ReadOnly, Arc<Mapping>>,
    epoch: u64,
    sleeps: u64,
    receiver: Thread,
}

impl Sender {
    /// Rings if the receiver sleeps.
    fn ring(&mut self) {
        if self.producer.must_ring() {
            self.receiver.unpark();
        }
    }

    /// Sleeps unless the receiver has consumed up to here.
    fn sleep_until_consumed(&mut self, position: u64) {
        self.epoch += 1;
        if wait_for_receiver(&self.data, &self.ack, self.epoch) < position {
            self.sleeps += 1;
            thread::park();
        }
        stop_waiting(&self.data);
    }
}

/// The side of a channel that the receiver's thread has.
struct Receiver {
    consumer: Consumer<Mapped<ReadOnly, Arc<Mapping>>, Mapped<Writable, Arc<Mapping>>>,
    sleeps: u64,
    sender: Thread,
}

impl Receiver {
    /// Rings if the sender sleeps.
    fn ring(&mut self) {
        if self.consumer.must_ring() {
            self.sender.unpark();
        }
    }

    /// Sleeps unless there is something to do.
    fn sleep(&mut self) {
        if self.consumer.arm() == Armed::Sleep {
            self.sleeps += 1;
            thread::park();
        }
        self.consumer.disarm();
    }
}

/// Runs both sides to their ends, each in a thread, over the smallest ring, so that both have to wait often. A lost
/// wake-up is an endless sleep. The limit only turns that into a failure; it wakes no side. Returns how often each side
/// slept.
fn run(
    mode: Mode,
    send: impl FnOnce(&mut Sender) + Send + 'static,
    receive: impl FnOnce(&mut Receiver) + Send + 'static,
) -> [u64; 2] {
    const LIMIT: Duration = Duration::from_secs(120);
    // Only one pair runs at a time, because two sides that share a processor never meet.
    static MACHINE: Mutex<()> = Mutex::new(());
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let capacity = smallest_capacity();
    let (data, ack) = (Memfd::data(capacity), Memfd::ack());
    let producer = Producer::new(data.writable(), ack.read_only(), capacity, mode);
    let consumer = Consumer::new(data.read_only(), ack.writable(), capacity, mode).unwrap();
    let (data, ack) = (data.writable(), ack.read_only());

    let (ended, ends) = mpsc::channel();
    let (introduce_sender, introduced) = mpsc::channel();
    let receivers_end = ended.clone();
    let receiver = thread::spawn(move || {
        let mut side = Receiver { consumer, sleeps: 0, sender: introduced.recv().unwrap() };
        let result = catch_unwind(AssertUnwindSafe(|| receive(&mut side)));
        receivers_end.send((1, result.map(|()| side.sleeps))).unwrap();
    });
    let receiver = receiver.thread().clone();
    let sender = thread::spawn(move || {
        let mut side = Sender { producer, data, ack, epoch: 0, sleeps: 0, receiver };
        let result = catch_unwind(AssertUnwindSafe(|| send(&mut side)));
        ended.send((0, result.map(|()| side.sleeps))).unwrap();
    });
    introduce_sender.send(sender.thread().clone()).unwrap();

    let mut sleeps = [0; 2];
    for _ in 0..2 {
        let (side, result) = ends.recv_timeout(LIMIT).expect("nobody sleeps for ever");
        sleeps[side] = result.unwrap_or_else(|panic| resume_unwind(panic));
    }
    println!("the sender slept {} times, the receiver {} times", sleeps[0], sleeps[1]);
    sleeps
}

/// The content of message number n is a range of these bytes.
struct Plan {
    noise: Vec<u8>,
    longest: usize,
}

impl Plan {
    fn new() -> Self {
        let longest = layout::max_payload_bytes(smallest_capacity(), Mode::Lossless) as usize;
        Self { noise: (0..longest as u64 + 64).map(|n| mix(n) as u8).collect(), longest }
    }

    fn message(&self, number: u64) -> (Head, &[u8]) {
        let random = mix(number);
        let from = random as usize % 64;
        // Mostly short. One in 64 may have any length.
        let lengths = if random >> 58 == 0 { self.longest + 1 } else { 100 };
        let payload = &self.noise[from..from + (random >> 8) as usize % lengths];
        let topic = random.is_multiple_of(3).then_some(random);
        (Head { topic, correlation: Some(number), ..Head::MESSAGE }, payload)
    }
}

/// A good hash of a number (the finaliser of splitmix64).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Each side goes to sleep as soon as it has nothing to do.
#[test]
fn two_million_messages_arrive_whole_and_in_order() {
    const MESSAGES: u64 = 2_000_000;
    let send = |side: &mut Sender| {
        let plan = Plan::new();
        for number in 0..MESSAGES {
            let (head, payload) = plan.message(number);
            loop {
                match side.producer.push(head, payload) {
                    Ok(sequence) => break assert_eq!(sequence, number),
                    Err(PushError::Full { room_at }) => side.sleep_until_consumed(room_at),
                    Err(error) => panic!("{error}"),
                }
            }
            side.ring();
        }
        side.producer.close();
        side.ring();
    };
    let receive = |side: &mut Receiver| {
        let (plan, mut copy) = (Plan::new(), Vec::new());
        loop {
            let closed = side.consumer.is_closed();
            while let Some(record) = side.consumer.pop(&mut copy).unwrap() {
                let number = record.sequence;
                assert_eq!((record.head, &*copy), plan.message(number), "message {number}");
                copy.clear();
                side.consumer.consume();
                side.ring();
            }
            if closed {
                break assert_eq!(side.consumer.received(), MESSAGES);
            }
            side.sleep();
        }
    };
    let sleeps = run(Mode::Lossless, send, receive);
    assert!(sleeps.iter().all(|sleeps| *sleeps > 0), "a side never slept: this tested little");
}

/// How often the two sides meet while one of them goes to sleep.
const MEETINGS: u64 = 200_000;

/// Polls until it is true, and yields to other threads meanwhile.
fn poll(mut is_so: impl FnMut() -> bool) {
    while !(0..100).any(|_| is_so()) {
        thread::yield_now();
    }
}

/// Delays a sleeper so that it is just in time in half of the cases. That is when the two sides meet.
#[derive(Default)]
struct Aim {
    /// In spins: one for a sleeper that did not sleep last time, one for a sleeper that did, because ringing the bell costs the
    /// other side some time, too.
    delay: [u32; 2],
    slept: bool,
}

impl Aim {
    fn wait(&self) {
        for spin in 0..self.delay[usize::from(self.slept)] {
            black_box(spin);
        }
    }

    fn learn(&mut self, slept: bool) {
        let delay = &mut self.delay[usize::from(self.slept)];
        // The limit is needed on a machine with a single processor, where a sleeper is never just in time.
        *delay = if slept { (*delay + 8).min(10_000) } else { delay.saturating_sub(8) };
        self.slept = slept;
    }
}

/// The receiver goes to sleep after each message, just when the sender commits the next one and then pauses.
#[test]
fn a_receiver_that_goes_to_sleep_while_the_sender_commits_wakes_up() {
    let send = |side: &mut Sender| {
        for _ in 0..MEETINGS {
            side.producer.push(Head::MESSAGE, &[]).unwrap();
            side.ring();
            poll(|| side.producer.outstanding() == Ok(0));
        }
    };
    let receive = |side: &mut Receiver| {
        let mut aim = Aim::default();
        for _ in 0..MEETINGS {
            aim.wait();
            let sleeps = side.sleeps;
            side.sleep();
            aim.learn(side.sleeps > sleeps);
            poll(|| side.consumer.pop(&mut Vec::new()).unwrap().is_some());
            side.consumer.consume();
        }
    };
    run(Mode::Lossless, send, receive);
}

/// The sender goes to sleep after each message, just when the receiver consumes it and then pauses.
#[test]
fn a_sender_that_goes_to_sleep_while_the_receiver_consumes_wakes_up() {
    let send = |side: &mut Sender| {
        let mut aim = Aim::default();
        for _ in 0..MEETINGS {
            side.producer.push(Head::MESSAGE, &[]).unwrap();
            aim.wait();
            let sleeps = side.sleeps;
            side.sleep_until_consumed(side.producer.committed());
            aim.learn(side.sleeps > sleeps);
            poll(|| side.producer.outstanding() == Ok(0));
        }
    };
    let receive = |side: &mut Receiver| {
        for _ in 0..MEETINGS {
            poll(|| side.consumer.pop(&mut Vec::new()).unwrap().is_some());
            side.consumer.consume();
            side.ring();
        }
    };
    run(Mode::Lossless, send, receive);
}

/// Whether an access panics, as our own bugs must do.
fn is_refused<T>(access: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(access)).is_err()
}

#[test]
fn an_access_outside_of_a_mapping_panics() {
    let memory = Memfd::ack();
    let (ours, theirs) = (memory.writable(), memory.read_only());
    let words = ack_segment(rustix::param::page_size()).bytes / WORD;
    let mut copy = Vec::new();

    ours.write(words - 2, &[7; 16]);
    theirs.read(words - 1, 8, &mut copy);
    theirs.read(words, 0, &mut copy);
    assert_eq!((&*copy, theirs.get(words - 2)), (&[7; 8][..], u64::from_le_bytes([7; 8])));

    assert!(is_refused(|| theirs.load(words, Ordering::Acquire)));
    assert!(is_refused(|| theirs.get(usize::MAX)));
    assert!(is_refused(|| theirs.read(words - 1, 9, &mut Vec::new())));
    assert!(is_refused(|| theirs.read(words + 1, 0, &mut Vec::new())));
    assert!(is_refused(|| theirs.read(0, usize::MAX, &mut Vec::new())));
    assert!(is_refused(|| ours.store(words, 1, Ordering::Release)));
    assert!(is_refused(|| ours.put(words, 1)));
    assert!(is_refused(|| ours.write(words - 1, &[0; 9])));
    assert_eq!(theirs.get(ack::CONSUMED), 0);
}

/// A page of the header, a page of the ring, and the ack memory: the rest of the header region is a hole.
#[test]
fn an_idle_channel_takes_three_pages() {
    let capacity = 64 * smallest_capacity();
    let (data, ack) = (Memfd::data(capacity), Memfd::ack());
    let mut producer = Producer::new(data.writable(), ack.read_only(), capacity, Mode::Lossless);
    let mut consumer = Consumer::new(data.read_only(), ack.writable(), capacity, Mode::Lossless).unwrap();
    producer.push(Head { time: Some(1), ..Head::MESSAGE }, b"the only one").unwrap();
    assert!(consumer.pop(&mut Vec::new()).unwrap().is_some());
    consumer.consume();
    consumer.note_latency(1_000);
    producer.close();
    assert_eq!(consumer.arm(), Armed::Awake, "the sender has left");
    let pages = [data, ack].map(|memory| memory.allocated_bytes().div_ceil(smallest_capacity()));
    assert!(pages[0] <= 2 && pages[1] <= 1, "{pages:?} pages");
}
