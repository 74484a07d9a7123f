//! Each side against a peer that writes anything: no panic, nothing out of range, bounded work, and exact errors.

mod plain;
mod reference;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter::Cycle;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{self, WORD, ack, data};
use librpc_ring::{Consumer, Corrupt, Counters, Head, Kind, Memory, Mode, PushError, Record, outstanding};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use plain::Plain;
use reference::{Both, Length, capacity, head, length, payload, record_bytes, ring, step};

/// What a hostile sender may let a receiver read: plausible enough to get far.
#[derive(Clone, Debug)]
enum Lie {
    Zero,
    /// A commit word of the right lap.
    Commit(u32, u8, u8),
    /// The right sequence number.
    Sequence,
    /// A position so far ahead of the receiver's; less than a lap or more.
    Ahead(u64),
    Any(u64),
}

fn lie() -> impl Strategy<Value = Lie> {
    let payload_bytes = prop_oneof![4 => 0..100u32, 1 => 0..5000u32, 1 => any::<u32>()];
    let kind = prop_oneof![4 => 1..5u8, 1 => any::<u8>()];
    let flags = prop_oneof![4 => 0..16u8, 1 => any::<u8>()];
    prop_oneof![
        1 => Just(Lie::Zero),
        4 => (payload_bytes, kind, flags).prop_map(|(payload_bytes, kind, flags)| Lie::Commit(payload_bytes, kind, flags)),
        4 => Just(Lie::Sequence),
        2 => (0..1200u64).prop_map(|words| Lie::Ahead(8 * words)),
        1 => any::<u64>().prop_map(Lie::Any),
    ]
}

/// Memory in which each read finds something else, as if it were being written without pause.
struct Lying {
    data: Plain,
    /// Tells which lap and which sequence number the receiver expects.
    ack: Plain,
    capacity: u64,
    lies: RefCell<Cycle<std::vec::IntoIter<Lie>>>,
}

impl Memory for Lying {
    fn load(&self, word: usize, _: Ordering) -> u64 {
        self.get(word)
    }

    fn get(&self, word: usize) -> u64 {
        let truth = self.data.get(word);
        if word < data::WAITING {
            // The header's constants: a receiver that finds a lie there does not even begin.
            return truth;
        }
        match self.lies.borrow_mut().next().expect("an endless supply") {
            Lie::Zero => 0,
            Lie::Commit(payload_bytes, kind, flags) => {
                let lap = self.ack.cell(ack::TAKEN).get() / self.capacity;
                u64::from(payload_bytes) | u64::from(kind) << 32 | u64::from(flags) << 40 | lap << 48
            }
            Lie::Sequence => self.ack.cell(ack::RECEIVED).get() + self.ack.cell(ack::MISSED).get(),
            Lie::Ahead(by) => self.ack.cell(ack::TAKEN).get() + by,
            Lie::Any(word) => word,
        }
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        self.data.read(word, bytes, into);
    }

    fn fence(&self, _: Ordering) {}
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Lossless), Just(Mode::Latest)]
}

/// How many words one call may read: a record, or two and each time the two words that say where to go on.
fn work(capacity: u64, mode: Mode) -> usize {
    let record = layout::max_record_bytes(capacity, mode) as usize / WORD;
    if mode == Mode::Latest { 2 * (record + 2) } else { record }
}

/// Takes what is there; whatever that was, it is within the limits.
fn receive<D: Memory>(receiver: &mut Consumer<D, Plain>, into: &mut Vec<u8>) -> Result<Option<Record>, Corrupt> {
    into.clear();
    let found = receiver.pop(into);
    if let Ok(Some(record)) = &found {
        assert_eq!(into.len(), record.payload_bytes);
        let longest = layout::max_record_bytes(receiver.capacity(), receiver.mode());
        assert!(record_bytes(&record.head, record.payload_bytes) <= longest);
    } else {
        assert!(into.is_empty(), "nothing was taken");
    }
    found
}

