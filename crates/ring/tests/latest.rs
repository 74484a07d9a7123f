//! Mode Latest compared with a list of everything that was sent: what a receiver gets, skips and counts, in every order
//! of the steps of both sides.

mod plain;
#[allow(dead_code, reason = "the queue is the other mode's reference")]
mod reference;
mod stepped;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{self, ack, data};
use librpc_ring::{Armed, Consumer, Counters, Head, Kind, Memory, Mode, Producer, PushError, outstanding};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use plain::Plain;
use reference::{Length, Receiver, Sender, Step, capacity, payload, record_bytes, ring, step};
use stepped::Stepped;

struct Sent {
    start: u64,
    head: Head,
    payload: Vec<u8>,
    sequence: u64,
}

/// Both sides, and what must be true of them.
struct Both {
    sender: Sender,
    receiver: Receiver,
    data: Plain,
    ack: Plain,
    all: Vec<Sent>,
    messages: u64,
    committed: u64,
    intent: u64,
    mark: u64,
    position: u64,
    taken: u64,
    consumed: u64,
    next: u64,
    received: u64,
    processed: u64,
    missed: u64,
    deepest: u64,
}

impl Both {
    fn new(capacity: u64) -> Self {
        let (sender, receiver, data, ack) = ring(capacity, Mode::Latest);
        let (messages, committed, intent, mark, position, taken, consumed) = (0, 0, 0, 0, 0, 0, 0);
        let (next, received, processed, missed, deepest, all) = (0, 0, 0, 0, 0, Vec::new());
        Self {
            sender,
            receiver,
            data,
            ack,
            all,
            messages,
            committed,
            intent,
            mark,
            position,
            taken,
            consumed,
            next,
            received,
            processed,
            missed,
            deepest,
        }
    }

    fn chunk(&self) -> u64 {
        self.sender.capacity() / 8
    }

    fn depth(&self) -> u64 {
        (self.committed - self.consumed).min(self.sender.capacity())
    }

    fn push(&mut self, head: Head, payload: Vec<u8>) {
        let max = layout::max_payload_bytes(self.sender.capacity(), Mode::Latest) as usize;
        let result = self.sender.push(head, &payload);
        if payload.len() > max {
            return assert_eq!(result, Err(PushError::TooLarge { bytes: payload.len(), max }));
        }
        assert_eq!(result, Ok(self.messages), "never full");
        let start = self.committed;
        if start / self.chunk() != self.mark / self.chunk() {
            self.mark = start;
        }
        self.committed += record_bytes(&head, payload.len());
        self.intent = self.intent.max((self.committed + 8).next_multiple_of(self.chunk()));
        self.all.push(Sent { start, head, payload, sequence: self.messages });
        self.messages += u64::from(head.kind.is_counted());
        self.deepest = self.deepest.max(self.depth());
    }

    fn pop(&mut self) {
        let mut found = b"before it".to_vec();
        let record = self.receiver.pop(&mut found).expect("an honest sender");
        if self.intent > self.position + self.sender.capacity() {
            self.position = self.mark;
        }
        let Ok(sent) = self.all.binary_search_by_key(&self.position, |sent| sent.start) else {
            assert_eq!(self.position, self.committed);
            return assert_eq!((record, &*found), (None, &b"before it"[..]));
        };
        let (sent, record) = (&self.all[sent], record.expect("it was pushed"));
        assert_eq!(
            (record.head, record.sequence, record.missed),
            (sent.head, sent.sequence, sent.sequence - self.next)
        );
        assert_eq!(found.strip_prefix(b"before it"), Some(&*sent.payload));
        let is_message = u64::from(sent.head.kind.is_counted());
        self.position += record_bytes(&sent.head, sent.payload.len());
        self.taken = self.position;
        self.missed += sent.sequence - self.next;
        self.received += is_message;
        self.next = sent.sequence + is_message;
    }

    fn consume(&mut self) {
        self.receiver.consume();
        (self.consumed, self.processed) = (self.taken, self.received);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push(head, length, seed) => {
                let max = layout::max_payload_bytes(self.sender.capacity(), Mode::Latest) as usize;
                self.push(head, payload(length.bytes(max), seed));
            }
            Step::Look => {
                let has_record = self.position < self.committed;
                assert_eq!(self.receiver.has_record(), has_record);
                assert_eq!(self.receiver.arm(), if has_record { Armed::Awake } else { Armed::Sleep });
            }
            Step::Pop => self.pop(),
            Step::Consume => self.consume(),
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!([data::INTENT, data::MARK].map(|word| self.data.cell(word).get()), [self.intent, self.mark]);
        assert_eq!([ack::CONSUMED, ack::TAKEN].map(|word| self.ack.cell(word).get()), [self.consumed, self.taken]);
        assert_eq!(self.sender.chunk(), self.committed / self.chunk());
        assert_eq!(self.receiver.has_unconsumed(), self.consumed != self.taken);
        let Counters { sender, receiver, .. } = Counters::read(&self.data, &self.ack);
        assert_eq!((self.sender.counters(), self.receiver.counters()), (sender, receiver));
        assert_eq!((sender.committed, sender.messages), (self.committed, self.messages));
        assert_eq!((receiver.received, receiver.processed), (self.received, self.processed));
        assert_eq!(receiver.missed, self.missed);
        let (deepest, seen) = (self.deepest, sender.depth_max);
        assert!(seen == deepest || (seen < deepest && deepest <= self.sender.capacity() / 16), "{seen} of {deepest}");
    }

