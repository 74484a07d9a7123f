//! Mode Latest in every interleaving and permitted reordering, as `loom.rs` does for the other mode: a sender that overwrites
//! what the receiver is reading, and the same models over memories that lack one thing each.
//!
//! When a model passes, every execution ended with no torn message handed out, with the last message received, with
//! every message received or counted as missed, and with both sides awake.

mod model;

use librpc_ring::{Armed, Consumer, Head, Mode, Producer, stop_waiting, wait_for_receiver};
use loom::sync::Notify;
use loom::thread;

use model::{Channel, LOST_WAKE_UP, Mapping, Role, Weakness, bell, caught, explore};

/// 128 words in chunks of 16.
const CAPACITY: u64 = 1024;

/// The payload of most models: records of 40 bytes, so that few words are read and written.
const SMALL: usize = 24;
/// A payload whose record takes 104 bytes with its three optional words: nine fill the ring.
const LARGE: usize = 64;

/// The content of message number n.
fn message(number: u64, bytes: usize) -> (Head, Vec<u8>) {
    let word = (bytes == LARGE).then_some(number << 8 | 0xff);
    (Head { time: word, topic: word, correlation: word, ..Head::MESSAGE }, vec![number as u8 + 1; bytes])
}

struct Sender {
    producer: Producer<Mapping, Mapping>,
    data: Mapping,
    ack: Mapping,
    bytes: usize,
}

impl Sender {
    fn push(&mut self) {
        let (head, payload) = message(self.producer.sequence(), self.bytes);
        self.producer.push(head, &payload).expect("room at any time");
    }

    /// Sleeps until everything is processed or skipped.
    fn flush_waiting(&mut self, own_bell: &Notify) {
        let committed = self.producer.committed();
        for epoch in 1.. {
            if self.producer.consumed().expect("an honest receiver") == committed {
                break;
            }
            if wait_for_receiver(&self.data, &self.ack, epoch) != committed {
                own_bell.wait();
            }
            stop_waiting(&self.data);
        }
    }
}

struct Receiver {
    consumer: Consumer<Mapping, Mapping>,
    bytes: usize,
    /// The number after that of the last message.
    next: u64,
}

impl Receiver {
    fn try_process(&mut self) -> bool {
        let mut payload = Vec::new();
        let found = self.consumer.pop(&mut payload).unwrap_or_else(|corrupt| panic!("torn: {corrupt}"));
        let Some(record) = found else {
            assert!(payload.is_empty(), "a copy that was dropped");
            return false;
        };
        assert_eq!((record.head, payload), message(record.sequence, self.bytes), "torn");
        assert_eq!(record.sequence, self.next + record.missed);
        self.next = record.sequence + 1;
        self.consumer.consume();
        true
    }

    fn process_polling_until(&mut self, all: u64) {
        while self.next < all {
            if !self.try_process() {
                thread::yield_now();
            }
        }
        let counters = self.consumer.counters();
        assert_eq!(counters.received + counters.missed, all);
    }

    fn process_sleeping_until(&mut self, all: u64, own_bell: &Notify, senders_bell: &Notify, second_look: bool) {
        while self.next < all {
            if self.try_process() {
                if self.consumer.must_ring() {
                    senders_bell.notify();
                }
            } else {
                if self.consumer.arm() == Armed::Sleep || !second_look {
                    own_bell.wait();
                }
                self.consumer.disarm();
            }
        }
    }
}

/// A channel on which some messages are processed, and some more wait in the ring.
fn begun(weakness: Weakness, bytes: usize, processed: u64, waiting: u64) -> (Sender, Receiver) {
    let Channel { producer, consumer, sender_data: data, sender_ack: ack, .. } =
        Channel::new(CAPACITY, Mode::Latest, weakness);
    let mut sender = Sender { producer, data, ack, bytes };
    let mut receiver = Receiver { consumer, bytes, next: 0 };
    for _ in 0..processed {
        sender.push();
        assert!(receiver.try_process());
    }
    (0..waiting).for_each(|_| sender.push());
    (sender, receiver)
}

/// Messages arrive whole and in order while nobody is overtaken.
fn publish(weakness: Weakness) {
    explore(Some(3), move || {
        let (mut sender, mut receiver) = begun(weakness, SMALL, 0, 0);
        let sending = thread::spawn(move || (0..2).for_each(|_| sender.push()));
        receiver.process_polling_until(2);
        assert_eq!(receiver.consumer.counters().missed, 0);
        sending.join().expect("a sender that ends");
    });
}

/// The receiver reads the first record while the sender overwrites it, with the 26th and 27th.
fn overtaking(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, SMALL, 0, 25);
        assert_eq!(sender.producer.committed(), 1000, "25 records fit before the end");
        let sending = thread::spawn(move || (0..2).for_each(|_| sender.push()));
        // The record is read while it is overwritten. Whichever is first, what was received is whole.
        receiver.try_process();
        sending.join().expect("a sender that ends");
        receiver.process_polling_until(27);
    });
}

/// The sender goes once round the ring while the receiver looks, so every mark that the receiver finds is new.
///
/// This model cannot show what a relaxed `intent` would break: a mark that is too old is eight stores old, and loom remembers
/// seven.
fn lapping(weakness: Weakness) {
    explore(Some(2), move || {
        let (mut sender, mut receiver) = begun(weakness, LARGE, 1, 0);
        let sending = thread::spawn(move || (0..10).for_each(|_| sender.push()));
        receiver.try_process();
        receiver.try_process();
        sending.join().expect("a sender that ends");
        receiver.process_polling_until(11);
    });
}

