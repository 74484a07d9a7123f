//! The topics of an outbox, and the subscriptions that each of them reaches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Incarnation;
use crate::registry::change_counter::Watch;
use crate::send::channel::Pushed;
use crate::send::error::PublishError;
use crate::send::rate::Pace;
use crate::send::route::{Declared, Route};
use crate::sys::clock::Instant;

/// A topic of an outbox: [`crate::Outbox::topic`]. Of use with that outbox only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic(pub(crate) usize);

/// The topics of an outbox.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    pub(crate) list: Vec<Entry>,
    pub(crate) by_name: HashMap<Arc<str>, usize>,
    pub(crate) by_inbox: HashMap<(Incarnation, u32), usize>,
    pub(crate) vacant: Vec<usize>,
    /// The domain's change counter, and what it said when the routes were found; `None`: they never were.
    pub(crate) watch: Option<(Watch, u64)>,
    pub(crate) version: u64,
}

/// A topic, and its ways to subscriptions.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) routes: Vec<Leg>,
    /// The version of the view up to which its subscriptions are in `routes`.
    pub(crate) version: u64,
    pub(crate) pace: Option<Box<Pace>>,
    /// The message that is being published was offered to all; those that have not got it are behind.
    pub(crate) is_offered: bool,
}

/// A topic's way to one subscription.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) route: usize,
    pub(crate) serial: u64,
    pub(crate) declared: Declared,
    /// It has not got the message that is being published.
    pub(crate) behind: bool,
}

impl Entry {
    /// Publishes to those that take the message at once; returns how many have.
    #[inline(always)]
    pub(crate) fn offer(&mut self, routes: &mut [Route], topic: Topic, payload: &[u8]) -> usize {
        let (number, mut inboxes) = (topic.0 as u64, 0);
        for leg in &mut self.routes {
            let route = &mut routes[leg.route];
            if route.serial == leg.serial
                && (route.publish_plain(&leg.declared, number, payload)
                    || matches!(route.publish(&mut leg.declared, number, &self.name, payload, false), Pushed::Yes))
            {
                route.stuck = false;
                inboxes += 1;
            } else {
                leg.behind = true;
            }
        }
        inboxes
    }

    pub(crate) fn wait_for_pace(&self, payload_bytes: usize, limit: Duration) -> Result<(), PublishError> {
        let Some(pace) = &self.pace else { return Ok(()) };
        let limited = |wait| PublishError::RateLimited { topic: self.name.clone(), wait };
        pace.take(payload_bytes, Instant::now().checked_add(limit)).map_err(limited)
    }
}

impl Topics {
    /// Whether the routes of a topic are those of the registry as it is now.
    pub(crate) fn are_current(&mut self, topic: Topic) -> bool {
        self.is_as_seen() && self.list[topic.0].version == self.version
    }

    /// Whether the registry is as it was when it was looked at last. One load, where the domain is private.
    #[inline(always)]
    pub(crate) fn is_as_seen(&mut self) -> bool {
        let Some((watch, seen)) = &mut self.watch else { return false };
        watch.counter() == *seen
    }
}
