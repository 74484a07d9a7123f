//! The topics of a domain, each with both its ends: for `topics`, `graph` and `metrics`.
//!
//! Nodes say what they publish. Those that do not answer are known by what their receivers say about their channels. Messages are
//! counted on channels, so a topic has numbers of its own where its channels carry nothing else. That is so for every topic of a
//! `Publisher`, and not for those of an outbox with several topics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use librpc::Pattern;

use crate::snapshot::{ChannelRow, InboxRow, NodeRow, PublishedRow, Snapshot, State};

/// A topic, or a pattern that nobody publishes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicRow {
    pub(crate) name: String,
    /// What it is published as, or what the subscriptions of the pattern want.
    pub(crate) types: BTreeSet<String>,
    /// The nodes that publish.
    pub(crate) publishers: BTreeSet<String>,
    /// The patterns that match, each with its node.
    pub(crate) subscribers: BTreeSet<(String, String)>,
    /// Messages published per second; `None`: unknown.
    pub(crate) rate: Option<f64>,
    /// The mean length of a message; `None`: there was none, or it is unknown.
    pub(crate) message_bytes: Option<f64>,
    /// How long ago the last message was published, as far as is known.
    pub(crate) last: Option<Duration>,
    /// Those of its nodes that do not answer.
    pub(crate) silent: BTreeSet<String>,
}

/// What was published on a topic, as far as it can be told apart from other topics.
#[derive(Debug, Default)]
struct Traffic<'s> {
    /// The channels that carry only this topic.
    own: Vec<&'s ChannelRow>,
    /// Some other channel carries it together with other topics.
    is_shared: bool,
    unheard: Vec<&'s PublishedRow>,
}

/// The topics of a snapshot by name, then the patterns that nobody publishes to.
pub(crate) fn find(snapshot: &Snapshot) -> Vec<TopicRow> {
    let mut rows: BTreeMap<&str, TopicRow> = BTreeMap::new();
    let mut traffic: HashMap<&str, Traffic<'_>> = HashMap::new();
    let carried = Carried::of(snapshot);
    for published in &snapshot.published {
        let (topic, text) = (&*published.stats.topic, &*published.stats.schema);
        add(&mut rows, topic, &published.node, text);
        traffic.entry(topic).or_default().unheard.push(published);
    }
    // What these publish is not known from them, or not all of it.
    let is_vague = |node: &&NodeRow| match node.state {
        State::Alive => node.topics_left_out > 0,
        state => state != State::Dead,
    };
    let vague: HashSet<&str> = snapshot.nodes.iter().filter(is_vague).map(|node| &*node.incarnation).collect();
    for channel in snapshot.channels.iter().filter(|row| row.is_of_topics) {
        let topics = carried.topics(channel);
        for (at, &topic) in topics.iter().enumerate() {
            if vague.contains(channel.key.from()) {
                add(&mut rows, topic, &channel.from, channel.stats.types.get(at).map_or("", |text| text));
            }
            let traffic = traffic.entry(topic).or_default();
            match topics.len() {
                1 => traffic.own.push(channel),
                _ => traffic.is_shared = true,
            }
        }
    }
    let patterns = add_subscribers(&mut rows, snapshot);
    for (name, row) in &mut rows {
        traffic.remove(name).unwrap_or_default().measure(row);
    }
    let mut rows: Vec<TopicRow> = rows.into_values().chain(patterns).collect();
    let is_silent = |id: &str| snapshot.nodes.iter().any(|node| node.id == id && node.state != State::Alive);
    for row in &mut rows {
        let ends = row.publishers.iter().chain(row.subscribers.iter().map(|(_, node)| node));
        row.silent = ends.filter(|id| is_silent(id)).cloned().collect();
    }
    rows
}

/// A node publishes on a topic.
fn add<'s>(rows: &mut BTreeMap<&'s str, TopicRow>, topic: &'s str, node: &str, text: &str) {
    let row = rows.entry(topic).or_insert_with(|| TopicRow { name: topic.to_owned(), ..TopicRow::default() });
    row.publishers.insert(node.to_owned());
    if !text.is_empty() {
        row.types.insert(text.to_owned());
    }
}

/// The topics that each node says it publishes, by incarnation.
pub(crate) struct Carried<'s>(HashMap<&'s str, Vec<&'s str>>);

