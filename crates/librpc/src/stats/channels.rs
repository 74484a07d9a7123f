//! The channels of an inbox, for its statistics. Any thread may read them.
//!
//! Invariant: a channel is in the table while its [`ChannelGuard`] exists, which moves with the channel. When the guard
//! is dropped, the channel's counts are added to the totals of ended channels. The memories of both sides stay mapped
//! while they are read here.

use crate::sys::sync::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::name::{Address, Peer};
use crate::policy::Policy;
use crate::schema::Schema;
use crate::stats::ended::{EndedTable, Pair};
use crate::stats::{ChannelState, ChannelStats, Ends, Totals};
use crate::sys::fork;
use crate::sys::memory::Mapping;

/// At most this many topics of a channel are kept, for display.
pub(crate) const SHOWN_TOPICS: usize = 32;

/// The channels of an inbox.
#[derive(Debug)]
pub(crate) struct ChannelTable {
    /// What the inbox receives.
    address: Address,
    state: Mutex<State>,
    /// What the node has counted on channels that have ended, those of other inboxes, too.
    ended: Arc<EndedTable>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    channels: BTreeMap<u64, Arc<Listed>>,
    ended: Totals,
}

/// A channel, and where its counters are.
#[derive(Debug)]
pub(crate) struct ChannelRecord {
    pub(crate) peer: Arc<Peer>,
    pub(crate) inbox: u32,
    pub(crate) ring: u32,
    pub(crate) policy: Policy,
    pub(crate) capacity: u64,
    pub(crate) data: Arc<Mapping>,
    pub(crate) ack: Arc<Mapping>,
}

/// A topic that was declared on a channel, and its type.
type ShownTopic = (Arc<str>, Option<Arc<Schema>>);

/// A channel in the table.
#[derive(Debug)]
pub(crate) struct Listed {
    record: ChannelRecord,
    topics: Mutex<Vec<ShownTopic>>,
}

/// Keeps a channel in the table.
#[derive(Debug)]
pub(crate) struct ChannelGuard {
    table: Arc<ChannelTable>,
    serial: u64,
    listed: Arc<Listed>,
    born: fork::Born,
}

impl ChannelTable {
    pub(crate) fn new(address: Address, ended: Arc<EndedTable>) -> Arc<Self> {
        Arc::new(Self { address, state: Mutex::default(), ended })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn pair(&self, record: &ChannelRecord) -> Pair {
        Pair { peer: record.peer.node.clone(), address: self.address.clone() }
    }

    /// Adds a channel.
    pub(crate) fn add(self: &Arc<Self>, record: ChannelRecord) -> ChannelGuard {
        self.ended.begin(&self.pair(&record));
        let listed = Arc::new(Listed { record, topics: Mutex::default() });
        let mut state = self.state();
        state.last += 1;
        let serial = state.last;
        state.channels.insert(serial, listed.clone());
        ChannelGuard { table: self.clone(), serial, listed, born: fork::Born::now() }
    }

    /// The channels after this serial number, in order, at most this many.
    pub(crate) fn after(&self, serial: u64, most: usize) -> Vec<(u64, Arc<Listed>)> {
        let state = self.state();
        let after = state.channels.range(serial.saturating_add(1)..).take(most);
        after.map(|(&serial, listed)| (serial, listed.clone())).collect()
    }

    /// What was counted on channels that have ended.
    pub(crate) fn ended(&self) -> Totals {
        self.state().ended
    }
}

impl Listed {
    /// What was counted on it.
    pub(crate) fn stats(&self) -> ChannelStats {
        let ChannelRecord { peer, inbox, ring, policy, capacity, data, ack } = &self.record;
        let topics = self.topics.lock().clone();
        let text = |schema: Option<&Arc<Schema>>| schema.map_or_else(|| "".into(), |schema| schema.to_string().into());
        let ends = Ends {
            peer: peer.node.clone(),
            peer_incarnation: peer.incarnation,
            peer_pid: peer.pid,
            inbox: *inbox,
            ring: Some(*ring),
            state: ChannelState::Open,
            policy: *policy,
            capacity: *capacity,
            topics: topics.iter().map(|(name, _)| name.clone()).collect(),
            types: topics.iter().map(|(_, schema)| text(schema.as_ref())).collect(),
            lent: [0; 2],
        };
        ChannelStats::read(ends, &data.reader(), &ack.reader())
    }
}

impl ChannelGuard {
    /// A topic was declared on the channel for the first time.
    #[cold]
    pub(crate) fn declared(&self, topic: &str, schema: Option<&Arc<Schema>>) {
        let mut topics = self.listed.topics.lock();
        if topics.len() < SHOWN_TOPICS {
            topics.push((topic.into(), schema.cloned()));
        }
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return; // it belongs to the parent, and its memory is not mapped here
        }
        let stats = self.listed.stats();
        let mut state = self.table.state();
        let gone = state.channels.remove(&self.serial);
        state.ended.add(&stats);
        drop(state);
        self.table.ended.end(&self.table.pair(&self.listed.record), &stats);
        drop(gone); // without a lock
    }
}