proptest! {
    /// A commit word and a sequence number mean what the layout says, exactly, wherever they stand.
    #[test]
    fn each_word_is_a_record_or_corrupt(
        laps in 0..3u64,
        (payload_bytes, kind, flags) in (prop_oneof![0..=225u32, any::<u32>()], 0..6u64, 0..20u64),
        (other_lap, other_sequence) in (option::weighted(0.2, any::<u16>()), option::weighted(0.2, any::<u64>())),
        optional: [u64; 3],
    ) {
        let capacity = 1024;
        let mut both = Both::new(capacity);
        both.go_round(laps);
        let (position, sequence) = (both.queue.committed, both.queue.pushed);
        let lap = other_lap.map_or(position / capacity, u64::from);
        let word = u64::from(payload_bytes) | kind << 32 | flags << 40 | lap << 48;
        let found = other_sequence.unwrap_or(sequence);
        let at = data::RING + (position % capacity) as usize / WORD;
        for (at, value) in (at..).zip([word, found].into_iter().chain(optional)) {
            both.data.cell(at).set(value);
        }

        let mut words = optional.into_iter();
        let mut optional = |flag| if flags & flag != 0 { words.next() } else { None };
        let (time, topic, correlation) = (optional(1), optional(2), optional(4));
        let bytes = 8 * (2 + u64::from((flags & 7).count_ones()) + u64::from(payload_bytes).div_ceil(8));
        let kinds = [Kind::Message, Kind::Topic, Kind::Request, Kind::Reply];
        let known = kinds.into_iter().find(|known| *known as u64 == kind).filter(|_| flags < 16);
        let expected = match known {
            _ if word == 0 => Ok(None),
            None => Err(Corrupt::Commit { position, word }),
            Some(_) if lap != position / capacity => Err(Corrupt::Commit { position, word }),
            Some(_) if bytes > 256 => Err(Corrupt::Length { position, bytes, max: 256 }),
            Some(_) if found != sequence => Err(Corrupt::Sequence { position, found, expected: sequence }),
            Some(kind) => {
                let head = Head { kind, time, topic, correlation, redelivered: flags & 8 != 0 };
                Ok(Some((head, sequence, payload_bytes as usize)))
            }
        };
        let found = both.receiver.pop(&mut Vec::new());
        prop_assert_eq!(found.map(|it| it.map(|it| (it.head, it.sequence, it.payload_bytes))), expected);
    }

    /// Random words: no panic, nothing read out of range (the memory panics at that), bounded work for each look.
    #[test]
    fn a_receiver_survives_a_sender_that_writes_anything(
        capacity in capacity(),
        mode in mode(),
        lies in vec(lie(), 1..60),
    ) {
        let (_, _, data, ack) = ring(capacity, mode);
        let lies = RefCell::new(lies.into_iter().cycle());
        let lying = Lying { data: data.clone(), ack: ack.clone(), capacity, lies };
        let mut receiver = Consumer::new(lying, ack.clone(), capacity, mode).unwrap();
        let mut payload = Vec::new();
        for _ in 0..100 {
            let (reads, taken) = (data.reads(), ack.cell(ack::TAKEN).get());
            match receive(&mut receiver, &mut payload) {
                Ok(Some(_)) => {
                    receiver.consume();
                    prop_assert!(taken + 16 <= ack.cell(ack::TAKEN).get());
                    prop_assert_eq!(ack.cell(ack::CONSUMED).get(), ack.cell(ack::TAKEN).get());
                }
                Ok(None) => prop_assert_eq!(taken, ack.cell(ack::TAKEN).get()),
                Err(corrupt) => {
                    prop_assert!(!corrupt.to_string().is_empty());
                    prop_assert_eq!(taken, ack.cell(ack::TAKEN).get());
                }
            }
            prop_assert!(data.reads() - reads <= work(capacity, mode));
            receiver.is_closed();
            receiver.must_ring();
            receiver.arm();
        }
    }

    /// Random words that stay as they are: within as many looks as there are records, the receiver may sleep or the ring
    /// is corrupt.
    #[test]
    fn a_ring_that_nobody_writes_ends(
        capacity in capacity(),
        announced in option::of((0..5000u64, 0..5000u64)),
        any in option::weighted(0.2, any::<[u64; 2]>()),
        words in vec((any::<Index>(), 0..40u64, 1..5u64), 0..80),
    ) {
        let (_, mut receiver, data, ack) = ring(capacity, Mode::Latest);
        let [intent, mark] = any.unwrap_or(announced.map_or([0, 0], |(intent, mark)| [intent, 8 * mark]));
        data.cell(data::INTENT).set(intent);
        data.cell(data::MARK).set(mark);
        for (at, payload_bytes, kind) in words {
            let at = at.index(capacity as usize / WORD);
            data.cell(data::RING + at).set(payload_bytes | kind << 32);
        }
        let mut payload = Vec::new();
        let ends = (0..capacity as usize / 16 + 2).any(|_| {
            let reads = data.reads();
            let found = receive(&mut receiver, &mut payload);
            assert!(data.reads() - reads <= work(capacity, Mode::Latest));
            match found {
                Ok(Some(_)) => false,
                Ok(None) => !receiver.has_record(),
                Err(_) => true,
            }
        });
        prop_assert!(ends, "at {}", ack.cell(ack::TAKEN).get());
    }

    /// Flipped bits in a ring that was in order: what stands in front of the first one is received, the rest is
    /// received or corrupt, and it ends.
    #[test]
    fn a_receiver_survives_flipped_bits(
        capacity in capacity(),
        steps in vec(step(), 0..200),
        flips in vec((any::<Index>(), 0..64u32), 1..6),
    ) {
        let mut both = Both::new(capacity);
        steps.into_iter().for_each(|step| both.step(step));
        both.check_what_the_sender_sees();
        let ring_words = capacity as usize / WORD;
        let mut flipped = vec![false; ring_words];
        for (word, bit) in flips {
            let word = word.index(ring_words);
            flipped[word] = true;
            let cell = both.data.cell(data::RING + word);
            cell.set(cell.get() ^ 1 << bit);
        }

        let mut at = both.queue.taken as usize / WORD;
        let mut payload = Vec::new();
        while let Some(sent) = both.queue.untaken.pop_front() {
            let words = sent.size as usize / WORD;
            if (at..at + words).any(|word| flipped[word % ring_words]) {
                break;
            }
            let record = receive(&mut both.receiver, &mut payload).unwrap().unwrap();
            prop_assert_eq!((record.head, &payload), (sent.head, &sent.payload));
            at += words;
        }
        let ends = (0..ring_words).any(|_| !matches!(receive(&mut both.receiver, &mut payload), Ok(Some(_))));
        prop_assert!(ends, "not more records than there is room for");
    }

    /// Only the expected header is one.
    #[test]
    fn a_foreign_header_is_corrupt(word in 0..4usize, bit in 0..64u32) {
        let (_, _, data, _) = ring(512, Mode::Lossless);
        let expected = data.cell(word).get();
        let found = expected ^ 1 << bit;
        data.cell(word).set(found);
        let ack = Plain::ack();
        let corrupt = Consumer::new(data, ack.clone(), 512, Mode::Lossless).expect_err("a changed header");
        prop_assert_eq!(corrupt, Corrupt::Header { word, found, expected });
        prop_assert_eq!(ack.cell(ack::MAGIC).get(), 0, "no answer to it");
    }
}

