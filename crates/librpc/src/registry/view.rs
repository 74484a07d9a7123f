//! The subscriptions of a domain as the publishers of one node know them: read from the registry when its change counter
//! has moved, and then only from the files of the nodes that may have changed.
//!
//! Invariant: after a [`View::refresh`] every subscription is known that was announced before it began, as far as the limits
//! allow. Subscriptions that have ended stay known until their node's file is read again; connecting to one shows it.
//!
//! Each node may list [`MAX_INBOXES`] inboxes, and each user [`MAX_SUBSCRIPTIONS`] subscriptions. What is over a limit is
//! passed over, with one warning: a member of a shared domain must not cost its publishers more than that.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::name::Address;
use crate::registry::change_counter::{Buckets, Watch, bucket};
use crate::registry::layout::{BUCKETS, MAX_INBOXES};
use crate::registry::node_file::{self, NodeFile, ReadError};
use crate::registry::target::Target;
use crate::schema::{Schema, is_readable};
use crate::sys::{Descriptor, OsError};
use crate::topic::{MAX_PATTERNS, Pattern, check_topic};
use crate::wire::{ListedAddress, ListedInbox};

/// How many subscriptions of one user a publisher sees.
const MAX_SUBSCRIPTIONS: usize = 16_384;

/// An inbox that wants topics, or serves a service.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) target: Target,
    pub(crate) patterns: Arc<[Pattern]>,
    /// Whether it wants what its own node publishes, too.
    pub(crate) own: bool,
    /// The name under which a subscription of the same node may be taken up again.
    pub(crate) durable: Option<String>,
    /// How many of the messages that a publisher keeps of each topic it wants, at most.
    pub(crate) history: usize,
    /// When it became known.
    added: u64,
}

impl Subscription {
    /// A listed inbox as a subscription; `None` if it does not subscribe to anything, or this version cannot serve it.
    pub(crate) fn listed(id: &str, file: &NodeFile, inbox: &ListedInbox, added: u64) -> Option<Self> {
        let address = match &inbox.address {
            ListedAddress::Patterns(patterns) => {
                let patterns = patterns.iter().take(MAX_PATTERNS).map(|pattern| Pattern::listed(pattern).ok());
                Address::Topics(patterns.collect::<Option<Arc<[Pattern]>>>()?)
            }
            ListedAddress::Service(name) => {
                check_topic(name).ok()?;
                Address::Service(name.as_str().into())
            }
            ListedAddress::Node | ListedAddress::Replies => return None,
        };
        let patterns = match &address {
            Address::Topics(patterns) => patterns.clone(),
            _ => [].into(),
        };
        match Target::new(id.into(), file, inbox, address) {
            Ok(target) => {
                let (own, durable) = (inbox.own, inbox.durable.clone());
                let history = inbox.history.map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX));
                Some(Self { target, patterns, own, durable, history, added })
            }
            Err(why) => {
                tracing::warn!(node = id, why, "a subscription is passed over");
                None
            }
        }
    }

    /// Where a caller takes replies, as it said itself: such an inbox is not listed.
    pub(crate) fn of_replies(target: Target) -> Self {
        Self { target, patterns: [].into(), own: true, durable: None, history: 0, added: 0 }
    }

    /// Whether it serves this service.
    pub(crate) fn serves(&self, service: &str) -> bool {
        matches!(&self.target.address, Address::Service(name) if &**name == service)
    }

    /// Whether this is a former one, taken up again: of the same node and user, under the same durable name.
    pub(crate) fn takes_up(&self, former: &Self) -> bool {
        let key = self.durable_key();
        key.is_some() && key == former.durable_key() && !self.target.is_same_inbox(&former.target)
    }

    /// What a durable subscription is known by when it returns.
    pub(crate) fn durable_key(&self) -> Option<DurableKey> {
        let durable = self.durable.clone()?;
        Some(DurableKey { node: self.target.node.clone(), uid: self.target.uid, durable })
    }

    /// Whether nothing about it has changed.
    fn is_as_before(&self, before: &Self) -> bool {
        let what = |of: &Self| (of.target.clone(), of.patterns.clone(), of.own, of.durable.clone(), of.history);
        what(self) == what(before)
    }

    /// Whether it wants a topic, and can read what is published on it.
    pub(crate) fn takes(&self, topic: &str, schema: Option<&Schema>) -> bool {
        self.wants(topic) && is_readable(schema, self.target.wanted())
    }

    pub(crate) fn wants(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }
}

/// What a durable subscription is known by when it returns: its node, that node's user, its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DurableKey {
    node: Arc<str>,
    uid: u32,
    durable: String,
}

/// What is known of a domain's subscriptions.
#[derive(Debug)]
pub(crate) struct View {
    directory: Arc<Descriptor>,
    pub(crate) watch: Watch,
    /// The counter, and the words of the buckets, at the last look; `None`: there was none.
    seen: Option<(u64, Box<Buckets>)>,
    /// Counts the looks that found something new.
    version: u64,
    /// In the order in which they became known.
    subscriptions: Vec<Arc<Subscription>>,
    /// Buckets with subscriptions that were passed over because their user has too many: read again at each change.
    incomplete: BTreeSet<usize>,
    /// The users and nodes of which something is passed over. Each is reported once.
    reported: BTreeSet<PassedOver>,
}

/// Whose files or subscriptions are passed over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PassedOver {
    Node(String),
    User(u32),
}

/// The subscriptions of one node by the numbers of their inboxes.
type OfNode = BTreeMap<u32, Subscription>;

impl View {
    pub(crate) fn new(directory: Arc<Descriptor>, watch: Watch) -> Self {
        let (incomplete, reported) = (BTreeSet::new(), BTreeSet::new());
        Self { directory, watch, seen: None, version: 0, subscriptions: Vec::new(), incomplete, reported }
    }

