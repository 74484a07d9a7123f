//! Lent payloads in every interleaving and permitted reordering: a receiver that reads them, keeps them and lets them go, and a
//! sender that uses their memory again. The same models run over memories that lack one thing each.
//!
//! When a model passes, no execution wrote to memory that the receiver was still reading, every payload that was read was
//! the one that was lent, and in the end the sender may use all memory again. Each model asks at most once while the
//! receiver is at work, so every answer is tried at every moment.

mod model;

use librpc_ring::{Claim, Consumer, Head, Lent, Mode, Producer, release};
use loom::thread;

use model::{Channel, LentMemory, Mapping, Role, Weakness, caught, explore};

/// 64 words in mode Lossless.
const CAPACITY: u64 = 512;

/// What the sender writes to memory that it uses again.
const REUSED: u64 = 99;

/// The content of lent payload number n.
fn content(number: u64) -> u64 {
    number + 1
}

struct Sender {
    producer: Producer<Mapping, Mapping>,
    data: Mapping,
    ack: Mapping,
    memories: Vec<LentMemory>,
    claims: Vec<Claim>,
}

impl Sender {
    /// Lends the memory of the next number.
    fn lend(&mut self) {
        let number = self.claims.len() as u64;
        self.memories[number as usize].write(content(number));
        let lent = Lent { segment: 0, offset: number, bytes: 8 };
        self.claims.push(self.producer.push_lent(Head::MESSAGE, &lent).expect("room"));
    }

    fn is_released(&self, number: usize) -> bool {
        self.claims[number].is_released(&self.data, &self.ack)
    }

    /// Uses the memory of this payload again if the receiver is done with it.
    fn try_reuse(&self, number: usize) {
        if self.is_released(number) {
            self.memories[number].write(REUSED);
        }
    }
}

struct Receiver {
    consumer: Consumer<Mapping, Mapping>,
    ack: Mapping,
    memories: Vec<LentMemory>,
}

/// A payload that was received, for the thread that reads it.
struct Payload {
    memory: LentMemory,
    content: u64,
}

impl Payload {
    fn read(&self) {
        assert_eq!(self.memory.read(), self.content, "{ANOTHER}");
    }
}

impl Receiver {
    fn pop(&mut self) -> Option<Payload> {
        let mut encoded = Vec::new();
        let record = self.consumer.pop(&mut encoded).unwrap_or_else(|corrupt| panic!("torn: {corrupt}"))?;
        let lent = Lent::decode(&encoded).expect("an honest sender");
        assert_eq!((record.head.lent, lent.offset), (true, record.sequence), "torn");
        Some(Payload { memory: self.memories[lent.offset as usize].clone(), content: content(lent.offset) })
    }
}

/// A channel on which some payloads are lent.
fn begun(mode: Mode, weakness: Weakness, payloads: usize) -> (Sender, Receiver) {
    let Channel { producer, consumer, sender_data: data, sender_ack, receiver_ack } =
        Channel::with_lent(if mode == Mode::Latest { 2 * CAPACITY } else { CAPACITY }, mode, weakness);
    let memories: Vec<_> = (0..3).map(|_| LentMemory::new()).collect();
    let mut sender = Sender { producer, data, ack: sender_ack, memories: memories.clone(), claims: Vec::new() };
    (0..payloads).for_each(|_| sender.lend());
    (sender, Receiver { consumer, ack: receiver_ack, memories })
}

/// A payload that is lent arrives with its memory.
fn lend(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(Mode::Lossless, weakness, 0);
        let sending = thread::spawn(move || sender.lend());
        if let Some(payload) = receiver.pop() {
            payload.read();
        }
        sending.join().expect("a sender that ends");
    });
}

/// The receiver reads a payload after it has consumed the message, and lets it go.
fn let_go(weakness: Weakness) {
    explore(None, move || {
        let (sender, mut receiver) = begun(Mode::Lossless, weakness, 1);
        let sending = thread::spawn(move || {
            sender.try_reuse(0);
            sender
        });
        let payload = receiver.pop().expect("it was lent");
        receiver.consumer.consume();
        payload.read();
        receiver.consumer.let_go();
        assert!(sending.join().expect("a sender that ends").is_released(0), "{HELD}");
    });
}

