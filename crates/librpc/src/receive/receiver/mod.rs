//! How an inbox finds its next message: it polls the rings that have traffic, and sleeps on the bells of all others.
//!
//! A channel is *active* (polled) or *armed* (it will be rung for). Invariant: a channel that is not active is armed, and
//! its ring was empty in a look after its epoch was stored; so nothing is in it that no bell announces. The work follows
//! the number of active channels, and an inbox without any does nothing at all.

mod channel;
mod connections;
mod run;
mod stream;

use crate::sys::clock::Instant;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Armed, Head, Mode, Record};

use self::channel::Channel;
use self::connections::{Connection, DOUBT};
use self::run::Run;
use self::stream::Stream;
use crate::fault::fault;
use crate::link::inbox_shared::InboxShared;
use crate::name::Peer;
use crate::receive::message::{Departure, Message, Taken};
use crate::sys::poll::{Poll, Ready};
use crate::sys::{OsError, barrier};

/// While it polls, an inbox looks at its bells this often, so that armed channels do not starve.
const LOOK_EVERY: Duration = Duration::from_micros(30);
/// How long an adaptive inbox polls before it sleeps: about what sleeping and waking costs.
const SPIN: Duration = Duration::from_micros(50);
/// So many looks without a message, and a channel is armed although others have traffic.
const IDLE_LOOKS: u32 = 8;
/// So many messages from one channel, then it is the next one's turn.
const QUANTUM: u32 = 64;
/// So many messages are consumed before the next look, with a fence, for a sender that waits.
const SETTLE_EVERY: u32 = 64;
/// So many polls or messages between two looks at the clock.
const POLLS_PER_CLOCK: u32 = 32;
/// So many rounds of arming and looking, and a call that must not block returns.
const ROUNDS: u32 = 16;
/// So often a doubt is looked at.
const DOUBT_EVERY: Duration = Duration::from_millis(1);
/// The connections' numbers are random; this one is the inbox's own signal.
const SIGNAL: u64 = 0;

/// How an inbox waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Polls for about 50 µs, then sleeps until a message comes: 0 % CPU when idle.
    #[default]
    Adaptive,
    /// Polls without end: the lowest latency, for the price of a core.
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
    /// A message: [`Receiver::taken`].
    Message,
    Joined(Arc<Peer>),
    Left(Box<(Arc<Peer>, Departure)>),
}

/// The channels of an inbox, polled by its owner.
pub(crate) struct Receiver {
    shared: Arc<InboxShared>,
    poll: Poll,
    wait: Wait,
    connections: HashMap<u64, Connection>,
    channels: Vec<Option<Channel>>,
    vacant: Vec<usize>,
    active: Vec<usize>,
    /// Channels whose departure is in doubt. They are not active, and nobody rings for them any more.
    doubtful: Vec<usize>,
    cursor: usize,
    run: Run,
    quantum: u32,
    polls: u32,
    stream: Stream,
    /// Polls since the last message.
    empty_polls: u32,
    last_look: Instant,
    found: VecDeque<Found>,
    /// Whether another event loop waits for the descriptor.
    foreign: Cell<bool>,
    /// Channels from which something was taken that is not consumed.
    unconsumed: Vec<usize>,
    pub(crate) payload: Vec<u8>,
    /// The message that was found last.
    pub(crate) taken: Taken,
    ready: Vec<Ready>,
}

impl Receiver {
    pub(crate) fn new(shared: Arc<InboxShared>, wait: Wait) -> Result<Self, OsError> {
        let poll = Poll::new()?;
        poll.add(&shared.signal, SIGNAL)?;
        Ok(Self {
            shared,
            poll,
            wait,
            connections: HashMap::new(),
            channels: Vec::new(),
            vacant: Vec::new(),
            active: Vec::new(),
            doubtful: Vec::new(),
            cursor: 0,
            run: Run::default(),
            quantum: QUANTUM,
            polls: 0,
            stream: Stream::default(),
            empty_polls: 0,
            last_look: Instant::now(),
            found: VecDeque::new(),
            foreign: Cell::new(false),
            unconsumed: Vec::new(),
            payload: Vec::new(),
            taken: Taken { channel: 0, sequence: 0, topic: None, redelivered: false, missed: 0 },
            ready: Vec::new(),
        })
    }

