//! The channels of an inbox as its statistics see them, from any thread: the roll.
//!
//! Invariant: a channel is on the roll as long as its [`Entry`] exists, which travels with the channel; what it had counted
//! is added to the ended ones' totals when it goes. Both sides' memories stay mapped as long as somebody reads them here.

use crate::sys::sync::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::name::Peer;
use crate::policy::Policy;
use crate::stats::{ChannelState, ChannelStats, Ends, Totals};
use crate::sys::fork;
use crate::sys::memory::Mapping;

/// So many topics of a channel are kept, for people to see.
const TOPICS: usize = 32;

/// The channels of an inbox.
#[derive(Debug, Default)]
pub(crate) struct Roll(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    channels: BTreeMap<u64, Arc<Enrolled>>,
    ended: Totals,
}

/// A channel on the roll.
#[derive(Debug)]
pub(crate) struct Enrolled {
    peer: Arc<Peer>,
    inbox: u32,
    ring: u32,
    policy: Policy,
    capacity: u64,
    data: Arc<Mapping>,
    ack: Arc<Mapping>,
    topics: Mutex<Vec<Arc<str>>>,
}

/// Keeps a channel on the roll.
#[derive(Debug)]
pub(crate) struct Entry {
    roll: Arc<Roll>,
    serial: u64,
    enrolled: Arc<Enrolled>,
    born: fork::Born,
}

impl Roll {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Puts a channel on the roll.
    pub(crate) fn enroll(
        self: &Arc<Self>,
        peer: Arc<Peer>,
        (inbox, ring): (u32, u32),
        (policy, capacity): (Policy, u64),
        (data, ack): (Arc<Mapping>, Arc<Mapping>),
    ) -> Entry {
        let topics = Mutex::default();
        let enrolled = Arc::new(Enrolled { peer, inbox, ring, policy, capacity, data, ack, topics });
        let mut state = self.state();
        state.next += 1;
        let serial = state.next;
        state.channels.insert(serial, enrolled.clone());
        Entry { roll: self.clone(), serial, enrolled, born: fork::Born::now() }
    }

    /// The channels behind this serial number, in order, at most so many.
    pub(crate) fn behind(&self, serial: u64, most: usize) -> Vec<(u64, Arc<Enrolled>)> {
        let state = self.state();
        let behind = state.channels.range(serial.saturating_add(1)..).take(most);
        behind.map(|(&serial, enrolled)| (serial, enrolled.clone())).collect()
    }

    /// What was counted on channels that have ended.
    pub(crate) fn ended(&self) -> Totals {
        self.state().ended
    }
}

impl Enrolled {
    /// What was counted on it.
    pub(crate) fn stats(&self) -> ChannelStats {
        let topics = self.topics.lock().clone();
        let ends = Ends {
            peer: self.peer.node.clone(),
            peer_incarnation: self.peer.incarnation,
            peer_pid: self.peer.pid,
            inbox: self.inbox,
            ring: Some(self.ring),
            state: ChannelState::Open,
            policy: self.policy,
            capacity: self.capacity,
            topics,
        };
        ChannelStats::read(ends, &self.data.reader(), &self.ack.reader())
    }
}

impl Entry {
    /// A topic was declared on the channel.
    #[cold]
    pub(crate) fn declared(&self, topic: &[u8]) {
        let Ok(topic) = str::from_utf8(topic) else { return };
        let mut topics = self.enrolled.topics.lock();
        if topics.len() < TOPICS && !topics.iter().any(|known| **known == *topic) {
            topics.push(topic.into());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return; // the parent's, and its memory is not mapped here
        }
        let stats = self.enrolled.stats();
        let mut state = self.roll.state();
        let gone = state.channels.remove(&self.serial);
        state.ended.add(&stats);
        drop(state);
        drop(gone); // where nothing is locked
    }
}