/// The receiver reads a payload after it has consumed the message. The next one takes its place.
fn take_the_next(weakness: Weakness) {
    explore(None, move || {
        let (sender, mut receiver) = begun(Mode::Lossless, weakness, 2);
        let sending = thread::spawn(move || {
            sender.try_reuse(0);
            sender
        });
        let payload = receiver.pop().expect("it was lent");
        receiver.consumer.consume();
        payload.read();
        let next = receiver.pop().expect("it was lent, too");
        let sender = sending.join().expect("a sender that ends");
        assert!(sender.is_released(0), "{HELD}");
        sender.try_reuse(1);
        next.read();
    });
}

/// The receiver keeps a payload. Another thread reads and releases it.
fn keep(weakness: Weakness) {
    explore(None, move || {
        let (sender, mut receiver) = begun(Mode::Lossless, weakness, 1);
        let sending = thread::spawn(move || {
            sender.try_reuse(0);
            sender
        });
        let payload = receiver.pop().expect("it was lent");
        let hold = receiver.consumer.keep().expect("a free hold");
        receiver.consumer.consume();
        let ack = receiver.ack;
        let reading = thread::spawn(move || {
            payload.read();
            release(&ack, hold);
        });
        reading.join().expect("a reader that ends");
        assert!(sending.join().expect("a sender that ends").is_released(0), "{HELD}");
    });
}

/// A hold that another thread has just released holds the next payload. The sender may see that at once.
fn hold_another(weakness: Weakness) {
    explore(Some(4), move || {
        let (sender, mut receiver) = begun(Mode::Lossless, weakness, 2);
        let payload = receiver.pop().expect("it was lent");
        let hold = receiver.consumer.keep().expect("a free hold");
        receiver.consumer.consume();
        let next = receiver.pop().expect("it was lent, too");
        let ack = receiver.ack;
        let reading = thread::spawn(move || {
            payload.read();
            release(&ack, hold);
        });
        let sending = thread::spawn(move || {
            sender.try_reuse(0);
            sender.try_reuse(1);
            sender
        });
        receiver.consumer.keep().expect("another free hold");
        receiver.consumer.consume();
        next.read();
        reading.join().expect("a reader that ends");
        let sender = sending.join().expect("a sender that ends");
        assert!(sender.is_released(0), "{HELD}");
        assert!(!sender.is_released(1), "it is kept");
    });
}

/// Mode Latest: the sender makes the receiver skip a payload that it may be taking, and uses the memory again.
fn skip(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(Mode::Latest, weakness, 1);
        let sending = thread::spawn(move || {
            sender.producer.skip_all();
            sender.try_reuse(0);
            sender
        });
        if let Some(payload) = receiver.pop() {
            payload.read();
            receiver.consumer.let_go();
        }
        assert!(sending.join().expect("a sender that ends").is_released(0), "{HELD}");
    });
}

/// As `skip`. The receiver keeps the payload if it gets it, while the sender looks at the holds.
fn keep_while_skipped(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(Mode::Latest, weakness, 1);
        let sending = thread::spawn(move || {
            sender.producer.skip_all();
            sender.try_reuse(0);
            sender
        });
        if let Some(payload) = receiver.pop() {
            let hold = receiver.consumer.keep().expect("a free hold");
            payload.read();
            release(&receiver.ack, hold);
        }
        assert!(sending.join().expect("a sender that ends").is_released(0), "{HELD}");
    });
}

/// Mode Latest: the sender overwrites the record of a payload that the receiver may be taking, and uses the memory again.
fn overwrite(weakness: Weakness) {
    explore(Some(3), move || {
        let (mut sender, mut receiver) = begun(Mode::Latest, weakness, 1);
        // From 40 to 1000: one more overwrites the first.
        for _ in 0..12 {
            sender.producer.push(Head::MESSAGE, &[7; 64]).expect("room at any time");
        }
        let sending = thread::spawn(move || {
            sender.producer.push(Head::MESSAGE, &[7; 64]).expect("room at any time");
            sender.try_reuse(0);
            sender
        });
        let mut copy = Vec::new();
        let record = receiver.consumer.pop(&mut copy).unwrap_or_else(|corrupt| panic!("torn: {corrupt}"));
        if record.is_some_and(|record| record.head.lent) {
            let offset = Lent::decode(&copy).expect("an honest sender").offset;
            assert_eq!(offset, 0, "torn");
            assert_eq!(receiver.memories[0].read(), content(0), "{ANOTHER}");
            receiver.consumer.let_go();
        }
        assert!(sending.join().expect("a sender that ends").is_released(0), "{HELD}");
    });
}

#[test]
fn a_lent_payload_arrives_with_its_memory() {
    lend(Weakness::None);
}

#[test]
fn memory_that_was_let_go_is_used_again() {
    let_go(Weakness::None);
}