/// What a receiver may claim to have consumed.
#[derive(Clone, Debug)]
enum Claim {
    /// A boundary of a record between its last good claim and what is committed.
    Honest(Index),
    /// A multiple of eight in that range.
    Within(Index),
    /// Less than before.
    Back(u64),
    /// More than was committed.
    Ahead(u64),
    Any(u64),
}

#[derive(Clone, Debug)]
enum Hostile {
    Push(Head, Length),
    Claim(Claim),
    Consumed,
    Outstanding,
    /// One of the receiver's counters.
    Count(usize, u64),
    HighWater(Option<u64>),
    Armed(u64),
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let claim = prop_oneof![
        4 => any::<Index>().prop_map(Claim::Honest),
        2 => any::<Index>().prop_map(Claim::Within),
        1 => (1..100u64).prop_map(Claim::Back),
        1 => (1..100u64).prop_map(Claim::Ahead),
        1 => any::<u64>().prop_map(Claim::Any),
    ];
    prop_oneof![
        8 => (head(), length()).prop_map(|(head, length)| Hostile::Push(head, length)),
        4 => claim.prop_map(Hostile::Claim),
        1 => Just(Hostile::Consumed),
        1 => Just(Hostile::Outstanding),
        1 => (ack::RECEIVED..=ack::LAST_RECEIVED, prop_oneof![0..100u64, any::<u64>()])
            .prop_map(|(word, value)| Hostile::Count(word, value)),
        1 => option::of(prop_oneof![0..5000u64, any::<u64>()]).prop_map(Hostile::HighWater),
        1 => any::<u64>().prop_map(Hostile::Armed),
    ]
}

