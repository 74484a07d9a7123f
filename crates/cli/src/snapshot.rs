//! What one look at a domain finds: nodes, inboxes and channels as rows, for `stat`, `top`, `metrics`, `graph`, `check`.
//!
//! Both ends report a channel. The report of the receiver counts, because it maps the memory of both sides. A channel
//! to a node that does not answer is shown as its sender sees it.

mod denials; // what inboxes may not get, or as another type
mod losses; //  what did not arrive

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use denials::{DenialRow, denials};
pub(crate) use losses::Losses;

use crate::served::{self, ServiceRow};
use librpc::{
    Address, ChannelStats, Domain, Histogram, InboxInfo, ObserveError, Observed, Observer, PublishedTopic, Refused,
    Totals,
};

/// How long a node may take to answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The state in which a node was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Alive,
    /// It lives, but does not answer.
    Stalled,
    /// It does not admit us, or its version does not have statistics.
    Refused,
    /// It cannot be asked, or its answer is not valid.
    Broken,
    Dead,
}

#[derive(Clone, Debug)]
pub(crate) struct NodeRow {
    pub(crate) id: String,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) incarnation: String,
    pub(crate) state: State,
    /// Why it does not answer.
    pub(crate) why: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) namespaces: Vec<(String, u64)>,
    pub(crate) addresses: Vec<String>,
    /// What its inboxes do not get.
    pub(crate) denials: Vec<DenialRow>,
    /// Who wanted to send to it, and was refused.
    pub(crate) refused: Vec<Refused>,
    /// How many of its topics are not listed.
    pub(crate) topics_left_out: u64,
    /// Its memory for large payloads; `None`: it does not answer.
    pub(crate) payloads: Option<Payloads>,
}

/// A node's memory for large payloads, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payloads {
    pub(crate) bytes: u64,
    pub(crate) limit: u64,
}

/// The large payloads of a channel that wait or are held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lent {
    pub(crate) payloads: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct InboxRow {
    pub(crate) node: String,
    pub(crate) incarnation: String,
    pub(crate) number: u32,
    pub(crate) addresses: Vec<String>,
    /// The type that it wants, if any.
    pub(crate) types: Option<String>,
    /// Whether it receives requests or replies.
    pub(crate) is_of_calls: bool,
    /// Whether it receives requests.
    pub(crate) is_service: bool,
    /// Whether it receives topics.
    pub(crate) is_of_topics: bool,
    pub(crate) policy: &'static str,
    pub(crate) capacity: u64,
    pub(crate) channels: usize,
    /// What arrived over channels that have ended; `None`: its node does not answer.
    pub(crate) ended: Option<Totals>,
}

/// Identifies a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The incarnations at its ends.
    from: String,
    to: String,
    inbox: u32,
    /// A pending channel has no number. Its place among the sender's channels distinguishes it from others.
    ring: Result<u32, usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct ChannelRow {
    pub(crate) key: Key,
    pub(crate) from: String,
    pub(crate) to: String,
    /// What the inbox receives; empty: unknown.
    pub(crate) addresses: Vec<String>,
    /// Whether it is known to carry requests or replies.
    pub(crate) is_of_calls: bool,
    /// Whether it is known to carry topics.
    pub(crate) is_of_topics: bool,
    /// Whether the receiver reports this, or only the sender.
    pub(crate) by_receiver: bool,
    pub(crate) stats: ChannelStats,
    /// What its sender has lent; `None`: the sender does not answer.
    pub(crate) lent: Option<Lent>,
    /// What has happened since an earlier look, if there was one.
    pub(crate) recent: Option<Recent>,
}

/// A topic that a node says it publishes.
#[derive(Clone, Debug)]
pub(crate) struct PublishedRow {
    pub(crate) node: String,
    pub(crate) incarnation: String,
    pub(crate) stats: PublishedTopic,
    /// Messages per second that nobody has subscribed to, since an earlier look, if there was one.
    pub(crate) unheard: Option<f64>,
}

