//! The topics of an outbox, and the subscriptions that each of them reaches.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::registry::change_counter::Watch;
use crate::registry::view::Subscription;
use crate::schema::{Schema, SchemaMismatch};
use crate::send::channel::Pushed;
use crate::send::history::{History, PastMessage};
use crate::send::message::Message;
use crate::send::rate::Pace;
use crate::send::route::{Declared, Route, RouteId};
use crate::send::topic_name::TopicName;
use crate::stats::published::{PublishedGuard, PublishedTable};
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::topic::{InvalidTopic, MAX_TOPICS, check_topic};

/// A topic of an outbox: [`crate::Outbox::topic`]. Valid with that outbox only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic(pub(crate) usize);

impl Topic {
    /// Its number in messages.
    pub(crate) fn number(self) -> u64 {
        self.0 as u64
    }
}

/// The names of an outbox's topics, by number.
#[derive(Debug, Default)]
pub(crate) struct TopicNames(Vec<Arc<TopicName>>);

impl TopicNames {
    pub(crate) fn get(&self, number: u64) -> Option<&Arc<TopicName>> {
        self.0.get(usize::try_from(number).ok()?)
    }
}

/// The topics of an outbox.
#[derive(Debug)]
pub(crate) struct Topics {
    /// Where the node lists them.
    published: Arc<PublishedTable>,
    pub(crate) names: TopicNames,
    pub(crate) list: Vec<TopicState>,
    by_name: HashMap<Arc<str>, Topic>,
    /// The domain's change counter, and its value when the routes were looked up; `None`: look them up again.
    watch: Option<(Watch, u64)>,
    version: u64,
}

/// A topic, and its ways to subscriptions.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) name: Arc<TopicName>,
    pub(crate) routes: Vec<TopicRoute>,
    /// Subscriptions that may not read it.
    pub(crate) denied: Vec<DeniedRoute>,
    /// Subscriptions of another type, and those of them that no receipt has named yet.
    pub(crate) mismatched: Vec<Mismatched>,
    pub(crate) unreported: Vec<Arc<SchemaMismatch>>,
    /// The version of the view up to which its subscriptions are in `routes`.
    pub(crate) version: u64,
    pub(crate) pace: Option<Box<Pace>>,
    /// What is kept for late subscriptions.
    pub(crate) history: Option<Box<History>>,
    /// Keeps it listed, and counts what nobody subscribes to.
    listed: PublishedGuard,
    /// The message that is being published was offered to all routes, and those that have not got it are marked.
    pub(crate) is_offered: bool,
}

/// A subscription of another type than the topic.
#[derive(Debug)]
pub(crate) struct Mismatched {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) mismatch: Arc<SchemaMismatch>,
}

/// A route that a topic may not take.
#[derive(Debug)]
pub(crate) struct DeniedRoute {
    pub(crate) id: RouteId,
    /// The route's channel count at the time of that decision.
    pub(crate) channels: u64,
}

/// A topic's route to one subscription.
#[derive(Debug)]
pub(crate) struct TopicRoute {
    pub(crate) id: RouteId,
    /// Which listing of the subscription wants the topic: [`Route::listing`].
    pub(crate) listing: u64,
    pub(crate) declared: Declared,
    /// It has not got the message that is being published.
    pub(crate) is_behind: bool,
    /// What was published before the subscription. It gets this first: while any of it is left, `listing` is 0, so no message takes the
    /// fast path.
    pub(crate) past: VecDeque<PastMessage>,
    /// How far a task has come with the message that is being sent.
    pub(crate) in_task: Option<InTask>,
}

/// A message that a task is sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InTask {
    /// The last channel of the route, counted from its first, on which it is tried.
    pub(crate) last_channel: u64,
    /// Since when it waits for room.
    pub(crate) blocked_since: Option<Instant>,
}

impl TopicState {
    /// Publishes to the routes that take the message at once. Returns how many did.
    #[inline(always)]
    pub(crate) fn offer(&mut self, routes: &mut [Route], topic: Topic, payload: &[u8]) -> usize {
        if self.routes.is_empty() {
            self.listed.unheard(payload.len());
        }
        let (number, mut inboxes) = (topic.number(), 0);
        for leg in &mut self.routes {
            let route = &mut routes[leg.id.at];
            let message =
                || Message { topic: Some((number, &self.name)), call: None, payload, slot: None, past: false };
            if route.listing == leg.listing
                && (route.push_plain(&leg.declared, number, payload)
                    || matches!(route.push(&mut leg.declared, message(), false), Pushed::Yes))
            {
                inboxes += 1;
            } else {
                leg.is_behind = true;
            }
        }
        inboxes
    }

