//! Receiving only the newest.

use std::num::NonZero;
use std::time::Duration;

use crate::receive::inbox::{Inbox, RecvError, until};
use crate::receive::message::Message;
use crate::receive::receiver::Until;

/// For a receiver that is slower than its senders, and wants what is true now.
impl Inbox {
    /// Waits for a message, and returns the newest one that is there of its topic and sender. Older ones are passed over: they count as
    /// processed, and [`Message::missed`] counts them. Messages of other topics and other senders come with the next receives. `None` as in
    /// [`Inbox::recv`].
    ///
    /// One look ahead sees at most 1,024 records of a sender. A receive that does not wait, or whose time is up, passes over some thousands
    /// of messages at most. Past these bounds, the message that is returned may not be the newest, and the next receive goes on from there.
    ///
    /// An inbox that always wants this is opened with [`crate::InboxBuilder::keep_last`].
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_latest_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (detector, camera) = (open("detector")?, open("camera")?);
    /// let mut frames = detector.subscribe("camera/front")?;
    /// let mut publisher = camera.publisher("camera/front")?;
    /// for frame in [b"frame 1", b"frame 2", b"frame 3"] {
    ///     publisher.publish(frame)?;
    /// }
    /// let newest = frames.recv_latest()?.expect("nobody stops this inbox");
    /// assert_eq!((newest.payload(), newest.missed()), (&b"frame 3"[..], 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_latest(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        self.latest(Until::Forever)
    }

    /// The newest message that is there of its topic and sender, if there is one. Does not block. See [`Inbox::recv_latest`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn try_recv_latest(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        self.latest(Until::Now)
    }

    /// Waits for a message, at most this long, and returns the newest one. `None` as in [`Inbox::recv_timeout`]. See
    /// [`Inbox::recv_latest`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_latest_timeout(&mut self, timeout: Duration) -> Result<Option<Message<'_>>, RecvError> {
        self.latest(until(timeout))
    }

    fn latest(&mut self, until: Until) -> Result<Option<Message<'_>>, RecvError> {
        let always = self.receiver.keep_last.replace(NonZero::<usize>::MIN);
        let found = self.next_message(until);
        self.receiver.keep_last = always;
        Ok(found?.then(|| self.receiver.message_found()))
    }
}
