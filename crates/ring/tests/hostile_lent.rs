//! Lent payloads between hostile peers: any hold words and positions against a sender, any descriptors against a receiver. No panic,
//! nothing out of range, bounded work, and answers that follow from the words alone.
//!
//! `HOSTILE_CHECKS` is how many checks each of the seeded tests makes, `HOSTILE_SEED` where it begins. A thousand million take a few
//! minutes:
//!
//! ```text
//! HOSTILE_CHECKS=1000000000 cargo test --profile attack -p librpc-ring --test hostile_lent -- --nocapture
//! ```

mod plain;
#[allow(dead_code, reason = "the peers are hostile: not all of an honest one's steps are needed")]
mod reference;

use std::env;
use std::time::Instant;

use librpc_ring::layout::{self, WORD, ack, data};
use librpc_ring::{Claim, Corrupt, Head, Lent, Mode, held, release};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use testkit::Random;

use plain::Plain;
use reference::{Sender, ring};

/// A scene begins with new rings.
const CHECKS_PER_SCENE: u64 = 1 << 14;

/// The most words that a question about a claim reads: the two positions, the magic, twice the number of holds, every hold.
const MOST_READS: usize = 5 + ack::HOLD_WORDS;

/// A sender that has lent something, in both modes overwritten or not.
fn lending(mode: Mode, payloads: u64, skips: bool) -> (Sender, Vec<Claim>, Plain, Plain) {
    let (mut sender, _, data, ack) = ring(4096, mode);
    let lent = Lent { segment: 1, offset: 2, bytes: 3 };
    let claims = (0..payloads).map_while(|_| sender.push_lent(Head::MESSAGE, &lent).ok()).collect();
    if skips {
        sender.skip_all();
    }
    (sender, claims, data, ack)
}

/// What must be answered about a claim, from the words alone.
fn is_needed(claim: &Claim, mode: Mode, data: &Plain, ack: &Plain) -> (bool, bool) {
    let overwritten = mode == Mode::Latest && data.cell(data::INTENT).get() > claim.begin + 4096;
    let is_consumed = overwritten || ack.cell(ack::CONSUMED).get() >= claim.end;
    let used = ack.cell(ack::HOLDS_USED).get();
    let in_use = if used == 0 { 0 } else { used.clamp(1, 512) as usize };
    (is_consumed, (0..in_use).any(|hold| ack.cell(ack::HOLDS + hold).get() == claim.sequence + 1))
}

#[inline]
fn check_claim(claim: &Claim, mode: Mode, data: &Plain, ack: &Plain) {
    let (is_consumed, is_held) = is_needed(claim, mode, data, ack);
    let reads = ack.reads() + data.reads();
    assert_eq!(claim.is_released(data, ack), is_consumed && !is_held, "{claim:?}");
    assert!(ack.reads() + data.reads() - reads <= MOST_READS, "bounded work");
    assert_eq!(claim.is_consumed(data, ack), is_consumed, "{claim:?}");
}

fn any_mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Lossless, Mode::Latest])
}