/// Rates between two looks, per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) sent: f64,
    pub(crate) received: f64,
    pub(crate) bytes: f64,
    /// Dropped, overwritten, or without room.
    pub(crate) lost: f64,
    pub(crate) dropped: f64,
    /// The part of the time that the sender spent waiting for room, 0 to 1.
    pub(crate) blocked: f64,
}

/// What has happened on a channel between two looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) rates: Rates,
    pub(crate) latency: Histogram,
    /// Whether it was nearly full at the earlier look.
    pub(crate) was_full: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) inboxes: Vec<InboxRow>,
    pub(crate) channels: Vec<ChannelRow>,
    pub(crate) services: Vec<ServiceRow>,
    pub(crate) published: Vec<PublishedRow>,
}

/// Looks at a domain, again and again.
pub(crate) struct Looker(Observer);

impl Looker {
    pub(crate) fn new(domain: Domain) -> Self {
        Self(Observer::new(domain))
    }

    pub(crate) fn look(&mut self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot::of(self.0.look(ANSWER_LIMIT)?))
    }
}

/// The name of a policy on the command line.
pub(crate) fn policy_name(policy: librpc::Policy) -> &'static str {
    match policy {
        librpc::Policy::Block => "block",
        librpc::Policy::DropNewest => "drop-newest",
        librpc::Policy::DropOldest => "drop-oldest",
        _ => "unknown",
    }
}

/// What an inbox receives: its node's id, patterns, a service, or the replies to a client.
pub(crate) fn addresses(node: &str, address: &Address) -> Vec<String> {
    match address {
        Address::Topics(patterns) => patterns.iter().map(ToString::to_string).collect(),
        Address::Service(name) => vec![name.to_string()],
        Address::Replies => vec!["replies".to_owned()],
        _ => vec![node.to_owned()],
    }
}

/// The types of an inbox as text: what it wants; of a service, its requests and its replies.
pub(crate) fn listed_type(inbox: &InboxInfo) -> Option<String> {
    let texts: Vec<String> = inbox.schemas.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(" -> "))
}

impl Snapshot {
    pub(crate) fn of(mut observed: Vec<Observed>) -> Self {
        observed.sort_by(|a, b| a.node.id.cmp(&b.node.id));
        let mut found = Self {
            at: Instant::now(),
            nodes: Vec::new(),
            inboxes: Vec::new(),
            channels: Vec::new(),
            services: served::find(&observed),
            published: Vec::new(),
        };
        let mut seen = HashSet::new();
        let is_there = |id: &str| observed.iter().any(|Observed { node, .. }| node.alive && node.id == id);
        for Observed { node, stats, .. } in &observed {
            let (mut version, mut namespaces) = (None, Vec::new());
            if let Ok(stats) = stats {
                (version, namespaces) = (Some(stats.version.clone()), stats.namespaces.clone());
                found.published.extend(stats.published.iter().map(|topic| PublishedRow {
                    node: node.id.clone(),
                    incarnation: node.incarnation.to_string(),
                    stats: topic.clone(),
                    unheard: None,
                }));
                for inbox in &stats.inboxes {
                    let addresses = addresses(&node.id, &inbox.address);
                    let is_of_calls = matches!(inbox.address, Address::Service(_) | Address::Replies);
                    let is_of_topics = matches!(inbox.address, Address::Topics(_));
                    for channel in &inbox.channels {
                        let key = Key::new(&channel.peer_incarnation, &node.incarnation, channel, 0);
                        seen.insert(key.clone());
                        let (from, to) = (channel.peer.to_string(), node.id.clone());
                        let (addresses, stats) = (addresses.clone(), channel.clone());
                        let row = ChannelRow {
                            key,
                            from,
                            to,
                            addresses,
                            is_of_calls,
                            is_of_topics,
                            by_receiver: true,
                            stats,
                            lent: None,
                            recent: None,
                        };
                        found.channels.push(row);
                    }
                    found.inboxes.push(InboxRow {
                        node: node.id.clone(),
                        incarnation: node.incarnation.to_string(),
                        number: inbox.number,
                        addresses,
                        types: node.listed.iter().find(|listed| listed.number == inbox.number).and_then(listed_type),
                        is_of_calls,
                        is_service: matches!(inbox.address, Address::Service(_)),
                        is_of_topics,
                        policy: policy_name(inbox.policy),
                        capacity: inbox.capacity,
                        channels: inbox.channels.len(),
                        ended: Some(inbox.ended),
                    });
                }
            }
            if stats.is_err() && node.alive {
                for inbox in &node.listed {
                    found.inboxes.push(InboxRow {
                        node: node.id.clone(),
                        incarnation: node.incarnation.to_string(),
                        number: inbox.number,
                        addresses: inbox.addresses.clone(),
                        types: listed_type(inbox),
                        is_of_calls: is_of_calls(inbox),
                        is_service: inbox.is_service,
                        is_of_topics: is_of_topics(inbox, &node.id),
                        policy: inbox.policy.map_or("unknown", policy_name),
                        capacity: inbox.capacity,
                        channels: 0,
                        ended: None,
                    });
                }
            }
            let (state, why) = (State::of(stats), stats.as_ref().err().map(ToString::to_string));
            found.nodes.push(NodeRow {
                id: node.id.clone(),
                pid: node.pid,
                uid: node.uid,
                incarnation: node.incarnation.to_string(),
                state,
                why,
                version,
                namespaces,
                addresses: node.inboxes.clone(),
                denials: stats.as_ref().map_or_else(|_| Vec::new(), |stats| denials(node, stats, is_there)),
                refused: stats.as_ref().map_or_else(|_| Vec::new(), |stats| stats.refused.clone()),
                topics_left_out: stats.as_ref().map_or(0, |stats| stats.published_left_out),
                payloads: (stats.as_ref().ok())
                    .map(|stats| Payloads { bytes: stats.payload_bytes, limit: stats.payload_limit }),
            });
        }
        found.add_what_only_senders_see(&observed, &seen);
        found.channels.sort_by(|a, b| (&a.to, &a.from, &a.key).cmp(&(&b.to, &b.from, &b.key)));
        found
    }