/// The sender makes the receiver skip everything, and overwrites the record that the receiver reads.
fn skipping(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, SMALL, 0, 25);
        let sending = thread::spawn(move || {
            sender.producer.skip_all();
            sender.push();
        });
        receiver.try_process();
        sending.join().expect("a sender that ends");
        receiver.process_polling_until(26);
    });
}

/// The sender overtakes the receiver, and makes it skip everything: it continues where nothing was written in this lap, except
/// for a zero word.
fn skipping_when_overtaken(weakness: Weakness) {
    explore(Some(3), move || {
        let (mut sender, mut receiver) = begun(weakness, SMALL, 1, 24);
        let sending = thread::spawn(move || {
            (0..2).for_each(|_| sender.push());
            sender.producer.skip_all();
            sender
        });
        receiver.try_process();
        let mut sender = sending.join().expect("a sender that ends");
        sender.push();
        receiver.process_polling_until(28);
    });
}

/// The sender makes the receiver skip a message that comes after the last mark.
fn skipping_the_last(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, SMALL, 24, 1);
        let sending = thread::spawn(move || {
            sender.producer.skip_all();
            sender.push();
        });
        receiver.try_process();
        sending.join().expect("a sender that ends");
        receiver.process_polling_until(26);
    });
}

/// Both sleep, while the receiver is overtaken: it gets the last message, and the sender's flush ends.
fn both_sleep(weakness: Weakness) {
    explore(Some(3), move || {
        let (mut sender, mut receiver) = begun(weakness, LARGE, 1, 9);
        let ((senders_own, senders_bell), (receivers_own, receivers_bell)) = (bell(), bell());
        let sending = thread::spawn(move || {
            // This one overtakes a receiver that has read nothing since.
            sender.push();
            if sender.producer.must_ring() {
                receivers_bell.notify();
            }
            sender.flush_waiting(&senders_own);
        });
        let second_look = weakness != Weakness::NoSecondLook(Role::Armed);
        receiver.process_sleeping_until(11, &receivers_own, &senders_bell, second_look);
        sending.join().expect("a sender that ends");
    });
}

/// The word at the receiver's position is zero because a payload of zeros was written there, although messages were
/// committed.
fn sleep_at_an_overwritten_word(weakness: Weakness) {
    explore(Some(2), move || {
        let (mut sender, mut receiver) = begun(weakness, SMALL, 0, 25);
        // From 1000 on: the second word of its payload is the first word of the next lap.
        sender.producer.push(Head::MESSAGE, &[0; SMALL]).expect("room at any time");
        assert_eq!(receiver.consumer.arm(), Armed::Awake, "asleep beside messages");
    });
}

const TORN: &str = "torn";

#[test]
fn messages_arrive_whole_and_in_order() {
    publish(Weakness::None);
}

#[test]
fn nothing_torn_is_handed_out() {
    overtaking(Weakness::None);
}

#[test]
fn an_overtaken_receiver_continues_at_the_mark() {
    lapping(Weakness::None);
}

#[test]
fn nothing_torn_is_handed_out_when_everything_is_skipped() {
    skipping(Weakness::None);
    skipping_the_last(Weakness::None);
}

#[test]
fn an_overtaken_receiver_that_is_to_skip_everything_finds_the_end() {
    skipping_when_overtaken(Weakness::None);
}

#[test]
fn both_sides_may_sleep() {
    both_sleep(Weakness::None);
}

#[test]
fn an_overwritten_word_is_not_empty() {
    sleep_at_an_overwritten_word(Weakness::None);
}

#[test]
fn fails_without_the_release_of_a_commit() {
    caught(publish, Weakness::RelaxedStore(Role::Commit), TORN);
}

#[test]
fn fails_without_the_acquire_of_a_commit() {
    caught(publish, Weakness::RelaxedLoad(Role::Commit), TORN);
}

#[test]
fn fails_without_the_fence_after_the_intent() {
    caught(overtaking, Weakness::NoFenceAfter(Role::Intent), TORN);
    caught(skipping, Weakness::NoFenceAfter(Role::Intent), TORN);
}

/// Everything is skipped to a mark that is there first.
#[test]
fn fails_without_the_orderings_of_the_intent_to_skip() {
    caught(skipping_the_last, Weakness::RelaxedStore(Role::Intent), TORN);
    caught(skipping_the_last, Weakness::RelaxedLoad(Role::Intent), TORN);
}

#[test]
fn fails_without_the_fence_after_the_copy() {
    caught(overtaking, Weakness::NoAcquireFence, TORN);
}

#[test]
fn fails_without_the_look_at_the_intent() {
    caught(overtaking, Weakness::NoLookAt(Role::Intent), TORN);
}

#[test]
fn fails_without_the_release_of_the_mark() {
    caught(overtaking, Weakness::RelaxedStore(Role::Mark), TORN);
    caught(skipping_when_overtaken, Weakness::RelaxedStore(Role::Mark), TORN);
}

#[test]
fn fails_without_the_acquire_of_the_mark() {
    caught(overtaking, Weakness::RelaxedLoad(Role::Mark), TORN);
    caught(skipping_when_overtaken, Weakness::RelaxedLoad(Role::Mark), TORN);
}

#[test]
fn fails_without_the_fences_of_sleeping() {
    caught(both_sleep, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_second_look() {
    caught(both_sleep, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_look_at_the_intent_before_sleeping() {
    caught(sleep_at_an_overwritten_word, Weakness::NoLookAt(Role::Intent), "asleep beside messages");
}