proptest! {
    #[test]
    fn a_claim_follows_from_the_words(
        mode in any_mode(),
        skips: bool,
        payloads in 1..150u64,
        used in prop_oneof![0..5u64, 500..520u64, any::<u64>()],
        consumed in prop_oneof![0..5000u64, any::<u64>()],
        holds in vec((any::<Index>(), prop_oneof![4 => 0..150u64, 1 => any::<u64>()]), 0..20),
    ) {
        let (_, claims, data, ack) = lending(mode, payloads, skips);
        ack.cell(ack::HOLDS_USED).set(used);
        ack.cell(ack::CONSUMED).set(consumed);
        for (hold, value) in holds {
            ack.cell(ack::HOLDS + hold.index(ack::HOLD_WORDS)).set(value);
        }
        claims.iter().for_each(|claim| check_claim(claim, mode, &data, &ack));
        let in_use = used.min(512) as usize;
        prop_assert_eq!(held(&ack), (0..in_use).filter(|hold| ack.cell(ack::HOLDS + hold).get() != 0).count());
    }

    /// Whatever a record says about its payload's place is handed out as it is, or the record is corrupt and holds nothing.
    #[test]
    fn a_descriptor_is_whole_or_corrupt(
        mode in any_mode(),
        bytes in prop_oneof![3 => Just(24u64), 1 => 0..300u64],
        kind in 1..11u64,
        flags in select((0..64u64).filter(|flags| flags & 16 != 0).collect::<Vec<_>>()),
        words: [u64; 7],
        held_before in option::of(any::<u64>()),
    ) {
        let (_, mut receiver, data, ack) = ring(4096, mode);
        ack.cell(ack::HOLDS).set(held_before.unwrap_or(0));
        let commit = bytes | kind << 32 | flags << 40;
        for (at, word) in [commit, 0].into_iter().chain(words).enumerate() {
            data.cell(data::RING + at).set(word);
        }
        let optional = (flags & 39).count_ones() as usize;
        let mut payload = Vec::new();
        let found = receiver.pop(&mut payload);
        if bytes == 24 && ![2, 8, 9, 10].contains(&kind) {
            let record = found.unwrap().unwrap();
            let [segment, offset, bytes] = words[optional..][..3] else { unreachable!() };
            prop_assert_eq!(Lent::decode(&payload), Some(Lent { segment, offset, bytes }));
            prop_assert_eq!((record.head.lent, record.payload_bytes), (true, 24));
            prop_assert_eq!((ack.cell(ack::HOLDS).get(), receiver.counters().bytes), (1, bytes));
            prop_assert_eq!(receiver.keep(), Some(1));
            prop_assert_eq!((ack.cell(ack::HOLDS).get(), ack.cell(ack::HOLDS + 1).get()), (0, 1));
        } else {
            let corrupt = found.unwrap_err();
            prop_assert_eq!(corrupt, Corrupt::Lent { position: 0, bytes: bytes as usize });
            prop_assert_eq!((payload.len(), held(&ack), receiver.counters().bytes), (0, 0, 0));
        }
    }
}

/// Runs scenes until there were as many checks as are wanted.
fn many(name: &str, scene: fn(&mut Random)) {
    let number = |name, otherwise| env::var(name).map_or(otherwise, |value| value.parse().expect("a number"));
    let (checks, seed) = (number("HOSTILE_CHECKS", 300_000), number("HOSTILE_SEED", 1));
    let (begun, scenes) = (Instant::now(), u64::div_ceil(checks, CHECKS_PER_SCENE));
    for number in seed..seed + scenes {
        let repeat = Repeat(number);
        scene(&mut Random::new(number));
        std::mem::forget(repeat);
    }
    let (done, seconds) = (scenes * CHECKS_PER_SCENE, begun.elapsed().as_secs_f64());
    println!("{name}: {done} checks, {:.1} million per second", done as f64 / seconds / 1e6);
}

/// Says how to repeat a scene that fails.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        eprintln!("to repeat it: HOSTILE_CHECKS=1 HOSTILE_SEED={}", self.0);
    }
}

fn draw_mode(random: &mut Random) -> Mode {
    if random.once_in(2) { Mode::Latest } else { Mode::Lossless }
}

/// Any positions and holds of a receiver, which may also change while they are read.
#[test]
fn a_sender_survives_any_holds() {
    many("holds", |random| {
        let (mode, payloads, skips) = (draw_mode(random), 1 + random.below(150), random.once_in(2));
        let (_, claims, data, ack) = lending(mode, payloads, skips);
        for _ in 0..CHECKS_PER_SCENE {
            let claim = &claims[random.below(claims.len() as u64) as usize];
            // A few holds are near the beginning, where most looks are.
            let holds = if random.once_in(8) { 512 } else { 6 };
            let hold = ack::HOLDS + random.below(holds) as usize;
            match random.below(64) {
                0..=23 => ack.cell(hold).set(claim.sequence + 1),
                24..=31 => ack.cell(hold).set(0),
                32..=35 => ack.cell(hold).set(random.odd()),
                36..=45 => ack.cell(ack::HOLDS_USED).set(random.below(8)),
                // Rarely: a look at every hold takes as long as a hundred others.
                46 if random.once_in(16) => ack.cell(ack::HOLDS_USED).set(510 + random.below(4)),
                47 if random.once_in(16) => ack.cell(ack::HOLDS_USED).set(random.odd()),
                46 | 47 => {}
                48..=57 => ack.cell(ack::CONSUMED).set(claim.end - 8 + 8 * random.below(3)),
                58 => ack.cell(ack::CONSUMED).set(random.odd()),
                59 => {
                    // What is read now and then is not what is there.
                    ack.lie(random.below(4) as u32, random);
                    let reads = ack.reads() + data.reads();
                    let _ = (claim.is_released(&data, &ack), claim.is_consumed(&data, &ack));
                    assert!(ack.reads() + data.reads() - reads <= MOST_READS + 2, "bounded work");
                    let _ = held(&ack);
                    ack.lie(64, random);
                }
                _ => ack.cell(ack::CONSUMED).set(u64::MAX),
            }
            check_claim(claim, mode, &data, &ack);
        }
    });
}

