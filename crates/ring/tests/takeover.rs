//! A receiver that dies at any store, and a sender that takes over: every message that was handed out and not consumed is
//! flagged, in every interleaving.

mod plain;
mod stepped;

use std::cell::RefCell;
use std::rc::Rc;

use librpc_ring::{Consumer, Head, Kind, Mode, Producer};
use proptest::collection::vec;
use proptest::prelude::*;

use plain::Plain;
use stepped::Stepped;

const CAPACITY: u64 = 512;

/// What has happened to the messages, by their numbers. For the receiver's side, it is what the application knows.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    pushed: u64,
    /// `pop` has returned the messages before this one.
    handed_out: u64,
    /// `pop` has begun to take this many more.
    in_pop: u64,
    /// `consume` has returned for the messages before this one.
    consumed: u64,
    /// `consume` has begun for the messages before this one.
    consuming: u64,
}

/// One step of the two sides.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push { bytes: usize, kind: Kind, redelivered: bool },
    Pop,
    PopPlain,
    Consume,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(Kind::Message), 1 => Just(Kind::Topic), 1 => Just(Kind::Request)];
    prop_oneof![
        4 => (0..60usize, kind, prop::bool::weighted(0.1))
            .prop_map(|(bytes, kind, redelivered)| Step::Push { bytes, kind, redelivered }),
        2 => Just(Step::Pop),
        2 => Just(Step::PopPlain),
        2 => Just(Step::Consume),
    ]
}

type Sender = Rc<RefCell<Producer<Plain, Plain>>>;

/// What the sender finds if the receiver dies now, and what must be true of it.
fn take_over(sender: &Sender, known: Known, flagged: &[bool]) {
    let mut found = Vec::new();
    let lost = sender.borrow_mut().unprocessed(|head, number, _| found.push((number, head.redelivered)));
    assert_eq!(lost, 0, "{known:?}");
    let first = found.first().map_or(known.pushed, |(number, _)| *number);
    // While `consume` runs, the messages are processed, so either is true.
    assert!(first == known.consumed || first == known.consuming, "{found:?} of {known:?}");
    assert!(found.iter().map(|(number, _)| *number).eq(first..known.pushed), "{found:?} of {known:?}");
    for (number, is_flagged) in found {
        let must_be = number < known.handed_out || flagged[number as usize];
        let may_be = must_be || number < known.handed_out + known.in_pop;
        assert!(is_flagged >= must_be && is_flagged <= may_be, "message {number}: {is_flagged} of {known:?}");
    }
}

proptest! {
    #[test]
    fn every_message_that_was_handed_out_and_not_consumed_is_flagged(steps in vec(step(), 1..120)) {
        let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
        let sender: Sender =
            Rc::new(RefCell::new(Producer::new(data.clone(), ack.clone(), CAPACITY, Mode::Lossless)));
        let known = Rc::new(RefCell::new(Known::default()));
        let flagged = Rc::new(RefCell::new(Vec::new()));
        // The receiver may die after each of its stores.
        let deaths = (sender.clone(), known.clone(), flagged.clone());
        let step = Rc::new(move || take_over(&deaths.0, *deaths.1.borrow(), &deaths.2.borrow()));
        let stepped = Stepped { memory: ack, step };
        let mut receiver = Consumer::new(data, stepped, CAPACITY, Mode::Lossless).expect("the header just written");
        let mut payload = Vec::new();
        for step in steps {
            match step {
                Step::Push { bytes, kind, redelivered } => {
                    let head = Head { redelivered, ..Head::of(kind) };
                    let pushed = sender.borrow_mut().push(head, &vec![7; bytes]);
                    if pushed.is_ok() && kind.is_counted() {
                        known.borrow_mut().pushed += 1;
                        flagged.borrow_mut().push(redelivered);
                    }
                }
                Step::Pop | Step::PopPlain => {
                    known.borrow_mut().in_pop = 1;
                    payload.clear();
                    let is_message = match step {
                        Step::Pop => {
                            let record = receiver.pop(&mut payload).expect("an honest sender");
                            record.is_some_and(|record| record.head.kind.is_counted())
                        }
                        _ => receiver.pop_plain(&mut payload, |_| true).is_some(),
                    };
                    let mut known = known.borrow_mut();
                    known.handed_out += u64::from(is_message);
                    known.in_pop = 0;
                }
                Step::Consume => {
                    let handed_out = known.borrow().handed_out;
                    known.borrow_mut().consuming = handed_out;
                    receiver.consume();
                    known.borrow_mut().consumed = handed_out;
                }
            }
            take_over(&sender, *known.borrow(), &flagged.borrow());
        }
    }
}
