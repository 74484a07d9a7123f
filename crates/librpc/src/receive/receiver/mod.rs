//! How an inbox finds its next message: it polls the rings that have traffic, and sleeps on the bells of all others.
//!
//! A channel is *active* (polled) or *armed* (its sender will ring). Invariant: a channel that is not active is armed,
//! and its ring was found empty after its epoch was stored. So a bell announces everything that it holds. The work
//! grows with the number of active channels, and an inbox without active channels does nothing.

mod channel; //      a channel, as its inbox polls it
mod connections; //  senders that come, ring and go
mod lent; //         payloads that are not in the rings
mod of_calls; //     requests and replies, one at a time
mod polling; //      one bounded look at the rings
mod run; //          messages in a row from one channel
mod stream; //       whether it pays to pause
mod waiting; //      spinning, sleeping, waking

#[cfg(test)]
mod tests;

use crate::sys::clock::Instant;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::sync::Arc;

use librpc_ring::Head;

use self::channel::InboundChannel;
use self::connections::Connection;
use self::lent::LentMessage;
use self::of_calls::OfCalls;
use self::polling::QUANTUM;
pub(crate) use self::polling::Wanted;
use self::run::Run;
use self::stream::Stream;
use crate::link::inbox_shared::{Arrival, InboxShared, SIGNAL};
use crate::name::Peer;
use crate::receive::message::{Departure, Message, Taken};
use crate::receive::turned_away::TurnedAway;
use crate::stats::{Denial, Refused};
use crate::sys::OsError;
use crate::sys::memory::Trust;
use crate::sys::poll::{Poll, Ready};

/// After this many consumed messages, the inbox looks for waiting senders with a fence.
const SETTLE_EVERY: u32 = 64;
/// How many polls and messages there are between two looks at the clock.
const POLLS_PER_CLOCK: u32 = 32;

/// How an inbox waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Polls for about 50 µs, then sleeps until a message comes: 0 % CPU when idle.
    #[default]
    Adaptive,
    /// Polls without end: the lowest latency, at the price of a core.
    Spin,
    /// Sleeps at once: the least CPU.
    Block,
}

/// How long one call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Now,
    Deadline(Instant),
    Forever,
}

/// What a receiver finds next.
#[derive(Debug)]
pub(crate) enum Found {
    /// A message: [`Receiver::message`].
    Message,
    Joined(Arc<Peer>),
    /// A sender has left: who, how, and the serial number of its channel.
    Left(Box<(Arc<Peer>, Departure, u64)>),
    Denied(Arc<Denial>),
    TurnedAway(Box<TurnedAway>),
    Refused(Arc<Refused>),
    /// Something has changed that the inbox's owner is to look at: [`InboxShared::nudge`].
    Nudged,
}

/// Who waits for an inbox's descriptor, apart from the inbox itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WatchedBy {
    Nobody,
    /// A task or a wait set. It looks until it finds nothing, or comes again by itself.
    Library,
    /// An event loop of the program's. It may take only some of what there is, and is told of the rest.
    Program,
}

/// The channels of an inbox, polled by its owner.
pub(crate) struct Receiver {
    shared: Arc<InboxShared>,
    pub(crate) poll: Arc<Poll>,
    wait: Wait,
    connections: BTreeMap<u64, Connection>,
    channels: Vec<Option<InboundChannel>>,
    vacant: Vec<usize>,
    last_serial: u64,
    active: Vec<usize>,
    /// Channels that are still to be taken in: their connections cannot be watched yet.
    arrivals: VecDeque<Arrival>,
    /// Channels whose departure is in doubt. They are not active, and their senders no longer ring.
    doubtful: VecDeque<usize>,
    /// Whose turn it is among the active channels, and how many more records may be taken from it.
    cursor: usize,
    quantum: u32,
    run: Run,
    /// If it is an inbox for calls.
    of_calls: Option<OfCalls>,
    /// Polls and messages since the last look at the clock.
    polls: u32,
    stream: Stream,
    /// Whether a poll has found nothing since the last message.
    is_in_gap: bool,
    last_look: Instant,
    /// Bells read in this look.
    bells_heard: u32,
    /// The last look has left something unread, perhaps.
    has_left_some: bool,
    /// The caller says when the descriptor has become readable: otherwise a look is not needed.
    pub(crate) is_told: bool,
    /// It has since the last look, or that look has left something unread.
    pub(crate) has_news: bool,
    /// What the last look found, within the bounds of one look.
    found: VecDeque<Found>,
    /// A barrier was forbidden, so an armed ring may hold something that no bell announces.
    is_unbarred: bool,
    /// Who waits for the descriptor, apart from the inbox.
    watched_by: Cell<WatchedBy>,
    /// The signal was raised, so that the descriptor is readable, and no look has read it since.
    is_raised: Cell<bool>,
    /// Channels from which something was taken that is not consumed.
    unconsumed: Vec<usize>,
    pub(crate) payload: Vec<u8>,
    /// Where the message that was found last is, if its payload is lent and not copied; `payload` has a [`librpc_ring::Lent`] then.
    lent: Option<LentMessage>,
    /// Which channels wait for a hang-up on a memory for payloads, by token.
    watched: BTreeMap<u64, usize>,
    trust: Option<Trust>,
    /// How many messages of a topic that a sender has sent are wanted at once: older ones are passed over.
    pub(crate) keep_last: Option<NonZero<usize>>,
    /// For one poll, none is.
    takes_any: bool,
    /// The message that was found last.
    pub(crate) taken: Taken,
    /// Its head, in an inbox for calls.
    pub(crate) head: Head,
    ready: Vec<Ready>,
}