/// Any records that lend something, and any use of them.
#[test]
fn a_receiver_survives_any_descriptors() {
    many("descriptors", |random| {
        let mode = draw_mode(random);
        let (_, mut receiver, data, ack) = ring(4096, mode);
        let longest = layout::max_record_bytes(4096, mode);
        let mut payload = Vec::with_capacity(1024);
        let mut kept = Vec::new();
        for _ in 0..CHECKS_PER_SCENE {
            let (position, number) = (ack.cell(ack::TAKEN).get(), receiver.received() + receiver.counters().missed);
            let at = data::RING + (position & 4095) as usize / WORD;
            let (kind, flags) = (1 + random.below(11), 16 | random.below(64));
            let bytes = if random.once_in(8) { random.below(longest + 64) } else { 24 };
            let mut words = [bytes | kind << 32 | flags << 40 | (position >> 12 & 0xffff) << 48, number];
            if random.once_in(16) {
                words[random.below(2) as usize] ^= 1 << random.below(64);
            }
            words.iter().enumerate().for_each(|(word, value)| data.cell(at + word).set(*value));
            data.cell(at + 2 + random.below(6) as usize).set(random.odd());
            if mode == Mode::Latest {
                let overtakes = random.once_in(8);
                data.cell(data::INTENT).set(if overtakes { position + 4096 + random.below(9000) } else { 0 });
                data.cell(data::MARK).set(position + 8 * random.below(600));
            }
            if random.once_in(64) {
                data.lie(1 + random.below(6) as u32, random);
            }
            let (held_before, received) = (ack.cell(ack::HOLDS).get(), receiver.received());
            let reads = data.reads();
            payload.clear();
            let found = receiver.pop(&mut payload);
            assert!(data.reads() - reads <= 2 * (longest as usize / WORD + 3), "bounded work");
            data.lie(64, random);
            match found {
                Ok(Some(record)) => {
                    assert_eq!(payload.len(), record.payload_bytes);
                    assert!(record.head.record_bytes(record.payload_bytes) <= longest);
                    if record.head.lent {
                        assert!(record.head.kind.is_counted() && Lent::decode(&payload).is_some());
                        assert_eq!(ack.cell(ack::HOLDS).get(), record.sequence + 1, "it is held");
                        match random.below(4) {
                            0 => receiver.let_go(),
                            1 if kept.len() < 8 => kept.push(receiver.keep().expect("a free hold")),
                            2 => receiver.untake(&record.head, &payload),
                            _ => {}
                        }
                    }
                }
                Ok(None) | Err(_) => {
                    let is_held = ack.cell(ack::HOLDS).get();
                    assert!(is_held == 0 || is_held == held_before, "what was not handed out is not held");
                    assert_eq!((payload.len(), receiver.received()), (0, received), "nothing was taken");
                }
            }
            if random.once_in(4) && !kept.is_empty() {
                release(&ack, kept.swap_remove(random.below(kept.len() as u64) as usize));
            }
            if random.once_in(2) {
                receiver.consume();
            }
            assert!(held(&ack) <= kept.len() + 1 && ack.cell(ack::HOLDS_USED).get() <= 9);
        }
    });
}
