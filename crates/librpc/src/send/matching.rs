//! Finding out what has happened at a publisher, for those who ask for its events.
//!
//! There is no queue of what has happened. A look ([`crate::send::look`]) compares what the registry and the channels show with what was said
//! before, and says the difference. So what is kept grows with the subscriptions that are there, never with how often one comes and goes;
//! and what has come and gone again between two looks is not said.
//!
//! Invariant: for each route, what was said is [`Phase`]. A look that has failed says nothing about what it was to find out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::link::readers::Access;
use crate::registry::lookout::Waiting;
use crate::registry::lookup::{End, Listings};
use crate::registry::view::Subscription;
use crate::schema::SchemaMismatch;
use crate::send::channel::WaitsFor;
use crate::send::events::{MatchedInbox, PublisherEvent, SubscriptionEnd};
use crate::send::route::{RouteId, Way};
use crate::send::routes::{Reached, Routes};
use crate::send::task::Task;
use crate::send::topics::Mismatched;
use crate::sys::OsError;
use crate::sys::clock::Instant;

/// How long a process that has hung up may still look alive, because it is dying.
const DYING: Duration = Duration::from_millis(5);
/// How soon a subscription is looked at again that is not connected, at first; then after twice as long, up to [`SELDOM`].
const SOON: Duration = Duration::from_millis(1);
/// How often something is looked at of which a report may be missed.
const SELDOM: Duration = Duration::from_secs(1);

/// What a publisher was told.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    known: BTreeMap<RouteId, Known>,
    /// The subscriptions of another type that were said, as far as they are there.
    mismatched: Vec<Arc<SchemaMismatch>>,
    /// What a look has found, and nobody has taken yet. The next look is made once this is empty.
    pub(super) found: VecDeque<PublisherEvent>,
    /// Marks the news when the domain's directory has changed.
    pub(super) waiting: Option<Waiting>,
}

/// A subscription that wants the topic.
#[derive(Debug)]
pub(super) struct Known {
    subscription: Arc<Subscription>,
    inbox: Arc<MatchedInbox>,
    phase: Phase,
    /// Since when it is not connected, and how soon it is looked at again.
    away: Option<(Instant, Duration)>,
}

/// What was said of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    Came,
    Stuck,
    /// Its route may still be there.
    Gone,
    Denied,
}

impl Known {
    fn new(subscription: Arc<Subscription>) -> Self {
        let inbox = MatchedInbox::of(&subscription);
        Self { subscription, inbox, phase: Phase::Nothing, away: None }
    }

    fn is_here(&self) -> bool {
        matches!(self.phase, Phase::Came | Phase::Stuck)
    }

    /// It is not connected: how soon it is looked at again.
    fn pause(&mut self) -> Duration {
        let (_, pause) = self.away.get_or_insert_with(|| (Instant::now(), SOON));
        let now = *pause;
        *pause = (2 * now).min(SELDOM);
        now
    }

    /// Whether it has hung up just now.
    fn may_be_dying(&mut self) -> bool {
        let (since, _) = *self.away.get_or_insert_with(|| (Instant::now(), SOON));
        since.elapsed() < DYING
    }
}

/// What has become of a topic's route to a subscription.
pub(super) enum Tended {
    There,
    Denied,
    Ended,
}

impl Matching {
    /// What is known of the subscription to which a route leads.
    pub(super) fn known(&mut self, id: RouteId, routes: &mut Routes) -> Option<&mut Known> {
        let subscription = routes.get(id)?.subscription.clone()?;
        Some(self.known.entry(id).or_insert_with(|| Known::new(subscription)))
    }

    pub(super) fn say_mismatched(&mut self, mismatched: &[Mismatched]) {
        let is_said = |found: &&Mismatched| self.mismatched.iter().any(|said| Arc::ptr_eq(said, &found.mismatch));
        let new = mismatched.iter().filter(|found| !is_said(found));
        let event = |found: &Mismatched| {
            PublisherEvent::Mismatch(MatchedInbox::of(&found.subscription), found.mismatch.clone())
        };
        self.found.extend(new.map(event));
        self.mismatched = mismatched.iter().map(|found| found.mismatch.clone()).collect();
    }

    pub(super) fn say_denied(&mut self, denied: &[RouteId], routes: &mut Routes) {
        for &id in denied {
            let Some(known) = self.known(id, routes) else { continue };
            let inbox = known.inbox.clone();
            let event = match known.phase {
                Phase::Nothing => PublisherEvent::Denied(inbox),
                Phase::Came | Phase::Stuck => PublisherEvent::Gone(inbox, SubscriptionEnd::Denied),
                Phase::Gone | Phase::Denied => continue,
            };
            known.phase = Phase::Denied;
            self.found.push_back(event);
        }
    }

