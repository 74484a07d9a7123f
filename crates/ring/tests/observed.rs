//! The counters after every single step of both sides. Two real threads would show only a few of these states.

mod plain;
mod stepped;

use std::cell::RefCell;
use std::rc::Rc;

use librpc_ring::{Consumer, Head, Kind, Mode, Producer, ReceiverCounters, SenderCounters};

use plain::Plain;
use stepped::{Step, Stepped};

const CAPACITY: u64 = 512;

fn check(data: &Plain, ack: &Plain) {
    let (receiver, sender) = (ReceiverCounters::read(ack), SenderCounters::read(data));
    assert!(receiver.processed <= receiver.received, "{receiver:?}");
    assert!(receiver.received + receiver.missed <= sender.messages, "{receiver:?} of {sender:?}");
    assert!(receiver.bytes <= sender.bytes, "{receiver:?} of {sender:?}");
}

/// After each store of the sender, the receiver takes and processes everything that it finds, and after each store of
/// the receiver an observer reads the counters. In mode Latest the receiver is also overtaken, because it runs only for
/// every 40th message.
#[test]
fn no_counter_runs_ahead_at_any_step() {
    for (mode, every) in [(Mode::Lossless, 1), (Mode::Latest, 1), (Mode::Latest, 40)] {
        let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
        let observed = (data.clone(), ack.clone());
        let observe: Step = Rc::new(move || check(&observed.0, &observed.1));
        let receiver = Rc::new(RefCell::new(None::<Consumer<Plain, Stepped>>));
        let (receiving, looking) = (receiver.clone(), (data.clone(), ack.clone()));
        let step: Step = Rc::new(move || {
            check(&looking.0, &looking.1);
            // There is no receiver while the sender writes the header.
            if let Some(receiver) = &mut *receiving.borrow_mut()
                && SenderCounters::read(&looking.0).messages.is_multiple_of(every)
            {
                while receiver.pop(&mut Vec::new()).expect("an honest sender").is_some() {
                    receiver.consume();
                }
            }
        });
        let stepped = Stepped { memory: data.clone(), step };
        let mut sender = Producer::new(stepped, ack.clone(), CAPACITY, mode);
        let stepped = Stepped { memory: ack.clone(), step: observe };
        *receiver.borrow_mut() = Some(Consumer::new(data.clone(), stepped, CAPACITY, mode).expect("a header"));
        for number in 0..400 {
            let kind = if number % 3 == 0 { Kind::Topic } else { Kind::Message };
            let payload = vec![7; number % if mode == Mode::Latest { 1 } else { 50 }];
            sender.push(Head { time: Some(1), ..Head::of(kind) }, &payload).expect("room");
        }
        let counters = ReceiverCounters::read(&ack);
        assert!(counters.processed > 0 && (counters.missed > 0) == (every > 1), "{counters:?}");
    }
}
