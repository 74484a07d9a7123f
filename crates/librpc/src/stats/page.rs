//! The items of which a node's statistics consist, in their fixed order, and how they travel.

use std::time::Duration;

use librpc_ring::Histogram;

use crate::name::{Address, Incarnation};
use crate::policy::Policy;
use crate::stats::{ChannelState, ChannelStats, InboxStats, NodeStats, Totals};
use crate::text::harmless;
use crate::topic::Pattern;
use crate::wire::{ListedAddress, ListedChannel, ListedItem, ListedPlace, ListedTotals};

/// How far a reader has come: everything up to here was read. By default nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// 0 among the inboxes, 1 among the outgoing channels.
    pub(crate) part: u32,
    pub(crate) inbox: u32,
    /// The serial number of a channel; 0: the inbox itself, or nothing yet.
    pub(crate) serial: u64,
    /// Whether anything was read of this inbox.
    pub(crate) begun: bool,
}

pub(crate) const INBOXES: u32 = 0;
pub(crate) const OUTGOING: u32 = 1;

impl Place {
    /// Everything was read.
    pub(crate) const END: Self = Self { part: OUTGOING, inbox: 0, serial: u64::MAX, begun: false };
}

impl From<Place> for ListedPlace {
    fn from(Place { part, inbox, serial, begun }: Place) -> Self {
        Self { part, inbox, serial, begun }
    }
}

impl From<ListedPlace> for Place {
    fn from(ListedPlace { part, inbox, serial, begun }: ListedPlace) -> Self {
        Self { part, inbox, serial, begun }
    }
}

/// What stands at one place.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Inbox { number: u32, address: Address, policy: Policy, capacity: u64, ended: Totals },
    Incoming(ChannelStats),
    Outgoing(ChannelStats),
}

/// Puts an item where it belongs. A channel comes behind its inbox.
pub(crate) fn add(stats: &mut NodeStats, item: Item) {
    match item {
        Item::Inbox { number, address, policy, capacity, ended } => {
            stats.inboxes.push(InboxStats { number, address, policy, capacity, channels: Vec::new(), ended });
        }
        Item::Incoming(channel) => {
            if let Some(inbox) = stats.inboxes.iter_mut().rfind(|inbox| inbox.number == channel.inbox) {
                inbox.channels.push(channel);
            }
        }
        Item::Outgoing(channel) => stats.outgoing.push(channel),
    }
}