    fn check_what_the_sender_sees(&mut self) {
        let left = if self.consumed == self.committed { 0 } else { self.messages - self.processed - self.missed };
        assert_eq!(self.sender.outstanding(), Ok(left));
        assert_eq!(outstanding(&self.data, &self.ack), left);
        assert_eq!(self.sender.consumed(), Ok(self.consumed));
        assert_eq!(self.sender.depth(), Ok(self.depth()));
        assert!(self.sender.counters().depth_max >= self.depth(), "the greatest depth is at least the present one");
    }

    /// Reads everything that is left. Afterwards every message was processed or missed, and a flush would end.
    fn rest(&mut self) {
        while self.position < self.committed {
            self.step(Step::Pop);
        }
        self.step(Step::Consume);
        assert_eq!((self.consumed, self.processed + self.missed), (self.committed, self.messages));
        let counters = Counters::read(&self.data, &self.ack);
        assert_eq!(counters.queued(), 0);
    }
}

proptest! {
    /// Equal contents, order, numbers, gaps, positions and counters after each step. No step finds the ring full.
    #[test]
    fn the_ring_shows_the_latest(capacity in capacity(), steps in vec(step(), 0..600), sender_looks: bool) {
        let mut both = Both::new(capacity);
        for step in steps {
            both.step(step);
            if sender_looks {
                both.check_what_the_sender_sees();
            }
        }
        both.check_what_the_sender_sees();
        both.rest();
        both.check_what_the_sender_sees();
    }

    /// The ring becomes high with the push that reaches the mark, although the depth never exceeds the capacity.
    #[test]
    fn the_high_water_mark_is_reported(capacity in capacity(), mark in 1..1100u64, steps in vec(step(), 0..400)) {
        let mut both = Both::new(capacity);
        both.sender.set_high_water(Some(mark));
        let mut is_high = false;
        for step in steps {
            both.step(step);
            let depth = both.depth();
            is_high = if is_high { depth > mark / 2 } else { depth >= mark };
            prop_assert_eq!(both.sender.is_high(), is_high, "depth {} at mark {}", depth, mark);
        }
    }

    /// A receiver that forgets all topics whenever it skips something still knows the topic of each message that it gets, if the
    /// sender declares topics as `Producer::chunk` says.
    #[test]
    fn each_topic_is_declared_where_a_receiver_continues(
        capacity in capacity(),
        steps in vec(prop_oneof![3 => (0..5u64).prop_map(Some), 1 => Just(None)], 0..800),
    ) {
        let (mut sender, mut receiver, _, ack) = ring(capacity, Mode::Latest);
        let mut declared_in = [None; 5];
        let mut known = HashSet::new();
        let mut skipped = 0;
        for step in steps {
            if let Some(topic) = step {
                while declared_in[topic as usize] != Some(sender.chunk()) {
                    let chunk = sender.chunk();
                    sender.push(Head { topic: Some(topic), ..Head::of(Kind::Topic) }, b"").unwrap();
                    declared_in[topic as usize] = Some(chunk);
                }
                let payload = vec![7; (topic * 8).min(layout::max_payload_bytes(capacity, Mode::Latest)) as usize];
                sender.push(Head { topic: Some(topic), ..Head::MESSAGE }, &payload).unwrap();
                continue;
            }
            let before = ack.cell(ack::TAKEN).get();
            let Some(record) = receiver.pop(&mut Vec::new()).unwrap() else { continue };
            if ack.cell(ack::TAKEN).get() - before != record_bytes(&record.head, record.payload_bytes) {
                skipped += 1;
                known.clear();
            }
            let topic = record.head.topic.unwrap();
            if record.head.kind == Kind::Topic {
                known.insert(topic);
            }
            prop_assert!(known.contains(&topic), "message {} on topic {}", record.sequence, topic);
        }
        // This is what the test is about.
        prop_assume!(skipped > 0);
    }
}

/// A sender whose receiver pops this often after each store.
fn watched(pops: impl Iterator<Item = usize> + 'static) -> Producer<Stepped, Plain> {
    let (_, receiver, memory, ack) = ring(1024, Mode::Latest);
    let (receiver, pops) = (RefCell::new(receiver), RefCell::new(pops));
    let step = Rc::new(move || {
        for _ in 0..pops.borrow_mut().next().unwrap_or(0) {
            let mut payload = Vec::new();
            if let Some(record) = receiver.borrow_mut().pop(&mut payload).expect("an honest sender") {
                assert_eq!(payload, payload_of(record.sequence, record.payload_bytes), "torn");
            }
        }
    });
    Producer::new(Stepped { memory, step }, ack, 1024, Mode::Latest)
}

