//! What a node reports about itself: its inboxes, and every channel that leads to it or from it.
//!
//! Each side of a channel counts in its own memory, and the numbers are read in place, so reading them costs nothing on
//! the hot path. A snapshot of a busy channel does not show one instant, but the inequalities of [`crate::Account`]
//! hold in it.

pub(crate) mod calls; //     what clients and servers have counted
pub(crate) mod channels; //  the channels of an inbox, as its statistics see them
pub(crate) mod ended; //     what was counted on channels that have ended
pub(crate) mod page; //      the items of a node's statistics, in order
pub(crate) mod published; // the topics that a node publishes
pub(crate) mod refused; //   processes that wanted to send, and were refused
pub(crate) mod sampling; //  which messages carry a time stamp

use std::sync::Arc;
use std::time::Duration;

pub use self::calls::{CallFailure, CallFailures, CallSide, CallStats};
pub use self::published::PublishedTopic;
pub use self::refused::Refused;

use librpc_ring::{Counters, Histogram, Memory, Mode, layout};

use crate::name::{Address, Incarnation};
use crate::policy::Policy;
use crate::schema::SchemaMismatch;
use crate::sys::clock::now_ns;
use crate::sys::memory::Reader;

/// What a node reports about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStats {
    /// Its id.
    pub node: Arc<str>,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The version of the library that it runs.
    pub version: String,
    /// The namespaces of its process, by their names under `/proc/self/ns`. They show in which container it is.
    pub namespaces: Vec<(String, u64)>,
    /// Its inboxes, each with the channels that lead to it.
    pub inboxes: Vec<InboxStats>,
    /// The channels that its outboxes send through.
    pub outgoing: Vec<ChannelStats>,
    /// What was received over channels that have ended, by sender and address.
    pub ended_incoming: Vec<EndedChannels>,
    /// What was sent over channels that have ended, by receiver and address.
    pub ended_outgoing: Vec<EndedChannels>,
    /// What its clients and servers have counted, by service: those that are open, and the last 64 services of the others.
    pub calls: Vec<CallStats>,
    /// The topics that its subscriptions may not read. For each subscription, the last 8 of which it was notified.
    pub denials: Vec<Denial>,
    /// Processes that wanted to send to it, and were refused: the last 64 kinds, by user and reason.
    pub refused: Vec<Refused>,
    /// The topics that it publishes, whether anybody subscribes to them or not. At most 4,096.
    pub published: Vec<PublishedTopic>,
    /// How many others it publishes, which are not listed.
    pub published_left_out: u64,
    /// Bytes of the memory that its outboxes have made for large payloads.
    pub payload_bytes: u64,
    /// How many there may be: [`crate::Limits::payload_bytes`].
    pub payload_limit: u64,
}

impl NodeStats {
    /// A node that has not answered yet.
    pub(crate) fn new(node: Arc<str>, incarnation: Incarnation) -> Self {
        Self {
            node,
            incarnation,
            version: String::new(),
            namespaces: Vec::new(),
            inboxes: Vec::new(),
            outgoing: Vec::new(),
            ended_incoming: Vec::new(),
            ended_outgoing: Vec::new(),
            calls: Vec::new(),
            denials: Vec::new(),
            refused: Vec::new(),
            published: Vec::new(),
            published_left_out: 0,
            payload_bytes: 0,
            payload_limit: 0,
        }
    }
}

/// What was counted between two ends on channels that have ended, all together. A node remembers the pairs of ends that have a
/// channel now, and of the others the last 64 in each direction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndedChannels {
    /// The node at the other end.
    pub peer: Arc<str>,
    /// What the inbox receives.
    pub address: Address,
    /// What was counted.
    pub totals: Totals,
    /// As in [`ChannelStats::latency`].
    pub latency: Histogram,
}

/// A topic that a subscription does not get: its publisher does not let it read the topic ([`crate::NodeBuilder::readers`]), or the
/// topic is of another type. Or what a sender would send to the node itself, if that is of another type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// The number of the subscription's inbox, at its node.
    pub inbox: u32,
    /// The node that publishes.
    pub by: Arc<str>,
    /// Its user, from the kernel.
    pub uid: u32,
    /// The topic; empty: what is sent to the node itself.
    pub topic: Arc<str>,
    /// The reason, in the publisher's words: at most 800 characters.
    pub text: Arc<str>,
    /// Whether that is because the topic is of another type than the subscription wants.
    pub is_mismatch: bool,
    /// The types, as the inbox itself knows them.
    pub(crate) mismatch: Option<Arc<SchemaMismatch>>,
}