    /// The message that was found last.
    #[inline(always)]
    pub(crate) fn message(&self) -> Message<'_> {
        let channel = self.channels[self.taken.channel].as_ref().expect("a channel stays until the next look");
        Message::new(&channel.peer, &channel.topics, &self.payload, &self.taken)
    }

    /// Waits for what comes next; `None` when the time is up, or the inbox was stopped or closed.
    pub(crate) fn next(&mut self, until: Until) -> Result<Option<Found>, OsError> {
        self.end_run();
        let (mut spun_out, mut rounds) = (None, 0);
        loop {
            if self.shared.has_ended() {
                self.settle();
                self.shared.signal.clear(); // another event loop does not spin on it
                return Ok(None);
            }
            if let Some(found) = self.poll_rings() {
                return Ok(Some(found));
            }
            self.empty_polls += 1;
            if self.empty_polls == 1 {
                self.settle();
                self.stream.gap(until != Until::Now);
            }
            if until == Until::Now && self.foreign.get() {
                // The caller will wait for the descriptor: everything is armed, and the signal is drained. A sender that
                // rings for nothing holds nobody here: then the descriptor stays readable.
                rounds += 1;
                if rounds > ROUNDS {
                    self.shared.signal.raise();
                    return Ok(None);
                }
                if self.arm_all() {
                    self.look(Some(self.last_look))?;
                    if self.active.is_empty() && self.found.is_empty() {
                        if !self.doubtful.is_empty() {
                            self.shared.signal.raise(); // the caller comes again, until there is no doubt
                        }
                        return Ok(None);
                    }
                }
                continue;
            }
            if until == Until::Now {
                // Nobody may call again soon: a look that is due is taken now.
                if self.last_look.elapsed() < LOOK_EVERY {
                    return Ok(None);
                }
                self.look(Some(self.last_look))?;
                return Ok(self.poll_rings());
            }
            let polling = self.wait == Wait::Spin || self.wait == Wait::Adaptive && !self.active.is_empty();
            if polling {
                while self.polls < POLLS_PER_CLOCK && !self.shows_something() {
                    self.polls += 1;
                    std::hint::spin_loop();
                }
                if self.polls < POLLS_PER_CLOCK {
                    continue;
                }
                self.polls = 0;
            }
            let now = Instant::now();
            if matches!(until, Until::Deadline(deadline) if now >= deadline) {
                self.look(Some(now))?;
                return Ok(self.poll_rings());
            }
            let spun_out = *spun_out.get_or_insert(now + SPIN);
            if polling && (self.wait == Wait::Spin || now < spun_out) {
                if now - self.last_look >= LOOK_EVERY {
                    self.look(Some(now))?;
                }
            } else if self.arm_all() {
                fault!("arm.armed");
                self.look(match until {
                    Until::Deadline(deadline) => Some(deadline),
                    _ => None,
                })?;
                fault!("wake.woken");
            }
        }
    }

    /// Whether there is anything for [`Receiver::poll_rings`], or nothing more to wait for: all that waiting looks at between
    /// two looks at the clock.
    #[inline(always)]
    fn shows_something(&self) -> bool {
        let has_some = |&index: &usize| {
            let channel = self.channels[index].as_ref().expect("an active channel is there");
            channel.drain.is_some() || channel.consumer.has_record()
        };
        self.shared.has_ended() || self.active.iter().any(has_some)
    }

    /// Takes the next record of the rings that have traffic, or an event.
    fn poll_rings(&mut self) -> Option<Found> {
        if !self.found.is_empty() {
            return self.found.pop_front(); // a sender joins before it says anything
        }
        // Two more than there are: once round the end, and back to a channel whose turn is over if the others have nothing.
        for _ in 0..self.active.len() + 2 {
            let Some(&index) = self.active.get(self.cursor) else {
                self.cursor = 0;
                self.quantum = QUANTUM;
                continue;
            };
            if self.quantum > 0
                && let Some(found) = self.poll_ring(index)
            {
                return Some(found);
            }
            self.cursor += 1;
            self.quantum = QUANTUM;
        }
        None
    }

    /// Takes the next message of a ring, and learns the topics that are declared in front of it.
    fn poll_ring(&mut self, index: usize) -> Option<Found> {
        loop {
            let channel = self.channels[index].as_mut().expect("an active channel is there");
            if channel.drain == Some(0) {
                return self.drained(index);
            }
            let had_unconsumed = channel.consumer.has_unconsumed();
            self.payload.clear();
            let record = match channel.consumer.pop(&mut self.payload) {
                Ok(Some(record)) => record,
                Ok(None) if channel.drain.is_some() => return self.drained(index),
                Ok(None) => return None,
                Err(corrupt) => return Some(self.leave(index, Some(Departure::Corrupt(corrupt.to_string())))),
            };
            if let Some(left) = &mut channel.drain {
                *left = left.saturating_sub(record.head.record_bytes(record.payload_bytes));
            }
            channel.missed += record.missed;
            if channel.topics.is_expected(&self.shared.address, &record.head) {
                fault!("consume.taken");
                self.take(index, &record);
                return Some(Found::Message);
            }
            if let Err(why) = channel.topics.learn(&self.shared.address, &record.head, &self.payload) {
                return Some(self.leave(index, Some(Departure::Corrupt(why))));
            }
            channel.entry.declared(&self.payload);
            // Learnt is processed, unless a message in front of it is not.
            if !had_unconsumed {
                channel.consumer.consume();
            }
            self.quantum -= 1;
            if self.quantum == 0 {
                return None;
            }
        }
    }

    /// A channel whose sender is gone was read to its end: it leaves, unless it is not clear yet how its sender has ended.
    #[cold]
    fn drained(&mut self, index: usize) -> Option<Found> {
        if self.is_in_doubt(index) {
            self.deactivate(index);
            self.doubtful.push(index);
            return None;
        }
        Some(self.leave(index, None))
    }

    fn take(&mut self, index: usize, record: &Record) {
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        if !std::mem::replace(&mut channel.is_listed, true) {
            self.unconsumed.push(index);
        }
        channel.idle_looks = 0;
        let missed = std::mem::take(&mut channel.missed);
        channel.stamps.taken(record.head.time);
        let Head { topic, redelivered, .. } = record.head;
        self.taken = Taken { channel: index, sequence: record.sequence, topic, redelivered, missed };
        self.stream.came(1);
        self.empty_polls = 0;
        self.quantum -= 1;
        self.polls += 1;
        if channel.drain.is_none() && channel.consumer.mode() == Mode::Lossless {
            self.begin_run(index);
        }
    }

    /// A look at the bells of other channels while this one is busy.
    fn look_if_due(&mut self) {
        let now = Instant::now();
        if now - self.last_look >= LOOK_EVERY
            && let Err(error) = self.look(Some(now))
        {
            tracing::warn!(%error, "an inbox cannot look at its bells");
        }
    }

    /// Everything that was taken is processed, and every sender that waits for it is rung for. `lazily`: one that goes to
    /// sleep at this very moment may be missed until [`Receiver::settle`], and a fence for each message is saved.
    pub(crate) fn consume(&mut self, lazily: bool) {
        while let Some(index) = self.unconsumed.pop() {
            let Some(channel) = &mut self.channels[index] else { continue };
            channel.is_listed = false;
            channel.consume();
            channel.unsettled += 1;
            if !channel.ring_if_seen() && (!lazily || channel.unsettled >= SETTLE_EVERY) {
                channel.settle();
            }
        }
    }

    /// Finds the waiting senders that were missed.
    fn settle(&mut self) {
        for &index in &self.active {
            self.channels[index].as_mut().expect("an active channel is there").settle();
        }
    }

    /// Has every active channel announce sleep; `true` if all of them may.
    fn arm_all(&mut self) -> bool {
        self.arm(|_| true);
        self.active.is_empty() && self.found.is_empty()
    }

    /// Has active channels announce sleep; those that have something in them stay active.
    fn arm(&mut self, wanted: impl Fn(&Channel) -> bool) {
        let is_armed = |channel: &Channel| channel.drain.is_none() && wanted(channel);
        let mut needs_barrier = false;
        for &index in &self.active {
            let channel = self.channels[index].as_mut().expect("an active channel is there");
            if is_armed(channel) {
                channel.settle();
                channel.consumer.announce();
                needs_barrier |= channel.is_fenced;
            }
        }
        if needs_barrier {
            barrier::everywhere();
        }
        let channels = &mut self.channels;
        self.active.retain(|&index| {
            let channel = channels[index].as_mut().expect("an active channel is there");
            if !is_armed(channel) {
                return true;
            }
            channel.active = channel.consumer.look_again() == Armed::Awake;
            if channel.active {
                channel.consumer.disarm();
                if channel.consumer.is_closed() {
                    channel.drain = Some(channel.consumer.capacity());
                }
            }
            channel.active
        });
    }

    /// Looks at the bells and the arrivals, and waits for them until the given time (`None`: without limit).
    fn look(&mut self, until: Option<Instant>) -> Result<(), OsError> {
        let mut ready = std::mem::take(&mut self.ready);
        let until = match self.doubtful.is_empty() {
            true => until,
            false => Some(until.unwrap_or(Instant::now() + DOUBT).min(Instant::now() + DOUBT_EVERY)),
        };
        self.poll.wait(until, &mut ready)?;
        for event in &ready {
            match event.token {
                SIGNAL => {
                    for arrival in self.shared.take_arrivals() {
                        self.arrived(arrival);
                    }
                }
                connection => self.bells(connection, event.hung_up),
            }
        }
        self.ready = ready;
        for index in std::mem::take(&mut self.doubtful) {
            if self.is_in_doubt(index) {
                self.doubtful.push(index);
            } else {
                let left = self.leave(index, None);
                self.found.push_back(left);
            }
        }
        self.last_look = Instant::now();
        let mut is_idle = false;
        for &index in &self.active {
            let channel = self.channels[index].as_mut().expect("an active channel is there");
            channel.idle_looks += 1;
            is_idle |= channel.idle_looks >= IDLE_LOOKS;
        }
        if is_idle {
            self.arm(|channel| channel.idle_looks >= IDLE_LOOKS);
        }
        Ok(())
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

    /// What another event loop may wait for. It is readable at first: what is there already is to be looked at.
    pub(crate) fn descriptor(&self) -> &Poll {
        if !self.foreign.replace(true) {
            self.shared.signal.raise();
        }
        &self.poll
    }
}
