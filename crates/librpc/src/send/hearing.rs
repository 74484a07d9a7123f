//! Asking a publisher what has happened: in a thread, in a task, in a wait set.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::send::error::PublishError;
use crate::send::events::PublisherEvent;
use crate::send::news::{News, Visit};
use crate::send::publisher::{Handle, Publisher};
use crate::send::shared::SharedPublisher;
use crate::sys::clock::Instant;

/// What happens to the subscriptions.
impl Publisher {
    /// What has happened: a subscription has come or is gone, is stuck or moves again. `None`: nothing since the last call. Does not block.
    ///
    /// The first calls report what is there already. From the first one on, the publisher connects to each subscription as soon as
    /// it is asked for events, as its first publish would: so it learns of their ends although it publishes nothing. A publish takes no longer
    /// for it. What was not asked for is not kept: what has come and gone again between two calls is not reported.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_events_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (camera, display) = (open("camera")?, open("display")?);
    /// use librpc::PublisherEvent;
    ///
    /// let mut pictures = camera.publisher("camera/front")?;
    /// assert_eq!(pictures.try_event()?, None);
    /// let _inbox = display.subscribe("camera/*")?;
    /// let Some(PublisherEvent::Came(inbox)) = pictures.try_event()? else { panic!("it has come") };
    /// assert_eq!(&*inbox.node, "display");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it could not be found out. Nothing is missed by that: the next call looks again.
    pub fn try_event(&mut self) -> Result<Option<PublisherEvent>, PublishError> {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.try_event(topic)).unwrap_or(Err(PublishError::Forked))
    }

    /// Waits up to a limit until something happens: as [`Publisher::try_event`]. `None`: the time is up.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it could not be found out. Nothing is missed by that: the next call looks again.
    pub fn wait_for_event(&mut self, timeout: Duration) -> Result<Option<PublisherEvent>, PublishError> {
        wait_for_event(self, timeout)
    }

    /// Waits in a task until something happens: as [`Publisher::try_event`]. A future that is dropped takes no event along.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it could not be found out. Nothing is missed by that: the next call looks again.
    pub async fn event_async(&mut self) -> Result<PublisherEvent, PublishError> {
        let mut hearing = Hearing::new(self);
        poll_fn(|context| hearing.poll(context)).await
    }

    /// The events as they come, for a task. It ends after [`PublishError::Closed`] or [`PublishError::Forked`], and goes on after any other
    /// error.
    pub fn events(&mut self) -> impl Stream<Item = Result<PublisherEvent, PublishError>> + Send + Unpin + '_ {
        Events { hearing: Hearing::new(self), is_over: false }
    }

    /// For a wait set.
    pub(crate) fn happens(&self) -> Happens {
        Happens::of(match &self.handle {
            Handle::Own(outbox) => outbox.born.is_here().then(|| outbox.routes.news().clone()),
            Handle::Latched(latch) => latch.news(),
        })
    }
}

/// What happens to the subscriptions. Each event is reported once, to whoever asks first.
impl SharedPublisher {
    /// What has happened; `None`: nothing since the last call. Waits only for threads that use the publisher. As [`Publisher::try_event`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it could not be found out. Nothing is missed by that: the next call looks again.
    pub fn try_event(&self) -> Result<Option<PublisherEvent>, PublishError> {
        self.with(Publisher::try_event).unwrap_or(Err(PublishError::Forked))
    }

    /// Waits up to a limit until something happens. Meanwhile other threads may publish. As [`Publisher::wait_for_event`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it could not be found out. Nothing is missed by that: the next call looks again.
    pub fn wait_for_event(&self, timeout: Duration) -> Result<Option<PublisherEvent>, PublishError> {
        wait_for_event(&mut self.clone(), timeout)
    }

    /// Waits in a task until something happens. As [`Publisher::event_async`]. Each look waits for a thread that uses the publisher: where
    /// one publishes with a limit, it may hold up the executor for as long.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if it could not be found out. Nothing is missed by that: the next call looks again.
    pub async fn event_async(&self) -> Result<PublisherEvent, PublishError> {
        let mut publisher = self.clone();
        let mut hearing = Hearing::new(&mut publisher);
        poll_fn(|context| hearing.poll(context)).await
    }

