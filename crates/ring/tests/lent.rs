//! Lent payloads compared with a plain model of who still needs which memory: inline and lent messages in any order, kept, let go,
//! taken back, skipped, in both modes.

mod plain;
#[allow(dead_code, reason = "not all of the steps of the other tests are needed")]
mod reference;

use std::collections::BTreeMap;

use librpc_ring::layout::{self, ack, data};
use librpc_ring::{Claim, Head, Holds, Kind, Lent, Mode, PushError, held, release};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use plain::Plain;
use reference::{Receiver, Sender, head, payload, record_bytes, ring};

#[derive(Clone, Debug)]
enum Step {
    Push(Head, usize),
    Lend(Head, u64),
    SkipAll,
    Pop,
    /// Takes back what was popped just before.
    Untake,
    LetGo,
    Keep,
    /// The hold that was kept at this place of the list, if there are that many.
    Release(usize),
    Consume,
    /// What a successor of the receiver would get.
    Unprocessed,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => 0..100u64, 1 => any::<u64>()];
    prop_oneof![
        4 => (head(), 0..60usize).prop_map(|(head, bytes)| Step::Push(head, bytes)),
        5 => (head(), bytes).prop_map(|(head, bytes)| Step::Lend(head, bytes)),
        1 => Just(Step::SkipAll),
        7 => Just(Step::Pop),
        1 => Just(Step::Untake),
        1 => Just(Step::LetGo),
        3 => Just(Step::Keep),
        3 => (0..4usize).prop_map(Step::Release),
        4 => Just(Step::Consume),
        1 => Just(Step::Unprocessed),
    ]
}

/// A record that was pushed.
struct Sent {
    head: Head,
    number: u64,
    begin: u64,
    end: u64,
    /// What the ring has.
    payload: Vec<u8>,
    /// What is counted.
    bytes: u64,
    /// Its claim, and the memory that it lends.
    lent: Option<(Claim, usize)>,
}

struct Both {
    sender: Sender,
    receiver: Receiver,
    data: Plain,
    ack: Plain,
    mode: Mode,
    all: Vec<Sent>,
    /// The numbers of the messages whose payloads are in these memories.
    memories: Vec<u64>,
    messages: u64,
    committed: u64,
    bytes: u64,
    intent: u64,
    mark: u64,
    marked_chunk: u64,
    position: u64,
    taken: u64,
    consumed: u64,
    /// The number after that of the last message.
    next: u64,
    received: u64,
    received_bytes: u64,
    missed: u64,
    /// The indexes of the records that are held: what was popped last, and what was kept.
    current: Option<usize>,
    kept: BTreeMap<usize, usize>,
    /// The index of the record that was popped in the last step.
    popped: Option<usize>,
}

impl Both {
    fn new(capacity: u64, mode: Mode) -> Self {
        let (sender, receiver, data, ack) = ring(capacity, mode);
        let (all, memories, current, kept, popped) = Default::default();
        let (messages, committed, bytes, intent, mark, marked_chunk) = Default::default();
        let (position, taken, consumed, next, received, received_bytes, missed) = Default::default();
        Self {
            sender,
            receiver,
            data,
            ack,
            mode,
            all,
            memories,
            messages,
            committed,
            bytes,
            intent,
            mark,
            marked_chunk,
            position,
            taken,
            consumed,
            next,
            received,
            received_bytes,
            missed,
            current,
            kept,
            popped,
        }
    }

    fn capacity(&self) -> u64 {
        self.sender.capacity()
    }

    fn is_overwritten(&self, begin: u64) -> bool {
        self.mode == Mode::Latest && self.intent > begin + self.capacity()
    }

    fn is_held(&self, record: usize) -> bool {
        self.current == Some(record) || self.kept.values().any(|kept| *kept == record)
    }

    /// What a push of such a record must return.
    fn expected(&self, head: &Head, in_ring: usize) -> Result<(), PushError> {
        let max = layout::max_payload_bytes(self.capacity(), self.mode) as usize;
        let end = self.committed + record_bytes(head, in_ring) + 8;
        if in_ring > max {
            Err(PushError::TooLarge { bytes: in_ring, max })
        } else if self.mode == Mode::Lossless && end > self.consumed + self.capacity() {
            Err(PushError::Full { room_at: end - self.capacity() })
        } else {
            Ok(())
        }
    }