    /// Says which subscriptions are gone.
    pub(super) fn say_gone(
        &mut self,
        legs: &[RouteId],
        denied: &[RouteId],
        routes: &mut Routes,
        listings: &mut Listings<'_>,
    ) -> Result<(), OsError> {
        let there: BTreeSet<&RouteId> = legs.iter().collect();
        // Where a node has something new, something may have ended whose hang-up has not come yet.
        let is_new = |(id, known): &(&RouteId, &Known)| there.contains(id) && known.phase == Phase::Nothing;
        let nodes: BTreeSet<Arc<str>> =
            self.known.iter().filter(is_new).map(|(_, known)| known.inbox.node.clone()).collect();
        let denied: BTreeSet<&RouteId> = denied.iter().collect();
        let mut forgotten = Vec::new();
        for (id, known) in &mut self.known {
            let (there, former) = (there.contains(id), known.subscription.clone());
            let now = routes.get(*id).and_then(|route| route.subscription.clone());
            let next = now.filter(|now| !Arc::ptr_eq(now, &former));
            let is_another = next.as_ref().is_some_and(|next| !next.target.is_same_inbox(&former.target));
            if known.is_here() && (!there || is_another || nodes.contains(&known.inbox.node)) {
                let end = listings.end_of(&former.target)?;
                if end.is_some() || !there || is_another {
                    let end = SubscriptionEnd::from(end.unwrap_or(End::Gone));
                    self.found.push_back(PublisherEvent::Gone(known.inbox.clone(), end));
                    known.phase = Phase::Gone;
                }
            }
            match next {
                _ if !there && !denied.contains(id) => forgotten.push(*id),
                Some(next) if known.is_here() => known.subscription = next,
                // What is listed anew may come.
                Some(next) => *known = Known::new(next),
                None => {}
            }
        }
        forgotten.iter().for_each(|id| drop(self.known.remove(id)));
        Ok(())
    }

    /// Says what is new of a subscription that is there.
    pub(super) fn say_of(
        &mut self,
        id: RouteId,
        topic: &str,
        routes: &mut Routes,
        listings: &mut Listings<'_>,
        task: &Task<'_>,
    ) -> Result<(), OsError> {
        let (Some(known), Some(route)) = (self.known.get_mut(&id), routes.list.get(id.at)) else { return Ok(()) };
        let (target, inbox) = (&known.subscription.target, known.inbox.clone());
        let end = match &route.way {
            Way::Closed => route.final_refusal().map(SubscriptionEnd::refused),
            // Its return is waited for.
            Way::Redelivery(_) => listings.end_of(target)?.map(SubscriptionEnd::from),
            Way::Open(_) => None,
        };
        let is_away = matches!(route.way, Way::Redelivery(_)) && end.is_some();
        if matches!(known.phase, Phase::Nothing | Phase::Denied) && !is_away {
            if !matches!(route.access(&routes.node.readers, topic), Access::Granted) {
                return Ok(()); // it is not known yet which process would read it
            }
            if !listings.contain(target)? {
                return Ok(()); // it has ended already, and its hang-up is on its way
            }
            known.phase = Phase::Came;
            self.found.push_back(PublisherEvent::Came(inbox.clone()));
        }
        if let Some(end) = end {
            if known.is_here() {
                self.found.push_back(PublisherEvent::Gone(inbox, end));
            }
            known.phase = Phase::Gone;
        } else if let Some(is_stuck) = routes.is_stuck(id.at, task).filter(|_| known.is_here()) {
            let event = match (known.phase, is_stuck) {
                (Phase::Came, true) => PublisherEvent::Stuck(inbox),
                (Phase::Stuck, false) => PublisherEvent::Moves(inbox),
                _ => return Ok(()),
            };
            known.phase = if is_stuck { Phase::Stuck } else { Phase::Came };
            self.found.push_back(event);
        }
        Ok(())
    }
}

impl Routes {
    /// Looks after the connection of a route, and has its changes mark the news.
    pub(super) fn tend(
        &mut self,
        id: RouteId,
        topic: &str,
        known: &mut Known,
        listings: &mut Listings<'_>,
        task: &Task<'_>,
    ) -> Result<Tended, OsError> {
        if !self.is_there(id, listings)? {
            return Ok(Tended::Ended);
        }
        let route = &mut self.list[id.at];
        if matches!(route.way, Way::Closed) && route.final_refusal().is_none() {
            if route.was_tried() && known.may_be_dying() {
                task.look_after(SOON);
                return Ok(Tended::There);
            }
            if matches!(self.connect(id), Reached::Gone) && self.get(id).is_none() {
                return Ok(Tended::Ended);
            }
        }
        let route = &mut self.list[id.at];
        let is_refused = route.final_refusal().is_some();
        match &mut route.way {
            Way::Open(channel) => {
                channel.is_unanswered(task); // from now on its changes are reported
                if channel.is_open() {
                    known.away = None;
                } else if !channel.is_connected() {
                    task.look_after(SOON);
                }
            }
            Way::Redelivery(_) => {
                if let Some(subscription) = &route.subscription
                    && listings.contain(&subscription.target)?
                {
                    task.look_after(known.pause()); // it may be dying
                }
            }
            Way::Closed if is_refused => {}
            Way::Closed => task.look_after(known.pause()),
        }
        Ok(match self.list[id.at].access(&self.node.readers, topic) {
            Access::Denied(_) => Tended::Denied,
            Access::Granted | Access::Unknown => Tended::There,
        })
    }

    /// Whether a publish has waited for a subscription in vain, and it has not moved since. If so, its next move marks the news. `None`: it
    /// is not connected just now.
    fn is_stuck(&mut self, at: usize, task: &Task<'_>) -> Option<bool> {
        let route = &mut self.list[at];
        if !route.is_connected() {
            return None;
        }
        let Some(position) = route.stuck_at().filter(|_| route.is_stuck()) else { return Some(false) };
        // It has read everything: what was waited for was something else, such as its answer about a memory for payloads.
        if route.channel().is_some_and(|channel| channel.is_drained()) {
            return Some(false);
        }
        // A flush that ends meanwhile takes the announcement back.
        task.look_after(SELDOM);
        Some(self.is_awaited(at, WaitsFor::Room(position + 1), task) && self.list[at].is_stuck())
    }
}

impl From<End> for SubscriptionEnd {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Died => Self::Died,
            End::Gone => Self::NodeGone,
        }
    }
}
