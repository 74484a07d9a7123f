//! A sender and an observer against a receiver that writes anything: no panic, no overflow, and exact errors.

mod plain;
#[allow(dead_code, reason = "the receiver is hostile: an honest one's steps are not needed")]
mod reference;

use std::collections::VecDeque;

use librpc_ring::layout::{self, ack};
use librpc_ring::{Counters, Head, Mode, PushError, outstanding};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use reference::{Length, capacity, head, length, payload, record_bytes, ring};

/// What a receiver may claim to have consumed.
#[derive(Clone, Debug)]
enum Claim {
    /// A boundary of a record from its last valid claim to the last commit.
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
    /// A claim is valid from the last valid one to the last commit, in whole words. Any other claim is an error, and the sender
    /// continues with the last valid one.
    #[test]
    fn a_sender_survives_a_receiver_that_writes_anything(capacity in capacity(), steps in vec(hostile(), 0..300)) {
        let (mut sender, _, data, ack) = ring(capacity, Mode::Lossless);
        let max = layout::max_payload_bytes(capacity, Mode::Lossless) as usize;
        // The beginning of each record that may still be in the ring, the last valid claim, and what the sender has
        // pushed.
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
                        pushed += u64::from(head.kind.is_counted());
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
                    // An observer does not know what was claimed before.
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