proptest! {
    /// A claim counts only from the last good one to what is committed, in whole words. Otherwise it is an error, and
    /// the sender goes on with the last good one.
    #[test]
    fn a_sender_survives_a_receiver_that_writes_anything(capacity in capacity(), steps in vec(hostile(), 0..300)) {
        let (mut sender, _, data, ack) = ring(capacity, Mode::Lossless);
        let max = layout::max_payload_bytes(capacity, Mode::Lossless) as usize;
        // Where each record that may still stand begins; then the sender's last good claim, and what it has pushed.
        let mut starts: VecDeque<u64> = VecDeque::new();
        let (mut good, mut committed, mut pushed, mut armed) = (0, 0, 0, 0);
        for step in steps {
            let claimed = ack.cell(ack::CONSUMED).get();
            let look = if (good..=committed).contains(&claimed) && claimed.is_multiple_of(8) {
                Ok(claimed)
            } else {
                Err(PushError::BadConsumed { claimed, consumed: good, committed })
            };
            match step {
                Hostile::Push(head, length) => {
                    let payload = payload(length.bytes(max), 0);
                    let size = record_bytes(&head, payload.len());
                    let full = |consumed| committed + size + 8 > consumed + capacity;
                    let reads = ack.reads();
                    let result = sender.push(head, &payload);
                    let looked = ack.reads() > reads;
                    let expected = if payload.len() > max {
                        Err(PushError::TooLarge { bytes: payload.len(), max })
                    } else if looked {
                        good = look.unwrap_or(good);
                        let room_at = committed + size + 8 - capacity.min(committed + size + 8);
                        look.and_then(|consumed| {
                            if full(consumed) { Err(PushError::Full { room_at }) } else { Ok(pushed) }
                        })
                    } else {
                        prop_assert!(!full(good));
                        Ok(pushed)
                    };
                    prop_assert_eq!(result, expected);
                    if expected.is_ok() {
                        starts.push_back(committed);
                        committed += size;
                        pushed += u64::from(head.kind != Kind::Topic);
                    }
                }
                Hostile::Claim(claim) => ack.cell(ack::CONSUMED).set(match claim {
                    Claim::Honest(index) => {
                        let ahead: Vec<_> = starts.iter().copied().filter(|start| *start >= good).collect();
                        ahead.get(index.index(ahead.len() + 1)).copied().unwrap_or(committed)
                    }
                    Claim::Within(index) => good + 8 * index.index((committed - good) as usize / 8 + 1) as u64,
                    Claim::Back(by) => good.wrapping_sub(by),
                    Claim::Ahead(by) => committed + by,
                    Claim::Any(word) => word,
                }),
                Hostile::Consumed => {
                    prop_assert_eq!(sender.consumed(), look);
                    good = look.unwrap_or(good);
                }
                Hostile::Outstanding => {
                    let settled = ack.cell(ack::PROCESSED).get().saturating_add(ack.cell(ack::MISSED).get());
                    let left = |claimed| if claimed >= committed { 0 } else { pushed.saturating_sub(settled) };
                    prop_assert_eq!(sender.outstanding(), look.map(left));
                    // Whoever only looks on does not know what was claimed before.
                    prop_assert_eq!(outstanding(&data, &ack), left(claimed));
                    good = look.unwrap_or(good);
                    prop_assert_eq!(sender.depth(), look.map(|consumed| committed - consumed));
                    let counters = Counters::read(&data, &ack);
                    let Counters { sender: sent, receiver: got, .. } = counters;
                    prop_assert!(got.processed <= got.received && got.received + got.missed <= sent.messages);
                    prop_assert!(got.bytes <= sent.bytes && counters.queued() <= sent.messages);
                }
                Hostile::Count(word, value) => ack.cell(word).set(value),
                Hostile::HighWater(mark) => {
                    sender.set_high_water(mark);
                    good = look.unwrap_or(good);
                }
                Hostile::Armed(epoch) => {
                    ack.cell(ack::ARMED).set(epoch);
                    prop_assert_eq!(sender.must_ring(), epoch != 0 && epoch != armed);
                    armed = if epoch == 0 { armed } else { epoch };
                }
            }
            prop_assert!(sender.committed() == committed && committed <= good + capacity - 8);
        }
    }
}

