//! One poll: a bounded look at the rings that have traffic.
//!
//! All work that a sender can cause is counted. Messages and topics count towards the channel's quantum, so that no
//! channel starves another. Topics and departures also count towards the poll's share, because the caller continues to
//! wait after them. So no receive exceeds its time limit.

use std::sync::Arc;

use librpc_ring::{Head, Kind, Mode, Record};

use super::{Found, POLLS_PER_CLOCK, Receiver};
use crate::fault::fault;
use crate::receive::message::{Departure, Taken};
use crate::receive::topic_names::NotLearned;
use crate::schema::SchemaMismatch;

/// How many records are taken from one channel before the next one gets its turn.
pub(super) const QUANTUM: u32 = 64;
/// How much one poll does besides taking a message.
const SHARE: u32 = 2048;
/// How much of that it costs to pass over a message that is not wanted any more.
const SKIP: u32 = 1;
/// How many records are looked at for one more of it.
const AHEAD: u32 = 16;
/// How much a record costs that is no message.
const DECLARATION: u32 = 16;
/// How much a departure costs: asking the registry about the sender takes several system calls.
const DEPARTURE: u32 = 256;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Messages,
    /// Messages, and senders that join and leave.
    Events,
}

/// The outcome of a poll.
#[derive(Debug)]
pub(super) enum Polled {
    Found(Found),
    /// It has done its share, or found something that the caller does not want. There may be more.
    Unfinished,
    /// The rings are empty.
    Nothing,
    /// The inbox was stopped or closed.
    Ended,
}

/// What was taken from a ring.
#[derive(Debug)]
pub(super) enum Step {
    Message,
    /// Not a message: a topic's declaration, or a message that is not wanted any more. How much of a poll's share it costs.
    Other(u32),
    Nothing,
    /// The channel is no longer polled: it has left, or its departure is in doubt. Or it will be, after this.
    Gone(Option<Found>),
}

impl Receiver {
    /// Takes the next message or event, if there is one.
    pub(super) fn poll(&mut self, wanted: Wanted) -> Polled {
        if self.shared.has_ended() {
            if self.shared.take_nudge() {
                return Polled::Found(Found::Nudged);
            }
            self.settle();
            self.is_raised.set(false);
            self.shared.signal.clear(); // another event loop does not spin on it
            return Polled::Ended;
        }
        if wanted == Wanted::Messages && !self.found.is_empty() {
            // A topic of another type than the inbox wants is an error also of those who do not ask for events.
            let mismatch =
                self.found.iter().position(|found| matches!(found, Found::Denied(d) if d.mismatch.is_some()));
            match mismatch {
                Some(at) => return Polled::Found(self.found.remove(at).expect("it was found there")),
                None => self.found.clear(),
            }
        }
        // A sender joins before it says anything.
        match self.found.pop_front() {
            Some(found) => Polled::Found(found),
            None => self.poll_rings(wanted),
        }
    }

    /// The rounds of a receive that must not block are over, and all were spent on messages that newer ones follow: the next one is taken
    /// as it is. So there is a message whenever one is there, and the work is bounded.
    pub(super) fn poll_for_any(&mut self, wanted: Wanted) -> Option<Found> {
        self.keep_last?;
        self.takes_any = true;
        let polled = self.poll(wanted);
        self.takes_any = false;
        match polled {
            Polled::Found(found) => Some(found),
            _ => None,
        }
    }

    /// Whether there is anything for [`Receiver::poll`]. Between two looks at the clock, only this is checked.
    #[inline(always)]
    pub(super) fn shows_something(&self) -> bool {
        let has_some = |&index: &usize| {
            let channel = self.channels[index].as_ref().expect("an active channel is there");
            channel.drain.is_some() || channel.consumer.has_record()
        };
        self.shared.has_ended() || self.active.iter().any(has_some)
    }

    fn poll_rings(&mut self, wanted: Wanted) -> Polled {
        if self.takes_of_call() {
            return Polled::Found(Found::Message);
        }
        let mut share = SHARE;
        // Two more than there are: once round the end, and back to a channel whose turn is over if the others have nothing.
        let mut turns = self.active.len() + 2;
        while turns > 0 && share > 0 {
            let Some(&index) = self.active.get(self.cursor) else {
                turns -= 1;
                self.begin_turn(0);
                continue;
            };
            if self.quantum == 0 {
                // There may be more, so every channel has another turn. Each turn costs some of the share.
                turns = self.active.len() + 2;
                self.begin_turn(self.cursor + 1);
                continue;
            }
            match self.poll_ring(index) {
                Step::Message => return Polled::Found(Found::Message),
                Step::Nothing => {
                    turns -= 1;
                    self.begin_turn(self.cursor + 1);
                }
                Step::Other(cost) => {
                    self.quantum -= 1;
                    self.polls += 1;
                    share = share.saturating_sub(cost);
                }
                Step::Gone(found) => {
                    self.begin_turn(self.cursor); // the next channel is there now
                    match found {
                        Some(found) if wanted == Wanted::Events => return Polled::Found(found),
                        _ => share = share.saturating_sub(DEPARTURE),
                    }
                    self.polls = POLLS_PER_CLOCK;
                }
            }
        }
        if share < SHARE { Polled::Unfinished } else { Polled::Nothing }
    }

