//! A queue that does what the ring must do, and random steps to compare the two.

use std::collections::VecDeque;

use librpc_ring::layout::{self, ack};
use librpc_ring::{Consumer, Counters, Head, Kind, Mode, Producer, PushError, outstanding};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::plain::Plain;

pub(crate) type Sender = Producer<Plain, Plain>;
pub(crate) type Receiver = Consumer<Plain, Plain>;

pub(crate) fn ring(capacity: u64, mode: Mode) -> (Sender, Receiver, Plain, Plain) {
    let (data, ack) = (Plain::data(capacity), Plain::ack());
    let sender = Producer::new(data.clone(), ack.clone(), capacity, mode);
    let receiver = Consumer::new(data.clone(), ack.clone(), capacity, mode).expect("the header just written");
    (sender, receiver, data, ack)
}

pub(crate) fn capacity() -> impl Strategy<Value = u64> {
    select(vec![layout::MIN_CAPACITY, 1024, 4096])
}

pub(crate) fn head() -> impl Strategy<Value = Head> {
    prop_oneof![3 => any_head(), 1 => head_of_call()]
}

/// As nearly all records of calls have it.
fn head_of_call() -> impl Strategy<Value = Head> {
    let kinds = vec![Kind::Request, Kind::Reply, Kind::Part, Kind::End, Kind::Cancel];
    (select(kinds), any::<u64>(), option::of(any::<u64>())).prop_map(|(kind, correlation, deadline)| Head {
        correlation: Some(correlation),
        deadline,
        ..Head::of(kind)
    })
}

fn any_head() -> impl Strategy<Value = Head> {
    let word = || option::of(any::<u64>());
    (select(Kind::ALL.to_vec()), [word(), word(), word(), word()], any::<[bool; 2]>()).prop_map(
        |(kind, words, [redelivered, past])| {
            let [time, topic, correlation, deadline] = words;
            Head { lent: false, kind, time, topic, correlation, deadline, redelivered, past }
        },
    )
}

/// The length of a payload, relative to the limit.
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
    Look,
    Pop,
    Consume,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (head(), length(), any::<u8>()).prop_map(|(head, length, seed)| Step::Push(head, length, seed)),
        1 => Just(Step::Look),
        5 => Just(Step::Pop),
        3 => Just(Step::Consume),
    ]
}

pub(crate) fn payload(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| seed.wrapping_add(at as u8)).collect()
}

/// The room that a record takes according to the layout, computed independently.
pub(crate) fn record_bytes(head: &Head, payload_bytes: usize) -> u64 {
    let words = 2
        + [head.time, head.topic, head.correlation, head.deadline].iter().flatten().count()
        + payload_bytes.div_ceil(8);
    8 * words as u64
}

/// One record in the reference.
pub(crate) struct Sent {
    pub(crate) head: Head,
    pub(crate) payload: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) size: u64,
}