proptest! {
    /// Whatever an honest sender has stored, its receiver finds a record or nothing: also while the sender is at work, and when it
    /// makes the receiver skip everything.
    #[test]
    fn an_honest_sender_is_never_corrupt(
        pushes in vec(option::weighted(0.95, 0..60usize), 1..300),
        pops in vec((0..200usize, 1..4usize), 1..20),
    ) {
        let pops = pops.into_iter().flat_map(|(idle, pops)| std::iter::repeat_n(0, idle).chain([pops]));
        let mut sender = watched(pops);
        for bytes in pushes {
            match bytes {
                Some(bytes) => drop(sender.push(Head::MESSAGE, &payload_of(sender.sequence(), bytes)).unwrap()),
                None => sender.skip_all(),
            }
        }
    }
}

/// A lap after everything was skipped, the receiver is still where it was to continue, or has taken one message since. It looks
/// again after any one store of the sender, which overtakes it there.
#[test]
fn a_receiver_that_was_made_to_skip_may_be_overtaken() {
    for (look, takes) in (1..500).flat_map(|look| [(look, false), (look, true)]) {
        let stores = Rc::new(Cell::new(1000));
        let counted = stores.clone();
        let mut sender = watched(std::iter::from_fn(move || {
            let store = counted.replace(counted.get() + 1);
            Some(usize::from(store == 0 || (store == 40 && takes) || store == look))
        }));
        for number in 0..80 {
            sender.push(Head::MESSAGE, &payload_of(number, 48)).unwrap();
            // The ring was full once, so no push looks at the depth. A chunk begins here.
            if number == 43 {
                sender.skip_all();
                stores.set(0);
                sender.note_dropped(); // the receiver looks
            }
        }
    }
}

fn payload_of(number: u64, bytes: usize) -> Vec<u8> {
    payload(bytes, number as u8)
}

/// One call skips everything that was overwritten, however often the sender has gone round.
#[test]
fn a_late_receiver_skips_everything_in_one_call() {
    let mut both = Both::new(4096);
    for number in 0..100_000u64 {
        both.push(Head { correlation: Some(number), ..Head::MESSAGE }, Vec::new());
    }
    both.step(Step::Pop);
    assert!(both.missed > 99_000 && both.missed < 99_999, "{}", both.missed);
    both.rest();
    both.step(Step::Push(Head::MESSAGE, Length::Longest, 1));
    both.step(Step::Look);
    both.rest();
}

/// A sender that overtakes its receiver again at each look.
struct Overtakes {
    looks: Cell<u64>,
}

impl Memory for Overtakes {
    fn load(&self, word: usize, _: Ordering) -> u64 {
        const LAP: u64 = 2 * 4096;
        match word {
            data::INTENT => {
                self.looks.set(self.looks.get() + 1);
                assert!(self.looks.get() <= 2, "a call looks without end");
                (self.looks.get() + 1) * LAP
            }
            data::MARK => self.looks.get() * LAP,
            _ => 0,
        }
    }

    fn get(&self, word: usize) -> u64 {
        match word {
            data::MAGIC => layout::DATA_MAGIC,
            data::VERSION => layout::VERSION,
            data::CAPACITY => 4096,
            data::MODE => Mode::Latest.word(),
            _ => 0,
        }
    }

    fn read(&self, _: usize, _: usize, _: &mut Vec<u8>) {}

    fn fence(&self, _: Ordering) {}
}

#[test]
fn a_receiver_that_is_overtaken_at_each_look_gives_up_for_now() {
    let sender = Overtakes { looks: Cell::new(0) };
    let mut receiver = Consumer::new(sender, Plain::ack(), 4096, Mode::Latest).unwrap();
    assert_eq!(receiver.pop(&mut Vec::new()), Ok(None));
}

#[test]
fn the_fast_paths_are_only_for_lossless_rings() {
    let mut both = Both::new(4096);
    // A new ring's first push takes the slow path in any mode. The second one would not.
    both.push(Head::MESSAGE, b"may be overwritten".to_vec());
    assert!(!both.sender.push_plain(None, b"overwrites"));
    both.check();
    assert_eq!(both.receiver.pop_plain(&mut Vec::new(), |_| true), None);
}

/// At a new chunk, the sender must not use the depth from when it last read the receiver's position.
#[test]
fn the_greatest_depth_is_never_overstated() {
    let mut both = Both::new(512);
    both.sender.set_high_water(Some(33));
    for _ in 0..100 {
        both.push(Head::MESSAGE, Vec::new());
        both.check();
        both.step(Step::Pop);
        both.step(Step::Consume);
    }
}
