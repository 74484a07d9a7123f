//! Every interleaving and every permitted reordering of the ring's two sides, in small models; and the proof that each
//! model can fail: the same models over memories that lack one ordering, fence or step each.
//!
//! A model that passes has ended in every execution with all messages received whole and in order and nobody asleep
//! (loom reports a sleeper whom nobody will wake as a deadlock). No `--cfg loom` is needed: the ring is generic over its
//! words. loom's fences order more than C11's do (each passes on everything that came before the last one), so the
//! orderings of the loads and stores are proved by models without fences.

mod model;

use std::rc::Rc;

use librpc_ring::{Armed, Consumer, Head, Kind, Mode, Producer, PushError, stop_waiting, wait_for_receiver};
use loom::sync::Notify;
use loom::thread;

use model::{Channel, LOST_WAKE_UP, Mapping, Role, Weakness, bell, caught, explore};

/// 64 words. A message that takes most of a record's quarter fills it quickly; the smallest is two words.
const CAPACITY: u64 = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    head: Head,
    payload: Vec<u8>,
}

/// What a model sends, by sequence number; both sides know it.
type Plan = Rc<[Message]>;

/// 24 bytes: commit word, sequence number, and a payload that needs padding.
fn small(number: u8) -> Message {
    Message { head: Head::MESSAGE, payload: vec![number; 5] }
}

/// 104 bytes, the longest record that this capacity can carry: every optional word and 64 bytes of payload.
fn large(number: u8) -> Message {
    let word = Some(u64::from(number) << 8 | 0xff);
    let head = Head { time: word, topic: word, correlation: word, redelivered: true, ..Head::of(Kind::Request) };
    Message { head, payload: vec![number; 64] }
}

/// The sender's side of a model.
struct Sender {
    producer: Producer<Mapping, Mapping>,
    data: Mapping,
    ack: Mapping,
    epoch: u64,
    plan: Plan,
    weakness: Weakness,
}

impl Sender {
    fn push(&mut self) -> Result<u64, PushError> {
        let message = &self.plan[self.producer.sequence() as usize];
        self.producer.push(message.head, &message.payload)
    }

    fn push_polling(&mut self) {
        while let Err(error) = self.push() {
            assert!(matches!(error, PushError::Full { .. }), "{error}");
            thread::yield_now();
        }
    }

    /// Sleeps for as long as there is no room.
    fn push_waiting(&mut self, own_bell: &Notify) {
        while let Err(error) = self.push() {
            let PushError::Full { room_at } = error else { panic!("{error}") };
            self.wait(own_bell, |consumed| room_at <= consumed);
        }
    }

    /// Sleeps until everything is processed.
    fn flush_waiting(&mut self, own_bell: &Notify) {
        let committed = self.producer.committed();
        while self.producer.consumed() != Ok(committed) {
            self.wait(own_bell, |consumed| consumed == committed);
        }
    }

    /// Sleeps unless the second look finds enough consumed.
    fn wait(&mut self, own_bell: &Notify, enough: impl FnOnce(u64) -> bool) {
        self.epoch += 1;
        let seen = (self.weakness == Weakness::WaitsForAnyChange(Role::Waiting)).then(|| self.producer.consumed());
        let consumed = wait_for_receiver(&self.data, &self.ack, self.epoch);
        let may_go_on = match seen {
            Some(seen) => seen != Ok(consumed),
            None => enough(consumed) && self.weakness != Weakness::NoSecondLook(Role::Waiting),
        };
        if !may_go_on {
            own_bell.wait();
        }
        stop_waiting(&self.data);
    }

    fn ring(&mut self, after: Role, receivers_bell: &Notify) {
        if self.weakness != Weakness::NoBellAfter(after) && self.producer.must_ring() {
            receivers_bell.notify();
        }
    }
}

/// The receiver's side of a model. Takes every message for what the plan says, or fails the model.
struct Receiver {
    consumer: Consumer<Mapping, Mapping>,
    plan: Plan,
    weakness: Weakness,
}

impl Receiver {
    fn all_received(&self) -> bool {
        self.consumer.received() == self.plan.len() as u64
    }

