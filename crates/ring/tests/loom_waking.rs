//! Every interleaving and every permitted reordering of sleep and wake-up, in both directions, and the proof that each model can
//! fail: the same models over memories that lack one ordering, fence or step each.
//!
//! When a model passes, every execution ended with all messages received and both sides awake. (loom reports a sleeper
//! that will never be woken as a deadlock.)

#[allow(dead_code, reason = "these models do not check every message of a full ring")]
mod lossless;
mod model;

use loom::thread;

use lossless::{begun, large, small};
use model::{LOST_WAKE_UP, Role, Weakness, bell, caught, explore};

/// A receiver that sleeps whenever it finds nothing misses no message.
fn sleeping_receiver(weakness: Weakness, disarms: bool) {
    explore(Some(5), move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 0, [small(0), small(1)]);
        let (own_bell, bell) = bell();
        let sending = thread::spawn(move || {
            for _ in 0..2 {
                sender.push_polling();
                sender.ring(Role::Commit, &bell);
            }
        });
        while !receiver.all_received() {
            if !receiver.try_process() {
                receiver.sleep(&own_bell);
                if disarms {
                    receiver.consumer.disarm();
                }
            }
        }
        sending.join().expect("a sender that ends");
    });
}

/// A receiver that polls between its sleeps.
fn disarming_receiver(weakness: Weakness) {
    sleeping_receiver(weakness, true);
}

/// A receiver in an event loop of the application.
fn armed_receiver(weakness: Weakness) {
    sleeping_receiver(weakness, false);
}

/// A sleeping receiver wakes up when the sender leaves, and gets everything that it sent.
fn sleep_until_the_end(weakness: Weakness) {
    explore(Some(5), move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 0, [small(0)]);
        let (own_bell, bell) = bell();
        let sending = thread::spawn(move || {
            sender.push_polling();
            sender.ring(Role::Commit, &bell);
            sender.producer.close();
            sender.ring(Role::Closed, &bell);
        });
        while !receiver.process_all_and_see_the_end() {
            receiver.sleep(&own_bell);
            receiver.consumer.disarm();
        }
        assert!(receiver.all_received(), "ended before the last message");
        sending.join().expect("a sender that ends");
    });
}

/// A sender that sleeps whenever there is no room gets it.
fn wait_for_room(weakness: Weakness) {
    explore(Some(3), move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 4, [0, 1, 2, 3, 4, 5].map(large));
        let (own_bell, bell) = bell();
        let sending = thread::spawn(move || (0..2).for_each(|_| sender.push_waiting(&own_bell)));
        for _ in 0..4 {
            assert!(receiver.try_process());
            receiver.ring(&bell);
        }
        sending.join().expect("a sender that ends");
        assert!(receiver.try_process() && receiver.try_process());
    });
}

/// A sender that sleeps until everything is processed wakes up.
fn flush(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 2, [0, 1].map(small));
        let (own_bell, bell) = bell();
        let sending = thread::spawn(move || sender.flush_waiting(&own_bell));
        for _ in 0..2 {
            assert!(receiver.try_process());
            receiver.ring(&bell);
        }
        sending.join().expect("a sender that ends");
    });
}

/// Both sides sleep, each has a bell of its own, and each wakes the other.
fn both_sleep(weakness: Weakness) {
    explore(Some(2), move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 4, [0, 1, 2, 3, 4].map(large));
        let ((senders_own, senders_bell), (receivers_own, receivers_bell)) = (bell(), bell());
        let sending = thread::spawn(move || {
            sender.push_waiting(&senders_own);
            sender.ring(Role::Commit, &receivers_bell);
            sender.flush_waiting(&senders_own);
        });
        while !receiver.all_received() {
            if receiver.try_process() {
                receiver.ring(&senders_bell);
            } else {
                receiver.sleep(&receivers_own);
                receiver.consumer.disarm();
            }
        }
        sending.join().expect("a sender that ends");
    });
}

#[test]
fn a_receiver_that_disarms_misses_nothing() {
    disarming_receiver(Weakness::None);
}

#[test]
fn a_receiver_that_stays_armed_misses_nothing() {
    armed_receiver(Weakness::None);
}

#[test]
fn a_sleeping_receiver_wakes_up_when_the_sender_leaves() {
    sleep_until_the_end(Weakness::None);
}

#[test]
fn a_sender_that_waits_for_room_gets_it() {
    wait_for_room(Weakness::None);
}

#[test]
fn a_flush_ends() {
    flush(Weakness::None);
}

#[test]
fn both_sides_may_sleep() {
    both_sleep(Weakness::None);
}

#[test]
fn fails_without_the_fence_after_a_commit() {
    caught(disarming_receiver, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_fence_after_closing() {
    caught(sleep_until_the_end, Weakness::NoFenceAfter(Role::Closed), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_fence_after_arming() {
    caught(disarming_receiver, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(sleep_until_the_end, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_fence_after_consuming() {
    caught(wait_for_room, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
    caught(flush, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_fence_after_announcing_a_wait() {
    caught(wait_for_room, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_receivers_second_look() {
    caught(disarming_receiver, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
    caught(sleep_until_the_end, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn fails_without_the_senders_second_look() {
    caught(wait_for_room, Weakness::NoSecondLook(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::NoSecondLook(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoSecondLook(Role::Waiting), LOST_WAKE_UP);
}

/// Everything may have been consumed between the two looks. Then nothing changes after the second one.
#[test]
fn fails_with_a_wait_for_any_change() {
    caught(wait_for_room, Weakness::WaitsForAnyChange(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::WaitsForAnyChange(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::WaitsForAnyChange(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn fails_without_a_new_epoch_for_each_sleep() {
    caught(disarming_receiver, Weakness::SameEpoch(Role::Armed), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::SameEpoch(Role::Armed), LOST_WAKE_UP);
    caught(sleep_until_the_end, Weakness::SameEpoch(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn fails_without_a_new_epoch_for_each_wait() {
    caught(wait_for_room, Weakness::SameEpoch(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::SameEpoch(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::SameEpoch(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn fails_without_a_bell_after_a_commit() {
    caught(disarming_receiver, Weakness::NoBellAfter(Role::Commit), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoBellAfter(Role::Commit), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoBellAfter(Role::Commit), LOST_WAKE_UP);
}

#[test]
fn fails_without_a_bell_after_closing() {
    caught(sleep_until_the_end, Weakness::NoBellAfter(Role::Closed), LOST_WAKE_UP);
}

#[test]
fn fails_without_a_bell_after_consuming() {
    caught(wait_for_room, Weakness::NoBellAfter(Role::Consumed), LOST_WAKE_UP);
    caught(flush, Weakness::NoBellAfter(Role::Consumed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoBellAfter(Role::Consumed), LOST_WAKE_UP);
}