/// What an inbox has received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InboxStats {
    /// Its number at its node.
    pub number: u32,
    /// What it receives.
    pub address: Address,
    /// What happens to a message when the inbox is full.
    pub policy: Policy,
    /// Capacity of each channel's ring in bytes.
    pub capacity: u64,
    /// The channels that lead to it now.
    pub channels: Vec<ChannelStats>,
    /// What was received over channels that have ended.
    pub ended: Totals,
}

/// What was counted on several channels together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// How many channels.
    pub channels: u64,
    /// Messages that were put into their rings.
    pub sent: u64,
    /// Messages handed out by the inbox.
    pub received: u64,
    /// Messages processed.
    pub processed: u64,
    /// Bytes of the payloads that were received.
    pub bytes_received: u64,
    /// Messages that were dropped because the inbox was full.
    pub dropped: u64,
    /// Messages that were overwritten before they could be received.
    pub missed: u64,
    /// Bytes of the payloads that were put into the rings.
    pub bytes_sent: u64,
    /// Messages that came back to their senders as an error.
    pub returned: u64,
    /// Those of them that are too large for the inbox.
    pub too_large: u64,
    /// Those of them that were published, and found no room in time.
    pub no_room: u64,
    /// Those of them for which their senders had no memory.
    pub no_memory: u64,
    /// How long the senders have waited for room.
    pub blocked: Duration,
}

impl Totals {
    /// Adds a channel. A peer may claim any number, so sums saturate.
    pub fn add(&mut self, channel: &ChannelStats) {
        *self += Self {
            channels: 1,
            sent: channel.sent,
            received: channel.received,
            processed: channel.processed,
            bytes_received: channel.bytes_received,
            dropped: channel.dropped,
            missed: channel.missed,
            bytes_sent: channel.bytes_sent,
            returned: channel.returned,
            too_large: channel.too_large,
            no_room: channel.no_room,
            no_memory: channel.no_memory,
            blocked: channel.blocked,
        };
    }
}

/// Adds what was counted on other channels, up to the greatest number.
impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.channels, more.channels);
        add(&mut self.sent, more.sent);
        add(&mut self.received, more.received);
        add(&mut self.processed, more.processed);
        add(&mut self.bytes_received, more.bytes_received);
        add(&mut self.dropped, more.dropped);
        add(&mut self.missed, more.missed);
        add(&mut self.bytes_sent, more.bytes_sent);
        add(&mut self.returned, more.returned);
        add(&mut self.too_large, more.too_large);
        add(&mut self.no_room, more.no_room);
        add(&mut self.no_memory, more.no_memory);
        self.blocked = self.blocked.saturating_add(more.blocked);
    }
}

/// The state of a channel's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelState {
    /// The receiver has not answered yet: what is sent waits in the ring.
    Pending,
    /// The receiver reads it.
    Open,
    /// The receiver is gone or has refused, and the sender has not noticed yet.
    Failed,
}