    fn add_what_only_senders_see(&mut self, observed: &[Observed], seen: &HashSet<Key>) {
        let mut unmatched = Unmatched::of(observed, seen);
        let listed = observed.iter().flat_map(|observed| {
            observed.node.listed.iter().map(|inbox| ((observed.node.incarnation, inbox.number), inbox))
        });
        let listed: HashMap<_, _> = listed.collect();
        let mut lent = HashMap::new();
        for Observed { node, stats, .. } in observed {
            for (order, channel) in stats.iter().flat_map(|stats| stats.outgoing.iter().enumerate()) {
                let key = Key::new(&node.incarnation, &channel.peer_incarnation, channel, order);
                let of_channel = Lent { payloads: channel.lent, bytes: channel.lent_bytes };
                lent.insert(key.clone(), of_channel);
                if seen.contains(&key) || key.is_pending() && unmatched.take(&key) {
                    continue;
                }
                let inbox = listed.get(&(channel.peer_incarnation, channel.inbox)).copied();
                let (from, to, stats) = (node.id.clone(), channel.peer.to_string(), channel.clone());
                let row = ChannelRow {
                    key,
                    from,
                    to,
                    addresses: inbox.map(|inbox| inbox.addresses.clone()).unwrap_or_default(),
                    is_of_calls: inbox.is_some_and(is_of_calls),
                    is_of_topics: inbox.is_some_and(|inbox| is_of_topics(inbox, &channel.peer)),
                    by_receiver: false,
                    stats,
                    lent: None,
                    recent: None,
                };
                self.channels.push(row);
            }
        }
        self.channels.iter_mut().for_each(|row| row.lent = lent.get(&row.key).copied());
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds to every channel what has happened since an earlier look.
    pub(crate) fn compare_with(&mut self, earlier: &Self) {
        let before: HashMap<&Key, &ChannelRow> = earlier.channels.iter().map(|row| (&row.key, row)).collect();
        let seconds = (self.at - earlier.at).as_secs_f64().max(1e-6);
        served::compare(&mut self.services, &earlier.services, seconds);
        let was: HashMap<_, u64> = earlier.published.iter().map(|row| (row.key(), row.stats.unheard)).collect();
        let is_alive = |node: &&NodeRow| node.state == State::Alive;
        let silent = earlier.nodes.iter().filter(|node| !is_alive(node)).map(|node| &*node.incarnation);
        let silent: HashSet<&str> = silent.collect();
        for row in self.published.iter_mut().filter(|row| !silent.contains(&*row.incarnation)) {
            let before = was.get(&row.key()).copied().unwrap_or(0);
            row.unheard = Some(row.stats.unheard.saturating_sub(before) as f64 / seconds);
        }
        for row in &mut self.channels {
            row.recent = match before.get(&row.key) {
                Some(was) => Some(Recent::between(Some(was), row, seconds)),
                None => earlier.would_have_seen(row).then(|| Recent::between(None, row, seconds)),
            };
        }
    }

    /// Whether a channel would be in this snapshot if it had existed: the node that shows it now answered then.
    fn would_have_seen(&self, row: &ChannelRow) -> bool {
        let witness = if row.by_receiver { &row.key.to } else { &row.key.from };
        let answered = self.nodes.iter().all(|node| node.incarnation != *witness || node.state == State::Alive);
        // A channel gets its number when the receiver answers. Before that, it is shown without one.
        let is_pending = |other: &ChannelRow| {
            let (one, other) = (&row.key, &other.key);
            other.is_pending() && (&one.from, &one.to, one.inbox) == (&other.from, &other.to, other.inbox)
        };
        answered && !self.channels.iter().any(is_pending)
    }
}

impl PublishedRow {
    /// Identifies it.
    fn key(&self) -> (String, Arc<str>, Arc<str>) {
        (self.incarnation.clone(), self.stats.topic.clone(), self.stats.schema.clone())
    }
}

/// An inbox: the incarnation of its node, and its number there.
pub(crate) type InboxKey<'s> = (&'s str, u32);

