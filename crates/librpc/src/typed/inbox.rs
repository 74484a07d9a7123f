//! Receiving values of a type.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::receive::{Inbox, InboxBuilder, InboxError, Message, RecvError, Sample};
use crate::typed::{DecodeError, Typed};

/// Receives messages of a type: [`crate::Node::subscriber_of`], [`crate::Node::inbox_of`].
///
/// A publisher whose topic is of another type, or of none, does not reach it, and neither does such a sender. The next receive then
/// fails with [`RecvError::Mismatch`], once for each topic of a publisher and each sender, and the receives after it go on with the others. All else is as with an
/// [`Inbox`], whose other receives hand out the messages as bytes.
pub struct TypedInbox<T: Typed> {
    inbox: Inbox,
    of: PhantomData<fn() -> T>,
}

/// A message of a type. It is valid until the next receive.
pub struct TypedMessage<'a, T: Typed> {
    message: Message<'a>,
    of: PhantomData<fn() -> T>,
}

/// A message of a type, owned: [`TypedInbox::recv_sample`].
pub struct TypedSample<T: Typed> {
    sample: Sample,
    of: PhantomData<fn() -> T>,
}

impl<T: Typed> TypedInbox<T> {
    /// Waits for the next message. As [`Inbox::recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv(&mut self) -> Result<Option<TypedMessage<'_, T>>, RecvError> {
        Ok(self.inbox.recv()?.map(TypedMessage::new))
    }

    /// The next message, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<TypedMessage<'_, T>>, RecvError> {
        Ok(self.inbox.try_recv()?.map(TypedMessage::new))
    }

    /// Waits for the next message, at most this long. As [`Inbox::recv_timeout`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<TypedMessage<'_, T>>, RecvError> {
        Ok(self.inbox.recv_timeout(timeout)?.map(TypedMessage::new))
    }

    /// Waits for the next message, in a task. As [`Inbox::recv_async`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub async fn recv_async(&mut self) -> Result<Option<TypedMessage<'_, T>>, RecvError> {
        Ok(self.inbox.recv_async().await?.map(TypedMessage::new))
    }

    /// Waits for the next message, as a sample. As [`Inbox::recv_sample`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_sample(&mut self) -> Result<Option<TypedSample<T>>, RecvError> {
        Ok(self.inbox.recv_sample()?.map(|sample| TypedSample { sample, of: PhantomData }))
    }
}

impl<'a, T: Typed> TypedMessage<'a, T> {
    fn new(message: Message<'a>) -> Self {
        Self { message, of: PhantomData }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: its publisher has sent something else.
    #[inline]
    pub fn value(&self) -> Result<T::Read<'a>, DecodeError> {
        T::decode(self.message.payload())
    }
}

impl<T: Typed> TypedSample<T> {
    /// Reads it, where [`Sample::payload`] is a slice.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: its publisher has sent something else, or the payload is in its memory and the inbox does not trust its publishers
    /// ([`InboxBuilder::trust_publishers`]).
    pub fn value(&self) -> Result<T::Read<'_>, DecodeError> {
        let untrusted = || {
            DecodeError {
            bytes: self.sample.len(),
            why: "it is in its sender's memory, which may change: receive a message, or trust the publishers of the inbox".into(),
        }
        };
        T::decode(self.sample.payload().ok_or_else(untrusted)?)
    }

    /// The sample without its type.
    pub fn into_inner(self) -> Sample {
        self.sample
    }
}

impl<T: Typed> Deref for TypedInbox<T> {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        &self.inbox
    }
}

impl<T: Typed> DerefMut for TypedInbox<T> {
    fn deref_mut(&mut self) -> &mut Inbox {
        &mut self.inbox
    }
}

impl<'a, T: Typed> Deref for TypedMessage<'a, T> {
    type Target = Message<'a>;

    fn deref(&self) -> &Message<'a> {
        &self.message
    }
}

impl<T: Typed> Deref for TypedSample<T> {
    type Target = Sample;

    fn deref(&self) -> &Sample {
        &self.sample
    }
}

impl<T: Typed> fmt::Debug for TypedInbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedInbox").field(&self.inbox).finish()
    }
}

impl<T: Typed> fmt::Debug for TypedMessage<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedMessage").field(&self.message).finish()
    }
}

impl<T: Typed> fmt::Debug for TypedSample<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedSample").field(&self.sample).finish()
    }
}

impl InboxBuilder<'_> {
    /// Opens an inbox whose messages are of a type. As [`InboxBuilder::open`].
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn open_of<T: Typed>(self) -> Result<TypedInbox<T>, InboxError> {
        let inbox = self.schema(T::schema()?).open()?;
        Ok(TypedInbox { inbox, of: PhantomData })
    }
}
