//! What waits for a receiver's next incarnation: the messages that it had not processed, and those sent since.
//!
//! Invariant: the messages stand here in the order in which they were sent, each exactly once: a message is in the ring to
//! the receiver or here. They take no more room than the ring that they were in. All of this is the sender's private
//! memory: it ends with the sender, and what a former receiver still maps sees nothing new.

use crate::sys::clock::Instant;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use librpc_ring::{Head, Mode, layout};

use crate::fault::fault;
use crate::name::Incarnation;
use crate::policy::Policy;
use crate::registry::target::Target;
use crate::send::account::Account;
use crate::send::channel::{OutboundChannel, Pushed};

/// So long between two looks for a receiver that is not back.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A message that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) head: Head,
    pub(crate) sequence: u64,
    pub(crate) payload: Box<[u8]>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.head.record_bytes(self.payload.len())
    }
}

/// The messages that wait for a receiver.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// The channel to the receiver that is back, as long as older messages go first.
    pub(crate) channel: Option<OutboundChannel>,
    /// The channel to a receiver that has hung up, and still holds its lock: it is dying, or it lives, and reads what it has
    /// been sent to the end. Until that is clear, what it has not processed is not known.
    in_doubt: Option<OutboundChannel>,
    /// Bytes that stood there unprocessed when it hung up.
    doubtful_bytes: u64,
    /// The topics that were declared on `channel`.
    declared: Vec<u64>,
    /// Where there is room on it for the oldest message; `None`: the ring is to be left once everything is processed.
    room_at: Option<u64>,
    kept: VecDeque<Kept>,
    bytes: u64,
    capacity: u64,
    /// What becomes of a message for which there is no room.
    policy: Policy,
    /// The number of the next message that is sent.
    next: u64,
    /// Until when the receiver may come back; `None`: for ever.
    until: Option<Instant>,
    limit: Duration,
    looked: Option<Instant>,
    /// The inbox that is gone.
    gone: Option<(Incarnation, u32)>,
    /// How many messages of the node are kept anywhere, for whoever closes it.
    all_kept: Arc<AtomicU64>,
    /// `redeliver`, as long as this lasts.
    pub(crate) span: tracing::Span,
    /// How many messages the receivers that came back were brought, and how many of them had been in work.
    pub(crate) brought: (u64, u64),
}

impl Backlog {
    pub(crate) fn new(to: &str, limit: Duration, all_kept: Arc<AtomicU64>) -> Self {
        let (channel, in_doubt, doubtful_bytes, declared, room_at, kept) = Default::default();
        let (bytes, capacity, next, until, looked, gone, brought) = Default::default();
        let span = tracing::debug_span!("redeliver", to);
        Self {
            channel,
            in_doubt,
            doubtful_bytes,
            declared,
            room_at,
            kept,
            bytes,
            capacity,
            policy: Policy::Block,
            next,
            until,
            limit,
            looked,
            gone,
            all_kept,
            span,
            brought,
        }
    }

    /// The receiver is back.
    pub(crate) fn set_channel(&mut self, channel: OutboundChannel) {
        (self.channel, self.declared, self.room_at) = (Some(channel), Vec::new(), Some(0));
    }