/// A channel from one outbox to one inbox, as one of the two sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The node at the other end.
    pub peer: Arc<str>,
    /// Its incarnation.
    pub peer_incarnation: Incarnation,
    /// Its process, as the kernel reports it to the receiver; 0: unknown to this side, or in another pid namespace.
    pub peer_pid: u32,
    /// The number of the inbox, at its node.
    pub inbox: u32,
    /// The channel's number among those on its connection; `None`: it is pending.
    pub ring: Option<u32>,
    /// The state of its connection.
    pub state: ChannelState,
    /// What happens to a message when the ring is full.
    pub policy: Policy,
    /// The first topics that were declared on it, at most 32. Only the receiver knows them.
    pub topics: Vec<Arc<str>>,
    /// Their types, in the same order, as texts ([`crate::Schema`]); an empty one: bytes without a type.
    pub types: Vec<Arc<str>>,
    /// Bytes of the ring that are in use now.
    pub depth: u64,
    /// The most bytes that were ever in use: never below `depth`. Below a sixteenth of the ring the sender need not have noticed it, so a
    /// later look may show less.
    pub depth_max: u64,
    /// The ring's capacity in bytes.
    pub capacity: u64,
    /// Messages that were put into the ring.
    pub sent: u64,
    /// Bytes of their payloads.
    pub bytes_sent: u64,
    /// New messages that were dropped because the ring was full.
    pub dropped: u64,
    /// Messages that came back to the sender as an error.
    pub returned: u64,
    /// Those of them that are too large for the inbox ([`crate::InboxBuilder::max_message`]).
    pub too_large: u64,
    /// Those of them that were published, and found no room in time.
    pub no_room: u64,
    /// Those of them for which the sender had no memory ([`crate::Limits::payload_bytes`]).
    pub no_memory: u64,
    /// How long the sender has waited for room, in total.
    pub blocked: Duration,
    /// Messages handed out by the inbox.
    pub received: u64,
    /// Bytes of their payloads.
    pub bytes_received: u64,
    /// Messages processed.
    pub processed: u64,
    /// Messages that were overwritten before they could be received.
    pub missed: u64,
    /// Messages that are in the ring, or being processed.
    pub queued: u64,
    /// Large payloads that are lent to the receiver, as of its sender's last call: they wait, or are held. Only the sender knows it.
    pub lent: u64,
    /// Their bytes.
    pub lent_bytes: u64,
    /// Samples with large payloads that the receiver holds.
    pub held: u64,
    /// How long ago the last message with a time stamp was sent. About one message in 64 carries one.
    pub last_sent: Option<Duration>,
    /// How long ago the last such message was processed.
    pub last_processed: Option<Duration>,
    /// The time from commit to processed, of such messages.
    pub latency: Histogram,
}

/// The other end of a channel, and the identity of the channel.
pub(crate) struct Ends {
    pub(crate) peer: Arc<str>,
    pub(crate) peer_incarnation: Incarnation,
    pub(crate) peer_pid: u32,
    pub(crate) inbox: u32,
    pub(crate) ring: Option<u32>,
    pub(crate) state: ChannelState,
    pub(crate) policy: Policy,
    pub(crate) capacity: u64,
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) types: Vec<Arc<str>>,
    /// Payloads that are lent, and their bytes.
    pub(crate) lent: [u64; 2],
}

impl ChannelStats {
    /// Reads a channel's counters in place.
    pub(crate) fn read(ends: Ends, data: &Reader, ack: &Reader) -> Self {
        let Ends { peer, peer_incarnation, peer_pid, inbox, ring, state, policy, capacity, topics, types, lent } = ends;
        let [lent, lent_bytes] = lent;
        // The receiver's position is read first, as in `Counters::read`, so that it is not ahead of the sender's.
        // Acquire: as there.
        let consumed = ack.load(layout::ack::CONSUMED, std::sync::atomic::Ordering::Acquire);
        let counters = Counters::read(data, ack);
        let (latency, now) = (Histogram::read(ack), now_ns());
        let ago = |ns: u64| (ns != 0).then(|| Duration::from_nanos(now.saturating_sub(ns)));
        let (queued, sender, receiver) = (counters.queued(), counters.sender, counters.receiver);
        // In mode Latest the position says what was skipped, too; in both, nothing queued is nothing in use.
        let depth = match (queued, policy.mode()) {
            (0, Mode::Latest) => 0,
            _ => sender.committed.saturating_sub(consumed).min(capacity),
        };
        Self {
            peer,
            peer_incarnation,
            peer_pid,
            inbox,
            ring,
            state,
            policy,
            topics,
            types,
            depth,
            // Its sender need not have noticed a depth below a sixteenth of the ring.
            depth_max: sender.depth_max.min(capacity).max(depth),
            capacity,
            sent: sender.messages,
            bytes_sent: sender.bytes,
            dropped: sender.dropped,
            returned: sender.returned,
            too_large: sender.too_large,
            no_room: sender.no_room,
            no_memory: sender.no_memory,
            blocked: Duration::from_nanos(sender.blocked_ns),
            received: receiver.received,
            bytes_received: receiver.bytes,
            processed: receiver.processed,
            missed: receiver.missed,
            queued,
            lent,
            lent_bytes,
            held: librpc_ring::held(ack) as u64,
            last_sent: ago(sender.last_sent),
            last_processed: ago(receiver.last_received),
            latency,
        }
    }
}
