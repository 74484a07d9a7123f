//! What a look at a domain has found: nodes, inboxes and channels as rows, for `stat`, `top`, `metrics`, `graph`, `check`.
//!
//! A channel is seen by both ends. The receiver's word counts, since it maps both sides' memories; a channel to a node that
//! does not answer is shown as its sender sees it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use librpc::{Address, ChannelStats, Domain, Histogram, Observed, Observer, Totals, Unobserved};

/// How long a node may take to answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How a node was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Alive,
    /// It lives, but does not answer.
    Stalled,
    /// It does not admit us, or is of a version that knows no statistics.
    Refused,
    /// What it says cannot be.
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
    /// Why it says nothing.
    pub(crate) why: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) namespaces: Vec<(String, u64)>,
    pub(crate) addresses: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct InboxRow {
    pub(crate) node: String,
    pub(crate) number: u32,
    pub(crate) addresses: Vec<String>,
    pub(crate) policy: &'static str,
    pub(crate) capacity: u64,
    pub(crate) channels: usize,
    pub(crate) ended: Totals,
}

/// Tells a channel from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    from: String,
    to: String,
    inbox: u32,
    /// A pending channel has none, and is told from others by its order.
    ring: Result<u32, usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct ChannelRow {
    pub(crate) key: Key,
    pub(crate) from: String,
    pub(crate) to: String,
    /// What the inbox receives; empty: unknown.
    pub(crate) addresses: Vec<String>,
    /// Whether the receiver says so, or only the sender.
    pub(crate) by_receiver: bool,
    pub(crate) stats: ChannelStats,
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) inboxes: Vec<InboxRow>,
    pub(crate) channels: Vec<ChannelRow>,
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

/// A policy as the command line says it.
pub(crate) fn policy_name(policy: librpc::Policy) -> &'static str {
    match policy {
        librpc::Policy::Block => "block",
        librpc::Policy::DropNewest => "drop-newest",
        librpc::Policy::Latest => "latest",
        _ => "unknown",
    }
}

/// What an inbox receives: its node's id, or patterns.
pub(crate) fn addresses(node: &str, address: &Address) -> Vec<String> {
    match address {
        Address::Topics(patterns) => patterns.iter().map(ToString::to_string).collect(),
        _ => vec![node.to_owned()],
    }
}

