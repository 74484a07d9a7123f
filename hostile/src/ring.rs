//! Each side of the ring against a peer that writes anything: every field of both memories, records of both modes.
//!
//! An *execution* is one call of the library on memory that was spoilt since the call before. Its outcome is checked
//! against the words of the layout, not against the library's own state.

use std::sync::atomic::Ordering;

use librpc_ring::layout::{self, WORD, ack, data};
use librpc_ring::{Consumer, Corrupt, Counters, Head, Kind, Memory, Mode, Producer, PushError, outstanding};
use librpc_ring::{stop_waiting, wait_for_receiver};
use testkit::{Random, RingMemory};

/// The length of a scene. Each scene begins with new rings.
const CALLS_PER_SCENE: u64 = 4096;
/// The library must not believe any number or position above this.
const FAR: u64 = u64::MAX / 2;

/// Counts that show how far an attack got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) executions: u64,
    /// Calls that accepted what was offered: records, claims, messages.
    pub(crate) taken: u64,
    /// Calls that refused it.
    pub(crate) refused: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.executions += other.executions;
        self.taken += other.taken;
        self.refused += other.refused;
    }
}

fn draw_ring(random: &mut Random) -> (u64, Mode) {
    let capacity = [512, 512, 1024, 4096][random.below(4) as usize];
    (capacity, if random.once_in(2) { Mode::Latest } else { Mode::Lossless })
}

/// One scene of a hostile sender against a receiver.
pub(crate) fn receiver(seed: u64) -> Tally {
    let mut random = Random::new(seed);
    let (capacity, mode) = draw_ring(&mut random);
    let (memory, acks) = (RingMemory::data(capacity), RingMemory::ack());
    drop(Producer::new(memory.clone(), acks.clone(), capacity, mode)); // writes an honest header, to be spoilt
    let first = if random.once_in(4) { random.odd() } else { 0 };
    memory.cell(data::FIRST).set(first);
    let mut tally = Tally::default();
    if random.once_in(16) {
        let word = random.below(5) as usize;
        memory.cell(word).set(memory.cell(word).get() ^ 1 << random.below(64));
    }
    let begun = Consumer::new(memory.clone(), acks.clone(), capacity, mode);
    tally.executions += 1;
    let Ok(mut consumer) = begun else {
        tally.refused += 1;
        return tally;
    };
    let first = memory.cell(data::FIRST).get();
    assert!(first <= FAR, "a first number that could overflow was believed");
    let longest = layout::max_record_bytes(capacity, mode);
    let most_reads = if mode == Mode::Latest { 2 * (longest / 8 + 2) } else { longest / 8 + 1 };
    let mut payload = Vec::with_capacity(4096);
    let (mut corrupt_in_a_row, mut lying) = (0, false);
    for _ in 0..CALLS_PER_SCENE {
        let (position, taken) = (next_position(&consumer, &acks), acks.cell(ack::TAKEN).get());
        let number = first.wrapping_add(acks.cell(ack::RECEIVED).get()).wrapping_add(acks.cell(ack::MISSED).get());
        spoil_data(&mut random, &memory, capacity, position, number, mode);
        if random.once_in(512) {
            lying = !lying;
            memory.lie(if lying { 1 + random.below(6) as u32 } else { 64 }, &mut random);
        }
        let reads = memory.reads();
        tally.executions += 1;
        match random.below(16) {
            0 => drop(consumer.arm()),
            1 => drop((consumer.has_record(), consumer.is_closed())),
            2 => drop((consumer.must_ring(), consumer.sees_waiting())),
            3 => {
                consumer.disarm();
                let counters = Counters::read(&memory, &acks);
                check_counters(&counters);
                let _ = outstanding(&memory, &acks);
            }
            4 => consumer.consume(),
            _ => {
                payload.clear();
                match consumer.pop(&mut payload) {
                    Ok(Some(record)) => {
                        tally.taken += 1;
                        corrupt_in_a_row = 0;
                        assert_eq!(payload.len(), record.payload_bytes);
                        assert!(record.head.record_bytes(record.payload_bytes) <= longest, "the record is too long");
                        assert!(acks.cell(ack::TAKEN).get() >= taken + 16, "the position increases");
                        assert!(record.sequence >= number, "the numbers increase");
                        assert!(mode == Mode::Latest || record.sequence == number, "no number is skipped");
                    }
                    found => {
                        assert!(payload.is_empty(), "nothing was taken");
                        assert_eq!(acks.cell(ack::TAKEN).get(), taken, "nothing was taken");
                        if let Err(corrupt) = found {
                            tally.refused += 1;
                            corrupt_in_a_row += 1;
                            check_corrupt(&corrupt, longest);
                        }
                    }
                }
                assert!(memory.reads() - reads <= most_reads as usize, "{} words read", memory.reads() - reads);
            }
        }
        let (consumed, taken) = (acks.cell(ack::CONSUMED).get(), acks.cell(ack::TAKEN).get());
        assert!(consumed <= taken, "consumed {consumed}, taken {taken}");
        if corrupt_in_a_row > 40 {
            break; // a real channel ends at the first; here more words are tried
        }
    }
    tally
}