/// The reference: what is in the ring, the positions, and what was counted.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) untaken: VecDeque<Sent>,
    pub(crate) pushed: u64,
    pub(crate) pushed_bytes: u64,
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) processed: u64,
    pub(crate) committed: u64,
    pub(crate) taken: u64,
    pub(crate) consumed: u64,
    pub(crate) deepest: u64,
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
        let (sender, receiver, data, ack) = ring(capacity, Mode::Lossless);
        Self { sender, receiver, data, ack, queue: Queue::default() }
    }

    /// Goes round an empty ring this many times.
    pub(crate) fn go_round(&mut self, laps: u64) {
        let capacity = self.sender.capacity();
        let longest = Head { time: Some(1), topic: Some(2), correlation: Some(3), deadline: Some(4), ..Head::MESSAGE };
        while self.queue.committed / capacity < laps {
            self.push(longest, &payload(layout::max_payload_bytes(capacity, Mode::Lossless) as usize, 0));
            self.pop();
            self.consume();
        }
    }

    pub(crate) fn push(&mut self, head: Head, payload: &[u8]) {
        let (capacity, queue) = (self.sender.capacity(), &self.queue);
        let max = layout::max_payload_bytes(capacity, Mode::Lossless) as usize;
        let size = record_bytes(&head, payload.len());
        let expected = if payload.len() > max {
            Err(PushError::TooLarge { bytes: payload.len(), max })
        } else if queue.committed + size + 8 > queue.consumed + capacity {
            Err(PushError::Full { room_at: queue.committed + size + 8 - capacity })
        } else {
            Ok(queue.pushed)
        };
        match self.pushes_of_call(head, payload) {
            true => assert_eq!(expected, Ok(self.queue.pushed)),
            false => assert_eq!(self.sender.push(head, payload), expected),
        }
        let queue = &mut self.queue;
        if let Ok(sequence) = expected {
            queue.untaken.push_back(Sent { head, payload: payload.to_vec(), sequence, size });
            if head.kind.is_counted() {
                queue.pushed += 1;
                queue.pushed_bytes += payload.len() as u64;
            }
            queue.committed += size;
            queue.deepest = queue.deepest.max(queue.committed - queue.consumed);
        }
    }

    /// On the fast path, where that takes it.
    fn pushes_of_call(&mut self, head: Head, payload: &[u8]) -> bool {
        let Some(correlation) = head.correlation else { return false };
        let of_call = Head { correlation: Some(correlation), deadline: head.deadline, ..Head::of(head.kind) };
        head == of_call && self.sender.push_of_call(head.kind, correlation, head.deadline, payload)
    }

    pub(crate) fn look(&self) {
        assert_eq!(self.receiver.has_record(), !self.queue.untaken.is_empty());
    }

    pub(crate) fn pop(&mut self) {
        let mut found = b"before it".to_vec();
        // Not taken here, whatever it is.
        assert_eq!(self.receiver.pop_of_call(&mut found, |_| false), None);
        let record = self.receiver.pop(&mut found).expect("an honest sender");
        let Some(sent) = self.queue.untaken.pop_front() else {
            assert_eq!((record, &*found), (None, &b"before it"[..]));
            return;
        };
        let record = record.expect("it was pushed");
        assert_eq!((record.head, record.sequence, record.missed), (sent.head, sent.sequence, 0));
        assert_eq!(record.payload_bytes, sent.payload.len());
        assert_eq!(found.strip_prefix(b"before it"), Some(&*sent.payload));
        self.queue.taken += sent.size;
        if sent.head.kind.is_counted() {
            self.queue.received += 1;
            self.queue.received_bytes += sent.payload.len() as u64;
        }
    }

    pub(crate) fn consume(&mut self) {
        self.receiver.consume();
        self.queue.consumed = self.queue.taken;
        self.queue.processed = self.queue.received;
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Push(head, length, seed) => {
                let bytes = length.bytes(layout::max_payload_bytes(self.sender.capacity(), Mode::Lossless) as usize);
                self.push(head, &payload(bytes, seed));
            }
            Step::Look => self.look(),
            Step::Pop => self.pop(),
            Step::Consume => self.consume(),
        }
        self.check();
    }

    pub(crate) fn check(&self) {
        let Queue { committed, taken, consumed, pushed, received, .. } = self.queue;
        assert!(consumed <= taken && taken <= committed && committed <= consumed + self.sender.capacity() - 8);
        assert_eq!((self.sender.committed(), self.sender.sequence()), (committed, pushed));
        assert_eq!(self.sender.chunk(), 0);
        assert_eq!(self.receiver.received(), received);
        assert_eq!(self.receiver.has_unconsumed(), consumed != taken);
        assert_eq!([ack::CONSUMED, ack::TAKEN].map(|word| self.ack.cell(word).get()), [consumed, taken]);

        let counters = Counters::read(&self.data, &self.ack);
        assert_eq!((self.sender.counters(), self.receiver.counters()), (counters.sender, counters.receiver));
        assert_eq!((counters.sender.committed, counters.sender.messages), (committed, pushed));
        assert_eq!((counters.receiver.received, counters.receiver.processed), (received, self.queue.processed));
        assert_eq!(
            (counters.sender.bytes, counters.receiver.bytes),
            (self.queue.pushed_bytes, self.queue.received_bytes)
        );
        assert_eq!((counters.receiver.missed, counters.queued()), (0, pushed - self.queue.processed));
        // A depth below a sixteenth may go unnoticed.
        let (deepest, seen) = (self.queue.deepest, counters.sender.depth_max);
        assert!(seen == deepest || (seen < deepest && deepest <= self.sender.capacity() / 16), "{seen} of {deepest}");
    }

    /// Makes the sender read the receiver's position, which it otherwise does only if the ring seems full.
    pub(crate) fn check_what_the_sender_sees(&mut self) {
        let unprocessed = self.queue.pushed - self.queue.processed;
        assert_eq!(self.sender.outstanding(), Ok(unprocessed));
        assert_eq!(self.sender.consumed(), Ok(self.queue.consumed));
        let depth = self.queue.committed - self.queue.consumed;
        assert_eq!(self.sender.depth(), Ok(depth));
        assert!(self.sender.counters().depth_max >= depth, "the greatest depth is at least the present one");
        assert_eq!(outstanding(&self.data, &self.ack), unprocessed);
    }
}
