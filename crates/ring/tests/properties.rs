//! The ring compared with a queue: they are equal after any steps of the two sides, in any order.

mod plain;
mod reference;

use librpc_ring::layout::{self, ack, data};
use librpc_ring::{Armed, Counters, Head, Kind, Mode, Returned, SenderCounters, stop_waiting, wait_for_receiver};
use proptest::collection::vec;
use proptest::prelude::*;

use reference::{Both, capacity, record_bytes, ring, step};

proptest! {
    /// Equal contents, order, numbers and positions after each step; `Full` and `TooLarge` exactly when they should come.
    #[test]
    fn the_ring_is_a_queue(capacity in capacity(), steps in vec(step(), 0..400), sender_looks: bool) {
        let mut both = Both::new(capacity);
        for step in steps {
            both.step(step);
            if sender_looks {
                both.check_what_the_sender_sees();
            }
        }
        both.check_what_the_sender_sees();
    }

    /// The ring becomes high with the push that reaches the mark, and low again at half of the mark.
    #[test]
    fn the_high_water_mark_is_reported(capacity in capacity(), mark in 0..1100u64, steps in vec(step(), 0..400)) {
        let mut both = Both::new(capacity);
        both.sender.set_high_water(Some(mark));
        let (mark, mut is_high) = (mark.max(1), false);
        for step in steps {
            both.step(step);
            let depth = both.queue.committed - both.queue.consumed;
            is_high = if is_high { depth > mark / 2 } else { depth >= mark };
            prop_assert_eq!(both.sender.is_high(), is_high, "depth {} at mark {}", depth, mark);
        }
        let depth = both.queue.committed - both.queue.consumed;
        both.sender.set_high_water(None);
        prop_assert!(!both.sender.is_high());
        both.sender.set_high_water(Some(8));
        prop_assert_eq!(both.sender.is_high(), depth >= 8, "a new mark is checked at once");
    }

    /// Counts that only the caller knows are stored where observers read them.
    #[test]
    fn notes_are_counted(dropped in 0..9u64, returned in vec(0..4usize, 0..20), blocked in vec(0..99u64, 0..5), at: u32) {
        let (mut sender, mut receiver, data, ack) = ring(512, Mode::Lossless);
        (0..dropped).for_each(|_| sender.note_dropped());
        let reasons = [Returned::TooLarge, Returned::NoRoom, Returned::NoMemory, Returned::Other];
        returned.iter().for_each(|&reason| sender.note_returned(reasons[reason]));
        blocked.iter().for_each(|ns| sender.note_blocked(*ns));
        let at = u64::from(at) + 1;
        sender.push(Head { time: Some(at), ..Head::MESSAGE }, b"").unwrap();
        sender.push(Head::MESSAGE, b"").unwrap();
        receiver.note_received_at(at + 1);
        let counters = Counters::read(&data, &ack);
        prop_assert_eq!((sender.counters(), receiver.counters()), (counters.sender, counters.receiver));
        prop_assert_eq!(receiver.sender_counters(), counters.sender);
        let SenderCounters { dropped: seen, returned: back, blocked_ns, last_sent, .. } = counters.sender;
        prop_assert_eq!((seen, back), (dropped, returned.len() as u64));
        prop_assert_eq!(receiver.turned_away(), seen + back - returned.iter().filter(|&&other| other == 3).count() as u64);
        prop_assert_eq!(receiver.turned_away(), counters.sender.turned_away());
        let count = |reason: usize| returned.iter().filter(|&&other| other == reason).count() as u64;
        let SenderCounters { too_large, no_room, no_memory, .. } = counters.sender;
        prop_assert_eq!([too_large, no_room, no_memory], [count(0), count(1), count(2)]);
        prop_assert_eq!((blocked_ns, last_sent), (blocked.iter().sum::<u64>(), at));
        prop_assert_eq!(counters.receiver.last_received, at + 1);
    }

    /// In both directions. The bell is not rung for a sleeper that has woken.
    #[test]
    fn the_bell_is_rung_once_per_epoch(epochs in vec(0..4u64, 0..20)) {
        let (mut sender, mut receiver, data, ack) = ring(layout::MIN_CAPACITY, Mode::Lossless);
        let (mut rung, mut answered) = (0, 0);
        for epoch in epochs {
            ack.cell(ack::ARMED).set(epoch);
            prop_assert_eq!(sender.must_ring(), epoch != 0 && epoch != rung);
            ack.cell(ack::CONSUMED).set(epoch);
            prop_assert_eq!(wait_for_receiver(&data, &ack, epoch), epoch, "read again");
            prop_assert_eq!(receiver.must_ring(), epoch != 0 && epoch != answered);
            stop_waiting(&data);
            prop_assert!(!receiver.must_ring());
            if epoch != 0 {
                (rung, answered) = (epoch, epoch);
            }
        }
    }
}

proptest! {
    // Each case first goes round the ring 65,535 times.
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// The lap in a commit word has 16 bits: zero follows the last one.
    #[test]
    fn the_lap_may_wrap(steps in vec(step(), 200..400)) {
        let mut both = Both::new(layout::MIN_CAPACITY);
        both.go_round(0xffff);
        for step in steps {
            both.step(step);
            both.check_what_the_sender_sees();
        }
    }
}

