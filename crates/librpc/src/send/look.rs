//! A look for what has happened at a publisher.
//!
//! It connects to each subscription, as the first publish would: the kernel then reports its end, although nothing is published. It leaves the
//! mark of [`News`] where changes find it: in the domain's directory, and in the channels. So nobody looks while nothing changes.
//!
//! A look does nothing that a publish would not do, and writes nothing that is shared: a death in it leaves nothing new.
//!
//! [`News`]: crate::send::news::News

use std::task::Waker;
use std::time::Duration;

use crate::registry::lookout::Waiting;
use crate::registry::lookup::Listings;
use crate::send::error::PublishError;
use crate::send::events::PublisherEvent;
use crate::send::matching::{Matching, Tended};
use crate::send::outbox::Outbox;
use crate::send::route::RouteId;
use crate::send::task::Task;
use crate::send::topics::Topic;
use crate::sys::clock::Instant;

/// How soon another look is made where the kernel gives no watch.
const UNWATCHED: Duration = Duration::from_millis(100);
/// How often a look is repeated at once because the domain was made again.
const MOVES: u32 = 3;

impl Outbox {
    /// The next event of a topic. Does not block.
    pub(super) fn try_event(&mut self, topic: Topic) -> Result<Option<PublisherEvent>, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        let mut matching = self.matching.take().unwrap_or_default();
        let mut looked = Ok(());
        if matching.found.is_empty() && self.may_have_events(topic) {
            looked = self.look_for_events(topic, &mut matching);
        }
        let event = matching.found.pop_front();
        self.matching = Some(matching);
        if event.is_some() || looked.is_err() {
            self.routes.news().mark(); // until a look has found nothing
        }
        match (event, looked) {
            (None, Err(error)) => Err(error),
            (event, _) => Ok(event),
        }
    }

    /// Whether something has changed since the last look.
    fn may_have_events(&mut self, topic: Topic) -> bool {
        // Where losses are not reported yet, the next publish looks everything up. It need not be this.
        self.routes.news().is_there() || !self.routes.has_losses() && self.topics.current(topic).is_none()
    }

    fn look_for_events(&mut self, topic: Topic, matching: &mut Matching) -> Result<(), PublishError> {
        let (news, tasks, node) = (self.routes.news().clone(), self.tasks(), self.node.clone());
        let waker = Waker::from(news.clone());
        news.take();
        for _ in 0..MOVES {
            let domain = node.domain().ok_or_else(|| self.closed())?;
            let begin = || Waiting::begin(&node.process().lookout, domain.path());
            let waiting = matching.waiting.get_or_insert_with(begin);
            // Before the look: what changes after it marks the news.
            waiting.wake(&waker, (!waiting.is_watching()).then(|| Instant::now() + UNWATCHED));
            let task = Task::for_events(&tasks, &waker);
            self.compare(topic, matching, &task)?;
            if !matching.waiting.as_mut().is_some_and(Waiting::watches_another) {
                return Ok(());
            }
        }
        news.mark();
        Ok(())
    }

    /// Compares what there is with what was said.
    fn compare(&mut self, topic: Topic, matching: &mut Matching, task: &Task<'_>) -> Result<(), PublishError> {
        self.find_routes(topic)?;
        if self.routes.has_losses() || self.topics.has_unreported(topic) {
            self.topics.look_again(); // the next publish reports them
        }
        let directory = self.node.directory().ok_or_else(|| self.closed())?;
        let mut listings = Listings::new(&directory);
        let Self { routes, topics, .. } = self;
        let state = &mut topics.list[topic.0];
        let (topic_name, mut failed, mut denied) = (state.name.clone(), None, Vec::new());
        let name = topic_name.name();
        matching.say_mismatched(&state.mismatched);
        let mut legs = std::mem::take(&mut state.routes);
        legs.retain_mut(|leg| {
            if !routes.is_valid(leg, Some(&topic_name)) {
                return false;
            }
            let Some(known) = matching.known(leg.id, routes) else { return false };
            match routes.tend(leg.id, name, known, &mut listings, task) {
                Ok(Tended::There) => true,
                Ok(Tended::Ended) => false,
                Ok(Tended::Denied) => {
                    denied.push(routes.deny(leg.id, name));
                    false
                }
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        });
        state.routes = legs;
        state.denied.extend(denied);
        let legs: Vec<RouteId> = state.routes.iter().map(|leg| leg.id).collect();
        let denied: Vec<RouteId> = state.denied.iter().map(|denied| denied.id).collect();
        matching.say_denied(&denied, routes);
        // Whoever is gone is so before whoever comes.
        let said = match failed {
            Some(error) => Err(error),
            None => matching.say_gone(&legs, &denied, routes, &mut listings),
        };
        said?;
        for id in legs {
            matching.say_of(id, name, routes, &mut listings, task)?;
        }
        Ok(())
    }
}
