//! The two sides of a lossless channel in a model: a plan of what is sent, a sender that follows it, and a receiver that checks
//! every message against it.

use std::rc::Rc;

use librpc_ring::{Armed, Consumer, Head, Kind, Mode, Producer, PushError, stop_waiting, wait_for_receiver};
use loom::sync::Notify;
use loom::thread;

use crate::model::{Channel, Mapping, Role, Weakness};

/// 64 words. A few of the longest messages fill it; the shortest takes two words.
pub(crate) const CAPACITY: u64 = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    head: Head,
    payload: Vec<u8>,
}

/// What a model sends, by sequence number. Both sides know it.
pub(crate) type Plan = Rc<[Message]>;

/// 24 bytes: commit word, sequence number, and a payload that needs padding.
pub(crate) fn small(number: u8) -> Message {
    Message { head: Head::MESSAGE, payload: vec![number; 5] }
}

/// 104 bytes, the longest record of this capacity: every optional word and 64 bytes of payload.
pub(crate) fn large(number: u8) -> Message {
    let word = Some(u64::from(number) << 8 | 0xff);
    let head = Head { time: word, topic: word, correlation: word, redelivered: true, ..Head::of(Kind::Request) };
    Message { head, payload: vec![number; 64] }
}

/// The sender's side of a model.
pub(crate) struct Sender {
    pub(crate) producer: Producer<Mapping, Mapping>,
    data: Mapping,
    ack: Mapping,
    epoch: u64,
    plan: Plan,
    weakness: Weakness,
}

impl Sender {
    pub(crate) fn push(&mut self) -> Result<u64, PushError> {
        let message = &self.plan[self.producer.sequence() as usize];
        self.producer.push(message.head, &message.payload)
    }

    pub(crate) fn push_polling(&mut self) {
        while let Err(error) = self.push() {
            assert!(matches!(error, PushError::Full { .. }), "{error}");
            thread::yield_now();
        }
    }

    /// Sleeps while there is no room.
    pub(crate) fn push_waiting(&mut self, own_bell: &Notify) {
        while let Err(error) = self.push() {
            let PushError::Full { room_at } = error else { panic!("{error}") };
            self.wait(own_bell, |consumed| room_at <= consumed);
        }
    }

    /// Sleeps until everything is processed.
    pub(crate) fn flush_waiting(&mut self, own_bell: &Notify) {
        let committed = self.producer.committed();
        while self.producer.consumed() != Ok(committed) {
            self.wait(own_bell, |consumed| consumed == committed);
        }
    }

    /// Sleeps unless the second look finds enough consumed.
    pub(crate) fn wait(&mut self, own_bell: &Notify, enough: impl FnOnce(u64) -> bool) {
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

    pub(crate) fn ring(&mut self, after: Role, receivers_bell: &Notify) {
        if self.weakness != Weakness::NoBellAfter(after) && self.producer.must_ring() {
            receivers_bell.notify();
        }
    }
}

/// The receiver's side of a model. It fails the model if a message is not what the plan says.
pub(crate) struct Receiver {
    pub(crate) consumer: Consumer<Mapping, Mapping>,
    plan: Plan,
    weakness: Weakness,
}

impl Receiver {
    pub(crate) fn all_received(&self) -> bool {
        self.consumer.received() == self.plan.len() as u64
    }

    pub(crate) fn try_process(&mut self) -> bool {
        let mut payload = Vec::new();
        let found = self.consumer.pop(&mut payload).expect("an honest sender");
        if let Some(record) = found {
            assert_eq!(Message { head: record.head, payload }, self.plan[record.sequence as usize], "torn");
            self.consumer.consume();
        }
        found.is_some()
    }

    /// Processes what there is. Returns `true` if the sender has left, and everything that it sent is processed.
    pub(crate) fn process_all_and_see_the_end(&mut self) -> bool {
        let closed = self.consumer.is_closed();
        if !closed || self.weakness != Weakness::NoLookAfter(Role::Closed) {
            while self.try_process() {}
        }
        closed
    }

    pub(crate) fn process_polling(&mut self) {
        while !self.try_process() {
            thread::yield_now();
        }
    }

    /// Sleeps unless the second look finds something. Remains armed.
    pub(crate) fn sleep(&mut self, own_bell: &Notify) {
        if self.consumer.arm() == Armed::Sleep || self.weakness == Weakness::NoSecondLook(Role::Armed) {
            own_bell.wait();
        }
    }

    pub(crate) fn ring(&mut self, senders_bell: &Notify) {
        if self.weakness != Weakness::NoBellAfter(Role::Consumed) && self.consumer.must_ring() {
            senders_bell.notify();
        }
    }
}

/// A channel on which the first messages of the plan are processed, and the next ones wait in the ring.
pub(crate) fn begun(weakness: Weakness, processed: usize, waiting: usize, plan: impl Into<Plan>) -> (Sender, Receiver) {
    let plan = plan.into();
    let Channel { producer, consumer, sender_data: data, sender_ack: ack, .. } =
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