/// Whether a listed inbox receives requests or replies. Only replies have no address.
fn is_of_calls(inbox: &InboxInfo) -> bool {
    inbox.is_service || inbox.addresses.is_empty()
}

/// Whether a listed inbox of this node receives topics. The list does not tell a node's id from a pattern that is the same text:
/// such an inbox counts as the node's own until the node answers.
fn is_of_topics(inbox: &InboxInfo, node: &str) -> bool {
    !is_of_calls(inbox) && inbox.addresses != [node]
}

/// How many channels of each inbox and sender the receiver shows under a number that the sender does not show.
///
/// A sender that was asked before its channel got a number shows it as pending. Its receiver may have shown it already.
struct Unmatched(HashMap<(String, String, u32), usize>);

impl Unmatched {
    fn of(observed: &[Observed], seen: &HashSet<Key>) -> Self {
        let outgoing = observed.iter().flat_map(|Observed { node, stats, .. }| {
            let channels = stats.iter().flat_map(|stats| &stats.outgoing);
            channels.map(|channel| Key::new(&node.incarnation, &channel.peer_incarnation, channel, 0))
        });
        let outgoing: HashSet<Key> = outgoing.collect();
        let mut unmatched = HashMap::new();
        for key in seen.difference(&outgoing) {
            *unmatched.entry((key.from.clone(), key.to.clone(), key.inbox)).or_default() += 1;
        }
        Self(unmatched)
    }

    /// Whether a pending channel is one of them. Then it is matched.
    fn take(&mut self, pending: &Key) -> bool {
        let left = self.0.get_mut(&(pending.from.clone(), pending.to.clone(), pending.inbox));
        left.filter(|left| **left > 0).map(|left| *left -= 1).is_some()
    }
}

impl State {
    pub(crate) const ALL: [Self; 5] = [Self::Alive, Self::Stalled, Self::Refused, Self::Broken, Self::Dead];

    pub(crate) fn of<T>(stats: &Result<T, ObserveError>) -> Self {
        match stats {
            Ok(_) => Self::Alive,
            Err(ObserveError::Dead) => Self::Dead,
            Err(ObserveError::Stalled { .. } | ObserveError::Stopped) => Self::Stalled,
            Err(ObserveError::Refused { .. }) => Self::Refused,
            Err(_) => Self::Broken,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::Broken => "broken",
            Self::Dead => "dead",
        }
    }
}