#[test]
fn a_payload_is_held_until_the_next_is_taken() {
    take_the_next(Weakness::None);
}

#[test]
fn a_payload_that_was_kept_is_held_until_any_thread_releases_it() {
    keep(Weakness::None);
}

#[test]
fn a_hold_may_be_used_again_at_once() {
    hold_another(Weakness::None);
}

#[test]
fn a_payload_that_is_skipped_is_given_back_unread_or_held() {
    skip(Weakness::None);
}

#[test]
fn a_hold_that_moves_is_seen() {
    keep_while_skipped(Weakness::None);
}

#[test]
fn a_payload_that_is_overwritten_is_given_back_unread_or_held() {
    overwrite(Weakness::None);
}

/// Two accesses without an order: memory was used again while the receiver was reading it.
const RACE: &str = "Causality violation";

/// The receiver has read what was not lent to it.
const ANOTHER: &str = "another payload";

/// Memory that nobody holds cannot be used again.
const HELD: &str = "held for ever";

#[test]
fn fails_without_the_orderings_of_a_commit() {
    caught(lend, Weakness::RelaxedStore(Role::Commit), RACE);
    caught(lend, Weakness::RelaxedLoad(Role::Commit), RACE);
}

/// A sender that sees the message consumed must see what holds its payload.
#[test]
fn fails_without_the_orderings_of_consumed() {
    caught(let_go, Weakness::RelaxedStore(Role::Consumed), RACE);
    caught(let_go, Weakness::RelaxedLoad(Role::Consumed), RACE);
}

#[test]
fn fails_without_the_orderings_of_the_current_hold() {
    caught(let_go, Weakness::RelaxedStore(Role::CurrentHold), RACE);
    caught(let_go, Weakness::RelaxedLoad(Role::CurrentHold), RACE);
    caught(take_the_next, Weakness::RelaxedStore(Role::CurrentHold), RACE);
    caught(take_the_next, Weakness::RelaxedLoad(Role::CurrentHold), RACE);
    caught(keep_while_skipped, Weakness::RelaxedStore(Role::CurrentHold), RACE);
    caught(keep_while_skipped, Weakness::RelaxedLoad(Role::CurrentHold), RACE);
}

#[test]
fn fails_without_the_orderings_of_a_kept_hold() {
    caught(keep, Weakness::RelaxedStore(Role::KeptHold), RACE);
    caught(keep, Weakness::RelaxedLoad(Role::KeptHold), RACE);
}

/// A receiver that takes a hold for free must have seen that its payload was read.
#[test]
fn fails_without_the_acquire_of_a_free_hold() {
    caught(hold_another, Weakness::RelaxedOwnLoad(Role::KeptHold), RACE);
}

#[test]
fn fails_without_the_current_hold() {
    caught(let_go, Weakness::NoStore(Role::CurrentHold), RACE);
    caught(let_go, Weakness::NoLookAt(Role::CurrentHold), RACE);
    caught(skip, Weakness::NoStore(Role::CurrentHold), RACE);
    caught(skip, Weakness::NoLookAt(Role::CurrentHold), RACE);
}

#[test]
fn fails_without_the_kept_holds() {
    caught(keep, Weakness::NoStore(Role::KeptHold), RACE);
    caught(keep, Weakness::NoLookAt(Role::KeptHold), RACE);
    caught(keep, Weakness::NoStore(Role::HoldsUsed), RACE);
    caught(keep, Weakness::NoLookAt(Role::HoldsUsed), RACE);
}

/// A hold that moves is in neither place.
#[test]
fn fails_if_the_sender_looks_at_the_kept_holds_first() {
    caught(keep_while_skipped, Weakness::LooksAtKeptHoldsFirst, RACE);
}

#[test]
fn fails_without_the_fence_after_a_hold() {
    caught(skip, Weakness::NoFenceAfter(Role::CurrentHold), RACE);
    caught(overwrite, Weakness::NoFenceAfter(Role::CurrentHold), RACE);
}

#[test]
fn fails_without_the_fence_before_the_look_at_the_holds() {
    caught(skip, Weakness::NoFenceBeforeHolds, RACE);
    caught(overwrite, Weakness::NoFenceBeforeHolds, RACE);
}

#[test]
fn fails_without_the_look_at_the_intent_after_a_hold() {
    caught(skip, Weakness::NoLookAt(Role::Intent), RACE);
    caught(overwrite, Weakness::NoLookAt(Role::Intent), RACE);
}
