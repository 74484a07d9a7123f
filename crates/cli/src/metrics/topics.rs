//! What is published: the first topics one by one, up to a limit, and all others together.
//!
//! Nodes count by channel. What has been added to a channel since the last page is added to its topic here, so a count does not fall while
//! the topic is there. What is published between the last page and the end of its channel is not counted.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::counters::label;
use crate::published::{self, Carried};
use crate::snapshot::{InboxKey, Key, Snapshot, State};

/// The label of all other topics. No topic has this name, because it is a pattern.
const OTHERS: &str = "**";

/// What is known of a topic.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicSum {
    pub(super) publishers: u64,
    pub(super) subscriptions: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

pub(super) type TopicLabels = [(&'static str, String); 1];

/// The topics of a domain, from page to page.
#[derive(Debug)]
pub(super) struct Topics {
    most: usize,
    sums: BTreeMap<String, TopicSum>,
    /// What was counted on the last page: on channels, and of messages that nobody has subscribed to.
    channels: HashMap<Key, [u64; 2]>,
    unheard: HashMap<(String, String, String), [u64; 2]>,
}

impl Topics {
    pub(super) fn new(most: usize) -> Self {
        Self { most, sums: BTreeMap::new(), channels: HashMap::new(), unheard: HashMap::new() }
    }

    /// Adds what has happened since the last page.
    pub(super) fn add(&mut self, snapshot: &Snapshot) {
        let rows = published::find(snapshot);
        let names: HashSet<&str> = rows.iter().map(|row| &*row.name).collect();
        self.sums.retain(|name, _| name == OTHERS || names.contains(&**name));
        for sum in self.sums.values_mut() {
            (sum.publishers, sum.subscriptions) = (0, 0);
        }
        // Topics that somebody publishes come before patterns, so these do not take their places.
        for row in &rows {
            let sum = self.sum(&row.name);
            sum.publishers += row.publishers.len() as u64;
            sum.subscriptions += row.subscribers.len() as u64;
        }
        for (name, [messages, bytes]) in self.news(snapshot) {
            let sum = self.sum(if names.contains(&*name) { &name } else { OTHERS });
            sum.messages = sum.messages.saturating_add(messages);
            sum.bytes = sum.bytes.saturating_add(bytes);
        }
    }

    /// The sums, for the page.
    pub(super) fn sums(&self) -> Vec<(TopicLabels, TopicSum)> {
        self.sums.iter().map(|(name, sum)| ([("topic", label(name))], sum.clone())).collect()
    }

    fn sum(&mut self, name: &str) -> &mut TopicSum {
        let own = self.sums.len() - usize::from(self.sums.contains_key(OTHERS));
        let name = if self.sums.contains_key(name) || own < self.most { name } else { OTHERS };
        self.sums.entry(name.to_owned()).or_default()
    }

    /// Messages and bytes that were published since the last page, by topic.
    fn news(&mut self, snapshot: &Snapshot) -> BTreeMap<String, [u64; 2]> {
        let mut news: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        let mut add = |name: &str, more: [u64; 2]| {
            if more == [0; 2] {
                return;
            }
            let sum = news.entry(name.to_owned()).or_default();
            *sum = [0, 1].map(|at| sum[at].saturating_add(more[at]));
        };
        // Each subscription gets each message, or drops it: the one with the most shows what a node has published.
        let mut by_inbox: BTreeMap<(&str, &str), BTreeMap<InboxKey<'_>, [u64; 2]>> = BTreeMap::new();
        let carried = Carried::of(snapshot);
        let mut seen = HashMap::new();
        // A channel without a number gets one, and is counted then.
        for row in snapshot.channels.iter().filter(|row| row.is_of_topics && !row.key.is_pending()) {
            let now = [row.stats.sent.saturating_add(row.stats.dropped), row.stats.bytes_sent];
            let was = self.channels.get(&row.key).copied().unwrap_or_default();
            seen.insert(row.key.clone(), [now[0].max(was[0]), now[1].max(was[1])]);
            let topic = match carried.topics(row)[..] {
                [topic] => topic,
                _ => OTHERS,
            };
            let inboxes = by_inbox.entry((topic, row.key.from())).or_default();
            let sum = inboxes.entry(row.key.inbox()).or_default();
            *sum = [0, 1].map(|at| sum[at].saturating_add(now[at].saturating_sub(was[at])));
        }
        for ((topic, _), inboxes) in by_inbox {
            add(topic, inboxes.into_values().max().unwrap_or_default());
        }
        // What belongs to nodes that do not answer just now is known when they do again.
        let silent = snapshot.nodes.iter().filter(|node| !matches!(node.state, State::Alive | State::Dead));
        let silent: HashSet<&str> = silent.map(|node| &*node.incarnation).collect();
        for (key, was) in self.channels.drain() {
            if silent.contains(key.from()) || silent.contains(key.inbox().0) {
                seen.entry(key).or_insert(was);
            }
        }
        self.channels = seen;
        let mut seen = HashMap::new();
        for row in &snapshot.published {
            let stats = &row.stats;
            let key = (row.incarnation.clone(), stats.topic.to_string(), stats.schema.to_string());
            let (now, was) = ([stats.unheard, stats.unheard_bytes], self.unheard.get(&key).copied());
            // It counts from 0 again if its last publisher has gone and another one has come.
            let was = was.filter(|was| was[0] <= now[0]).unwrap_or_default();
            add(&stats.topic, [0, 1].map(|at| now[at].saturating_sub(was[at])));
            seen.insert(key, now);
        }
        for (key, was) in self.unheard.drain() {
            if silent.contains(&*key.0) {
                seen.entry(key).or_insert(was);
            }
        }
        self.unheard = seen;
        news
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use librpc::{Domain, Node, Publisher};

    use super::*;
    use crate::snapshot::Looker;

    const LONG: Duration = Duration::from_secs(60);

    fn open(domain: &Domain, id: &str) -> Node {
        Node::builder(id).domain(domain.clone()).open().expect("it opens")
    }

    fn publish(publisher: &mut Publisher, messages: usize) {
        (0..messages).for_each(|_| _ = publisher.publish(b"12345").expect("it goes"));
        publisher.flush(LONG).expect("it is processed");
    }

    /// Publishers, subscriptions, messages and bytes of each topic.
    fn shown(topics: &Topics) -> Vec<(&str, [u64; 4])> {
        let numbers = |sum: &TopicSum| [sum.publishers, sum.subscriptions, sum.messages, sum.bytes];
        topics.sums.iter().map(|(name, sum)| (&**name, numbers(sum))).collect()
    }

    #[test]
    fn each_message_counts_once_for_its_topic_whoever_subscribes() {
        let domain = Domain::at(format!("/dev/shm/librpc_unit_{}_topics", std::process::id()));
        let (camera, one, two) = (open(&domain, "camera"), open(&domain, "one"), open(&domain, "two"));
        let (mut looker, mut topics) = (Looker::new(domain.clone()), Topics::new(2));
        let mut look = |topics: &mut Topics| topics.add(&looker.look().expect("it can be looked at"));
        let mut a = camera.publisher("a").expect("a topic");
        publish(&mut a, 3);
        look(&mut topics);
        assert_eq!(shown(&topics), [("a", [1, 0, 3, 15])], "nobody has subscribed");
        let read = |node: &Node| node.subscriber_builder(["*"]).callback(|_| {}).expect("it opens");
        let (first, second) = (read(&one), read(&two));
        publish(&mut a, 4);
        look(&mut topics);
        assert_eq!(shown(&topics), [("a", [1, 2, 7, 35])]);
        look(&mut topics);
        assert_eq!(shown(&topics), [("a", [1, 2, 7, 35])], "nothing is counted twice");
        // A second publisher, and more topics than are shown.
        let mut others = ["a", "b", "c", "d"].map(|topic| one.publisher(topic).expect("a topic"));
        others.iter_mut().for_each(|publisher| publish(publisher, 2));
        look(&mut topics);
        assert_eq!(shown(&topics), [("**", [2, 4, 4, 20]), ("a", [2, 2, 9, 45]), ("b", [1, 2, 2, 10])]);
        // Nobody can tell what an outbox with several topics has published on each.
        let mut outbox = two.outbox();
        let [x, y] = ["x", "y"].map(|topic| outbox.topic(topic).expect("a topic"));
        for topic in [x, y, y] {
            assert_eq!(outbox.publish(topic, b"1").expect("it goes").inboxes(), 1);
        }
        outbox.flush(LONG).expect("it is processed");
        drop(a);
        look(&mut topics);
        assert_eq!(shown(&topics), [("**", [4, 8, 7, 23]), ("a", [1, 2, 9, 45]), ("b", [1, 2, 2, 10])]);
        drop((others, outbox));
        first.stop().expect("it ends");
        second.stop().expect("it ends");
        look(&mut topics);
        assert_eq!(shown(&topics), [("**", [0, 0, 7, 23])], "the others never fall");
    }
}
