//! The counters at every single step of both sides: what two real threads show by chance at most.

mod plain;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::{Consumer, Head, Kind, Memory, MemoryMut, Mode, Producer, ReceiverCounters, SenderCounters};

use plain::Plain;

const CAPACITY: u64 = 512;

/// What happens behind each store.
type Step = Rc<dyn Fn()>;

/// Memory whose writer is interrupted behind each store.
struct Stepped {
    memory: Plain,
    step: Step,
}

impl Memory for Stepped {
    fn load(&self, word: usize, order: Ordering) -> u64 {
        self.memory.load(word, order)
    }

    fn get(&self, word: usize) -> u64 {
        self.memory.get(word)
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        self.memory.read(word, bytes, into);
    }

    fn fence(&self, _: Ordering) {}
}

impl MemoryMut for Stepped {
    fn store(&self, word: usize, value: u64, order: Ordering) {
        self.memory.store(word, value, order);
        (self.step)();
    }

    fn put(&self, word: usize, value: u64) {
        self.memory.put(word, value);
        (self.step)();
    }

    fn write(&self, word: usize, from: &[u8]) {
        self.memory.write(word, from);
        (self.step)();
    }
}

fn check(data: &Plain, ack: &Plain) {
    let (receiver, sender) = (ReceiverCounters::read(ack), SenderCounters::read(data));
    assert!(receiver.processed <= receiver.received, "{receiver:?}");
    assert!(receiver.received + receiver.missed <= sender.messages, "{receiver:?} of {sender:?}");
    assert!(receiver.bytes <= sender.bytes, "{receiver:?} of {sender:?}");
}

/// Behind each store of the sender the receiver takes and processes whatever it finds, and behind each store of its own
/// somebody looks on. In mode Latest it is also overtaken: it only wakes up for every 40th message.
#[test]
fn no_counter_runs_ahead_at_any_step() {
    for (mode, every) in [(Mode::Lossless, 1), (Mode::Latest, 1), (Mode::Latest, 40)] {
        let (data, ack) = (Plain::data(CAPACITY), Plain::ack());
        let looking = (data.clone(), ack.clone());
        let look: Step = Rc::new(move || check(&looking.0, &looking.1));
        let receiver = Rc::new(RefCell::new(None::<Consumer<Plain, Stepped>>));
        let (receiving, looking) = (receiver.clone(), (data.clone(), ack.clone()));
        let step: Step = Rc::new(move || {
            check(&looking.0, &looking.1);
            // Not yet there while the sender writes the header.
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
        let stepped = Stepped { memory: ack.clone(), step: look };
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
