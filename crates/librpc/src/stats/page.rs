//! The items of a node's statistics, in their fixed order, and their encoding.

use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Histogram;

use crate::name::{Address, Incarnation, check_node_id};
use crate::policy::Policy;
use crate::stats::published::LISTED;
use crate::stats::refused::refusal_text;
use crate::stats::{
    CallFailures, CallSide, CallStats, ChannelState, ChannelStats, Denial, EndedChannels, InboxStats, NodeStats,
    PublishedTopic, Refused, Totals,
};
use crate::text::{harmless, harmless_start};
use crate::topic::{Pattern, check_topic};
use crate::wire::{
    ListedAddress, ListedCalls, ListedChannel, ListedDenial, ListedEnded, ListedItem, ListedPlace, ListedRefused,
    ListedTopic, ListedTotals, Reason,
};

/// How far a reader has got: everything up to here was read. By default, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// [`ENDED_INCOMING`] and so on.
    pub(crate) part: u32,
    pub(crate) inbox: u32,
    /// The serial number of an item; 0: the inbox itself, or nothing yet.
    pub(crate) serial: u64,
    /// Whether anything was read of this inbox.
    pub(crate) begun: bool,
}

// Ended channels come first, so a channel that ends while its node is read is not counted twice.
pub(crate) const ENDED_INCOMING: u32 = 0;
pub(crate) const ENDED_OUTGOING: u32 = 1;
pub(crate) const INBOXES: u32 = 2;
pub(crate) const OUTGOING: u32 = 3;
pub(crate) const DENIED: u32 = 4;
pub(crate) const CALLS: u32 = 5;
pub(crate) const REFUSED: u32 = 6;
pub(crate) const PUBLISHED: u32 = 7;

impl Cursor {
    /// Everything was read except the denied topics and the calls, which are requested together with a sign of life. Where published
    /// topics begin, a reader that wants no more than that stops.
    pub(crate) const END: Self = Self { part: OUTGOING, inbox: 0, serial: u64::MAX, begun: false };
}

impl From<Cursor> for ListedPlace {
    fn from(Cursor { part, inbox, serial, begun }: Cursor) -> Self {
        Self { part, inbox, serial, begun }
    }
}

impl From<ListedPlace> for Cursor {
    fn from(ListedPlace { part, inbox, serial, begun }: ListedPlace) -> Self {
        Self { part, inbox, serial, begun }
    }
}

/// The items that a cursor passes in one step.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Inbox { number: u32, address: Address, policy: Policy, capacity: u64, ended: Totals },
    Incoming(ChannelStats),
    Outgoing(ChannelStats),
    EndedIncoming(EndedChannels),
    EndedOutgoing(EndedChannels),
    Denied(Denial),
    Calls(CallStats),
    Refused(Refused),
    Published(PublishedTopic),
}

/// Puts an item where it belongs. A channel comes after its inbox.
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
        Item::EndedIncoming(ended) => stats.ended_incoming.push(ended),
        Item::EndedOutgoing(ended) => stats.ended_outgoing.push(ended),
        Item::Denied(denial) => stats.denials.push(denial),
        Item::Calls(calls) => stats.calls.push(calls),
        Item::Refused(refused) => stats.refused.push(refused),
        Item::Published(topic) if stats.published.len() < LISTED => stats.published.push(topic),
        Item::Published(_) => stats.published_left_out = stats.published_left_out.saturating_add(1),
    }
}