    fn pushed(&mut self, head: Head, payload: Vec<u8>, bytes: u64, lent: Option<(Claim, usize)>) {
        let (begin, number) = (self.committed, self.messages);
        let end = begin + record_bytes(&head, payload.len());
        let chunk = self.capacity() / 8;
        if begin / chunk != self.marked_chunk {
            (self.mark, self.marked_chunk) = (begin, begin / chunk);
        }
        if end + 8 > self.intent {
            self.intent = (end + 8).next_multiple_of(chunk);
        }
        self.committed = end;
        if head.kind.is_counted() {
            self.messages += 1;
            self.bytes = self.bytes.wrapping_add(bytes);
        }
        self.all.push(Sent { head, number, begin, end, payload, bytes, lent });
    }

    fn push(&mut self, head: Head, bytes: usize) {
        let payload = payload(bytes, 7);
        let expected = self.expected(&head, bytes);
        assert_eq!(self.sender.push(head, &payload), expected.map(|()| self.messages));
        if expected.is_ok() {
            self.pushed(head, payload, bytes as u64, None);
        }
    }

    /// Lends memory that is released, or new memory.
    fn lend(&mut self, head: Head, bytes: u64) {
        let kind = if head.kind.is_counted() { head.kind } else { Kind::Message };
        let head = Head { kind, ..head };
        let in_use: Vec<_> = self.all.iter().filter_map(|sent| sent.lent.as_ref()).collect();
        let is_free = |memory: &usize| {
            let mut claims = in_use.iter().filter(|(_, of)| of == memory);
            claims.all(|(claim, _)| claim.is_released(&self.data, &self.ack))
        };
        let memory = (0..self.memories.len()).find(is_free).unwrap_or(self.memories.len());
        let lent = Lent { segment: memory as u64, offset: self.messages, bytes };
        let (expected, begin) = (self.expected(&head, Lent::BYTES), self.committed);
        let claim = match (self.sender.push_lent(head, &lent), expected) {
            (Ok(claim), Ok(())) => claim,
            (found, expected) => return assert_eq!(found.map(|_| ()), expected),
        };
        let head = Head { lent: true, ..head };
        self.memories.resize(self.memories.len().max(memory + 1), 0);
        self.memories[memory] = self.messages;
        self.pushed(head, lent.encode().to_vec(), bytes, Some((claim, memory)));
        assert_eq!((claim.sequence, claim.begin, claim.end), (self.messages - 1, begin, self.committed));
    }

    fn skip_all(&mut self) {
        let chunk = self.sender.chunk();
        self.sender.skip_all();
        assert_eq!(self.sender.chunk() != chunk, self.mode == Mode::Latest, "topics must be declared again");
        self.mark = self.committed;
        self.intent = self.intent.max(self.committed + self.capacity());
    }

    fn pop(&mut self) {
        let mut found = b"before it".to_vec();
        let record = self.receiver.pop(&mut found).expect("an honest sender");
        if self.is_overwritten(self.position) {
            self.position = self.mark;
            // What was there may have been held for a moment.
            if self.ack.cell(ack::HOLDS).get() == 0 {
                self.current = None;
            }
        }
        let Ok(index) = self.all.binary_search_by_key(&self.position, |sent| sent.begin) else {
            assert_eq!(self.position, self.committed);
            return assert_eq!((record, &*found), (None, &b"before it"[..]));
        };
        let (sent, record) = (&self.all[index], record.expect("it was pushed"));
        assert_eq!((record.head, record.sequence, record.missed), (sent.head, sent.number, sent.number - self.next));
        assert_eq!(found.strip_prefix(b"before it"), Some(&*sent.payload));
        (self.position, self.taken) = (sent.end, sent.end);
        self.missed += record.missed;
        self.next = sent.number;
        if sent.head.kind.is_counted() {
            self.next += 1;
            self.received += 1;
            self.received_bytes = self.received_bytes.wrapping_add(sent.bytes);
            self.popped = Some(index);
        }
        if sent.head.lent {
            self.current = Some(index);
        }
    }

    fn untake(&mut self, index: usize) {
        let sent = &self.all[index];
        self.receiver.untake(&sent.head, &sent.payload);
        (self.position, self.taken) = (sent.begin, sent.begin);
        self.next -= 1;
        self.received -= 1;
        self.received_bytes = self.received_bytes.wrapping_sub(sent.bytes);
        if sent.head.lent {
            self.current = None;
        }
    }

    fn keep(&mut self) {
        let Some(current) = self.current.filter(|current| self.all[*current].end > self.consumed) else { return };
        assert!(self.receiver.can_keep());
        let free = (1..).find(|hold| !self.kept.contains_key(hold)).expect("an endless range");
        assert_eq!(self.receiver.keep(), Some(free));
        self.kept.insert(free, current);
        self.current = None;
    }