    #[inline(always)]
    pub(super) fn counts_one(&mut self) {
        self.stream.came(1);
        self.is_in_gap = false;
        self.quantum -= 1;
        self.polls += 1;
    }

    fn begin_turn(&mut self, cursor: usize) {
        (self.cursor, self.quantum) = (cursor, QUANTUM);
    }

    /// Takes the next record of a ring.
    pub(super) fn poll_ring(&mut self, index: usize) -> Step {
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        if channel.drain == Some(0) {
            return self.drained(index);
        }
        let had_unconsumed = channel.consumer.has_unconsumed();
        self.payload.clear();
        self.lent = None;
        let record = match channel.consumer.pop(&mut self.payload) {
            Ok(Some(record)) => record,
            Ok(None) => {
                channel.segments.forget_retired();
                return if channel.drain.is_some() { self.drained(index) } else { Step::Nothing };
            }
            Err(corrupt) => return Step::Gone(Some(self.leave(index, Departure::Corrupt(corrupt.to_string())))),
        };
        if let Some(left) = &mut channel.drain {
            *left = left.saturating_sub(record.head.record_bytes(record.payload_bytes));
        }
        channel.missed += record.missed;
        if channel.topics.is_expected(&record.head) {
            fault!("consume.taken");
            if record.head.kind.is_counted() && self.shared.has_ended_meanwhile() {
                channel.untake(&record.head, &self.payload);
                return Step::Nothing;
            }
            if let Some(keep) = self.keep_last.filter(|_| record.head.kind.is_counted() && !self.takes_any) {
                let ahead = channel.consumer.ahead(keep.get(), record.head.topic);
                if ahead.is_followed {
                    channel.missed += 1;
                    if record.head.lent {
                        channel.consumer.let_go();
                    }
                    channel.pass_over(had_unconsumed);
                    return Step::Other(SKIP + ahead.records / AHEAD);
                }
            }
            if record.head.lent
                && let Err(why) = self.locate(index, &record)
            {
                return Step::Gone(Some(self.leave(index, Departure::Corrupt(why))));
            }
            self.take(index, &record);
            return Step::Message;
        }
        match channel.topics.learn(&record.head, &self.payload) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(name) = channel.topics.of(record.head.topic) {
                    channel.guard.declared(name, channel.topics.schema_of(record.head.topic));
                }
            }
            Err(NotLearned::Corrupt(why)) => return Step::Gone(Some(self.leave(index, Departure::Corrupt(why)))),
            Err(NotLearned::TooMuch(why)) => return Step::Gone(Some(self.leave(index, Departure::TooMuch(why)))),
            Err(NotLearned::Mismatch { topic, theirs }) => {
                let (node, uid) = (channel.peer.node.clone(), channel.peer.uid);
                let ours = self.shared.schemas.first().cloned();
                let mismatch = Arc::new(SchemaMismatch { topic, node, uid, ours, theirs });
                return Step::Gone(Some(self.leave(index, Departure::Mismatch(mismatch))));
            }
        }
        // A topic is processed once it is known, unless an earlier message is unprocessed.
        channel.pass_over(had_unconsumed);
        Step::Other(DECLARATION)
    }

    /// A channel whose sender is gone was read to its end. It leaves as soon as it is clear how its sender ended.
    #[cold]
    fn drained(&mut self, index: usize) -> Step {
        let channel = self.channels[index].as_mut().expect("a drained channel is there");
        if let Some(away) = channel.turned_away_at_last() {
            return Step::Gone(Some(Found::TurnedAway(Box::new(away)))); // it is drained again after this
        }
        let departure = self.departure(index);
        if departure.is_none() {
            self.deactivate(index);
            self.doubtful.push_back(index);
        }
        Step::Gone(departure.map(|departure| self.leave(index, departure)))
    }

    fn take(&mut self, index: usize, record: &Record) {
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        if !std::mem::replace(&mut channel.is_listed, true) {
            self.unconsumed.push(index);
        }
        channel.idle_looks = 0;
        let missed = std::mem::take(&mut channel.missed);
        channel.stamps.taken(record.head.time);
        let Head { kind, topic, redelivered, past, .. } = record.head;
        self.head = record.head;
        self.taken = Taken {
            channel: index,
            sequence: record.sequence,
            topic,
            redelivered,
            past,
            missed,
            sent: record.head.time.unwrap_or(0),
        };
        let is_plain = kind == Kind::Message && !record.head.lent && channel.drain.is_none();
        let is_whole = self.keep_last.is_none() && channel.consumer.mode() == Mode::Lossless;
        let may_run = is_plain && is_whole && !self.shared.has_own_fence;
        self.counts_one();
        if may_run {
            self.begin_run(index);
        }
    }
}
