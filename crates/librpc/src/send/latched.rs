//! An outbox that a publisher with a history shares with the process's background thread: a late subscription gets what is kept, although
//! nothing is published just then.
//!
//! The background thread never waits: neither for the lock, which a publish that waits for room keeps, nor for room. It is woken by each
//! change in the domain's directory, and by the channels that still owe something of the past.
//!
//! | who dies | what becomes of the past |
//! |---|---|
//! | the publisher's process | it is lost with what is kept, except for what is in a ring already |
//! | the subscription's process | its route ends |
//! | nobody, but the publisher is dropped | as if its process died |

use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::registry::lookout::Waiting;
use crate::registry::wait;
use crate::send::error::{FlushError, PublishError, SendError};
use crate::send::loan::{Loan, UnsentLoan};
use crate::send::news::News;
use crate::send::outbox::Outbox;
use crate::send::publish::Receipt;
use crate::send::task::Task;
use crate::send::topics::Topic;
use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::owned_lock::{self, Owner, Visitor};
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::sync::atomic::{AtomicBool, Ordering};

/// A longer message is written into memory that all inboxes share, and kept there.
const LONG: usize = 16 << 10;
/// How soon the background thread comes again if the publisher has the lock.
const AGAIN: Duration = Duration::from_millis(1);
/// How soon it looks again where a look has failed, or the kernel gives no watch.
const SLOW_LOOK: Duration = Duration::from_millis(100);

/// The publisher's share: when it is dropped, the outbox is.
pub(super) struct Latch {
    inner: Owner<Option<Inner>>,
    latched: Arc<Latched>,
    /// The node's id, and the topic.
    names: (Arc<str>, Arc<str>),
}

struct Latched {
    /// `None`: the publisher was dropped.
    inner: Visitor<Option<Inner>>,
    topic: Topic,
    reactor: Arc<Reactor>,
    token: u64,
    is_closed: AtomicBool,
    born: fork::Born,
    /// The outbox's own, as far as there is one.
    news: Arc<OnceLock<Arc<News>>>,
}

struct Inner {
    outbox: Outbox,
    /// What the background thread watches.
    waiting: Option<Waiting>,
}

impl Latch {
    /// Shares an outbox that keeps a topic.
    pub(super) fn new(outbox: Outbox, topic: Topic) -> Self {
        let (reactor, born) = (outbox.node.reactor().clone(), outbox.born);
        let token = reactor.token();
        let news = outbox.routes.news.clone();
        let names = (outbox.node.id.clone(), outbox.topics.list[topic.0].name.name().clone());
        let (inner, visitor) = owned_lock::owned(Some(Inner { outbox, waiting: None }));
        let is_closed = AtomicBool::new(false);
        let latched = Arc::new(Latched { inner: visitor, topic, reactor, token, is_closed, born, news });
        if born.is_here() {
            latched.clone().wake(); // from now on it is woken by what changes
        }
        Self { inner, latched, names }
    }

    /// The node's id, and the topic. They are there without the lock.
    pub(super) fn names(&self) -> (&Arc<str>, &Arc<str>) {
        (&self.names.0, &self.names.1)
    }

    /// As [`crate::send::routes::Routes::news`].
    pub(super) fn news(&self) -> Option<Arc<News>> {
        let Latched { reactor, born, news, .. } = &*self.latched;
        born.is_here().then(|| match news.get() {
            Some(news) => news.clone(),
            None => {
                let new = News::new(reactor);
                news.get_or_init(|| new).clone()
            }
        })
    }

    /// Acts on the outbox; `None` in a forked child, where the lock may be another thread's of the parent's.
    #[inline]
    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Outbox) -> R) -> Option<R> {
        if !self.latched.born.is_here() {
            return None;
        }
        let mut inner = self.inner.enter();
        Some(act(&mut inner.as_mut().expect("it is there until this is dropped").outbox))
    }
}