    /// Exactly what was not processed, and where it is.
    fn check_unprocessed(&mut self) {
        let mut found = Vec::new();
        let lost = self.sender.unprocessed(|head, number, payload| found.push((head, number, payload.to_vec())));
        let is_kept =
            |sent: &&Sent| self.mode == Mode::Lossless && sent.begin >= self.consumed && sent.head.kind.is_counted();
        let expected: Vec<_> = (self.all.iter().filter(is_kept))
            .map(|sent| {
                let redelivered = sent.head.redelivered || sent.begin < self.taken;
                (Head { redelivered, ..sent.head }, sent.number, sent.payload.clone())
            })
            .collect();
        assert_eq!((found, lost), (expected, 0));
    }

    fn step(&mut self, step: Step) {
        let popped = self.popped.take();
        match step {
            Step::Push(head, bytes) => self.push(head, bytes),
            Step::Lend(head, bytes) => self.lend(head, bytes),
            Step::SkipAll => self.skip_all(),
            Step::Pop => self.pop(),
            Step::Untake => popped.into_iter().for_each(|index| self.untake(index)),
            Step::LetGo => {
                self.receiver.let_go();
                self.current = None;
            }
            Step::Keep => self.keep(),
            Step::Release(nth) => {
                if let Some(hold) = self.kept.keys().nth(nth).copied() {
                    release(&self.ack, hold);
                    self.kept.remove(&hold);
                }
            }
            Step::Consume => {
                self.receiver.consume();
                self.consumed = self.taken;
            }
            Step::Unprocessed => self.check_unprocessed(),
        }
        self.check();
    }

    fn check(&self) {
        assert_eq!(held(&self.ack), usize::from(self.current.is_some()) + self.kept.len());
        for (index, sent) in self.all.iter().enumerate() {
            let Some((claim, memory)) = &sent.lent else { continue };
            let is_consumed = sent.end <= self.consumed || self.is_overwritten(sent.begin);
            let is_needed = !is_consumed || self.is_held(index);
            assert_eq!(claim.is_consumed(&self.data, &self.ack), is_consumed, "message {}", sent.number);
            assert_eq!(claim.is_released(&self.data, &self.ack), !is_needed, "message {}", sent.number);
            let holds = Holds::of_receiver(claim, &self.data, &self.ack);
            assert_eq!(is_consumed && !holds.holds(claim), !is_needed, "message {}", sent.number);
            assert!(!is_needed || self.memories[*memory] == sent.number, "message {} is needed", sent.number);
        }
        let (sender, receiver) = (self.sender.counters(), self.receiver.counters());
        assert_eq!((sender.committed, sender.messages, sender.bytes), (self.committed, self.messages, self.bytes));
        assert_eq!(
            (receiver.received, receiver.missed, receiver.bytes),
            (self.received, self.missed, self.received_bytes)
        );
        assert_eq!(self.data.cell(data::BYTES).get(), self.bytes);
        assert_eq!(self.ack.cell(ack::BYTES_RECEIVED).get(), self.received_bytes);
        assert_eq!([ack::CONSUMED, ack::TAKEN].map(|word| self.ack.cell(word).get()), [self.consumed, self.taken]);
    }

    /// Takes, lets go and releases everything: all memory may be used again.
    fn rest(&mut self) {
        while self.position < self.committed {
            self.step(Step::Pop);
        }
        self.step(Step::Consume);
        self.step(Step::LetGo);
        while !self.kept.is_empty() {
            self.step(Step::Release(0));
        }
        let mut claims = self.all.iter().filter_map(|sent| sent.lent);
        assert!(claims.all(|(claim, _)| claim.is_released(&self.data, &self.ack)));
    }
}

proptest! {
    /// Memory is used again exactly when its message is consumed (or overwritten) and nothing holds it; counters count the lent
    /// bytes; a successor gets what was lent.
    #[test]
    fn memory_stays_as_it_is_while_it_is_needed(
        latest: bool,
        capacity in select(vec![layout::MIN_CAPACITY, 1024, 4096]),
        steps in vec(step(), 0..300),
    ) {
        let mut both = Both::new(capacity, if latest { Mode::Latest } else { Mode::Lossless });
        steps.into_iter().for_each(|step| both.step(step));
        both.check_unprocessed();
        both.rest();
    }
}

const LENT: Lent = Lent { segment: 1, offset: 2, bytes: 3 };

fn lent_and_popped(payloads: usize) -> (Sender, Receiver, Plain, Plain, Vec<Claim>) {
    let (mut sender, mut receiver, data, ack) = ring(4096, Mode::Lossless);
    let claims = (0..payloads).map(|_| sender.push_lent(Head::MESSAGE, &LENT).unwrap()).collect();
    (0..payloads).for_each(|_| assert!(receiver.pop(&mut Vec::new()).unwrap().is_some()));
    (sender, receiver, data, ack, claims)
}