impl Snapshot {
    pub(crate) fn of(mut observed: Vec<Observed>) -> Self {
        observed.sort_by(|a, b| a.node.id.cmp(&b.node.id));
        let mut found = Self { at: Instant::now(), nodes: Vec::new(), inboxes: Vec::new(), channels: Vec::new() };
        let mut seen = HashSet::new();
        for Observed { node, stats, .. } in &observed {
            let (mut version, mut namespaces) = (None, Vec::new());
            if let Ok(stats) = stats {
                (version, namespaces) = (Some(stats.version.clone()), stats.namespaces.clone());
                for inbox in &stats.inboxes {
                    let addresses = addresses(&node.id, &inbox.address);
                    for channel in &inbox.channels {
                        let key = Key::new(&channel.peer_incarnation, &node.incarnation, channel, 0);
                        seen.insert(key.clone());
                        let (from, to) = (channel.peer.to_string(), node.id.clone());
                        let (addresses, stats) = (addresses.clone(), channel.clone());
                        found.channels.push(ChannelRow { key, from, to, addresses, by_receiver: true, stats });
                    }
                    found.inboxes.push(InboxRow {
                        node: node.id.clone(),
                        number: inbox.number,
                        addresses,
                        policy: policy_name(inbox.policy),
                        capacity: inbox.capacity,
                        channels: inbox.channels.len(),
                        ended: inbox.ended,
                    });
                }
            }
            if stats.is_err() && node.alive {
                for inbox in &node.listed {
                    found.inboxes.push(InboxRow {
                        node: node.id.clone(),
                        number: inbox.number,
                        addresses: inbox.addresses.clone(),
                        policy: inbox.policy.map_or("unknown", policy_name),
                        capacity: inbox.capacity,
                        channels: 0,
                        ended: Totals::default(),
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
            });
        }
        found.add_what_only_senders_see(&observed, &seen);
        found.channels.sort_by(|a, b| (&a.to, &a.from, &a.key).cmp(&(&b.to, &b.from, &b.key)));
        found
    }

    fn add_what_only_senders_see(&mut self, observed: &[Observed], seen: &HashSet<Key>) {
        let listed = observed.iter().flat_map(|observed| {
            observed.node.listed.iter().map(|inbox| ((observed.node.incarnation, inbox.number), &inbox.addresses))
        });
        let listed: HashMap<_, _> = listed.collect();
        for Observed { node, stats, .. } in observed {
            for (order, channel) in stats.iter().flat_map(|stats| stats.outgoing.iter().enumerate()) {
                let key = Key::new(&node.incarnation, &channel.peer_incarnation, channel, order);
                if seen.contains(&key) {
                    continue;
                }
                let addresses = listed.get(&(channel.peer_incarnation, channel.inbox)).copied().cloned();
                let (from, to, stats) = (node.id.clone(), channel.peer.to_string(), channel.clone());
                let addresses = addresses.unwrap_or_default();
                self.channels.push(ChannelRow { key, from, to, addresses, by_receiver: false, stats });
            }
        }
    }
}

impl State {
    pub(crate) fn of<T>(stats: &Result<T, Unobserved>) -> Self {
        match stats {
            Ok(_) => Self::Alive,
            Err(Unobserved::Dead) => Self::Dead,
            Err(Unobserved::Stalled { .. } | Unobserved::Stopped) => Self::Stalled,
            Err(Unobserved::Refused { .. }) => Self::Refused,
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
    fn new(from: &librpc::Incarnation, to: &librpc::Incarnation, channel: &ChannelStats, order: usize) -> Self {
        let (from, to) = (from.to_string(), to.to_string());
        Self { from, to, inbox: channel.inbox, ring: channel.ring.ok_or(order) }
    }
}

impl ChannelRow {
    /// How full the ring is, 0 to 1.
    pub(crate) fn fill(&self) -> f64 {
        self.stats.depth as f64 / self.stats.capacity.max(1) as f64
    }

    /// Messages that are lost for good.
    pub(crate) fn lost(&self) -> u64 {
        self.stats.dropped.saturating_add(self.stats.missed)
    }

    /// The latest latencies, or those of all time where there are none.
    pub(crate) fn latency<'a>(&'a self, recent: Option<&'a Recent>) -> &'a Histogram {
        recent.map(|recent| &recent.latency).filter(|latency| !latency.is_empty()).unwrap_or(&self.stats.latency)
    }

    /// What it leads to, for people: the node, or patterns.
    pub(crate) fn address(&self) -> String {
        if self.addresses.is_empty() { format!("inbox {}", self.stats.inbox) } else { self.addresses.join(" ") }
    }

    /// Whether a node's id, a pattern or a topic is about this channel.
    pub(crate) fn concerns(&self, what: &str) -> bool {
        let pattern: Option<librpc::Pattern> = what.parse().ok();
        let matches = |topic: &str| pattern.as_ref().is_some_and(|pattern| pattern.matches(topic));
        let wants = |address: &String| {
            let is_node = *address == self.to;
            address == what || !is_node && address.parse().is_ok_and(|other: librpc::Pattern| other.matches(what))
        };
        self.from == what
            || self.to == what
            || self.addresses.iter().any(wants)
            || self.stats.topics.iter().any(|topic| matches(topic))
    }
}

/// Rates between two looks, per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) sent: f64,
    pub(crate) received: f64,
    pub(crate) bytes: f64,
    pub(crate) lost: f64,
    /// The part of the time that the sender has waited for room, 0 to 1.
    pub(crate) blocked: f64,
}

/// What has happened on a channel between two looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) rates: Rates,
    pub(crate) latency: Histogram,
    /// It was full at both looks, or its sender has waited all the time.
    pub(crate) was_full: bool,
}

/// What has happened since an earlier look, in the order of the later one's channels; `None`: a new channel.
pub(crate) fn since(earlier: &Snapshot, later: &Snapshot) -> Vec<Option<Recent>> {
    let before: HashMap<&Key, &ChannelRow> = earlier.channels.iter().map(|row| (&row.key, row)).collect();
    let seconds = (later.at - earlier.at).as_secs_f64().max(1e-6);
    let recent = |row: &ChannelRow| {
        let (was, is) = (before.get(&row.key)?, &row.stats);
        let rate = |was: u64, is: u64| is.saturating_sub(was) as f64 / seconds;
        let blocked = is.blocked.saturating_sub(was.stats.blocked).as_secs_f64() / seconds;
        let rates = Rates {
            sent: rate(was.stats.sent, is.sent),
            received: rate(was.stats.received, is.received),
            bytes: rate(was.stats.bytes_sent, is.bytes_sent),
            lost: rate(was.lost(), row.lost()),
            blocked: blocked.min(1.0),
        };
        let latency = is.latency.since(&was.stats.latency);
        Some(Recent { rates, latency, was_full: was.fill() > 0.75 })
    };
    later.channels.iter().map(recent).collect()
}
