//! The ring against a queue: equal in whatever order the two sides act.

mod plain;
mod reference;

use librpc_ring::layout::{self, ack, data};
use librpc_ring::{Armed, Head, stop_waiting, wait_for_receiver};
use proptest::collection::vec;
use proptest::prelude::*;

use reference::{Both, capacity, ring, step};

proptest! {
    /// Equal contents, order, numbers and positions after each step; `Full` and `TooLarge` exactly when they are due.
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

    /// In both directions; a sleeper that has woken is not rung for.
    #[test]
    fn each_bell_is_rung_once_per_epoch(epochs in vec(0..4u64, 0..20)) {
        let (mut sender, mut receiver, data, ack) = ring(layout::MIN_CAPACITY);
        let (mut rung, mut answered) = (0, 0);
        for epoch in epochs {
            ack.cell(ack::ARMED).set(epoch);
            prop_assert_eq!(sender.must_ring(), epoch != 0 && epoch != rung);
            ack.cell(ack::CONSUMED).set(epoch);
            prop_assert_eq!(wait_for_receiver(&data, &ack, epoch), epoch, "read anew");
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
    // Each case goes round the ring 65 535 times first.
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// The lap in a commit word has 16 bits, and goes on from the last one to zero.
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

/// A receiver that arms looks for all that could have happened meanwhile, under a number of its own each time.
#[test]
fn arming_looks_once_more() {
    let (mut sender, mut receiver, data, ack) = ring(512);
    let armed = || ack.cell(ack::ARMED).get();
    assert_eq!((receiver.arm(), armed()), (Armed::Sleep, 1));
    receiver.disarm();
    assert_eq!(armed(), 0);
    sender.push(Head::MESSAGE, b"one").unwrap();
    assert_eq!((receiver.arm(), armed()), (Armed::Awake, 2), "a record");
    receiver.take(&receiver.peek().unwrap().unwrap(), &mut Vec::new());
    assert_eq!((receiver.arm(), armed()), (Armed::Sleep, 3));
    sender.close();
    assert!(receiver.is_closed());
    assert_eq!((receiver.arm(), armed()), (Armed::Awake, 4), "the end");
    data.cell(data::CLOSED).set(0);
    data.cell(data::RING + 3).set(1);
    assert_eq!((receiver.arm(), armed()), (Armed::Awake, 5), "corruption");
    assert_eq!(receiver.epochs(), 5);
}
