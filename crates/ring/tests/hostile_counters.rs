//! An observer against counters and a histogram with any values: no overflow, and sums that make sense.

mod plain;

use librpc_ring::layout::{ACK_BYTES, WORD, ack, data};
use librpc_ring::{Counters, Histogram, ReceiverCounters, SenderCounters, outstanding};
use proptest::collection::vec;
use proptest::prelude::*;

use plain::Plain;

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 0..100u64, 1 => u64::MAX - 100..=u64::MAX, 1 => any::<u64>()]
}

/// A header of a sender, and an ack memory, filled with any words.
fn memories() -> impl Strategy<Value = (Plain, Plain)> {
    (vec(word(), data::LAST_SENT + 1), vec(word(), ACK_BYTES / WORD)).prop_map(|(sender, receiver)| {
        let (data, ack) = (Plain::data(512), Plain::ack());
        sender.into_iter().enumerate().for_each(|(word, value)| data.cell(word).set(value));
        receiver.into_iter().enumerate().for_each(|(word, value)| ack.cell(word).set(value));
        (data, ack)
    })
}

proptest! {
    #[test]
    fn counters_of_any_value_add_up((data, ack) in memories()) {
        let Counters { sender, receiver, .. } = Counters::read(&data, &ack);
        prop_assert_eq!(sender, SenderCounters::read(&data));
        prop_assert!(receiver.processed <= receiver.received);
        prop_assert!(receiver.received.checked_add(receiver.missed).is_some_and(|sum| sum <= sender.messages));
        prop_assert!(receiver.bytes <= sender.bytes);
        prop_assert!(Counters::read(&data, &ack).queued() <= sender.messages);
        prop_assert!(outstanding(&data, &ack) <= sender.messages);
    }

    /// A peer's claims that were not reduced, too.
    #[test]
    fn claims_that_contradict_each_other_leave_nothing_queued((data, ack) in memories()) {
        let mut counters = Counters::default();
        (counters.sender, counters.receiver) = (SenderCounters::read(&data), ReceiverCounters::read(&ack));
        prop_assert!(counters.queued() <= counters.sender.messages);
    }

    #[test]
    fn histograms_of_any_value_add_up((_, first) in memories(), (_, second) in memories(), ns in word(), part in 0.0..=1.0) {
        let (earlier, later) = (Histogram::read(&first), Histogram::read(&second));
        let largest = (0..ack::BUCKETS).map(|bucket| first.cell(ack::HISTOGRAM + bucket).get()).max();
        prop_assert!(Some(earlier.count()) >= largest, "a sum ends at the greatest number");
        let mut sum = earlier.clone();
        sum += &later;
        sum.record(ns);
        prop_assert!(sum.count() >= earlier.count() && sum.sum_ns() >= later.sum_ns() && sum.max_ns() >= ns);
        for histogram in [&earlier, &later, &sum, &later.since(&earlier)] {
            prop_assert!(histogram.count_below(ns) <= histogram.count());
            prop_assert_eq!(histogram.quantile(part).is_some(), !histogram.is_empty());
            prop_assert!(histogram.buckets().all(|bucket| bucket.to_ns.is_none_or(|end| bucket.from_ns < end)));
        }
    }
}
