//! The messages that a receiver left unprocessed when it was gone, as its sender finds them.

mod plain;

use librpc_ring::layout::{ack, data};
use librpc_ring::{Consumer, Head, Kind, Mode, Producer};
use plain::Plain;
use proptest::prelude::*;

const CAPACITY: u64 = 1024;

fn ring(first: u64) -> (Producer<Plain, Plain>, Consumer<Plain, Plain>, Plain, Plain) {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let sender = Producer::continuing(data.clone(), ack.clone(), CAPACITY, Mode::Lossless, first);
    let receiver = Consumer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless).expect("a good header");
    (sender, receiver, data, ack)
}

fn found(sender: &mut Producer<Plain, Plain>) -> (Vec<(u64, Vec<u8>, bool)>, u64) {
    let mut found = Vec::new();
    let lost = sender.unprocessed(|head, number, payload| found.push((number, payload.to_vec(), head.redelivered)));
    (found, lost)
}

proptest! {
    /// Exactly what was not processed, in order, with its numbers; flagged exactly if it was handed out.
    #[test]
    fn the_unprocessed_messages_are_those_pushed_and_not_consumed(
        first in 0..1000u64,
        steps in prop::collection::vec((0..3u8, 0..40usize), 0..200),
    ) {
        let (mut sender, mut receiver, ..) = ring(first);
        let (mut pushed, mut taken, mut consumed) = (Vec::new(), 0, 0);
        let mut payload = Vec::new();
        for (step, bytes) in steps {
            match step {
                0 => {
                    let head = if bytes % 7 == 0 { Head { topic: Some(1), ..Head::of(Kind::Topic) } } else { Head::MESSAGE };
                    let message = vec![bytes as u8; bytes];
                    if let Ok(number) = sender.push(head, &message) {
                        prop_assert_eq!(number, first + pushed.len() as u64);
                        if head.kind.is_counted() {
                            pushed.push(message);
                        }
                    }
                }
                1 => {
                    payload.clear();
                    if let Some(record) = receiver.pop(&mut payload).expect("an honest sender") {
                        taken += usize::from(record.head.kind.is_counted());
                    }
                }
                _ => {
                    receiver.consume();
                    consumed = taken;
                }
            }
        }
        let (found, lost) = found(&mut sender);
        prop_assert_eq!(lost, 0);
        let expected = pushed.iter().enumerate().skip(consumed);
        let expected: Vec<_> =
            expected.map(|(at, message)| (first + at as u64, message.clone(), at < taken)).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_claim_that_is_not_at_a_boundary_is_not_believed() {
    for claim in [48, 56, 88, 200, 1 << 40] {
        let (mut sender, mut receiver, _, acks) = ring(0);
        for _ in 0..3 {
            sender.push(Head::MESSAGE, &[7; 24]).expect("there is room");
        }
        receiver.pop(&mut Vec::new()).expect("an honest sender");
        receiver.consume();
        sender.consumed().expect("an honest receiver");
        acks.cell(ack::CONSUMED).set(claim);
        let (found, lost) = found(&mut sender);
        assert_eq!((found.len(), lost), (2, 0), "claim {claim}: the last boundary that was seen is used");
    }
}

/// If the receiver's words contradict each other, every message may have been handed out.
#[test]
fn a_receiver_that_contradicts_itself_may_have_handed_out_anything() {
    // Records of 40 bytes: the first is processed, the second in work, the third untouched.
    for (consumed, taken, flags) in [
        (40, 80, vec![true, false]),
        (48, 80, vec![true, true]),
        (1 << 40, 80, vec![true, true]),
        (40, 0, vec![true, true]),
        (40, u64::MAX, vec![true, true]),
    ] {
        let (mut sender, mut receiver, _, acks) = ring(0);
        for _ in 0..3 {
            sender.push(Head::MESSAGE, &[7; 24]).expect("there is room");
        }
        receiver.pop(&mut Vec::new()).expect("an honest sender");
        receiver.consume();
        sender.consumed().expect("an honest receiver");
        acks.cell(ack::CONSUMED).set(consumed);
        acks.cell(ack::TAKEN).set(taken);
        let flagged: Vec<bool> = found(&mut sender).0.into_iter().map(|(.., is_flagged)| is_flagged).collect();
        assert_eq!(flagged, flags, "consumed {consumed}, taken {taken}");
    }
}

#[test]
fn a_ring_that_takes_over_continues_the_numbers() {
    let (mut sender, mut receiver, data, ack) = ring(41);
    assert_eq!(sender.push(Head::MESSAGE, b"x"), Ok(41));
    let record = receiver.pop(&mut Vec::new()).expect("an honest sender").expect("a record");
    assert_eq!((record.sequence, receiver.received(), sender.sequence()), (41, 1, 42));
    assert_eq!(data.cell(data::SEQUENCE).get(), 1, "observers count from 0");
    assert_eq!(ack.cell(ack::RECEIVED).get(), 1);
    data.cell(data::FIRST).set(u64::MAX);
    assert!(Consumer::new(data, ack, CAPACITY, Mode::Lossless).is_err());
}

/// A claim leads to a payload that imitates a record. What follows must be the records that were pushed, one by one, to the end of
/// the last one.
#[test]
fn a_claim_into_a_payload_that_imitates_a_record_is_not_believed() {
    let forged = |bytes: u64, number: u64| [bytes | 1 << 32, number, 0].map(u64::to_le_bytes).concat();
    for (which, bytes, number, why) in [
        (0, 8, 5, "the record after it has another number"),
        (0, 8, u64::MAX, "no number follows the greatest"),
        (1, 32, 1, "it ends after the last record"),
        (1, 8, 0, "its number is not the last one"),
    ] {
        let (mut sender, _, _, acks) = ring(0);
        for message in 0..2 {
            let payload = if message == which { forged(bytes, number) } else { vec![7; 24] };
            sender.push(Head::MESSAGE, &payload).expect("there is room");
        }
        acks.cell(ack::CONSUMED).set(40 * which + 16);
        let (found, lost) = found(&mut sender);
        let found: Vec<(u64, bool)> = found.into_iter().map(|(number, _, is_flagged)| (number, is_flagged)).collect();
        assert_eq!((found, lost), (vec![(0, true), (1, true)], 0), "{why}: it may have handed out anything");
    }
}

#[test]
fn in_mode_latest_nothing_is_kept() {
    let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
    let mut sender = Producer::new(data, ack, CAPACITY, Mode::Latest);
    sender.push(Head::MESSAGE, b"x").expect("there is always room");
    assert_eq!(found(&mut sender), (vec![], 0));
}