    /// Publishes what is in a slot to the routes that take it at once. Returns how many did.
    pub(crate) fn offer_slot(&mut self, routes: &mut [Route], topic: Topic, slot: &OnceCell<Slot>) -> usize {
        let message = Message {
            topic: Some((topic.number(), &self.name)),
            call: None,
            payload: &[],
            slot: Some(slot),
            past: false,
        };
        if self.routes.is_empty() {
            self.listed.unheard(slot.get().map_or(0, |slot| slot.bytes() as usize));
        }
        let mut inboxes = 0;
        for leg in &mut self.routes {
            let route = &mut routes[leg.id.at];
            leg.is_behind =
                route.listing != leg.listing || !matches!(route.push(&mut leg.declared, message, false), Pushed::Yes);
            inboxes += usize::from(!leg.is_behind);
        }
        inboxes
    }

    /// Adds the routes that it does not have yet. Each comes with how much its subscription wants of what is kept.
    pub(crate) fn add(&mut self, found: Vec<(RouteId, usize)>) {
        let mut known: HashSet<RouteId> = self.routes.iter().map(|route| route.id).collect();
        for (id, wanted) in found {
            if known.insert(id) {
                let past = self.history.as_ref().map(|history| history.last(wanted)).unwrap_or_default();
                self.routes.push(TopicRoute { past, ..TopicRoute::new(id) });
            }
        }
        self.denied.retain(|denied| !known.contains(&denied.id)); // a new listing needs a new decision
    }
}

impl TopicRoute {
    /// A topic's use of this route, about which nothing is known yet.
    pub(crate) fn new(id: RouteId) -> Self {
        Self { id, listing: 0, declared: Declared::default(), is_behind: false, past: VecDeque::new(), in_task: None }
    }
}

impl Topics {
    pub(crate) fn new(published: Arc<PublishedTable>) -> Self {
        let (names, list, by_name) = (TopicNames::default(), Vec::new(), HashMap::new());
        Self { published, names, list, by_name, watch: None, version: 0 }
    }

    /// The topic of this name: the existing one, or a new one.
    pub(crate) fn declare(&mut self, name: &str, schema: Option<Schema>) -> Result<Topic, InvalidTopic> {
        check_topic(name)?;
        if let Some(&known) = self.by_name.get(name) {
            return match self.list[known.0].name.schema() == schema.as_ref() {
                true => Ok(known),
                false => Err(InvalidTopic::OtherType { topic: name.into() }),
            };
        }
        if self.list.len() == MAX_TOPICS {
            return Err(InvalidTopic::TooMany { topic: name.into() });
        }
        let topic = Topic(self.list.len());
        self.by_name.insert(name.into(), topic);
        let name = Arc::new(TopicName::new(name.into(), schema));
        let listed = self.published.begin(name.name().clone(), name.schema());
        let state = TopicState {
            name: name.clone(),
            routes: Vec::new(),
            denied: Vec::new(),
            mismatched: Vec::new(),
            unreported: Vec::new(),
            version: 0,
            pace: None,
            history: None,
            listed,
            is_offered: false,
        };
        self.list.push(state);
        self.names.0.push(name);
        Ok(topic)
    }

    /// The registry was read up to this version of the view, while the counter had this value.
    pub(crate) fn seen(&mut self, watch: Watch, counter: u64, version: u64) {
        self.watch = Some((watch, counter));
        self.version = version;
    }

    /// Whether there are subscriptions of another type that no receipt has named.
    pub(crate) fn has_unreported(&self, topic: Topic) -> bool {
        !self.list[topic.0].unreported.is_empty()
    }

    /// Makes the next publish look everything up again.
    pub(crate) fn look_again(&mut self) {
        self.watch = None;
    }

    /// The topic, if its routes match the registry as it is now. In a private domain that takes one load.
    #[inline(always)]
    pub(crate) fn current(&mut self, topic: Topic) -> Option<&mut TopicState> {
        let (watch, seen) = self.watch.as_mut()?;
        if watch.counter() != *seen {
            return None;
        }
        let state = &mut self.list[topic.0];
        (state.version == self.version).then_some(state)
    }
}
