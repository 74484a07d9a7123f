//! What the pages of a node's statistics hold. Lists of numbers grow at their ends in later versions, maps by new keys.

use minicbor::{Decode, Encode};

use crate::wire::ListedAddress;

/// A part of a node's statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Page {
    /// The version of the node's library.
    #[n(0)]
    pub(crate) version: String,
    /// Its namespaces; on the first page only.
    #[n(1)]
    pub(crate) namespaces: Vec<(String, u64)>,
    #[n(2)]
    pub(crate) items: Vec<ListedItem>,
    /// Where the next page begins; `None`: this is the last one.
    #[n(3)]
    pub(crate) next: Option<ListedPlace>,
    /// Bytes of the node's memory for payloads, and how many there may be; on the first page only.
    #[n(4)]
    pub(crate) payloads: Option<(u64, u64)>,
    /// How many published topics are not listed, if there are any; on the first page only.
    #[n(5)]
    pub(crate) left_out: Option<u64>,
}

/// How far an observer has come: the last item that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ListedPlace {
    #[n(0)]
    pub(crate) part: u32,
    #[n(1)]
    pub(crate) inbox: u32,
    #[n(2)]
    pub(crate) serial: u64,
    #[n(3)]
    pub(crate) begun: bool,
}

/// An inbox, a channel, channels that have ended, a topic that an inbox may not read, what was counted of calls, a topic that is
/// published, or processes that were refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum ListedItem {
    #[n(0)]
    Inbox(#[n(0)] ListedTotals),
    #[n(1)]
    Incoming(#[n(0)] ListedChannel),
    #[n(2)]
    Outgoing(#[n(0)] ListedChannel),
    #[n(3)]
    EndedIncoming(#[n(0)] ListedEnded),
    #[n(4)]
    EndedOutgoing(#[n(0)] ListedEnded),
    #[n(5)]
    Denied(#[n(0)] ListedDenial),
    #[n(6)]
    Calls(#[n(0)] ListedCalls),
    #[n(7)]
    Published(#[n(0)] ListedTopic),
    #[n(8)]
    Refused(#[n(0)] ListedRefused),
}

/// Processes that wanted to send to a node, and were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedRefused {
    #[n(0)]
    pub(crate) uid: u32,
    #[n(1)]
    pub(crate) pid: u32,
    #[n(2)]
    pub(crate) reason: u32,
    #[n(3)]
    pub(crate) text: String,
    /// How often, and how long ago the last time was, in ns.
    #[n(4)]
    pub(crate) counters: Vec<u64>,
}

/// A topic that a node publishes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedTopic {
    #[n(0)]
    pub(crate) topic: String,
    /// Its type as text, if it has one.
    #[n(1)]
    pub(crate) schema: Option<String>,
    /// How many publishers have it; messages and bytes that were published while nobody subscribed.
    #[n(2)]
    pub(crate) counters: Vec<u64>,
    /// How long ago the last of those was published, in ns.
    #[n(3)]
    pub(crate) last: Option<u64>,
}

/// What clients, or servers, have counted for a service.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedCalls {
    #[n(0)]
    pub(crate) service: String,
    /// 0: clients.
    #[n(1)]
    pub(crate) side: u32,
    /// How many are open, calls, answers, and failures of each kind.
    #[n(2)]
    pub(crate) counters: Vec<u64>,
    /// As of a channel.
    #[n(3)]
    pub(crate) latency: Vec<u64>,
}

/// A topic that a subscription may not read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedDenial {
    #[n(0)]
    pub(crate) inbox: u32,
    /// The publisher's node, and its user.
    #[n(1)]
    pub(crate) by: String,
    #[n(2)]
    pub(crate) uid: u32,
    #[n(3)]
    pub(crate) topic: String,
    #[n(4)]
    pub(crate) text: String,
    /// It is of another type.
    #[n(5)]
    pub(crate) is_mismatch: Option<bool>,
}

/// An inbox, and what came over its channels that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedTotals {
    #[n(0)]
    pub(crate) number: u32,
    #[n(1)]
    pub(crate) address: ListedAddress,
    #[n(2)]
    pub(crate) capacity: u64,
    #[n(3)]
    pub(crate) policy: u32,
    /// channels, sent, received, processed, bytes received, dropped, missed, bytes sent, returned, blocked in ns, too large, no room, no
    /// memory
    #[n(4)]
    pub(crate) ended: Vec<u64>,
}

/// Channels between the same two ends that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedEnded {
    #[n(0)]
    pub(crate) peer: String,
    #[n(1)]
    pub(crate) address: ListedAddress,
    /// As in [`ListedTotals`].
    #[n(2)]
    pub(crate) totals: Vec<u64>,
    /// As in [`ListedChannel`].
    #[n(3)]
    pub(crate) latency: Vec<u64>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedChannel {
    #[n(0)]
    pub(crate) peer: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) incarnation: [u8; 16],
    #[n(2)]
    pub(crate) pid: u32,
    #[n(3)]
    pub(crate) inbox: u32,
    #[n(4)]
    pub(crate) ring: Option<u32>,
    /// 0 pending, 1 open, 2 failed
    #[n(5)]
    pub(crate) state: u32,
    #[n(6)]
    pub(crate) policy: u32,
    #[n(7)]
    pub(crate) topics: Vec<String>,
    /// In the order of the fields of `ChannelStats`, times in ns.
    #[n(8)]
    pub(crate) counters: Vec<u64>,
    /// How long ago a message was sent and processed, in ns.
    #[n(9)]
    pub(crate) last: (Option<u64>, Option<u64>),
    /// The latencies: their sum, the longest, and number and count of each bucket that is not empty.
    #[n(10)]
    pub(crate) latency: Vec<u64>,
    /// The topics' types, in the same order, if there are any.
    #[n(11)]
    pub(crate) types: Option<Vec<String>>,
}