    /// Brings what is kept to the receiver, oldest first. A message of a topic that it does not want any more, or that is
    /// longer than it takes now, goes to `left`. A ring's numbers have no gaps: what follows such a message needs another
    /// ring, and that one must not overtake this.
    pub(crate) fn bring<'t>(&mut self, topic: impl Fn(u64) -> Option<&'t str>, left: &mut Vec<Kept>) -> Brought {
        while let Some(Kept { head, sequence, payload }) = self.kept.front() {
            let Some(channel) = &mut self.channel else { return Brought::Failed };
            let undeclared = head.topic.filter(|number| !self.declared.contains(number));
            let name = undeclared.map(|number| (number, topic(number)));
            if payload.len() > channel.max_message() || matches!(name, Some((_, None))) {
                left.extend(self.pop());
                continue;
            }
            if *sequence != channel.sequence() {
                return self.at_gap();
            }
            let pushed = match name {
                Some((number, Some(name))) => match channel.declare(number, name) {
                    Pushed::Yes => {
                        self.declared.push(number);
                        continue;
                    }
                    other => other,
                },
                _ => channel.push(*head, payload),
            };
            match pushed {
                Pushed::Yes => {
                    self.brought.0 += 1;
                    self.brought.1 += u64::from(head.redelivered);
                    drop(self.pop());
                }
                Pushed::TooLarge { .. } => left.extend(self.pop()),
                Pushed::Full { room_at } => {
                    self.room_at = Some(room_at);
                    return Brought::Some;
                }
                Pushed::Unsent => {
                    self.room_at = Some(0);
                    return Brought::Some;
                }
                Pushed::Failed => return Brought::Failed,
            }
            fault!("redeliver.brought");
        }
        match &self.channel {
            Some(channel) if channel.sequence() == self.next => Brought::All,
            Some(_) => self.at_gap(),
            None => Brought::Failed,
        }
    }

    /// The next message's number is not the next of the ring.
    fn at_gap(&mut self) -> Brought {
        self.room_at = None;
        let Some(channel) = &mut self.channel else { return Brought::Failed };
        match (channel.is_drained(), channel.is_connected()) {
            (true, _) => Brought::Gap,
            (false, true) => Brought::Some,
            (false, false) => Brought::Failed,
        }
    }

    /// Leaves a ring that is drained, in front of a gap; the next one may lead to the same inbox. Returns what became of
    /// the messages in it.
    pub(crate) fn leave_drained(&mut self) -> Account {
        self.gone = None;
        self.looked = None;
        self.until = Instant::now().checked_add(self.limit);
        self.channel.take().map(|mut channel| channel.account().ended()).unwrap_or_default()
    }

    /// The receiver has hung up.
    pub(crate) fn doubt(&mut self, mut channel: OutboundChannel) {
        self.next = self.next.max(channel.sequence());
        self.capacity = self.capacity.max(channel.capacity());
        self.policy = channel.policy();
        // One that never answers does not prolong the wait.
        if self.until.is_none() || channel.was_answered() {
            self.until = Instant::now().checked_add(self.limit);
        }
        self.looked = None;
        self.gone = Some((channel.target().incarnation, channel.target().inbox));
        self.doubtful_bytes = channel.account().depth;
        self.in_doubt = Some(channel);
    }

    /// Takes what a receiver that has hung up has not processed, if that is clear, or has to be; returns what became of the
    /// rest, or `None`: it is in doubt. `lives`: the receiver's node still lists the inbox.
    pub(crate) fn settle(&mut self, lives: impl FnOnce(&Target) -> bool) -> Option<Account> {
        let over = self.is_over();
        let Some(channel) = &mut self.in_doubt else { return Some(Account::default()) };
        // The kernel's word first: what a receiver that is gone has processed does not change any more.
        let lives = lives(channel.target());
        let is_done = !channel.was_answered() || channel.is_drained();
        if lives && !is_done && !over {
            return None;
        }
        let account = self.in_doubt.take().map(|channel| self.absorb(channel));
        if lives {
            self.gone = None; // the same inbox may be connected to again
        }
        account
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.is_some()
    }

    /// The incarnation that is gone.
    pub(crate) fn gone(&self) -> Option<Incarnation> {
        self.gone.map(|(incarnation, _)| incarnation)
    }

    /// Takes what a channel's receiver has not processed, in front of everything else; returns what became of the rest.
    fn absorb(&mut self, mut channel: OutboundChannel) -> Account {
        let mut taken = Vec::new();
        let lost = channel.unprocessed(|head, sequence, payload| {
            taken.push(Kept { head, sequence, payload: payload.into() });
        });
        let account = channel.account().moved(taken.len() as u64, lost);
        self.doubtful_bytes = 0;
        let in_work = taken.iter().filter(|kept| kept.head.redelivered).count();
        tracing::info!(
            node = &*channel.target().node,
            kept = taken.len(),
            in_work,
            "what a receiver that is gone has not processed is kept for its return"
        );
        self.all_kept.fetch_add(taken.len() as u64, Ordering::Relaxed);
        for kept in taken.into_iter().rev() {
            self.bytes += kept.bytes();
            self.kept.push_front(kept);
        }
        fault!("redeliver.absorbed");
        account
    }

    /// Keeps a message that is sent while the receiver is not there.
    pub(crate) fn keep(&mut self, head: Head, payload: &[u8]) -> Pushed {
        let max = self.max_message();
        if payload.len() > max {
            return Pushed::TooLarge { bytes: payload.len(), max };
        }
        let kept = Kept { head, sequence: self.next, payload: payload.into() };
        if self.doubtful_bytes + self.bytes + kept.bytes() > self.capacity {
            return Pushed::Full { room_at: u64::MAX };
        }
        self.next += 1;
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
        self.all_kept.fetch_add(1, Ordering::Relaxed);
        Pushed::Yes
    }

    /// The longest message that is kept, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        layout::max_payload_bytes(self.capacity, Mode::Lossless) as usize
    }

    /// The number of the oldest message, or of the next.
    pub(crate) fn first(&self) -> u64 {
        self.kept.front().map_or(self.next, |kept| kept.sequence)
    }

    /// The oldest message goes elsewhere.
    pub(crate) fn pop(&mut self) -> Option<Kept> {
        let kept = self.kept.pop_front()?;
        self.bytes -= kept.bytes();
        self.all_kept.fetch_sub(1, Ordering::Relaxed);
        Some(kept)
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn len(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Whether this is another inbox than the one that is gone.
    pub(crate) fn is_another(&self, target: &Target) -> bool {
        self.gone != Some((target.incarnation, target.inbox))
    }

    /// Whether the receiver should be back by now.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Has the next look not wait for its time.
    pub(crate) fn look_at_once(&mut self) {
        self.looked = None;
    }

    /// Whether it is time to look for the receiver again.
    pub(crate) fn may_look(&mut self) -> bool {
        let now = Instant::now();
        let due = self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// What is kept, as a part of the account: sent, and queued.
    pub(crate) fn account(&mut self) -> Account {
        let (kept, capacity) = (self.len(), self.capacity);
        let (depth, depth_max) = (self.bytes, self.bytes);
        let account =
            Account { sent: kept, accepted: kept, queued: kept, depth, depth_max, capacity, ..Account::default() };
        self.channel.as_mut().or(self.in_doubt.as_mut()).map_or(account, |channel| {
            let mut both = channel.account();
            both += account;
            both
        })
    }

    /// Waits until there may be room on the channel to the receiver that is back.
    pub(crate) fn wait_for_room(&mut self, deadline: Option<Instant>) {
        match (&mut self.channel, self.room_at) {
            (Some(channel), Some(room_at)) => channel.wait_for(room_at, deadline),
            (Some(channel), None) => channel.wait_for_all(deadline),
            (None, _) => {}
        }
    }
}

/// How sending behind what is kept went.
pub(crate) enum Behind {
    /// The message is kept, too.
    Kept,
    /// Nothing is kept any more: send it.
    Through,
}

/// How far bringing what is kept has come.
pub(crate) enum Brought {
    All,
    /// There is no room for more, or it is to process this first.
    Some,
    /// Everything up to a message that was left out is processed: what follows needs another ring.
    Gap,
    /// The receiver is gone again, or does not want it.
    Failed,
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.all_kept.fetch_sub(self.len(), Ordering::Relaxed);
    }
}