/// Roughly where the receiver is. In mode Latest it does not report where it continued.
fn next_position(consumer: &Consumer<RingMemory, RingMemory>, acks: &RingMemory) -> u64 {
    let _ = consumer;
    acks.cell(ack::TAKEN).get()
}

fn check_counters(counters: &Counters) {
    let Counters { sender, receiver, .. } = counters;
    assert!(receiver.processed <= receiver.received && receiver.bytes <= sender.bytes);
    assert!(receiver.received.checked_add(receiver.missed).is_some_and(|all| all <= sender.messages));
    assert!(counters.queued() <= sender.messages);
}

fn check_corrupt(corrupt: &Corrupt, longest: u64) {
    match *corrupt {
        Corrupt::Length { bytes, max, .. } => assert!(bytes > max && max == longest),
        Corrupt::Version { .. } | Corrupt::Header { .. } | Corrupt::First { .. } => {
            panic!("the header is checked only once")
        }
        _ => {}
    }
}

/// Writes values that are mostly plausible.
#[inline]
fn spoil_data(random: &mut Random, memory: &RingMemory, capacity: u64, position: u64, number: u64, mode: Mode) {
    let at = data::RING + (position & (capacity - 1)) as usize / WORD;
    let lap = position >> capacity.trailing_zeros() & 0xffff;
    let longest = layout::max_record_bytes(capacity, mode);
    match random.below(32) {
        // A possible record, or one that is spoilt in one place.
        draw @ 0..=17 => {
            let (kind, flags) = (1 + random.below(4), random.below(32));
            let optional = u64::from((flags & 7).count_ones()) * 8;
            let bytes = if random.once_in(8) { random.below(longest + 64) } else { random.below(64) };
            let length = bytes.min(longest.saturating_sub(16 + optional));
            let (mut commit, mut sequence) = (length | kind << 32 | flags << 40 | lap << 48, number);
            match draw {
                14 => commit ^= 1 << random.below(64),
                15 => sequence ^= 1 << random.below(64),
                16 => sequence = sequence.wrapping_add(random.below(64)),
                17 => commit = commit & !0xffff_ffff | random.below(longest + 128),
                _ => {}
            }
            memory.cell(at).set(commit);
            memory.cell(at + 1).set(sequence);
            let end = (position + 16 + optional + length.next_multiple_of(8)) & (capacity - 1);
            if random.once_in(4) {
                memory.cell(data::RING + end as usize / WORD).set(0);
            }
        }
        18 => memory.cell(at).set(0),
        19 => {
            let word = data::RING + random.below(capacity / 8) as usize;
            memory.cell(word).set(memory.cell(word).get() ^ 1 << random.below(64));
        }
        20 => memory.cell(data::RING + random.below(capacity / 8) as usize).set(random.odd()),
        21 => memory.cell(at + random.below(4) as usize).set(random.odd()),
        22 => memory.cell(random.below(64) as usize + 5).set(random.odd()),
        23 => memory.cell(data::WAITING).set(random.below(4)),
        24 => memory.cell(data::CLOSED).set(random.below(2)),
        // The receiver is overtaken, to a possible place or not.
        25 | 26 => {
            let mark = position + 8 * random.below(capacity);
            memory.cell(data::INTENT).set(position.wrapping_add(capacity + random.below(2 * capacity)));
            memory.cell(data::MARK).set(mark);
            if random.once_in(2) {
                let commit = 1 << 32 | (mark >> capacity.trailing_zeros() & 0xffff) << 48;
                let at = data::RING + (mark & (capacity - 1)) as usize / WORD;
                memory.cell(at).set(commit);
                memory.cell(at + 1).set(number.wrapping_add(random.below(capacity / 8)));
            }
        }
        27 => memory.cell(data::INTENT).set(random.odd()),
        28 => memory.cell(data::MARK).set(random.odd()),
        29 => memory.cell(data::INTENT).set(position),
        _ => memory.cell(data::COMMITTED + random.below(8) as usize).set(random.odd()),
    }
}