/// What a page holds that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("statistics that cannot be: {0}")]
pub(crate) struct BadListing(&'static str);

impl From<&Item> for ListedItem {
    fn from(item: &Item) -> Self {
        match item {
            Item::Inbox { number, address, policy, capacity, ended } => {
                let Totals { channels, sent, received, processed, bytes_received, dropped, missed, returned } = *ended;
                Self::Inbox(ListedTotals {
                    number: *number,
                    address: ListedAddress::from(address),
                    capacity: *capacity,
                    policy: policy.number(),
                    ended: vec![channels, sent, received, processed, bytes_received, dropped, missed, returned],
                })
            }
            Item::Incoming(channel) => Self::Incoming(channel.into()),
            Item::Outgoing(channel) => Self::Outgoing(channel.into()),
        }
    }
}

impl TryFrom<ListedItem> for Item {
    type Error = BadListing;

    fn try_from(item: ListedItem) -> Result<Self, BadListing> {
        Ok(match item {
            ListedItem::Inbox(ListedTotals { number, address, capacity, policy, ended }) => {
                let [channels, sent, received, processed, bytes_received, dropped, missed, returned, ..] = ended[..]
                else {
                    return Err(BadListing("too few totals"));
                };
                let ended = Totals { channels, sent, received, processed, bytes_received, dropped, missed, returned };
                let policy = Policy::from_number(policy).ok_or(BadListing("a policy of a later version"))?;
                Self::Inbox { number, address: Address::try_from(address)?, policy, capacity, ended }
            }
            ListedItem::Incoming(channel) => Self::Incoming(channel.try_into()?),
            ListedItem::Outgoing(channel) => Self::Outgoing(channel.try_into()?),
        })
    }
}

impl TryFrom<ListedAddress> for Address {
    type Error = BadListing;

    fn try_from(address: ListedAddress) -> Result<Self, BadListing> {
        match address {
            ListedAddress::Node => Ok(Self::Node),
            ListedAddress::Patterns(patterns) => {
                let patterns: Result<Vec<Pattern>, _> = patterns.iter().map(|pattern| pattern.parse()).collect();
                Ok(Self::Topics(patterns.map_err(|_| BadListing("a pattern that is none"))?.into()))
            }
            ListedAddress::Service(_) => Err(BadListing("a service, of a later version")),
        }
    }
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl From<&ChannelStats> for ListedChannel {
    fn from(channel: &ChannelStats) -> Self {
        let c = channel;
        let mut latency = vec![c.latency.sum_ns(), c.latency.max_ns()];
        latency.extend(c.latency.parts().flat_map(|(bucket, count)| [u64::from(bucket), count]));
        Self {
            peer: c.peer.to_string(),
            incarnation: *c.peer_incarnation.bytes(),
            pid: c.peer_pid,
            inbox: c.inbox,
            ring: c.ring,
            state: match c.state {
                ChannelState::Pending => 0,
                ChannelState::Open => 1,
                ChannelState::Failed => 2,
            },
            policy: c.policy.number(),
            topics: c.topics.iter().map(ToString::to_string).collect(),
            counters: vec![
                c.depth,
                c.depth_max,
                c.capacity,
                c.sent,
                c.bytes_sent,
                c.dropped,
                c.returned,
                ns(c.blocked),
                c.received,
                c.bytes_received,
                c.processed,
                c.missed,
                c.queued,
            ],
            last: (c.last_sent.map(ns), c.last_processed.map(ns)),
            latency,
        }
    }
}

impl TryFrom<ListedChannel> for ChannelStats {
    type Error = BadListing;

    fn try_from(channel: ListedChannel) -> Result<Self, BadListing> {
        let [
            depth,
            depth_max,
            capacity,
            sent,
            bytes_sent,
            dropped,
            returned,
            blocked,
            received,
            bytes_received,
            processed,
            missed,
            queued,
            ..,
        ] = channel.counters[..]
        else {
            return Err(BadListing("too few counters"));
        };
        let [sum, max, buckets @ ..] = &channel.latency[..] else { return Err(BadListing("no latencies")) };
        let buckets = buckets.chunks_exact(2).map(|pair| (u32::try_from(pair[0]).unwrap_or(u32::MAX), pair[1]));
        crate::name::check_node_id(&channel.peer).map_err(|_| BadListing("a node id that is none"))?;
        Ok(Self {
            peer: channel.peer.into(),
            peer_incarnation: Incarnation::from_bytes(channel.incarnation),
            peer_pid: channel.pid,
            inbox: channel.inbox,
            ring: channel.ring,
            state: match channel.state {
                0 => ChannelState::Pending,
                1 => ChannelState::Open,
                _ => ChannelState::Failed,
            },
            policy: Policy::from_number(channel.policy).ok_or(BadListing("a policy of a later version"))?,
            topics: channel.topics.iter().map(|topic| harmless(topic).into()).collect(),
            depth,
            depth_max,
            capacity,
            sent,
            bytes_sent,
            dropped,
            returned,
            blocked: Duration::from_nanos(blocked),
            received,
            bytes_received,
            processed,
            missed,
            queued,
            last_sent: channel.last.0.map(Duration::from_nanos),
            last_processed: channel.last.1.map(Duration::from_nanos),
            latency: Histogram::from_parts(buckets, *sum, *max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Page, decode, encode};

    fn channel() -> ChannelStats {
        let mut latency = Histogram::default();
        [9, 900, 90_000].into_iter().for_each(|ns| latency.record(ns));
        ChannelStats {
            peer: "camera".into(),
            peer_incarnation: Incarnation::from_bytes([7; 16]),
            peer_pid: 8,
            inbox: 1,
            ring: Some(2),
            state: ChannelState::Open,
            policy: Policy::Latest,
            topics: vec!["a/b".into()],
            depth: 11,
            depth_max: 12,
            capacity: 4096,
            sent: 13,
            bytes_sent: 14,
            dropped: 15,
            returned: 16,
            blocked: Duration::from_nanos(17),
            received: 18,
            bytes_received: 19,
            processed: 20,
            missed: 21,
            queued: 22,
            last_sent: Some(Duration::from_nanos(23)),
            last_processed: None,
            latency,
        }
    }

    #[test]
    fn what_a_stranger_writes_means_nothing_to_a_terminal() {
        let listed = ListedChannel { topics: vec!["a/\u{1b}[2Jb\u{9b}c\n".into()], ..(&channel()).into() };
        let channel = ChannelStats::try_from(listed).unwrap();
        assert_eq!(&*channel.topics[0], "a/[2Jbc");
    }

    #[test]
    fn a_page_is_pinned_and_says_the_same_again() {
        let ended = Totals {
            channels: 1,
            sent: 2,
            received: 3,
            processed: 4,
            bytes_received: 5,
            dropped: 6,
            missed: 7,
            returned: 8,
        };
        let (address, policy) = (Address::Topics(["a/*".parse().unwrap()].into()), Policy::Block);
        let items = [
            Item::Inbox { number: 1, address, policy, capacity: 4096, ended },
            Item::Incoming(channel()),
            Item::Outgoing(channel()),
        ];
        let next = Some(ListedPlace { part: 1, inbox: 0, serial: 9, begun: false });
        let (version, namespaces) = ("0.1.0".to_owned(), vec![("pid".to_owned(), 4)]);
        let page = Page { version, namespaces, items: items.iter().map(ListedItem::from).collect(), next };
        let bytes = encode(&page);
        let again: Page = decode(&bytes).unwrap();
        assert_eq!(again, page);
        let read: Vec<Item> = again.items.into_iter().map(|item| item.try_into().unwrap()).collect();
        assert_eq!(format!("{read:?}"), format!("{items:?}"), "nothing is lost on the way");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, PINNED);
    }

    const PINNED: &str = "\
        a40065302e312e3001818263706964040283820081a50001018201818163612f2a0219100003000488010203040506070882\
        0181ab006663616d65726101500707070707070707070707070707070702080301040205010602078163612f62088d0b0c19\
        10000d0e0f10111213141516098217f60a881a0001631d1a00015f900101183c0118a501820281ab006663616d6572610150\
        0707070707070707070707070707070702080301040205010602078163612f62088d0b0c1910000d0e0f1011121314151609\
        8217f60a881a0001631d1a00015f900101183c0118a5010384010009f4\
        ";

    #[test]
    fn what_cannot_be_is_refused() {
        let spoilt: [fn(&mut ListedChannel); 4] = [
            |channel| channel.counters.truncate(5),
            |channel| channel.latency.clear(),
            |channel| channel.policy = 99,
            |channel| channel.peer = "a/b".into(),
        ];
        for spoil in spoilt {
            let mut listed = ListedChannel::from(&channel());
            spoil(&mut listed);
            assert!(ChannelStats::try_from(listed).is_err());
        }
        let mut strange = ListedChannel::from(&channel());
        strange.latency.extend([u64::MAX, 5, 3]);
        assert_eq!(ChannelStats::try_from(strange).unwrap().latency.count(), 3, "no such bucket, and half a pair");
    }
}