/// A mark is ahead by a record at least, and within what can be counted.
#[test]
fn a_mark_where_nobody_can_go_on_is_corrupt() {
    let last = u64::MAX / 2 - 7;
    for mark in [0, 8, 20, 1 << 63, u64::MAX - 7] {
        let (_, mut receiver, data, _) = ring(512, Mode::Latest);
        data.cell(data::INTENT).set(u64::MAX);
        data.cell(data::MARK).set(mark);
        let expected = Corrupt::Mark { position: 0, intent: u64::MAX, mark };
        assert_eq!(receive(&mut receiver, &mut Vec::new()), Err(expected));
    }
    for mark in [16, 24, last] {
        let (_, mut receiver, data, ack) = ring(512, Mode::Latest);
        data.cell(data::INTENT).set(mark + 512);
        data.cell(data::MARK).set(mark);
        let at = data::RING + (mark % 512) as usize / WORD;
        data.cell(at).set(1 << 32 | (mark / 512) << 48);
        // As many messages may be missing as short records fit in between, and no more.
        data.cell(at + 1).set(mark / 16 + 1);
        let expected = Corrupt::Sequence { position: mark, found: mark / 16 + 1, expected: 0 };
        assert_eq!(receive(&mut receiver, &mut Vec::new()), Err(expected));
        data.cell(at + 1).set(mark / 16);
        let record = receive(&mut receiver, &mut Vec::new()).unwrap().unwrap();
        assert_eq!((record.sequence, record.missed), (mark / 16, mark / 16));
        assert_eq!(ack.cell(ack::MISSED).get(), mark / 16);
    }
}

/// In mode Lossless not even one message may be passed over.
#[test]
fn the_number_after_next_is_corrupt() {
    let (mut sender, mut receiver, data, _) = ring(512, Mode::Lossless);
    sender.push(Head::MESSAGE, b"x").expect("there is room");
    data.cell(data::RING + 1).set(1);
    let corrupt = Corrupt::Sequence { position: 0, found: 1, expected: 0 };
    assert_eq!(receiver.pop(&mut Vec::new()), Err(corrupt));
}