impl Latch {
    /// Nearly always everybody takes a message at once. `None`: [publish it fully](Latch::publish_fully).
    #[inline(never)]
    pub(super) fn publish_plain(&mut self, topic: Topic, payload: &[u8]) -> Option<usize> {
        if payload.len() > LONG {
            return None;
        }
        let mut inner = self.inner.enter_at_once()?;
        inner.as_mut()?.outbox.publish_plain(topic, payload)
    }

    #[inline(never)]
    pub(super) fn publish_fully<'u>(
        &mut self,
        topic: Topic,
        payload: &[u8],
        timeout: Duration,
        undelivered: &'u mut Vec<SendError>,
    ) -> Result<Receipt<'u>, PublishError> {
        undelivered.clear();
        let publish = |outbox: &mut Outbox| {
            let published = outbox.publish_with_history(topic, payload, timeout);
            std::mem::swap(undelivered, &mut outbox.undelivered);
            published
        };
        let (inboxes, pending) = self.with(publish).unwrap_or(Err(PublishError::Forked))?;
        Ok(Receipt::new(inboxes, pending, undelivered))
    }

    pub(super) fn publish_loan<'u>(
        &mut self,
        topic: Topic,
        loan: Loan,
        timeout: Duration,
        undelivered: &'u mut Vec<SendError>,
    ) -> Result<Receipt<'u>, UnsentLoan<PublishError>> {
        let mut loan = Some(loan);
        let publish = |outbox: &mut Outbox| {
            let loan = loan.take().expect("it is published once");
            outbox.publish_loan(topic, loan, timeout).map(Receipt::counts)
        };
        let published = self.publish_as(publish, undelivered);
        published.unwrap_or_else(|| Err(UnsentLoan { error: PublishError::Forked, loan }))
    }

    /// Publishes, and takes the errors out of the outbox, which others use once it is unlocked.
    fn publish_as<'u, E>(
        &mut self,
        publish: impl FnOnce(&mut Outbox) -> Result<(usize, usize), E>,
        undelivered: &'u mut Vec<SendError>,
    ) -> Option<Result<Receipt<'u>, E>> {
        undelivered.clear();
        let published = self.with(|outbox| {
            let published = publish(outbox);
            std::mem::swap(undelivered, &mut outbox.undelivered);
            published
        })?;
        Some(published.map(|(inboxes, pending)| Receipt::new(inboxes, pending, undelivered)))
    }

    /// The receipt of a publication that a task has made.
    pub(super) fn receipt<'u>(&mut self, inboxes: usize, undelivered: &'u mut Vec<SendError>) -> Receipt<'u> {
        undelivered.clear();
        let pending = self.with(|outbox| {
            std::mem::swap(undelivered, &mut outbox.undelivered);
            outbox.pending
        });
        Receipt::new(inboxes, pending.unwrap_or_default(), undelivered)
    }

    /// Waits until everything is processed, also what late subscriptions have not been given yet.
    pub(super) fn flush(&mut self, timeout: Duration) -> Result<(), FlushError> {
        let flushed = self.with(|outbox| match (outbox.flush(timeout), outbox.past_left()) {
            (flushed, 0) => flushed,
            (Ok(()), unprocessed) => Err(FlushError::TimedOut { unprocessed }),
            (Err(FlushError::TimedOut { unprocessed }), past) => {
                Err(FlushError::TimedOut { unprocessed: unprocessed + past })
            }
            (failed, _) => failed,
        });
        flushed.unwrap_or(Err(FlushError::Forked))
    }

    pub(super) fn wait_for_subscriber(&mut self, topic: Topic, timeout: Duration) -> Result<bool, PublishError> {
        let deadline = Instant::now().checked_add(timeout);
        let (node, domain) =
            self.with(|outbox| (outbox.node.clone(), outbox.node.domain())).ok_or(PublishError::Forked)?;
        let domain = domain.ok_or_else(|| PublishError::Closed { node: node.id.clone() })?;
        let look = || {
            let subscribers = self.with(|outbox| outbox.subscribers(topic)).unwrap_or(Err(PublishError::Forked))?;
            Ok::<_, PublishError>((subscribers > 0).then_some(()))
        };
        Ok(wait::wait_for(&node.process().lookout, domain.path(), deadline, look)?.is_some())
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let Latched { reactor, token, is_closed, born, .. } = &*self.latched;
        if !born.is_here() {
            return;
        }
        // Relaxed: who does not see it finds no outbox.
        is_closed.store(true, Ordering::Relaxed);
        let inner = self.inner.enter().take();
        drop(inner); // not under the lock: it wakes tasks
        drop(reactor.forget(*token));
    }
}

