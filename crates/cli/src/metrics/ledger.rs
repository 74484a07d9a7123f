//! What was counted so far, in sums that never fall: Prometheus takes a counter that falls for a new one.
//!
//! What a channel has counted stays in the sum when it ends, as long as both of its nodes are there. What a node does not
//! say because it is stopped stays what it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use librpc::Histogram;

use crate::snapshot::{ChannelRow, InboxRow, Key, Snapshot, State};

/// From which node to which, and to which address there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) address: String,
}

/// What channels have counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// sent, received, processed, dropped, missed, returned; bytes sent, bytes received
    pub(super) numbers: [u64; 8],
    pub(super) blocked: Duration,
    pub(super) latency: Histogram,
}

/// A node and an address of it, and what the inbox has counted: received, processed, dropped, missed.
pub(super) type InboxCounts = BTreeMap<(String, String), [u64; 4]>;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    channels: HashMap<Key, (Way, Counts)>,
    ended: BTreeMap<Way, Counts>,
    /// By incarnation and number.
    inboxes: HashMap<(String, u32), ((String, String), [u64; 4])>,
}

impl Way {
    pub(super) fn of(row: &ChannelRow) -> Self {
        Self { from: row.from.clone(), to: row.to.clone(), address: row.address() }
    }
}

impl Counts {
    fn of(row: &ChannelRow) -> Self {
        let is = &row.stats;
        let messages = [is.sent, is.received, is.processed, is.dropped, is.missed, is.returned];
        let [sent, received, processed, dropped, missed, returned] = messages;
        let numbers = [sent, received, processed, dropped, missed, returned, is.bytes_sent, is.bytes_received];
        Self { numbers, blocked: is.blocked, latency: is.latency.clone() }
    }

    /// Takes a later look at the same channel, which may know less: without its receiver, a sender knows only its own part.
    fn advance(&mut self, now: Self) {
        self.numbers.iter_mut().zip(now.numbers).for_each(|(number, now)| *number = now.max(*number));
        self.blocked = self.blocked.max(now.blocked);
        if now.latency.count() >= self.latency.count() {
            self.latency = now.latency;
        }
    }

    fn add(&mut self, other: &Self) {
        // Saturating: other nodes may claim any number.
        self.numbers.iter_mut().zip(other.numbers).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        self.blocked = self.blocked.saturating_add(other.blocked);
        self.latency += &other.latency;
    }
}

impl Ledger {
    /// Takes what a look has found.
    pub(super) fn take(&mut self, snapshot: &Snapshot) {
        self.channels.retain(|key, _| !key.is_pending()); // it is still there, or has been given a number
        for row in &snapshot.channels {
            let counts = Counts::of(row);
            match self.channels.get_mut(&row.key) {
                Some((_, before)) => before.advance(counts),
                None => drop(self.channels.insert(row.key.clone(), (Way::of(row), counts))),
            }
        }
        self.end_channels(snapshot);
        self.take_inboxes(snapshot);
    }

    /// Moves channels that have ended to the sums, and drops what belongs to nodes that are gone.
    fn end_channels(&mut self, snapshot: &Snapshot) {
        let seen: HashSet<&Key> = snapshot.channels.iter().map(|row| &row.key).collect();
        let of_state = |is_wanted: fn(State) -> bool| -> HashSet<&str> {
            snapshot.nodes.iter().filter(|node| is_wanted(node.state)).map(|node| &*node.incarnation).collect()
        };
        let (answering, silent) = (of_state(|state| state == State::Alive), of_state(|state| state == State::Stalled));
        let ended = self.channels.extract_if(|key, _| {
            let may_be_there =
                silent.contains(key.to()) || silent.contains(key.from()) && !answering.contains(key.to());
            !seen.contains(key) && !may_be_there
        });
        for (_, (way, counts)) in ended {
            self.ended.entry(way).or_default().add(&counts);
        }
        let alive = snapshot.nodes.iter().filter(|node| node.state != State::Dead).map(|node| &*node.id);
        let alive: HashSet<&str> = alive.collect();
        self.ended.retain(|way, _| alive.contains(&*way.from) && alive.contains(&*way.to));
    }

    fn take_inboxes(&mut self, snapshot: &Snapshot) {
        let key = |inbox: &InboxRow| (inbox.incarnation.clone(), inbox.number);
        let listed: HashSet<_> = snapshot.inboxes.iter().map(key).collect();
        self.inboxes.retain(|key, _| listed.contains(key));
        for inbox in &snapshot.inboxes {
            let Some(ended) = inbox.ended else { continue };
            let mut sum = [ended.received, ended.processed, ended.dropped, ended.missed];
            for row in snapshot.channels.iter().filter(|row| row.by_receiver && row.leads_to(inbox)) {
                let is = &row.stats;
                let more = [is.received, is.processed, is.dropped, is.missed];
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
            }
            let labels = (inbox.node.clone(), inbox.addresses.join(" "));
            let (_, before) = self.inboxes.entry(key(inbox)).or_insert((labels, sum));
            before.iter_mut().zip(sum).for_each(|(before, now)| *before = now.max(*before));
        }
    }

    /// The sums of all channels, by their ways.
    pub(super) fn channels(&self) -> BTreeMap<Way, Counts> {
        let mut sums = self.ended.clone();
        for (way, counts) in self.channels.values() {
            sums.entry(way.clone()).or_default().add(counts);
        }
        sums
    }

    /// The sums of all inboxes, by node and address.
    pub(super) fn inboxes(&self) -> InboxCounts {
        let mut sums = InboxCounts::new();
        for (labels, counts) in self.inboxes.values() {
            let sum = sums.entry(labels.clone()).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, more)| *sum = sum.saturating_add(*more));
        }
        sums
    }
}