/// The memory that an item takes once it is added, in bytes.
pub(crate) fn bytes(item: &ListedItem) -> usize {
    /// A short text: its pointer, and the header of its allocation.
    const TEXT: usize = 32;
    let texts = |texts: &[String]| texts.iter().map(|text| TEXT + text.len()).sum::<usize>();
    match item {
        ListedItem::Inbox(totals) => {
            size_of::<InboxStats>()
                + match &totals.address {
                    ListedAddress::Patterns(patterns) => texts(patterns),
                    ListedAddress::Service(name) => name.len(),
                    ListedAddress::Node | ListedAddress::Replies => 0,
                }
        }
        ListedItem::Incoming(channel) | ListedItem::Outgoing(channel) => {
            size_of::<ChannelStats>()
                + latency_bytes(&channel.latency)
                + channel.peer.len()
                + texts(&channel.topics)
                // Each topic has one, if only an empty one.
                + TEXT * channel.topics.len()
                + channel.types.iter().flatten().map(String::len).sum::<usize>()
        }
        ListedItem::EndedIncoming(ended) | ListedItem::EndedOutgoing(ended) => {
            let address = match &ended.address {
                ListedAddress::Patterns(patterns) => texts(patterns),
                ListedAddress::Service(name) => name.len(),
                ListedAddress::Node | ListedAddress::Replies => 0,
            };
            size_of::<ChannelStats>() + latency_bytes(&ended.latency) + ended.peer.len() + address
        }
        ListedItem::Denied(ListedDenial { by, topic, text, .. }) => {
            size_of::<Denial>() + by.len() + topic.len() + text.len()
        }
        ListedItem::Refused(refused) => size_of::<Refused>() + refused.text.len(),
        ListedItem::Calls(calls) => size_of::<CallStats>() + latency_bytes(&calls.latency) + calls.service.len(),
        ListedItem::Published(ListedTopic { topic, schema, .. }) => {
            size_of::<PublishedTopic>() + 2 * TEXT + topic.len() + schema.as_ref().map_or(0, String::len)
        }
    }
}

/// The memory that latencies take, in bytes. The counts of all buckets are kept, however few are named.
fn latency_bytes(listed: &[u64]) -> usize {
    if listed.len() > 2 { librpc_ring::layout::ack::BUCKETS * size_of::<u64>() } else { 0 }
}