impl<'s> Carried<'s> {
    pub(crate) fn of(snapshot: &'s Snapshot) -> Self {
        let mut of_node: HashMap<&str, Vec<&str>> = HashMap::new();
        for published in &snapshot.published {
            of_node.entry(&published.incarnation).or_default().push(&published.stats.topic);
        }
        Self(of_node)
    }

    /// What a channel carries, as its receiver says. If that does not answer, or has read nothing yet: what it can carry.
    pub(crate) fn topics(&self, channel: &'s ChannelRow) -> Vec<&'s str> {
        if channel.shows_topics() {
            return channel.stats.topics.iter().map(|topic| &**topic).collect();
        }
        let patterns: Vec<Pattern> = channel.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let is_wanted = |topic: &&str| patterns.iter().any(|pattern| pattern.matches(topic));
        let topics = self.0.get(channel.key.from()).into_iter().flatten();
        topics.copied().filter(is_wanted).collect()
    }
}

/// Says of each topic who subscribes to it, and returns the patterns that match none.
fn add_subscribers<'s>(rows: &mut BTreeMap<&'s str, TopicRow>, snapshot: &'s Snapshot) -> Vec<TopicRow> {
    // Many nodes subscribe to the same: each pattern is compared once.
    let mut by_pattern: BTreeMap<&str, Vec<&InboxRow>> = BTreeMap::new();
    for inbox in snapshot.inboxes.iter().filter(|inbox| inbox.is_of_topics) {
        for address in &inbox.addresses {
            by_pattern.entry(address).or_default().push(inbox);
        }
    }
    let mut unmatched = Vec::new();
    for (address, inboxes) in by_pattern {
        let Ok(pattern) = address.parse::<Pattern>() else { continue };
        let subscribers = inboxes.iter().map(|inbox| (address.to_owned(), inbox.node.clone()));
        let subscribers: BTreeSet<_> = subscribers.collect();
        let mut is_matched = false;
        let mut add = |row: &mut TopicRow| {
            is_matched = true;
            row.subscribers.extend(subscribers.iter().cloned());
        };
        // Most patterns are topics. The others only match what begins as they do.
        match address.find('*') {
            None => rows.get_mut(address).into_iter().for_each(&mut add),
            Some(at) => {
                let beginning = address[..at].trim_end_matches('/');
                let begin_so = rows.range_mut(beginning..).take_while(|(name, _)| name.starts_with(beginning));
                begin_so.filter(|(name, _)| pattern.matches(name)).for_each(|(_, row)| add(row));
            }
        }
        if !is_matched {
            let types = inboxes.iter().filter_map(|inbox| inbox.types.clone()).collect();
            unmatched.push(TopicRow { name: address.to_owned(), types, subscribers, ..TopicRow::default() });
        }
    }
    unmatched
}

impl Traffic<'_> {
    fn measure(&self, row: &mut TopicRow) {
        let (mut rates, mut recent, mut total) = (BTreeMap::new(), (0.0, 0.0), (0.0, 0.0));
        let mut is_known = !self.is_shared;
        for channel in &self.own {
            let (stats, key) = (&channel.stats, &channel.key);
            is_known &= channel.recent.is_some();
            let now = channel.rates();
            *rates.entry(key.from()).or_insert_with(BTreeMap::new).entry(key.inbox()).or_insert(0.0) +=
                now.sent + now.dropped;
            recent = (recent.0 + now.sent, recent.1 + now.bytes);
            total = (total.0 + stats.sent as f64, total.1 + stats.bytes_sent as f64);
        }
        // Each subscription gets each message, or drops it, so the busiest one shows how many a node has published.
        let busiest = |inboxes: &BTreeMap<_, f64>| inboxes.values().copied().fold(0.0, f64::max);
        let mut rate: f64 = rates.values().map(busiest).sum();
        for PublishedRow { stats, unheard, .. } in &self.unheard {
            is_known &= unheard.is_some();
            rate += unheard.unwrap_or(0.0);
            total = (total.0 + stats.unheard as f64, total.1 + stats.unheard_bytes as f64);
        }
        row.rate = is_known.then_some(rate);
        let mean = |(messages, bytes): (f64, f64)| (messages > 0.0).then(|| bytes / messages);
        row.message_bytes = mean(recent).or_else(|| mean(total)).filter(|_| !self.is_shared);
        let heard = self.own.iter().filter_map(|channel| channel.stats.last_sent);
        let unheard = self.unheard.iter().filter_map(|published| published.stats.last_unheard);
        row.last = heard.chain(unheard).min();
    }
}
