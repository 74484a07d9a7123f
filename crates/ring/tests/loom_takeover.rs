//! An inbox that is closed while its receiver is at work, and a sender that takes over, in every interleaving and permitted
//! reordering: a message that was handed out is either processed or flagged.
//!
//! `unprocessed.rs` in the sources says what the three parties do. Here the receiver plays its part of the agreement,
//! and the sender's thread also closes the inbox, because the hang-up orders these two. The same model must fail when
//! any one step is missing.

mod model;

use std::cell::RefCell;
use std::rc::Rc;

use librpc_ring::{Consumer, Head, Mode, Producer};
use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::thread;

use model::{Channel, Mapping, Role, Weakness, caught, explore};

const CAPACITY: u64 = 512;
const MESSAGES: u64 = 2;

struct Receiver {
    consumer: Consumer<Mapping, Mapping>,
    ended: Rc<AtomicBool>,
    handed_out: Rc<RefCell<Vec<u64>>>,
    weakness: Weakness,
}

impl Receiver {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Hands out the next message, unless the inbox has ended.
    fn receive(&mut self) -> Option<u64> {
        if self.has_ended() {
            return None;
        }
        let mut payload = Vec::new();
        let record = self.consumer.pop(&mut payload).expect("an honest sender")?;
        if self.weakness != Weakness::NoFenceAfter(Role::Taken) {
            fence(Ordering::SeqCst);
        }
        if self.weakness != Weakness::NoLookAfter(Role::Taken) && self.has_ended() {
            if self.weakness != Weakness::NotTakenBack {
                self.consumer.untake(&record.head, &payload);
            }
            return None;
        }
        self.handed_out.borrow_mut().push(record.sequence);
        Some(record.sequence)
    }
}

/// Closes the inbox and takes over: the messages that the receiver has not processed, and whether they are flagged.
fn take_over(producer: &mut Producer<Mapping, Mapping>, ended: &AtomicBool, weakness: Weakness) -> Vec<(u64, bool)> {
    ended.store(true, Ordering::Release);
    if weakness != Weakness::NoFenceAfter(Role::Closed) {
        fence(Ordering::SeqCst);
    }
    let mut found = Vec::new();
    let lost = producer.unprocessed(|head, number, _| found.push((number, head.redelivered)));
    assert_eq!(lost, 0);
    found
}

/// The receiver takes two messages and processes them; meanwhile its inbox is closed.
fn closing(weakness: Weakness) {
    explore(None, move || {
        let Channel { mut producer, consumer, .. } = Channel::with_takeover(CAPACITY, Mode::Lossless, weakness);
        for _ in 0..MESSAGES {
            producer.push(Head::MESSAGE, &[]).expect("room");
        }
        let ended = Rc::new(AtomicBool::new(false));
        let handed_out = Rc::new(RefCell::new(Vec::new()));
        let mut receiver = Receiver { consumer, ended: ended.clone(), handed_out: handed_out.clone(), weakness };
        let receiving = thread::spawn(move || {
            if receiver.receive().is_some() {
                receiver.consumer.consume();
                receiver.receive();
            }
            receiver.consumer.consume(); // the inbox is dropped
        });
        let found = take_over(&mut producer, &ended, weakness);
        receiving.join().expect("a receiver that ends");
        let handed_out = handed_out.borrow();
        for number in 0..MESSAGES {
            let was_handed_out = handed_out.contains(&number);
            match found.iter().find(|(found, _)| *found == number) {
                Some((_, is_flagged)) => assert!(*is_flagged || !was_handed_out, "message {number} is not flagged"),
                None => assert!(was_handed_out, "message {number} is lost"),
            }
        }
    });
}

const NOT_FLAGGED: &str = "is not flagged";

#[test]
fn a_message_that_was_handed_out_is_processed_or_flagged() {
    closing(Weakness::None);
}

#[test]
fn fails_without_a_look_at_the_end_after_taking() {
    caught(closing, Weakness::NoLookAfter(Role::Taken), NOT_FLAGGED);
}

#[test]
fn fails_without_the_fence_after_taking() {
    caught(closing, Weakness::NoFenceAfter(Role::Taken), NOT_FLAGGED);
}

#[test]
fn fails_if_what_is_not_handed_out_stays_taken() {
    caught(closing, Weakness::NotTakenBack, "is lost");
}

#[test]
fn fails_without_the_fence_after_closing() {
    caught(closing, Weakness::NoFenceAfter(Role::Closed), NOT_FLAGGED);
}
