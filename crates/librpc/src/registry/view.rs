//! The subscriptions of a domain as the publishers of one node know them: read from the registry when its change counter
//! has moved, and then only the files of the nodes that may have changed.
//!
//! Invariant: behind a [`View::refresh`] every subscription is known that was announced before it began. Subscriptions
//! that have ended stay known until their node's file is read again; connecting to one tells.

use std::collections::HashMap;
use std::sync::Arc;

use crate::name::Address;
use crate::registry::change_counter::{Buckets, Watch, bucket};
use crate::registry::layout::BUCKETS;
use crate::registry::node_file::{self, NodeFile, ReadError};
use crate::registry::target::Target;
use crate::sys::{Descriptor, OsError};
use crate::topic::{MAX_PATTERNS, Pattern};
use crate::wire::{ListedAddress, ListedInbox};

/// An inbox that wants topics.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) target: Target,
    pub(crate) patterns: Arc<[Pattern]>,
    /// Whether it wants what its own node publishes, too.
    pub(crate) own: bool,
    /// The name under which a subscription of the same node may be taken up again.
    pub(crate) durable: Option<String>,
    /// When it became known.
    added: u64,
}

impl Subscription {
    /// A listed inbox as a subscription; `None` if it is none, or one that this version cannot serve.
    pub(crate) fn listed(id: &str, file: &NodeFile, inbox: &ListedInbox, added: u64) -> Option<Self> {
        let ListedAddress::Patterns(patterns) = &inbox.address else { return None };
        let patterns: Option<Arc<[Pattern]>> =
            patterns.iter().take(MAX_PATTERNS).map(|pattern| pattern.parse().ok()).collect();
        let patterns = patterns?;
        match Target::new(id.into(), file, inbox, Address::Topics(patterns.clone())) {
            Ok(target) => {
                let (own, durable) = (inbox.own, inbox.durable.clone());
                Some(Self { target, patterns, own, durable, added })
            }
            Err(why) => {
                tracing::warn!(node = id, why, "a subscription is passed over");
                None
            }
        }
    }

    /// Whether this is a former one, taken up again: of the same node, under the same durable name.
    pub(crate) fn takes_up(&self, former: &Self) -> bool {
        let key = |subscription: &Self| (subscription.target.incarnation, subscription.target.inbox);
        self.durable.is_some()
            && (&self.durable, &self.target.node) == (&former.durable, &former.target.node)
            && key(self) != key(former)
    }

    pub(crate) fn wants(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }
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
}

impl View {
    pub(crate) fn new(directory: Arc<Descriptor>, watch: Watch) -> Self {
        Self { directory, watch, seen: None, version: 0, subscriptions: Vec::new() }
    }

    /// The domain was made anew: everything is to be read again.
    pub(crate) fn moved(&mut self, directory: Arc<Descriptor>, watch: Watch) {
        (self.directory, self.watch, self.seen) = (directory, watch, None);
    }

    /// Looks at what has changed, if anything has; returns the counter that this look holds for.
    pub(crate) fn refresh(&mut self) -> Result<u64, OsError> {
        let (counter, buckets) = self.watch.buckets()?;
        if let Some((seen, _)) = &self.seen
            && *seen == counter
        {
            return Ok(counter);
        }
        let changed: Vec<bool> = match &self.seen {
            Some((_, before)) => before.iter().zip(&buckets).map(|(before, now)| before != now).collect(),
            None => vec![true; BUCKETS],
        };
        let ids = node_file::ids_of(&self.directory, |id| changed[bucket(id)])?;
        self.version += 1;
        let mut found: HashMap<String, Vec<Subscription>> = HashMap::new();
        for id in ids {
            match node_file::read(&self.directory, &id) {
                Ok(Some(file)) if file.alive => {
                    let listed = |inbox: &ListedInbox| Subscription::listed(&id, &file, inbox, self.version);
                    found.insert(id.clone(), file.inboxes.iter().filter_map(listed).collect());
                }
                Ok(_) => {}
                Err(error @ ReadError::Bad { .. }) => tracing::warn!(%error, "a node's file is passed over"),
                Err(ReadError::Os(error)) => return Err(error),
            }
        }
        // What was known already keeps its place: its topics have their routes.
        self.subscriptions.retain(|known| {
            let id = &*known.target.node;
            if !changed[bucket(id)] {
                return true;
            }
            let Some(listed) = found.get_mut(id) else { return false };
            let same = |new: &Subscription| {
                (new.target.incarnation, new.target.inbox) == (known.target.incarnation, known.target.inbox)
            };
            let at = listed.iter().position(same);
            at.inspect(|&at| drop(listed.swap_remove(at))).is_some()
        });
        self.subscriptions.extend(found.into_values().flatten().map(Arc::new));
        self.seen = Some((counter, Box::new(buckets)));
        Ok(counter)
    }

    /// The subscription that takes this one up again; or itself, if its route leads there already.
    pub(crate) fn successor(&self, former: &Subscription) -> Option<&Arc<Subscription>> {
        let key = |subscription: &Subscription| (subscription.target.incarnation, subscription.target.inbox);
        let newest = |known: &&Arc<Subscription>| known.takes_up(former) || key(known) == key(former);
        self.subscriptions.iter().rev().find(newest)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The subscriptions that became known after a version.
    pub(crate) fn since(&self, version: u64) -> impl Iterator<Item = &Arc<Subscription>> {
        self.subscriptions.iter().rev().take_while(move |subscription| subscription.added > version)
    }
}