/// One scene of a hostile receiver against a sender.
pub(crate) fn sender(seed: u64) -> Tally {
    let mut random = Random::new(seed);
    let (capacity, mode) = draw_ring(&mut random);
    let (memory, acks) = (RingMemory::data(capacity), RingMemory::ack());
    let first = random.below(1 << 20);
    let mut producer = Producer::continuing(memory.clone(), acks.clone(), capacity, mode, first);
    let longest = layout::max_payload_bytes(capacity, mode) as usize;
    let mut tally = Tally::default();
    let payload = [0xa5u8; 4096];
    let (mut good, mut epoch) = (0, 0);
    // Where each record begins that may still be in the ring, and its number.
    let mut starts = std::collections::VecDeque::new();
    for _ in 0..CALLS_PER_SCENE {
        spoil_ack(&mut random, &acks, capacity, good, producer.committed(), &starts);
        tally.executions += 1;
        let (committed, claimed) = (producer.committed(), acks.cell(ack::CONSUMED).get());
        let is_good = (good..=committed).contains(&claimed) && claimed.is_multiple_of(8);
        match random.below(16) {
            0..=8 => {
                let bytes = if random.once_in(16) { random.below(longest as u64 + 2) } else { random.below(64) };
                let kind = if random.once_in(8) { Kind::Topic } else { Kind::Message };
                let head = Head { topic: random.once_in(2).then_some(7), ..Head::of(kind) };
                let end = committed + head.record_bytes(bytes as usize) + 8;
                match producer.push(head, &payload[..bytes as usize]) {
                    Ok(number) => {
                        tally.taken += 1;
                        // It has read the claim, or did not need to.
                        let believed = if is_good { claimed } else { good };
                        assert!(mode == Mode::Latest || end <= believed + capacity, "unread data was overwritten");
                        starts.push_back((committed, number));
                    }
                    Err(PushError::Full { room_at }) => {
                        tally.refused += 1;
                        assert!(is_good && mode == Mode::Lossless && room_at == end - capacity && claimed < room_at);
                        good = claimed;
                    }
                    Err(PushError::TooLarge { .. }) => assert!(bytes as usize > longest),
                    Err(PushError::BadConsumed { .. }) => {
                        tally.refused += 1;
                        assert!(!is_good);
                    }
                }
            }
            9 | 10 => match producer.consumed() {
                Ok(consumed) => assert!(is_good && consumed == claimed),
                Err(_) => assert!(!is_good),
            },
            11 => {
                if let Ok(outstanding) = producer.outstanding() {
                    assert!(is_good && outstanding <= producer.counters().messages);
                }
            }
            12 => {
                if let Ok(depth) = producer.depth() {
                    assert!(is_good && depth <= capacity);
                }
            }
            13 => {
                if random.once_in(4) {
                    producer.set_high_water(random.once_in(2).then(|| random.odd()));
                }
                producer.is_high();
            }
            14 => {
                producer.must_ring();
                epoch += 1;
                wait_for_receiver(&memory, &acks, epoch);
                stop_waiting(&memory);
                check_counters(&Counters::read(&memory, &acks));
            }
            _ if random.once_in(32) => {
                let (mut expected, mut found) = (None, 0u64);
                let lost = producer.unprocessed(|head, number, copy| {
                    assert!(head.kind != Kind::Topic && copy.iter().all(|byte| *byte == 0xa5));
                    assert!(expected.is_none_or(|expected| expected == number), "in order, without a gap");
                    expected = Some(number + 1);
                    found += 1;
                });
                assert!(found <= capacity / 16 && lost <= producer.counters().messages);
                assert!(expected.is_none_or(|next| next == producer.sequence()), "up to the last one");
            }
            _ => producer.note_dropped(),
        }
        // A call that has read a valid claim believes it from now on.
        if is_good && memory_believes(&mut producer, claimed) {
            good = claimed;
        }
        while starts.front().is_some_and(|&(start, _)| start + capacity < producer.committed()) {
            starts.pop_front();
        }
    }
    assert!(acks.load(ack::MAGIC, Ordering::Relaxed) == 0, "a sender never writes the receiver's memory");
    tally
}

/// Makes the sender read the claim, so that it believes the same one as this test.
fn memory_believes(producer: &mut Producer<RingMemory, RingMemory>, claimed: u64) -> bool {
    producer.consumed() == Ok(claimed)
}

#[inline]
fn spoil_ack(
    random: &mut Random,
    acks: &RingMemory,
    capacity: u64,
    good: u64,
    committed: u64,
    starts: &std::collections::VecDeque<(u64, u64)>,
) {
    let consumed = acks.cell(ack::CONSUMED);
    match random.below(16) {
        0..=3 => consumed.set(committed),
        4..=6 => {
            if !starts.is_empty() {
                consumed.set(starts[random.below(starts.len() as u64) as usize].0.max(good));
            }
        }
        7 => consumed.set(good + 8 * random.below((committed - good) / 8 + 1)),
        8 => consumed.set(good.wrapping_sub(8 * (1 + random.below(capacity)))),
        9 => consumed.set(committed + 1 + random.below(capacity)),
        10 => consumed.set(random.odd()),
        11 => acks.cell(ack::TAKEN).set(if random.once_in(2) { random.odd() } else { committed }),
        12 => acks.cell(ack::ARMED).set(random.odd()),
        13 => acks.cell(ack::RECEIVED + random.below(5) as usize).set(random.odd()),
        14 => acks.cell(1 + random.below(64) as usize).set(random.odd()),
        _ => consumed.set(good),
    }
}
