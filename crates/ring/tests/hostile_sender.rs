//! A receiver against a sender that writes anything: no panic, nothing out of range, bounded work, and exact errors.

mod plain;
#[allow(dead_code, reason = "the sender is hostile: not all of an honest one's steps are needed")]
mod reference;

use std::cell::RefCell;
use std::iter::Cycle;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{self, WORD, ack, data};
use librpc_ring::{Consumer, Corrupt, Head, Kind, Memory, Mode, Record};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use plain::Plain;
use reference::{Both, capacity, record_bytes, ring, step};

/// What a hostile sender may let a receiver read. Most of it is plausible, to get far.
#[derive(Clone, Debug)]
enum Lie {
    Zero,
    /// A commit word of the right lap.
    Commit(u32, u8, u8),
    /// The right sequence number.
    Sequence,
    /// A position this far ahead of the receiver's: less than a lap or more.
    Ahead(u64),
    Any(u64),
}

fn lie() -> impl Strategy<Value = Lie> {
    let payload_bytes = prop_oneof![4 => 0..100u32, 1 => 0..5000u32, 1 => any::<u32>()];
    let kind = prop_oneof![4 => 1..12u8, 1 => any::<u8>()];
    let flags = prop_oneof![4 => 0..64u8, 1 => any::<u8>()];
    prop_oneof![
        1 => Just(Lie::Zero),
        4 => (payload_bytes, kind, flags).prop_map(|(payload_bytes, kind, flags)| Lie::Commit(payload_bytes, kind, flags)),
        4 => Just(Lie::Sequence),
        2 => (0..1200u64).prop_map(|words| Lie::Ahead(8 * words)),
        1 => any::<u64>().prop_map(Lie::Any),
    ]
}

/// Memory in which each read finds something else, as if it were written all the time.
struct Lying {
    data: Plain,
    /// Shows which lap and which sequence number the receiver expects.
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
            // The header's constants: a receiver that finds a lie there does not begin.
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

/// How many words one call may read: a record, or in mode Latest two, each with the two words that say where to continue.
fn work(capacity: u64, mode: Mode) -> usize {
    let record = layout::max_record_bytes(capacity, mode) as usize / WORD;
    if mode == Mode::Latest { 2 * (record + 2) } else { record }
}

/// Takes the next record, and checks that it is within the limits.
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
    /// A commit word and a sequence number mean exactly what the layout says, wherever they are.
    #[test]
    fn every_word_is_a_record_or_corrupt(
        laps in 0..3u64,
        (payload_bytes, kind, flags) in (prop_oneof![0..=225u32, any::<u32>()], 0..12u64, 0..80u64),
        (other_lap, other_sequence) in (option::weighted(0.2, any::<u16>()), option::weighted(0.2, any::<u64>())),
        optional: [u64; 4],
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
        let (time, topic, correlation, deadline) = (optional(1), optional(2), optional(4), optional(32));
        let bytes = 8 * (2 + u64::from((flags & 39).count_ones()) + u64::from(payload_bytes).div_ceil(8));
        let known = Kind::ALL.into_iter().find(|known| *known as u64 == kind).filter(|_| flags < 128);
        let expected = match known {
            _ if word == 0 => Ok(None),
            None => Err(Corrupt::Commit { position, word }),
            Some(_) if lap != position / capacity => Err(Corrupt::Commit { position, word }),
            Some(_) if bytes > 256 => Err(Corrupt::Length { position, bytes, max: 256 }),
            Some(_) if found != sequence => Err(Corrupt::Sequence { position, found, expected: sequence }),
            // Where a lent payload is takes 24 bytes, and only messages have one.
            Some(kind) if flags & 16 != 0 && (payload_bytes != 24 || [2, 8, 9, 10].contains(&(kind as u64))) => {
                Err(Corrupt::Lent { position, bytes: payload_bytes as usize })
            }
            Some(kind) => {
                let (redelivered, lent, past) = (flags & 8 != 0, flags & 16 != 0, flags & 64 != 0);
                let head = Head { kind, time, topic, correlation, deadline, redelivered, lent, past };
                Ok(Some((head, sequence, payload_bytes as usize)))
            }
        };
        let found = both.receiver.pop(&mut Vec::new());
        prop_assert_eq!(found.map(|it| it.map(|it| (it.head, it.sequence, it.payload_bytes))), expected);
    }

    /// Random words: no panic, nothing is read out of range (the memory would panic), and each call does bounded work.
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

    /// Random words that do not change: after at most one call per possible record, the receiver may sleep, or the ring
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

    /// Flipped bits in a valid ring: what comes before the first one is received, the rest is received or corrupt, and it
    /// ends.
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
        prop_assert!(ends, "at most as many records as there is room for");
    }

    /// Only the expected header is accepted.
    #[test]
    fn a_changed_header_is_corrupt(word in 0..4usize, bit in 0..64u32) {
        let (_, _, data, _) = ring(512, Mode::Lossless);
        let expected = data.cell(word).get();
        let found = expected ^ 1 << bit;
        data.cell(word).set(found);
        let ack = Plain::ack();
        let corrupt = Consumer::new(data, ack.clone(), 512, Mode::Lossless).expect_err("a changed header");
        match word {
            data::VERSION => prop_assert_eq!(corrupt, Corrupt::Version { found, expected }),
            _ => prop_assert_eq!(corrupt, Corrupt::Header { word, found, expected }),
        }
        prop_assert_eq!(ack.cell(ack::MAGIC).get(), 0, "no answer to it");
    }
}

/// A valid mark is at least one record ahead, and within what can be counted.
#[test]
fn an_invalid_mark_is_corrupt() {
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
        // At most as many messages may be missing as the shortest records fit in between.
        data.cell(at + 1).set(mark / 16 + 1);
        let expected = Corrupt::Sequence { position: mark, found: mark / 16 + 1, expected: 0 };
        assert_eq!(receive(&mut receiver, &mut Vec::new()), Err(expected));
        data.cell(at + 1).set(mark / 16);
        let record = receive(&mut receiver, &mut Vec::new()).unwrap().unwrap();
        assert_eq!((record.sequence, record.missed), (mark / 16, mark / 16));
        assert_eq!(ack.cell(ack::MISSED).get(), mark / 16);
    }
}

/// In mode Lossless not even one message may be missing.
#[test]
fn the_number_after_the_next_is_corrupt() {
    let (mut sender, mut receiver, data, _) = ring(512, Mode::Lossless);
    sender.push(Head::MESSAGE, b"x").expect("there is room");
    data.cell(data::RING + 1).set(1);
    let corrupt = Corrupt::Sequence { position: 0, found: 1, expected: 0 };
    assert_eq!(receiver.pop(&mut Vec::new()), Err(corrupt));
}

#[test]
fn a_ring_that_begins_with_too_high_a_number_is_corrupt() {
    let (_, _, data, _) = ring(512, Mode::Lossless);
    let max = u64::MAX / 2;
    for (first, expected) in [(max, None), (max + 1, Some(Corrupt::First { found: max + 1, max }))] {
        data.cell(data::FIRST).set(first);
        assert_eq!(Consumer::new(data.clone(), Plain::ack(), 512, Mode::Lossless).err(), expected);
    }
}