#[test]
fn only_24_bytes_say_where_a_payload_is() {
    assert_eq!(Lent::decode(&LENT.encode()), Some(LENT));
    for bytes in [0, 8, 16, 23, 25, 32] {
        assert_eq!(Lent::decode(&vec![0; bytes]), None, "{bytes} bytes");
    }
}

/// The payload may be shorter than what the ring has in its place.
#[test]
fn a_lent_payload_counts_with_its_own_length() {
    let (sender, receiver, data, _, _) = lent_and_popped(2);
    assert_eq!((sender.counters().bytes, receiver.counters().bytes), (6, 6));
    assert_eq!(data.cell(data::BYTES).get(), 6);
}

#[test]
fn at_most_511_payloads_are_kept() {
    let (mut sender, mut receiver, data, ack, _) = lent_and_popped(0);
    let mut claims = Vec::new();
    let mut lend_and_pop = |receiver: &mut Receiver| {
        claims.push(sender.push_lent(Head::MESSAGE, &LENT).unwrap());
        receiver.pop(&mut Vec::new()).unwrap().unwrap();
        claims.clone()
    };
    for hold in 1..ack::HOLD_WORDS {
        lend_and_pop(&mut receiver);
        assert_eq!((receiver.can_keep(), receiver.keep()), (true, Some(hold)));
        receiver.consume();
    }
    let claims = lend_and_pop(&mut receiver);
    assert_eq!((receiver.can_keep(), receiver.keep()), (false, None));
    assert_eq!(held(&ack), 512, "what could not be kept is still held");
    receiver.consume();
    assert!(claims.iter().all(|claim| !claim.is_released(&data, &ack)));
    let reads = ack.reads();
    let holds = Holds::of_receiver(&claims[0], &data, &ack);
    assert!(claims.iter().all(|claim| holds.holds(claim)));
    assert_eq!(ack.reads() - reads, ack::HOLD_WORDS + 2, "each word is read once, whatever is asked");
    release(&ack, 300);
    assert!(claims[299].is_released(&data, &ack) && !claims[298].is_released(&data, &ack));
    let claims = lend_and_pop(&mut receiver);
    assert!(
        claims[511].is_consumed(&data, &ack) && claims[511].is_released(&data, &ack),
        "the next has taken its place"
    );
    assert_eq!((receiver.can_keep(), receiver.keep()), (true, Some(300)));
    assert_eq!(held(&ack), 511);
}

/// What a hold held before does not matter once it holds another payload.
#[test]
fn a_hold_is_used_again() {
    let (_, mut receiver, data, ack, claims) = lent_and_popped(1);
    assert_eq!(receiver.keep(), Some(1));
    receiver.consume();
    assert!(!claims[0].is_released(&data, &ack));
    release(&ack, 1);
    assert!(claims[0].is_released(&data, &ack));
    assert_eq!(ack.cell(ack::HOLDS_USED).get(), 2, "it does not fall");
}

/// A death between any two stores of `keep` leaves the payload held.
#[test]
fn a_hold_that_moves_is_held_twice_for_a_moment() {
    let (_, mut receiver, data, ack, claims) = lent_and_popped(1);
    receiver.keep();
    receiver.consume();
    ack.cell(ack::HOLDS).set(1);
    assert_eq!(held(&ack), 2);
    assert!(!claims[0].is_released(&data, &ack));
}

/// A sender looks at zeros until the answer of its receiver arrives, which may hold a payload by then.
#[test]
fn nothing_is_released_before_the_receiver_has_answered() {
    for mode in [Mode::Lossless, Mode::Latest] {
        let (mut sender, mut receiver, data, ack) = ring(4096, mode);
        let zeros = Plain::ack();
        let claim = sender.push_lent(Head::MESSAGE, &LENT).unwrap();
        receiver.pop(&mut Vec::new()).unwrap().unwrap();
        sender.skip_all();
        assert!(!claim.is_released(&data, &zeros), "{mode:?}");
        assert_eq!(Holds::of_receiver(&claim, &data, &zeros).holds(&claim), mode == Mode::Latest);
        assert!(!claim.is_released(&data, &ack), "{mode:?}: it is held");
        receiver.let_go();
        receiver.consume();
        assert!(claim.is_released(&data, &ack), "{mode:?}");
    }
}

/// What is not a payload's place holds nothing.
#[test]
fn a_record_that_does_not_say_where_its_payload_is_leaves_no_hold() {
    for mode in [Mode::Lossless, Mode::Latest] {
        let (mut sender, mut receiver, _, ack) = ring(4096, mode);
        sender.push(Head { lent: true, ..Head::MESSAGE }, &[7; 16]).unwrap();
        receiver.pop(&mut Vec::new()).unwrap_err();
        assert_eq!(held(&ack), 0);
    }
}