    /// Whether this is a view of what this descriptor leads to.
    pub(crate) fn is_of(&self, directory: &Arc<Descriptor>) -> bool {
        Arc::ptr_eq(&self.directory, directory)
    }

    /// The domain was made again: everything must be read again.
    pub(crate) fn moved(&mut self, directory: Arc<Descriptor>, watch: Watch) {
        (self.directory, self.watch, self.seen) = (directory, watch, None);
    }

    /// Looks at what has changed, if anything has; returns the value of the counter for which this look is valid.
    pub(crate) fn refresh(&mut self) -> Result<u64, OsError> {
        let (counter, buckets) = self.watch.buckets()?;
        if self.seen.as_ref().is_some_and(|(seen, _)| *seen == counter) {
            return Ok(counter);
        }
        let changed: Vec<bool> = match &self.seen {
            Some((_, before)) => {
                let has_changed = |at: usize| before[at] != buckets[at] || self.incomplete.contains(&at);
                (0..BUCKETS).map(has_changed).collect()
            }
            None => vec![true; BUCKETS],
        };
        let (found, passed_over) = self.read(&changed)?;
        self.version += 1;
        self.merge(&changed, found);
        let stays = |passed: &PassedOver| match passed {
            PassedOver::Node(id) => !changed[bucket(id)] || passed_over.contains(id),
            PassedOver::User(_) => true,
        };
        self.reported.retain(stays);
        self.seen = Some((counter, Box::new(buckets)));
        Ok(counter)
    }

    /// The subscriptions of the living nodes that may have changed, and the nodes of which something is passed over.
    fn read(&mut self, changed: &[bool]) -> Result<(BTreeMap<String, OfNode>, BTreeSet<String>), OsError> {
        let (mut found, mut passed_over) = (BTreeMap::new(), BTreeSet::new());
        for id in node_file::ids_of(&self.directory, |id| changed[bucket(id)])? {
            let why = match node_file::read(&self.directory, &id) {
                Ok(Some(file)) if file.alive => {
                    found.insert(id.clone(), self.listed(&id, &file));
                    file.lists_more.then(|| format!("it lists more than {MAX_INBOXES} inboxes"))
                }
                Ok(_) => None,
                Err(ReadError::Bad { why, .. }) => Some(why),
                // A failure on our side: what is known stays, and the next look tries again.
                Err(ReadError::Os(error)) => return Err(error),
            };
            if let Some(why) = why {
                self.report(PassedOver::Node(id.clone()), || {
                    tracing::warn!(node = id, why, "a node's file is passed over, or the rest of it");
                });
                passed_over.insert(id);
            }
        }
        Ok((found, passed_over))
    }

    fn listed(&self, id: &str, file: &NodeFile) -> OfNode {
        let mut of_node = OfNode::new();
        for inbox in &file.inboxes {
            if let Some(subscription) = Subscription::listed(id, file, inbox, self.version + 1) {
                // If a number is listed twice, the first one is believed.
                of_node.entry(inbox.number).or_insert(subscription);
            }
        }
        of_node
    }

    /// Brings what was known and what was found together: what stays as it is keeps its place, because topics have routes to
    /// it.
    fn merge(&mut self, changed: &[bool], mut found: BTreeMap<String, OfNode>) {
        let mut counts = BTreeMap::<u32, usize>::new();
        self.subscriptions.retain(|known| {
            let (id, inbox) = (&*known.target.node, known.target.inbox);
            let stays = !changed[bucket(id)]
                || found.get_mut(id).is_some_and(|of_node| match of_node.get(&inbox) {
                    Some(same) if same.is_as_before(known) => of_node.remove(&inbox).is_some(),
                    _ => false,
                });
            *counts.entry(known.target.uid).or_default() += usize::from(stays);
            stays
        });
        self.incomplete.clear();
        for new in found.into_values().flat_map(BTreeMap::into_values) {
            let count = counts.entry(new.target.uid).or_default();
            if *count < MAX_SUBSCRIPTIONS {
                *count += 1;
                self.subscriptions.push(Arc::new(new));
            } else {
                self.incomplete.insert(bucket(&new.target.node));
                let uid = new.target.uid;
                self.report(PassedOver::User(uid), || {
                    tracing::warn!(uid, "it has more than {MAX_SUBSCRIPTIONS} subscriptions; the rest is passed over");
                });
            }
        }
        self.reported.retain(|passed| match passed {
            PassedOver::User(uid) => counts.get(uid).is_some_and(|&count| count >= MAX_SUBSCRIPTIONS),
            PassedOver::Node(_) => true,
        });
    }

    /// Reports what is passed over, unless that was done already.
    fn report(&mut self, passed: PassedOver, report: impl FnOnce()) {
        if self.reported.insert(passed) {
            report();
        }
    }

    /// The subscription that takes this one up again; or itself, if its route leads there already.
    pub(crate) fn successor(&self, former: &Subscription) -> Option<&Arc<Subscription>> {
        let follows = |known: &&Arc<Subscription>| known.takes_up(former) || known.target.is_same_inbox(&former.target);
        self.subscriptions.iter().rev().find(follows)
    }

    /// Forgets subscriptions that have ended. One that is listed again is new.
    pub(crate) fn forget(&mut self, ended: &HashSet<Target>) {
        self.subscriptions.retain(|known| !ended.contains(&known.target));
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The subscriptions that became known after a version.
    pub(crate) fn since(&self, version: u64) -> impl Iterator<Item = &Arc<Subscription>> {
        self.subscriptions.iter().rev().take_while(move |subscription| subscription.added > version)
    }
}