/// A receiver that arms checks for everything that may have happened, each time under a new epoch.
#[test]
fn arming_looks_once_more() {
    let (mut sender, mut receiver, data, ack) = ring(512, Mode::Lossless);
    let armed = || ack.cell(ack::ARMED).get();
    assert_eq!((receiver.arm(), armed()), (Armed::Sleep, 1));
    receiver.disarm();
    assert_eq!(armed(), 0);
    sender.push(Head::MESSAGE, b"one").unwrap();
    assert_eq!((receiver.arm(), armed()), (Armed::Awake, 2), "a record");
    receiver.pop(&mut Vec::new()).unwrap().unwrap();
    assert_eq!((receiver.arm(), armed()), (Armed::Sleep, 3));
    sender.close();
    assert!(receiver.is_closed());
    assert_eq!((receiver.arm(), armed()), (Armed::Awake, 4), "the end");
    data.cell(data::CLOSED).set(0);
    data.cell(data::RING + 3).set(1);
    assert_eq!((receiver.arm(), armed()), (Armed::Awake, 5), "corruption");
    assert_eq!(receiver.epochs(), 5);
}

/// The fast path of a push needs what a push needs: room, and a payload within the limit.
#[test]
fn the_fast_path_writes_nothing_that_is_too_long_or_has_no_room() {
    const BYTES: usize = 24;
    let mut both = Both::new(4096);
    let fill = |both: &mut Both| {
        while both.queue.committed + record_bytes(&Head::MESSAGE, BYTES) + 8 <= both.queue.consumed + 4096 {
            both.push(Head::MESSAGE, &[1; BYTES]);
        }
        both.check();
    };
    let empty = |both: &mut Both| {
        while !both.queue.untaken.is_empty() {
            both.pop();
        }
        both.consume();
    };
    fill(&mut both);
    assert!(!both.sender.push_plain(None, &[2; BYTES]), "the ring is full");
    both.check();
    empty(&mut both);
    // The ring was full once and is empty now, so no depth needs a check any more.
    both.push(Head::MESSAGE, &[3; BYTES]);
    let longest = layout::max_payload_bytes(4096, Mode::Lossless) as usize;
    assert!(!both.sender.push_plain(None, &vec![4; longest + 1]), "longer than the ring takes");
    both.check();
    both.sender.limit_plain(BYTES);
    assert!(!both.sender.push_plain(None, &[5; BYTES + 1]), "longer than the limit");
    both.check();
    assert!(both.sender.push_plain(None, &[6; BYTES]), "within the limit");
    empty(&mut both);
    let mut payload = Vec::new();
    let plain = both.receiver.pop_plain(&mut payload, |_| true).expect("what the fast path has written");
    assert_eq!((plain.sequence, payload), (both.queue.pushed, vec![6; BYTES]));
}

/// What the fast paths of calls take, and what they leave to the others.
#[test]
fn the_fast_path_of_calls_takes_what_has_nothing_but_a_correlation_and_a_deadline() {
    let mut both = Both::new(4096);
    let of = |kind| Head { correlation: Some(7), ..Head::of(kind) };
    let late = Head { deadline: Some(9), ..of(Kind::Request) };
    let mut found = Vec::new();
    for (head, deadline) in
        [(of(Kind::Request), None), (late, Some(9)), (of(Kind::Reply), None), (of(Kind::Part), None)]
    {
        let sequence = both.sender.push(head, b"payload").unwrap();
        let of_call = both.receiver.pop_of_call(&mut found, |kind| kind == head.kind).expect("one of them");
        assert_eq!((of_call.kind, of_call.correlation, of_call.deadline), (head.kind, 7, deadline));
        assert_eq!((of_call.sequence, of_call.payload_bytes, &*found), (sequence, 7, &b"payload"[..]));
        found.clear();
    }
    let lent = Head { lent: true, ..of(Kind::Reply) };
    let again = Head { redelivered: true, ..late };
    let stamped = Head { time: Some(1), ..late };
    let untimely = Head { deadline: Some(9), ..of(Kind::Reply) };
    for head in [Head::MESSAGE, of(Kind::Failure), of(Kind::Cancel), lent, again, stamped, untimely] {
        both.sender.push(head, &[0; 24]).unwrap();
        assert_eq!(both.receiver.pop_of_call(&mut found, |_| true), None, "{head:?}");
        assert_eq!(both.receiver.pop(&mut Vec::new()).unwrap().map(|record| record.head), Some(head));
    }
}

/// The current depth counts as a depth that the ring has had.
#[test]
fn the_greatest_depth_is_at_least_the_depth_that_was_asked_for() {
    let (mut sender, mut receiver, data, ack) = ring(256 * 1024, Mode::Lossless);
    for _ in 0..2 {
        sender.push(Head::MESSAGE, &[7; 24]).unwrap();
    }
    assert_eq!(sender.depth(), Ok(80));
    assert_eq!((sender.counters().depth_max, Counters::read(&data, &ack).sender.depth_max), (80, 80));
    while receiver.pop(&mut Vec::new()).unwrap().is_some() {}
    receiver.consume();
    assert_eq!(sender.depth(), Ok(0));
    assert_eq!(sender.counters().depth_max, 80, "it does not fall");
}