    fn try_process(&mut self) -> bool {
        let mut payload = Vec::new();
        let found = self.consumer.pop(&mut payload).expect("an honest sender");
        if let Some(record) = found {
            assert_eq!(Message { head: record.head, payload }, self.plan[record.sequence as usize], "torn");
            self.consumer.consume();
        }
        found.is_some()
    }

    /// Whether the sender has left and everything that it sent is processed.
    fn process_all_and_see_the_end(&mut self) -> bool {
        let closed = self.consumer.is_closed();
        if !closed || self.weakness != Weakness::NoLookAfter(Role::Closed) {
            while self.try_process() {}
        }
        closed
    }

    fn process_polling(&mut self) {
        while !self.try_process() {
            thread::yield_now();
        }
    }

    /// Sleeps unless the second look finds something. Stays armed.
    fn sleep(&mut self, own_bell: &Notify) {
        if self.consumer.arm() == Armed::Sleep || self.weakness == Weakness::NoSecondLook(Role::Armed) {
            own_bell.wait();
        }
    }

    fn ring(&mut self, senders_bell: &Notify) {
        if self.weakness != Weakness::NoBellAfter(Role::Consumed) && self.consumer.must_ring() {
            senders_bell.notify();
        }
    }
}

/// A channel on which the first messages of the plan have already come and gone, and the next are already waiting.
fn begun(weakness: Weakness, processed: usize, waiting: usize, plan: impl Into<Plan>) -> (Sender, Receiver) {
    let plan = plan.into();
    let Channel { producer, consumer, sender_data: data, sender_ack: ack } =
        Channel::new(CAPACITY, Mode::Lossless, weakness);
    let mut sender = Sender { producer, data, ack, epoch: 0, plan: plan.clone(), weakness };
    let mut receiver = Receiver { consumer, plan, weakness };
    for _ in 0..processed {
        sender.push().expect("room");
        assert!(receiver.try_process());
    }
    for _ in 0..waiting {
        sender.push().expect("room");
    }
    (sender, receiver)
}

/// Messages arrive whole and in order. No fence.
fn publish(weakness: Weakness) {
    explore(None, move || {
        let (mut sender, mut receiver) = begun(weakness, 0, 0, [small(0), large(1), small(2)]);
        let sending = thread::spawn(move || (0..3).for_each(|_| sender.push_polling()));
        (0..3).for_each(|_| receiver.process_polling());
        sending.join().expect("a sender that ends");
    });
}

/// A sender that meets a full ring overwrites nothing that is still being read: from the middle of lap 0, through
/// lap 1, into lap 2. No fence.
fn full_ring(weakness: Weakness) {
    explore(Some(2), move || {
        let (mut sender, mut receiver) = begun(weakness, 3, 4, std::array::from_fn::<_, 10, _>(|n| large(n as u8)));
        assert!(matches!(sender.push(), Err(PushError::Full { .. })));
        let sending = thread::spawn(move || (0..3).for_each(|_| sender.push_polling()));
        (0..7).for_each(|_| receiver.process_polling());
        sending.join().expect("a sender that ends");
    });
}

/// A receiver that sees that the sender has left has seen, or sees now, all that it sent. No fence.
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

/// As it is while the receiver spins between its sleeps.
fn disarming_receiver(weakness: Weakness) {
    sleeping_receiver(weakness, true);
}

/// As it is under a foreign event loop.
fn armed_receiver(weakness: Weakness) {
    sleeping_receiver(weakness, false);
}

/// A receiver that sleeps wakes up for a sender that leaves, and gets all that it sent.
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

/// A sender that sleeps until all is processed wakes up for it.
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

/// Both sleep, each by its own bell, and each wakes the other.
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
fn messages_arrive_whole_and_in_order() {
    publish(Weakness::None);
}

#[test]
fn a_full_ring_overwrites_nothing_unread() {
    full_ring(Weakness::None);
}