/// Something in a page is not valid.
#[derive(Debug, thiserror::Error)]
#[error("invalid statistics: {0}")]
pub(crate) struct BadListing(&'static str);

impl From<&Item> for ListedItem {
    fn from(item: &Item) -> Self {
        match item {
            Item::Inbox { number, address, policy, capacity, ended } => Self::Inbox(ListedTotals {
                number: *number,
                address: ListedAddress::from(address),
                capacity: *capacity,
                policy: policy.number(),
                ended: listed_totals(ended),
            }),
            Item::Incoming(channel) => Self::Incoming(channel.into()),
            Item::Outgoing(channel) => Self::Outgoing(channel.into()),
            Item::EndedIncoming(ended) => Self::EndedIncoming(ended.into()),
            Item::EndedOutgoing(ended) => Self::EndedOutgoing(ended.into()),
            Item::Denied(denial) => Self::Denied(denial.into()),
            Item::Calls(calls) => Self::Calls(calls.into()),
            Item::Refused(refused) => Self::Refused(refused.into()),
            Item::Published(topic) => Self::Published(topic.into()),
        }
    }
}

impl TryFrom<ListedItem> for Item {
    type Error = BadListing;

    fn try_from(item: ListedItem) -> Result<Self, BadListing> {
        Ok(match item {
            ListedItem::Inbox(ListedTotals { number, address, capacity, policy, ended }) => {
                let ended = totals(&ended)?;
                let policy = Policy::from_number(policy).ok_or(BadListing("a policy of a later version"))?;
                Self::Inbox { number, address: Address::try_from(address)?, policy, capacity, ended }
            }
            ListedItem::Incoming(channel) => Self::Incoming(channel.try_into()?),
            ListedItem::Outgoing(channel) => Self::Outgoing(channel.try_into()?),
            ListedItem::EndedIncoming(ended) => Self::EndedIncoming(ended.try_into()?),
            ListedItem::EndedOutgoing(ended) => Self::EndedOutgoing(ended.try_into()?),
            ListedItem::Denied(denial) => Self::Denied(denial.try_into()?),
            ListedItem::Calls(calls) => Self::Calls(calls.try_into()?),
            ListedItem::Refused(refused) => Self::Refused(refused.into()),
            ListedItem::Published(topic) => Self::Published(topic.try_into()?),
        })
    }
}

fn listed_totals(totals: &Totals) -> Vec<u64> {
    let t = totals;
    let blocked = ns(t.blocked);
    let first = [t.channels, t.sent, t.received, t.processed, t.bytes_received, t.dropped, t.missed];
    first.into_iter().chain([t.bytes_sent, t.returned, blocked, t.too_large, t.no_room, t.no_memory]).collect()
}

fn totals(listed: &[u64]) -> Result<Totals, BadListing> {
    let [channels, sent, received, processed, bytes_received, dropped, missed, bytes_sent, returned, blocked, ..] =
        *listed
    else {
        return Err(BadListing("too few totals"));
    };
    let blocked = Duration::from_nanos(blocked);
    // Earlier versions have fewer.
    let later = |at: usize| listed.get(at).copied().unwrap_or(0);
    let [too_large, no_room, no_memory] = [later(10), later(11), later(12)];
    Ok(Totals {
        channels,
        sent,
        received,
        processed,
        bytes_received,
        dropped,
        missed,
        bytes_sent,
        returned,
        too_large,
        no_room,
        no_memory,
        blocked,
    })
}

impl From<&EndedChannels> for ListedEnded {
    fn from(ended: &EndedChannels) -> Self {
        let (peer, address) = (ended.peer.to_string(), (&ended.address).into());
        Self { peer, address, totals: listed_totals(&ended.totals), latency: latencies(&ended.latency) }
    }
}

impl TryFrom<ListedEnded> for EndedChannels {
    type Error = BadListing;

    fn try_from(ended: ListedEnded) -> Result<Self, BadListing> {
        check_node_id(&ended.peer).map_err(|_| NO_NODE_ID)?;
        let (peer, address) = (ended.peer.into(), ended.address.try_into()?);
        Ok(Self { peer, address, totals: totals(&ended.totals)?, latency: histogram(&ended.latency)? })
    }
}

/// At most this many characters of a publisher's reason for a denial are kept.
const DENIAL_CHARS: usize = 800;

/// A publisher's reason for a denial, as it is kept.
pub(crate) fn denial_text(text: &str) -> Arc<str> {
    harmless_start(text, DENIAL_CHARS).into()
}

impl From<&Denial> for ListedDenial {
    fn from(denial: &Denial) -> Self {
        let Denial { inbox, by, uid, topic, text, is_mismatch, .. } = denial;
        let is_mismatch = is_mismatch.then_some(true);
        Self {
            inbox: *inbox,
            by: by.to_string(),
            uid: *uid,
            topic: topic.to_string(),
            text: text.to_string(),
            is_mismatch,
        }
    }
}

impl TryFrom<ListedDenial> for Denial {
    type Error = BadListing;

    fn try_from(listed: ListedDenial) -> Result<Self, BadListing> {
        let ListedDenial { inbox, by, uid, topic, text, is_mismatch } = listed;
        check_node_id(&by).map_err(|_| NO_NODE_ID)?;
        let (text, is_mismatch, mismatch) = (denial_text(&text), is_mismatch == Some(true), None);
        let is_direct = topic.is_empty() && is_mismatch;
        if !is_direct {
            check_topic(&topic).map_err(|_| BadListing("an invalid topic"))?;
        }
        Ok(Self { inbox, by: by.into(), uid, topic: topic.into(), text, is_mismatch, mismatch })
    }
}

impl From<&CallStats> for ListedCalls {
    fn from(stats: &CallStats) -> Self {
        let CallStats { service, side, open, calls, answered, failures, latency } = stats;
        let side = match side {
            CallSide::Client => 0,
            CallSide::Server => 1,
        };
        let failures = failures.iter().map(|(_, count)| count);
        let counters = [*open, *calls, *answered].into_iter().chain(failures).collect();
        Self { service: service.to_string(), side, counters, latency: latencies(latency) }
    }
}

impl TryFrom<ListedCalls> for CallStats {
    type Error = BadListing;

    fn try_from(ListedCalls { service, side, counters, latency }: ListedCalls) -> Result<Self, BadListing> {
        check_topic(&service).map_err(|_| BadListing("an invalid service"))?;
        let [open, calls, answered, ref failures @ ..] = counters[..] else {
            return Err(BadListing("too few counts of calls"));
        };
        let side = if side == 0 { CallSide::Client } else { CallSide::Server };
        let (failures, latency) = (CallFailures::from_counts(failures.iter().copied()), histogram(&latency)?);
        Ok(Self { service: service.into(), side, open, calls, answered, failures, latency })
    }
}

impl From<&Refused> for ListedRefused {
    fn from(refused: &Refused) -> Self {
        let Refused { uid, pid, reason, text, count, last } = refused;
        let counters = vec![*count, ns(*last)];
        Self { uid: *uid, pid: *pid, reason: *reason as u32, text: text.to_string(), counters }
    }
}

impl From<ListedRefused> for Refused {
    fn from(ListedRefused { uid, pid, reason, text, counters }: ListedRefused) -> Self {
        let number = |at: usize| counters.get(at).copied().unwrap_or(0);
        let (reason, last) = (Reason::from_number(reason), Duration::from_nanos(number(1)));
        Self { uid, pid, reason, text: refusal_text(&text), count: number(0), last }
    }
}

impl From<&PublishedTopic> for ListedTopic {
    fn from(published: &PublishedTopic) -> Self {
        let PublishedTopic { topic, schema, publishers, unheard, unheard_bytes, last_unheard } = published;
        let schema = (!schema.is_empty()).then(|| schema.to_string());
        let counters = vec![*publishers, *unheard, *unheard_bytes];
        Self { topic: topic.to_string(), schema, counters, last: last_unheard.map(ns) }
    }
}

impl TryFrom<ListedTopic> for PublishedTopic {
    type Error = BadListing;

    fn try_from(ListedTopic { topic, schema, counters, last }: ListedTopic) -> Result<Self, BadListing> {
        check_topic(&topic).map_err(|_| BadListing("an invalid topic"))?;
        let [publishers, unheard, unheard_bytes, ..] = counters[..] else {
            return Err(BadListing("too few counts of a topic"));
        };
        let schema = harmless(schema.as_deref().unwrap_or_default()).into();
        let last_unheard = last.map(Duration::from_nanos);
        Ok(Self { topic: topic.into(), schema, publishers, unheard, unheard_bytes, last_unheard })
    }
}

const NO_NODE_ID: BadListing = BadListing("an invalid node id");

/// The sum, the longest, and number and count of each bucket that is not empty.
fn latencies(histogram: &Histogram) -> Vec<u64> {
    let mut latencies = vec![histogram.sum_ns(), histogram.max_ns()];
    latencies.extend(histogram.parts().flat_map(|(bucket, count)| [u64::from(bucket), count]));
    latencies
}

fn histogram(latencies: &[u64]) -> Result<Histogram, BadListing> {
    let [sum, max, buckets @ ..] = latencies else { return Err(BadListing("no latencies")) };
    let buckets = buckets.chunks_exact(2).map(|pair| (u32::try_from(pair[0]).unwrap_or(u32::MAX), pair[1]));
    Ok(Histogram::from_parts(buckets, *sum, *max))
}

impl TryFrom<ListedAddress> for Address {
    type Error = BadListing;

    fn try_from(address: ListedAddress) -> Result<Self, BadListing> {
        match address {
            ListedAddress::Node => Ok(Self::Node),
            ListedAddress::Patterns(patterns) => {
                let patterns: Result<Vec<Pattern>, _> =
                    patterns.iter().map(|pattern| Pattern::listed(pattern)).collect();
                Ok(Self::Topics(patterns.map_err(|_| BadListing("an invalid pattern"))?.into()))
            }
            ListedAddress::Service(name) => {
                check_topic(&name).map_err(|_| BadListing("an invalid service"))?;
                Ok(Self::Service(name.into()))
            }
            ListedAddress::Replies => Ok(Self::Replies),
        }
    }
}

fn ns(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

impl From<&ChannelStats> for ListedChannel {
    fn from(channel: &ChannelStats) -> Self {
        let c = channel;
        let has_types = c.types.iter().any(|text| !text.is_empty());
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
            types: has_types.then(|| c.types.iter().map(ToString::to_string).collect()),
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
                c.lent,
                c.lent_bytes,
                c.held,
                c.too_large,
                c.no_room,
                c.no_memory,
            ],
            last: (c.last_sent.map(ns), c.last_processed.map(ns)),
            latency: latencies(&c.latency),
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
        // Earlier versions have fewer.
        let types = channel.types.unwrap_or_default();
        let later = |at: usize| channel.counters.get(at).copied().unwrap_or(0);
        check_node_id(&channel.peer).map_err(|_| NO_NODE_ID)?;
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
            types: (0..channel.topics.len())
                .map(|at| harmless(types.get(at).map_or("", String::as_str)).into())
                .collect(),
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
            lent: later(13),
            lent_bytes: later(14),
            held: later(15),
            too_large: later(16),
            no_room: later(17),
            no_memory: later(18),
            last_sent: channel.last.0.map(Duration::from_nanos),
            last_processed: channel.last.1.map(Duration::from_nanos),
            latency: histogram(&channel.latency)?,
        })
    }
}

#[cfg(test)]
mod tests;