impl Key {
    /// The incarnation of its sender.
    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    /// The inbox that it leads to: the incarnation of its node, and its number there.
    pub(crate) fn inbox(&self) -> InboxKey<'_> {
        (&self.to, self.inbox)
    }

    fn new(from: &librpc::Incarnation, to: &librpc::Incarnation, channel: &ChannelStats, order: usize) -> Self {
        let (from, to) = (from.to_string(), to.to_string());
        Self { from, to, inbox: channel.inbox, ring: channel.ring.ok_or(order) }
    }

    /// Whether it gets another key when the receiver answers.
    pub(crate) fn is_pending(&self) -> bool {
        self.ring.is_err()
    }
}

impl ChannelRow {
    /// How full the ring is, 0 to 1.
    pub(crate) fn fill(&self) -> f64 {
        self.stats.depth as f64 / self.stats.capacity.max(1) as f64
    }

    /// Whether any large payload of it waits or is held.
    pub(crate) fn lends(&self) -> bool {
        self.stats.held > 0 || self.lent.is_some_and(|lent| lent.payloads > 0)
    }

    /// The rates since the earlier look; 0 if they are unknown.
    pub(crate) fn rates(&self) -> Rates {
        self.recent.as_ref().map(|recent| recent.rates).unwrap_or_default()
    }

    /// The latencies since the earlier look, or all of them if there are none.
    pub(crate) fn latency(&self) -> &Histogram {
        let recent = self.recent.as_ref().map(|recent| &recent.latency);
        recent.filter(|latency| !latency.is_empty()).unwrap_or(&self.stats.latency)
    }

    /// Both ends, and the inbox if it is not the node's own: as shown to the user.
    pub(crate) fn ends(&self) -> String {
        let ends = format!("{} → {}", self.from, self.to);
        if !self.is_of_topics && self.addresses == [self.to.as_str()] {
            ends
        } else {
            format!("{ends}, inbox {}", self.inbox())
        }
    }

    fn inbox(&self) -> String {
        if self.addresses.is_empty() { self.stats.inbox.to_string() } else { self.addresses.join(" ") }
    }

    /// Whether its topics are known. A receiver knows those of the messages that it has read.
    pub(crate) fn shows_topics(&self) -> bool {
        self.by_receiver && (!self.stats.topics.is_empty() || self.stats.queued == 0)
    }

    /// What it leads to, as shown to the user: the node, or patterns.
    pub(crate) fn address(&self) -> String {
        if self.addresses.is_empty() { format!("inbox {}", self.stats.inbox) } else { self.addresses.join(" ") }
    }

    /// Whether it leads to this inbox.
    pub(crate) fn leads_to(&self, inbox: &InboxRow) -> bool {
        self.key.to == inbox.incarnation && self.key.inbox == inbox.number
    }
}

impl Recent {
    /// What has happened on a channel; `None`: it is new, and counts from 0.
    fn between(was: Option<&ChannelRow>, row: &ChannelRow, seconds: f64) -> Self {
        let is = &row.stats;
        let rate = |count: fn(&ChannelRow) -> u64| count(row).saturating_sub(was.map_or(0, count)) as f64 / seconds;
        let blocked = is.blocked.saturating_sub(was.map_or(Duration::ZERO, |was| was.stats.blocked));
        let rates = Rates {
            sent: rate(|row| row.stats.sent),
            received: rate(|row| row.stats.received),
            bytes: rate(|row| row.stats.bytes_sent),
            lost: rate(|row| row.losses().crowded_out()),
            dropped: rate(|row| row.stats.dropped),
            blocked: (blocked.as_secs_f64() / seconds).min(1.0),
        };
        let latency = was.map_or_else(|| is.latency.clone(), |was| is.latency.since(&was.stats.latency));
        Self { rates, latency, was_full: was.is_some_and(|was| was.fill() > 0.75) }
    }
}

#[cfg(test)]
mod tests;