impl Receiver {
    pub(crate) fn new(shared: Arc<InboxShared>, wait: Wait, trust: Option<Trust>) -> Result<Self, OsError> {
        let poll = Arc::new(Poll::new()?);
        poll.add(&shared.signal, SIGNAL)?;
        Ok(Self {
            of_calls: OfCalls::new(&shared.address),
            shared,
            poll,
            wait,
            connections: BTreeMap::new(),
            channels: Vec::new(),
            vacant: Vec::new(),
            last_serial: 0,
            active: Vec::new(),
            arrivals: VecDeque::new(),
            doubtful: VecDeque::new(),
            cursor: 0,
            quantum: QUANTUM,
            run: Run::default(),
            polls: 0,
            stream: Stream::default(),
            is_in_gap: false,
            last_look: Instant::now(),
            bells_heard: 0,
            has_left_some: false,
            is_told: false,
            has_news: true,
            found: VecDeque::new(),
            is_unbarred: false,
            watched_by: Cell::new(WatchedBy::Nobody),
            is_raised: Cell::new(false),
            unconsumed: Vec::new(),
            payload: Vec::new(),
            lent: None,
            watched: BTreeMap::new(),
            trust,
            keep_last: None,
            takes_any: false,
            head: Head::MESSAGE,
            taken: Taken { channel: 0, sequence: 0, topic: None, redelivered: false, past: false, missed: 0, sent: 0 },
            ready: Vec::new(),
        })
    }

    /// The payload of the message that was found last, if it is not lent.
    #[inline(always)]
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The message that was found last, if its payload is not lent.
    #[inline(always)]
    pub(crate) fn message(&self) -> Message<'_> {
        let channel = self.channels[self.taken.channel].as_ref().expect("a channel stays until the next look");
        Message::new(&channel.peer, &channel.topics, &self.payload, &self.taken)
    }

    /// The serial number of the channel of the message that was found last.
    pub(crate) fn serial(&self) -> u64 {
        self.channels[self.taken.channel].as_ref().expect("a channel stays until the next look").serial
    }

    /// Everything that was taken is processed, and every sender that waits for it is woken. `lazily`: a sender that goes to
    /// sleep at this very moment may be missed until [`Receiver::settle`], which saves a fence for each message.
    pub(crate) fn consume(&mut self, lazily: bool) {
        while let Some(index) = self.unconsumed.pop() {
            let Some(channel) = &mut self.channels[index] else { continue };
            channel.is_listed = false;
            channel.consume();
            channel.unsettled = channel.unsettled.saturating_add(1);
            if !channel.ring_if_seen() && (!lazily || channel.unsettled >= SETTLE_EVERY) {
                channel.settle();
            }
        }
    }

    /// Wakes the waiting senders that were missed.
    fn settle(&mut self) {
        for &index in &self.active {
            self.channels[index].as_mut().expect("an active channel is there").settle();
        }
    }

    fn activate(&mut self, index: usize) {
        let channel = self.channels[index].as_mut().expect("only channels that are there are activated");
        channel.idle_looks = 0;
        if !channel.active {
            channel.active = true;
            channel.consumer.disarm();
            self.active.push(index);
        }
    }

    fn deactivate(&mut self, index: usize) {
        self.channels[index].as_mut().expect("only channels that are there are deactivated").active = false;
        self.active.retain(|&active| active != index);
    }

    /// What may be waited for elsewhere. It is readable at first, because there may be something already.
    pub(crate) fn descriptor(&self, waits: WatchedBy) -> &Arc<Poll> {
        if self.watched_by.get() < waits {
            self.watched_by.set(waits);
            self.raise();
        }
        &self.poll
    }

    /// Makes the descriptor readable, until a look reads the signal.
    fn raise(&self) {
        if !self.is_raised.replace(true) {
            self.shared.signal.raise();
        }
    }
}