#[test]
fn the_last_messages_of_a_sender_arrive() {
    leave(Weakness::None);
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
fn a_sleeping_receiver_learns_that_the_sender_has_left() {
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
fn both_may_sleep() {
    both_sleep(Weakness::None);
}

/// Two accesses that nothing orders.
const RACE: &str = "Causality violation";
/// The receiver believed in the end too early.
const LOST_MESSAGE: &str = "ended before the last message";

#[test]
fn without_the_release_of_a_commit() {
    caught(publish, Weakness::RelaxedStore(Role::Commit), RACE);
}

#[test]
fn without_the_acquire_of_a_commit() {
    caught(publish, Weakness::RelaxedLoad(Role::Commit), RACE);
}

#[test]
fn without_the_release_of_what_is_consumed() {
    caught(full_ring, Weakness::RelaxedStore(Role::Consumed), RACE);
}

#[test]
fn without_the_acquire_of_what_is_consumed() {
    caught(full_ring, Weakness::RelaxedLoad(Role::Consumed), RACE);
}

#[test]
fn without_the_release_of_the_end() {
    caught(leave, Weakness::RelaxedStore(Role::Closed), LOST_MESSAGE);
}

#[test]
fn without_the_acquire_of_the_end() {
    caught(leave, Weakness::RelaxedLoad(Role::Closed), LOST_MESSAGE);
}

#[test]
fn without_a_last_look_after_the_end() {
    caught(leave, Weakness::NoLookAfter(Role::Closed), LOST_MESSAGE);
}

#[test]
fn without_the_fence_behind_a_commit() {
    caught(disarming_receiver, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Commit), LOST_WAKE_UP);
}

#[test]
fn without_the_fence_behind_the_end() {
    caught(sleep_until_the_end, Weakness::NoFenceAfter(Role::Closed), LOST_WAKE_UP);
}

#[test]
fn without_the_fence_behind_arming() {
    caught(disarming_receiver, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(sleep_until_the_end, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn without_the_fence_behind_consuming() {
    caught(wait_for_room, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
    caught(flush, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Consumed), LOST_WAKE_UP);
}

#[test]
fn without_the_fence_behind_announcing_a_wait() {
    caught(wait_for_room, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoFenceAfter(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn without_the_receivers_second_look() {
    caught(disarming_receiver, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
    caught(sleep_until_the_end, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoSecondLook(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn without_the_senders_second_look() {
    caught(wait_for_room, Weakness::NoSecondLook(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::NoSecondLook(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoSecondLook(Role::Waiting), LOST_WAKE_UP);
}

/// All that there was may have been consumed between the two looks: then nothing changes any more.
#[test]
fn with_a_wait_for_any_change() {
    caught(wait_for_room, Weakness::WaitsForAnyChange(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::WaitsForAnyChange(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::WaitsForAnyChange(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn without_a_new_epoch_for_each_sleep() {
    caught(disarming_receiver, Weakness::SameEpoch(Role::Armed), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::SameEpoch(Role::Armed), LOST_WAKE_UP);
    caught(sleep_until_the_end, Weakness::SameEpoch(Role::Armed), LOST_WAKE_UP);
}

#[test]
fn without_a_new_epoch_for_each_wait() {
    caught(wait_for_room, Weakness::SameEpoch(Role::Waiting), LOST_WAKE_UP);
    caught(flush, Weakness::SameEpoch(Role::Waiting), LOST_WAKE_UP);
    caught(both_sleep, Weakness::SameEpoch(Role::Waiting), LOST_WAKE_UP);
}

#[test]
fn without_a_bell_behind_a_commit() {
    caught(disarming_receiver, Weakness::NoBellAfter(Role::Commit), LOST_WAKE_UP);
    caught(armed_receiver, Weakness::NoBellAfter(Role::Commit), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoBellAfter(Role::Commit), LOST_WAKE_UP);
}

#[test]
fn without_a_bell_behind_the_end() {
    caught(sleep_until_the_end, Weakness::NoBellAfter(Role::Closed), LOST_WAKE_UP);
}

#[test]
fn without_a_bell_behind_consuming() {
    caught(wait_for_room, Weakness::NoBellAfter(Role::Consumed), LOST_WAKE_UP);
    caught(flush, Weakness::NoBellAfter(Role::Consumed), LOST_WAKE_UP);
    caught(both_sleep, Weakness::NoBellAfter(Role::Consumed), LOST_WAKE_UP);
}
