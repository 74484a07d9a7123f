//! The topics that a node publishes, whether anybody subscribes to them or not.
//!
//! A topic is listed while an outbox of the node has it: a [`PublishedGuard`] moves with the outbox. Listing one takes a lock of this
//! process and nothing else, so nobody is woken by it. Invariant: at most [`LISTED`] topics are listed, those that have waited longest;
//! the others are counted, and move up when a listed one ends.
//!
//! What is published is counted on the channels that carry it. A message that no channel takes is counted here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::schema::Schema;
use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// At most this many topics of a node are listed.
pub(crate) const LISTED: usize = 4096;

/// A topic that a node publishes: [`crate::NodeStats::published`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedTopic {
    /// The topic.
    pub topic: Arc<str>,
    /// Its type as text ([`Schema`]); empty: bytes without a type.
    pub schema: Arc<str>,
    /// How many publishers and outboxes of the node have it.
    pub publishers: u64,
    /// Messages that were published while nobody subscribed. All others are counted on channels.
    pub unheard: u64,
    /// Bytes of their payloads.
    pub unheard_bytes: u64,
    /// How long ago the last of them was published, to a few milliseconds.
    pub last_unheard: Option<Duration>,
}

/// What one outbox has published on a topic to nobody.
#[derive(Debug, Default)]
struct Unheard {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// In ns; 0: never.
    last: AtomicU64,
}

/// Only the outbox adds, so no addition is lost.
fn add(sum: &AtomicU64, more: u64) {
    sum.store(sum.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// A topic, and its type as text.
type Key = (Arc<str>, Arc<str>);

/// The topics that a node publishes.
#[derive(Debug)]
pub(crate) struct PublishedTable {
    state: Mutex<State>,
    born: fork::Born,
}

#[derive(Debug, Default)]
struct State {
    /// Counts topics and outboxes.
    last: u64,
    serials: HashMap<Key, u64>,
    /// By serial number.
    listed: BTreeMap<u64, Entry>,
    waiting: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// Those outboxes that have it now.
    open: BTreeMap<u64, Arc<Unheard>>,
    /// What those have counted that no longer have it.
    ended: [u64; 3],
}

/// Keeps a topic listed, and counts for it.
#[derive(Debug)]
pub(crate) struct PublishedGuard {
    table: Arc<PublishedTable>,
    key: Key,
    number: u64,
    unheard: Arc<Unheard>,
}

impl PublishedTable {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), born: fork::Born::now() })
    }

    /// An outbox begins to publish on a topic. In a forked child, which publishes nothing, the topic is not listed.
    pub(crate) fn begin(self: &Arc<Self>, topic: Arc<str>, schema: Option<&Schema>) -> PublishedGuard {
        let text = schema.map_or_else(|| "".into(), |schema| schema.to_string().into());
        let (key, unheard) = ((topic, text), Arc::<Unheard>::default());
        let number = if self.born.is_here() { self.state.lock().begin(&key, unheard.clone()) } else { 0 };
        PublishedGuard { table: self.clone(), key, number, unheard }
    }

    /// The listed topics after this serial number, in order, at most this many.
    pub(crate) fn after(&self, serial: u64, most: usize) -> Vec<(u64, PublishedTopic)> {
        let (state, now) = (self.state.lock(), Instant::now());
        let after = state.listed.range(serial.saturating_add(1)..).take(most);
        after.map(|(&serial, entry)| (serial, entry.topic(now))).collect()
    }

    /// How many topics are not listed.
    pub(crate) fn left_out(&self) -> u64 {
        self.state.lock().waiting.len() as u64
    }
}

impl State {
    fn begin(&mut self, key: &Key, unheard: Arc<Unheard>) -> u64 {
        self.last += 1;
        let number = self.last;
        if let Some(serial) = self.serials.get(key) {
            let entry = self.listed.get_mut(serial).or_else(|| self.waiting.get_mut(serial));
            entry.expect("each serial number is that of an entry").open.insert(number, unheard);
            return number;
        }
        self.serials.insert(key.clone(), number);
        let entry = Entry { key: key.clone(), open: BTreeMap::from([(number, unheard)]), ended: [0; 3] };
        let list = if self.listed.len() < LISTED { &mut self.listed } else { &mut self.waiting };
        list.insert(number, entry);
        number
    }

