//! What was counted on channels that have ended, by the node at the other end and the inbox's address.
//!
//! So the sums over all channels between the same two ends do not fall when one of them ends. Invariant: every pair of
//! ends with a channel is remembered. Of the others, at most [`IDLE`] are: those whose last channel ended latest.

use std::collections::BTreeMap;
use std::sync::Arc;

use librpc_ring::Histogram;

use crate::name::Address;
use crate::stats::{ChannelStats, EndedChannels, Totals};
use crate::sys::sync::Mutex;

/// How many pairs without a channel are remembered.
const IDLE: usize = 64;

/// The node at the other end, and what the inbox receives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) peer: Arc<str>,
    pub(crate) address: Address,
}

/// What was counted on channels that have ended.
#[derive(Debug, Default)]
pub(crate) struct EndedTable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts pairs, and channels that have ended.
    last: u64,
    entries: BTreeMap<Pair, Entry>,
    /// The pairs without a channel, in the order in which their last one has ended.
    idle: BTreeMap<u64, Pair>,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    channels: u64,
    idle_since: u64,
    totals: Totals,
    latency: Histogram,
}

impl EndedTable {
    /// A channel has begun.
    pub(crate) fn begin(&self, pair: &Pair) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let entry = state.entries.entry(pair.clone()).or_insert_with(|| {
            state.last += 1;
            let (totals, latency) = (Totals::default(), Histogram::default());
            Entry { serial: state.last, channels: 0, idle_since: 0, totals, latency }
        });
        entry.channels += 1;
        state.idle.remove(&entry.idle_since);
    }

    /// A channel that had begun has ended.
    pub(crate) fn end(&self, pair: &Pair, stats: &ChannelStats) {
        let mut state = self.0.lock();
        let Some(entry) = state.entries.get_mut(pair) else { return };
        entry.totals.add(stats);
        entry.latency += &stats.latency;
        entry.channels -= 1;
        if entry.channels > 0 {
            return;
        }
        state.last += 1;
        let now = state.last;
        state.idle.insert(now, pair.clone());
        if let Some(entry) = state.entries.get_mut(pair) {
            entry.idle_since = now;
        }
        if state.idle.len() > IDLE
            && let Some((_, forgotten)) = state.idle.pop_first()
        {
            state.entries.remove(&forgotten);
        }
    }

    /// The pairs after this serial number that have had channels, in order, at most this many.
    pub(crate) fn after(&self, serial: u64, most: usize) -> Vec<(u64, EndedChannels)> {
        let state = self.0.lock();
        let is_after = |(_, entry): &(&Pair, &Entry)| entry.serial > serial && entry.totals.channels > 0;
        let mut after: Vec<_> = state.entries.iter().filter(is_after).collect();
        after.sort_unstable_by_key(|(_, entry)| entry.serial);
        let ended = |(Pair { peer, address }, entry): (&Pair, &Entry)| {
            let (peer, address, latency) = (peer.clone(), address.clone(), entry.latency.clone());
            (entry.serial, EndedChannels { peer, address, totals: entry.totals, latency })
        };
        after.into_iter().take(most).map(ended).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(number: usize) -> Pair {
        Pair { peer: format!("node-{number}").into(), address: Address::Node }
    }

    fn peers(table: &EndedTable) -> Vec<String> {
        table.after(0, usize::MAX).iter().map(|(_, ended)| ended.peer.to_string()).collect()
    }

    #[test]
    fn pairs_that_have_a_channel_are_remembered_and_the_latest_of_the_others() {
        let table = EndedTable::default();
        let stats = ChannelStats { sent: 7, ..ChannelStats::example() };
        // One pair keeps a channel, while another one of it ends.
        table.begin(&pair(0));
        table.begin(&pair(0));
        table.end(&pair(0), &stats);
        for number in 1..=IDLE + 5 {
            table.begin(&pair(number));
            table.end(&pair(number), &stats);
        }
        let expected: Vec<_> = [0].into_iter().chain(6..=IDLE + 5).map(|number| format!("node-{number}")).collect();
        assert_eq!(peers(&table), expected);
        // One comes back before it is forgotten.
        table.begin(&pair(6));
        table.end(&pair(6), &stats);
        table.begin(&pair(1000));
        table.end(&pair(1000), &stats);
        assert!(peers(&table).contains(&"node-6".to_owned()) && !peers(&table).contains(&"node-7".to_owned()));
        let ended = table.after(0, usize::MAX).into_iter().find(|(_, ended)| &*ended.peer == "node-6").unwrap().1;
        assert_eq!((ended.totals.channels, ended.totals.sent), (2, 14));
        assert_eq!(ended.latency.count(), 2 * stats.latency.count());
    }

    #[test]
    fn pairs_are_read_in_parts_each_once() {
        let table = EndedTable::default();
        (0..10).for_each(|number| table.begin(&pair(number)));
        (0..10).rev().for_each(|number| table.end(&pair(number), &ChannelStats::example()));
        let (mut serial, mut read) = (0, Vec::new());
        while let [part @ .., (last, _)] = &table.after(serial, 3)[..] {
            read.extend(part.iter().map(|(serial, _)| *serial).chain([*last]));
            serial = *last;
        }
        assert_eq!(read, (1..=10).collect::<Vec<_>>());
    }
}
