//! What the ring must do, as a queue does it, and steps at random to compare the two by.

use std::collections::VecDeque;

use librpc_ring::layout::{self, ack, data};
use librpc_ring::{Consumer, Head, Kind, Producer, PushError, Record, outstanding};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::plain::Plain;

pub(crate) type Sender = Producer<Plain, Plain>;
pub(crate) type Receiver = Consumer<Plain, Plain>;

pub(crate) fn ring(capacity: u64) -> (Sender, Receiver, Plain, Plain) {
    let (data, ack) = (Plain::data(capacity), Plain::ack());
    let sender = Producer::new(data.clone(), ack.clone(), capacity);
    let receiver = Consumer::new(data.clone(), ack.clone(), capacity).expect("the header just written");
    (sender, receiver, data, ack)
}

pub(crate) fn capacity() -> impl Strategy<Value = u64> {
    select(vec![layout::MIN_CAPACITY, 512, 1024, 4096])
}

pub(crate) fn head() -> impl Strategy<Value = Head> {
    let kind = select(vec![Kind::Message, Kind::Topic, Kind::Request, Kind::Reply]);
    let word = || option::of(any::<u64>());
    (kind, word(), word(), word(), any::<bool>()).prop_map(|(kind, time, topic, correlation, redelivered)| Head {
        kind,
        time,
        topic,
        correlation,
        redelivered,
    })
}

/// How long a payload is, when the limit is known.
#[derive(Clone, Debug)]
pub(crate) enum Length {
    UpTo(Index),
    Longest,
    Over(usize),
}

impl Length {
    pub(crate) fn bytes(&self, max: usize) -> usize {
        match self {
            Self::UpTo(index) => index.index(max + 1),
            Self::Longest => max,
            Self::Over(by) => max + by,
        }
    }
}

pub(crate) fn length() -> impl Strategy<Value = Length> {
    prop_oneof![
        8 => any::<Index>().prop_map(Length::UpTo),
        2 => Just(Length::Longest),
        1 => select(vec![1, 8, 1 << 20]).prop_map(Length::Over),
    ]
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Push(Head, Length, u8),
    Peek,
    Take,
    Consume,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (head(), length(), any::<u8>()).prop_map(|(head, length, seed)| Step::Push(head, length, seed)),
        1 => Just(Step::Peek),
        5 => Just(Step::Take),
        3 => Just(Step::Consume),
    ]
}

pub(crate) fn payload(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| seed.wrapping_add(at as u8)).collect()
}

/// What the layout says a record takes, worked out once more.
pub(crate) fn record_bytes(head: &Head, payload_bytes: usize) -> u64 {
    let words = 2 + [head.time, head.topic, head.correlation].iter().flatten().count() + payload_bytes.div_ceil(8);
    8 * words as u64
}

/// The reference: what is in the ring, and the positions.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) untaken: VecDeque<(Head, Vec<u8>, u64)>,
    pub(crate) unconsumed: u64,
    pub(crate) pushed: u64,
    pub(crate) committed: u64,
    pub(crate) taken: u64,
    pub(crate) consumed: u64,
}

pub(crate) struct Both {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) data: Plain,
    pub(crate) ack: Plain,
    pub(crate) queue: Queue,
}

impl Both {
    pub(crate) fn new(capacity: u64) -> Self {
        let (sender, receiver, data, ack) = ring(capacity);
        Self { sender, receiver, data, ack, queue: Queue::default() }
    }

    /// Goes round an empty ring this often.
    pub(crate) fn go_round(&mut self, laps: u64) {
        let capacity = self.sender.capacity();
        let longest = Head { time: Some(1), topic: Some(2), correlation: Some(3), ..Head::MESSAGE };
        while self.queue.committed / capacity < laps {
            self.push(longest, &payload(layout::max_payload_bytes(capacity) as usize, 0));
            self.take();
            self.consume();
        }
    }

    pub(crate) fn push(&mut self, head: Head, payload: &[u8]) {
        let (capacity, queue) = (self.sender.capacity(), &mut self.queue);
        let max = layout::max_payload_bytes(capacity) as usize;
        let size = record_bytes(&head, payload.len());
        let expected = if payload.len() > max {
            Err(PushError::TooLarge { bytes: payload.len(), max })
        } else if queue.committed + size + 8 > queue.consumed + capacity {
            Err(PushError::Full { room_at: queue.committed + size + 8 - capacity })
        } else {
            Ok(queue.pushed)
        };
        assert_eq!(self.sender.push(head, payload), expected);
        if expected.is_ok() {
            queue.untaken.push_back((head, payload.to_vec(), size));
            queue.unconsumed += 1;
            queue.pushed += 1;
            queue.committed += size;
        }
    }

    pub(crate) fn peek(&self) -> Option<Record> {
        let record = self.receiver.peek().expect("an honest sender");
        assert_eq!(self.receiver.peek(), Ok(record), "a look changes nothing");
        let found = record.map(|record| (record.head, record.payload_bytes, record.sequence));
        let next = self.queue.pushed - self.queue.untaken.len() as u64;
        assert_eq!(found, self.queue.untaken.front().map(|(head, payload, _)| (*head, payload.len(), next)));
        record
    }

    pub(crate) fn take(&mut self) {
        let Some(record) = self.peek() else { return };
        let mut found = b"in front of it".to_vec();
        self.receiver.take(&record, &mut found);
        let (_, payload, size) = self.queue.untaken.pop_front().expect("as peek has checked");
        assert_eq!(found.strip_prefix(b"in front of it"), Some(&*payload));
        self.queue.taken += size;
    }

    pub(crate) fn consume(&mut self) {
        self.receiver.consume();
        self.queue.unconsumed = self.queue.untaken.len() as u64;
        self.queue.consumed = self.queue.taken;
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Push(head, length, seed) => {
                let bytes = length.bytes(layout::max_payload_bytes(self.sender.capacity()) as usize);
                self.push(head, &payload(bytes, seed));
            }
            Step::Peek => drop(self.peek()),
            Step::Take => self.take(),
            Step::Consume => self.consume(),
        }
        self.check();
    }

    pub(crate) fn check(&self) {
        let Queue { committed, taken, consumed, pushed, .. } = self.queue;
        assert!(consumed <= taken && taken <= committed && committed <= consumed + self.sender.capacity() - 8);
        let received = pushed - self.queue.untaken.len() as u64;
        assert_eq!((self.sender.committed(), self.sender.sequence()), (committed, pushed));
        assert_eq!(self.receiver.received(), received);
        assert_eq!(self.receiver.has_unconsumed(), consumed != taken);
        let words = |memory: &Plain, words: [usize; 2]| words.map(|word| memory.cell(word).get());
        assert_eq!(words(&self.data, [data::COMMITTED, data::SEQUENCE]), [committed, pushed]);
        assert_eq!(words(&self.ack, [ack::CONSUMED, ack::TAKEN]), [consumed, taken]);
        assert_eq!(self.ack.cell(ack::RECEIVED).get(), received);
    }

    /// Makes the sender look at the receiver's position, which it otherwise does on a full ring only.
    pub(crate) fn check_what_the_sender_sees(&mut self) {
        assert_eq!(self.sender.outstanding(), Ok(self.queue.unconsumed));
        assert_eq!(self.sender.consumed(), Ok(self.queue.consumed));
        assert_eq!(outstanding(&self.data, &self.ack, self.sender.capacity()), self.queue.unconsumed);
    }
}