    fn end(&mut self, key: &Key, number: u64) {
        let Some(&serial) = self.serials.get(key) else { return };
        let entry = self.listed.get_mut(&serial).or_else(|| self.waiting.get_mut(&serial));
        let entry = entry.expect("each serial number is that of an entry");
        if let Some(unheard) = entry.open.remove(&number) {
            entry.ended = unheard.add_to(entry.ended);
        }
        if !entry.open.is_empty() {
            return;
        }
        self.serials.remove(key);
        self.waiting.remove(&serial);
        if self.listed.remove(&serial).is_none() {
            return;
        }
        if let Some((_, next)) = self.waiting.pop_first() {
            // It gets a new number. An observer that is in the middle of the list would have passed its old one.
            self.last += 1;
            self.serials.insert(next.key.clone(), self.last);
            self.listed.insert(self.last, next);
        }
    }
}

impl Unheard {
    /// Messages, bytes, and the time of the last one.
    fn add_to(&self, [messages, bytes, last]: [u64; 3]) -> [u64; 3] {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            messages.saturating_add(load(&self.messages)),
            bytes.saturating_add(load(&self.bytes)),
            last.max(load(&self.last)),
        ]
    }
}

impl Entry {
    fn topic(&self, now: Instant) -> PublishedTopic {
        let (topic, schema) = self.key.clone();
        let [unheard, unheard_bytes, last] = self.open.values().fold(self.ended, |sum, open| open.add_to(sum));
        let last_unheard = (last != 0).then(|| Duration::from_nanos(now.as_ns().saturating_sub(last)));
        PublishedTopic { topic, schema, publishers: self.open.len() as u64, unheard, unheard_bytes, last_unheard }
    }
}

impl PublishedGuard {
    /// A message was published, and nobody subscribes to the topic.
    #[cold]
    pub(crate) fn unheard(&self, bytes: usize) {
        add(&self.unheard.messages, 1);
        add(&self.unheard.bytes, bytes as u64);
        self.unheard.last.store(Instant::coarse().as_ns(), Ordering::Relaxed);
    }
}

impl Drop for PublishedGuard {
    fn drop(&mut self) {
        if self.table.born.is_here() {
            self.table.state.lock().end(&self.key, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(table: &PublishedTable) -> Vec<String> {
        table.after(0, usize::MAX).into_iter().map(|(_, topic)| topic.topic.to_string()).collect()
    }

    #[test]
    fn a_topic_is_listed_while_an_outbox_has_it() {
        let table = PublishedTable::new();
        let schema: Schema = "Pose/json".parse().unwrap();
        let (one, two) = (table.begin("a".into(), None), table.begin("a".into(), None));
        let typed = table.begin("a".into(), Some(&schema));
        one.unheard(5);
        two.unheard(6);
        drop(one);
        let [(serial, bytes), (_, other)] = <[_; 2]>::try_from(table.after(0, 9)).unwrap();
        assert_eq!((&*bytes.topic, &*bytes.schema, bytes.publishers), ("a", "", 1));
        assert_eq!((bytes.unheard, bytes.unheard_bytes), (2, 11), "what has ended still counts");
        assert!(bytes.last_unheard.is_some() && other.last_unheard.is_none());
        assert_eq!(
            (&*other.topic, &*other.schema, other.unheard),
            ("a", "Pose/json", 0),
            "another type is another topic"
        );
        assert_eq!(table.after(serial, 9).len(), 1, "read in parts, each once");
        drop((two, typed));
        assert_eq!((names(&table), table.state.lock().serials.len()), (vec![], 0), "nothing stays");
    }

    #[test]
    fn at_most_so_many_are_listed_and_the_others_move_up() {
        let table = PublishedTable::new();
        let mut guards: Vec<_> = (0..LISTED + 2).map(|n| table.begin(format!("t/{n}").into(), None)).collect();
        assert_eq!((names(&table).len(), table.left_out()), (LISTED, 2));
        let read = table.after(0, usize::MAX).last().unwrap().0;
        drop(guards.remove(LISTED + 1));
        drop(guards.remove(7));
        assert_eq!((names(&table).len(), table.left_out()), (LISTED, 0));
        let late = table.after(read, 9);
        assert_eq!(late.len(), 1, "whoever is reading the list comes to it");
        assert_eq!(*late[0].1.topic, *format!("t/{LISTED}"));
        let again = table.begin(format!("t/{LISTED}").into(), None);
        assert_eq!(table.after(read, 9)[0].1.publishers, 2);
        drop((guards, again));
        assert_eq!((names(&table), table.left_out()), (vec![], 0));
    }
}
