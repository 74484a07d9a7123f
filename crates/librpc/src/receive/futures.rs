//! Receiving in a task, which waits without a thread.
//!
//! Nothing is taken from a ring before the future returns it: one that is dropped while it waits loses nothing.

use std::future::poll_fn;
#[cfg(any(feature = "tokio", feature = "async-io"))]
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use crate::receive::inbox::{Inbox, RecvError};
use crate::receive::message::{Event, Message, OwnedMessage};
use crate::receive::receiver::{Until, WatchedBy};
use crate::receive::sample::Sample;
use crate::sys::OsError;
#[cfg(any(feature = "tokio", feature = "async-io"))]
use crate::sys::runtime::Runtime;
use crate::sys::tasks::{Tasks, Woken};

/// The only task that waits for an inbox: it belongs to one at a time.
const NUMBER: u64 = 0;

/// In a task, as a future. Any executor will do: the process's background thread wakes the task.
///
/// Dropping such a future loses nothing: a message is taken only in the poll that returns it.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_recv_async_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// # let (display, camera) = (open("display")?, open("camera")?);
/// # use pollster::block_on;
/// let mut inbox = display.inbox()?;
/// let mut to_display = camera.connect("display")?;
/// block_on(async {
///     to_display.send_async(b"a picture").await?;
///     let message = inbox.recv_async().await?.expect("nobody stops this inbox");
///     assert_eq!(message.payload(), b"a picture");
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Inbox {
    /// Waits for the next message. As [`Inbox::recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub async fn recv_async(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        let found = poll_fn(|context| self.poll_to_receive(context, Inbox::find_message)).await?;
        Ok(found.map(|()| self.receiver.message_found()))
    }

    /// Waits for what comes next. As [`Inbox::recv_event`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub async fn recv_event_async(&mut self) -> Result<Option<Event<'_>>, RecvError> {
        let found = poll_fn(|context| self.poll_to_receive(context, |inbox| inbox.find_event(|| Until::Now))).await?;
        Ok(found.and_then(|found| self.event_found(found)))
    }

    /// Waits for the next message, as a sample. As [`Inbox::recv_sample`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub async fn recv_sample_async(&mut self) -> Result<Option<Sample>, RecvError> {
        poll_fn(|context| self.poll_to_receive(context, Inbox::try_recv_sample)).await
    }

    /// The messages as they come, each as a copy. As [`Inbox::iter`].
    pub fn stream(&mut self) -> impl Stream<Item = Result<OwnedMessage, RecvError>> + Unpin + '_ {
        let copied = |inbox: &mut Inbox| Ok(inbox.try_recv()?.map(|message| message.to_owned()));
        Messages { inbox: self, take: copied }
    }

    /// The messages as they come, each as a [`Sample`]. As [`Inbox::stream`].
    pub fn sample_stream(&mut self) -> impl Stream<Item = Result<Sample, RecvError>> + Unpin + '_ {
        Messages { inbox: self, take: Inbox::try_recv_sample }
    }

    /// Has the tokio runtime of this thread wake the tasks that wait for the inbox: sooner than the process's background thread, which
    /// wakes them otherwise. With the feature `tokio`.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the descriptor. The inbox is closed then.
    ///
    /// # Panics
    ///
    /// Outside a runtime, and in one without I/O, as tokio's `AsyncFd` does.
    #[cfg(feature = "tokio")]
    pub fn with_tokio(mut self) -> io::Result<Self> {
        self.runtime = Some(Runtime::tokio(self.watch().clone())?);
        Ok(self)
    }

    /// Has async-io, the reactor of smol, wake the tasks that wait for the inbox: sooner than the process's background thread, which
    /// wakes them otherwise. With the feature `async-io`.
    ///
    /// # Errors
    ///
    /// It cannot watch the descriptor. The inbox is closed then.
    #[cfg(feature = "async-io")]
    pub fn with_async_io(mut self) -> io::Result<Self> {
        self.runtime = Some(Runtime::async_io(self.watch().clone())?);
        Ok(self)
    }

    fn find_message(&mut self) -> Result<Option<()>, RecvError> {
        Ok((self.goes_on() || self.next_message(Until::Now)?).then_some(()))
    }

    /// Looks for a task, which is woken when it is to look again. `None`: the inbox was stopped.
    fn poll_to_receive<T>(
        &mut self,
        context: &mut Context<'_>,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, RecvError>,
    ) -> Poll<Result<Option<T>, RecvError>> {
        // From now on, a look that finds nothing leaves the inbox so that its descriptor announces what comes. That descriptor is
        // level-triggered, so the waker may be left after the look.
        self.receiver.descriptor(WatchedBy::Library);
        loop {
            self.receiver.is_told = self.runtime.is_some();
            let found = look(self);
            self.receiver.is_told = false;
            let found = found?;
            if found.is_some() || self.shared.has_ended() {
                return Poll::Ready(Ok(found));
            }
            let Some(runtime) = &mut self.runtime else { break };
            ready!(runtime.poll_readable(context)).map_err(|error| OsError::new("watch an inbox", error))?;
            self.receiver.has_news = true;
        }
        let (reactor, poll) = (self.node.reactor(), &self.receiver.poll);
        let tasks = self.tasks.get_or_insert_with(|| Tasks::new(reactor, Some(poll.clone())));
        tasks.wait(NUMBER, context.waker(), None, &mut Woken::default());
        tasks.watch()?;
        Poll::Pending
    }
}

/// Messages that are taken as they come.
struct Messages<'i, F> {
    inbox: &'i mut Inbox,
    take: F,
}

impl<T, F> Stream for Messages<'_, F>
where
    F: FnMut(&mut Inbox) -> Result<Option<T>, RecvError> + Unpin,
{
    type Item = Result<T, RecvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { inbox, take } = &mut *self;
        inbox.poll_to_receive(context, take).map(Result::transpose)
    }
}