/// Has the background thread look.
impl Wake for Latched {
    fn wake(self: Arc<Self>) {
        if !self.is_closed.load(Ordering::Relaxed) {
            let (reactor, token) = (self.reactor.clone(), self.token);
            reactor.deadline(token, self, Some(Instant::now()));
        }
    }
}

impl Source for Latched {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, _ready: Ready) {}

    /// Finds late subscriptions, and gives them what is kept.
    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, token: u64) {
        let waker = Waker::from(self.clone());
        let Some(mut inner) = self.inner.try_enter() else {
            return reactor.deadline(token, self.clone(), Some(Instant::now() + AGAIN));
        };
        let Some(Inner { outbox, waiting }) = inner.as_mut() else {
            drop(inner);
            return drop(reactor.forget(token));
        };
        let Some(domain) = outbox.node.domain() else { return };
        let node = outbox.node.clone();
        let waiting = waiting.get_or_insert_with(|| Waiting::begin(&node.process().lookout, domain.path()));
        loop {
            waiting.wake(&waker, None); // before the look: what changes after it wakes this again
            outbox.serve_late_subscriptions(self.topic, &waker);
            if !waiting.watches_another() {
                break;
            }
        }
        if !waiting.is_watching() {
            reactor.deadline(token, self.clone(), Some(Instant::now() + SLOW_LOOK));
        }
    }
}

impl Outbox {
    /// Publishes a message that some inboxes may have got already, if it is not long.
    #[cold]
    #[inline(never)]
    fn publish_with_history(
        &mut self,
        topic: Topic,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(usize, usize), PublishError> {
        // A long payload is written once, into memory that all inboxes share, and kept there.
        if payload.len() > LONG
            && let Ok(mut loan) = self.loan_uninit(topic, payload.len())
        {
            loan.copy_from_slice(payload);
            let published = self.publish_loan(topic, loan, timeout);
            return published.map(Receipt::counts).map_err(|unsent| unsent.error);
        }
        let inboxes = self.publish_fully(topic, payload, timeout)?;
        Ok((inboxes, self.pending))
    }

    /// How many messages late subscriptions have not been given yet.
    pub(super) fn past_left(&self) -> u64 {
        let legs = self.topics.list.iter().flat_map(|topic| &topic.routes);
        legs.map(|leg| leg.past.len() as u64).sum()
    }

    /// Gives new subscriptions what is kept of a topic, as far as there is room. The waker is called when there may be more.
    fn serve_late_subscriptions(&mut self, topic: Topic, waker: &Waker) {
        let tasks = self.tasks();
        let task = Task::in_background(&tasks, waker);
        if self.topics.current(topic).is_none()
            && let Err(error) = self.find_routes(topic)
        {
            tracing::debug!(%error, node = &*self.node.id, "late subscriptions cannot be looked up just now");
            task.look_after(SLOW_LOOK); // nothing else may bring it back
        }
        let state = &mut self.topics.list[topic.0];
        let (name, mut legs, mut denied) = (state.name.clone(), std::mem::take(&mut state.routes), Vec::new());
        legs.retain_mut(|leg| {
            if leg.past.is_empty() {
                return true;
            }
            self.routes.poll_past(leg, (topic.number(), &name), &self.topics.names, &task).unwrap_or_else(|id| {
                denied.push(self.routes.deny(id, name.name()));
                false
            })
        });
        let state = &mut self.topics.list[topic.0];
        state.routes = legs;
        state.denied.extend(denied);
        if self.routes.has_losses() || self.topics.has_unreported(topic) {
            self.topics.look_again(); // the next publish reports them
        }
    }
}
