//! Every interleaving and every permitted reordering of the ring's two sides, in small models of messages and of the sender's
//! end. (`loom_waking.rs` has the models of sleep, `loom_latest.rs` those of mode Latest.) Each model is shown to be able to
//! fail: the same model runs over memories that lack one ordering or step each.
//!
//! When a model passes, every execution ended with all messages received whole and in order. No `--cfg loom` is needed,
//! because the ring is generic over its words. loom's fences order more than those of C11 (each passes on everything
//! before the previous fence), so models without fences prove the orderings of loads and stores.

#[allow(dead_code, reason = "these models do not sleep")]
mod lossless;
mod model;

use librpc_ring::PushError;
use loom::thread;

use lossless::{begun, large, small};
use model::{Role, Weakness, caught, explore};

/// Messages arrive whole and in order. No fence.
fn publish(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 0, [small(0), large(1), small(2)]);
        let sending = thread::spawn(move || (0..3).for_each(|_| sender.push_polling()));
        (0..3).for_each(|_| receiver.process_polling());
        sending.join().expect("a sender that ends");
    });
}

/// A sender that finds the ring full overwrites nothing that is still being read: from the middle of lap 0, through lap 1, into
/// lap 2. No fence.
fn full_ring(weakness: Weakness) {
    explore(Some(2), move || {
        let (mut sender, mut receiver) = begun(weakness, 3, 4, std::array::from_fn::<_, 10, _>(|n| large(n as u8)));
        assert!(matches!(sender.push(), Err(PushError::Full { .. })));
        let sending = thread::spawn(move || (0..3).for_each(|_| sender.push_polling()));
        (0..7).for_each(|_| receiver.process_polling());
        sending.join().expect("a sender that ends");
    });
}

/// A receiver that sees that the sender has left sees everything that it sent. No fence.
fn leave(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 0, [small(0), small(1)]);
        let sending = thread::spawn(move || {
            (0..2).for_each(|_| sender.push_polling());
            sender.producer.close();
        });
        while !receiver.process_all_and_see_the_end() {
            thread::yield_now();
        }
        assert!(receiver.all_received(), "ended before the last message");
        sending.join().expect("a sender that ends");
    });
}

#[test]
fn messages_arrive_whole_and_in_order() {
    publish(Weakness::None);
}

#[test]
fn a_full_ring_overwrites_nothing_unread() {
    full_ring(Weakness::None);
}

#[test]
fn the_last_messages_of_a_sender_that_leaves_arrive() {
    leave(Weakness::None);
}

/// Two accesses without an order.
const RACE: &str = "Causality violation";

/// The failure of a model in which the receiver ends too early.
const LOST_MESSAGE: &str = "ended before the last message";

#[test]
fn fails_without_the_release_of_a_commit() {
    caught(publish, Weakness::RelaxedStore(Role::Commit), RACE);
}

#[test]
fn fails_without_the_acquire_of_a_commit() {
    caught(publish, Weakness::RelaxedLoad(Role::Commit), RACE);
}

#[test]
fn fails_without_the_release_of_consumed() {
    caught(full_ring, Weakness::RelaxedStore(Role::Consumed), RACE);
}

#[test]
fn fails_without_the_acquire_of_consumed() {
    caught(full_ring, Weakness::RelaxedLoad(Role::Consumed), RACE);
}

#[test]
fn fails_without_the_release_of_closed() {
    caught(leave, Weakness::RelaxedStore(Role::Closed), LOST_MESSAGE);
}

#[test]
fn fails_without_the_acquire_of_closed() {
    caught(leave, Weakness::RelaxedLoad(Role::Closed), LOST_MESSAGE);
}

#[test]
fn fails_without_a_last_look_after_closed() {
    caught(leave, Weakness::NoLookAfter(Role::Closed), LOST_MESSAGE);
}