    /// The events as they come, for a task of their own. As [`Publisher::events`].
    pub fn events(&self) -> impl Stream<Item = Result<PublisherEvent, PublishError>> + Send + Unpin + use<> {
        Events { hearing: Hearing::new(self.clone()), is_over: false }
    }

    /// For a wait set.
    pub(crate) fn happens(&self) -> Happens {
        self.with(|publisher| publisher.happens()).unwrap_or_else(|| Happens::of(None))
    }
}

/// What can be asked for events.
trait Asked {
    fn try_event(&mut self) -> Result<Option<PublisherEvent>, PublishError>;

    /// `None`: it belongs to the process that forked this one.
    fn news(&mut self) -> Option<Arc<News>>;
}

impl Asked for Publisher {
    fn try_event(&mut self) -> Result<Option<PublisherEvent>, PublishError> {
        Self::try_event(self)
    }

    fn news(&mut self) -> Option<Arc<News>> {
        self.handle.with(|outbox| outbox.born.is_here().then(|| outbox.routes.news().clone())).flatten()
    }
}

impl Asked for SharedPublisher {
    fn try_event(&mut self) -> Result<Option<PublisherEvent>, PublishError> {
        Self::try_event(self)
    }

    fn news(&mut self) -> Option<Arc<News>> {
        self.with(Asked::news).flatten()
    }
}

impl<A: Asked> Asked for &mut A {
    fn try_event(&mut self) -> Result<Option<PublisherEvent>, PublishError> {
        A::try_event(self)
    }

    fn news(&mut self) -> Option<Arc<News>> {
        A::news(self)
    }
}

fn wait_for_event(asked: &mut impl Asked, timeout: Duration) -> Result<Option<PublisherEvent>, PublishError> {
    let deadline = Instant::now().checked_add(timeout);
    let news = asked.news().ok_or(PublishError::Forked)?;
    loop {
        if let Some(event) = asked.try_event()? {
            return Ok(Some(event));
        }
        // News of others may come all the time.
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        news.wait(deadline);
    }
}

/// A task that waits for events.
struct Hearing<A> {
    asked: A,
    /// `None`: it belongs to the process that forked this one.
    news: Option<(Arc<News>, Visit)>,
}

impl<A: Asked> Hearing<A> {
    fn new(mut asked: A) -> Self {
        let news = asked.news().map(|news| {
            let visit = news.visit();
            (news, visit)
        });
        Self { asked, news }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Result<PublisherEvent, PublishError>> {
        let Some((news, visit)) = &self.news else { return Poll::Ready(Err(PublishError::Forked)) };
        visit.leave_waker(context); // before the look: what changes after it wakes the task
        match self.asked.try_event()? {
            Some(event) => Poll::Ready(Ok(event)),
            None => {
                if news.is_there() {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

/// The events of a publisher as a stream.
struct Events<A> {
    hearing: Hearing<A>,
    is_over: bool,
}

impl<A: Asked + Unpin> Stream for Events<A> {
    type Item = Result<PublisherEvent, PublishError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let polled = self.hearing.poll(context);
        self.is_over = matches!(polled, Poll::Ready(Err(PublishError::Closed { .. } | PublishError::Forked)));
        polled.map(Some)
    }
}

/// Whether something may have happened at a publisher, as a wait set asks. It keeps neither the publisher nor its node.
pub(crate) struct Happens(Option<(Weak<News>, Visit)>);

impl Happens {
    fn of(news: Option<Arc<News>>) -> Self {
        Self(news.map(|news| (Arc::downgrade(&news), news.visit())))
    }

    /// If not, the waker is called when it may have.
    pub(crate) fn is_likely(&self, context: &Context<'_>) -> bool {
        let Some((news, visit)) = &self.0 else { return true }; // the next look returns the error
        let Some(news) = news.upgrade() else { return false }; // the publisher was dropped
        visit.leave_waker(context);
        news.is_there()
    }
}
