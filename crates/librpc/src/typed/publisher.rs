//! Publishing values of a type.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::send::{PublishError, Publisher, PublisherBuilder, Receipt};
use crate::topic::InvalidTopic;
use crate::typed::{EncodeError, Typed};

/// Why a value was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedPublishError {
    /// It cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Its bytes were not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Publishes values of a type on one topic: [`crate::Node::publisher_of`].
///
/// Subscriptions of another type are not reached: the receipt of the first publish that finds one says so
/// ([`crate::SendError::Mismatch`]), and from then on it is in [`Publisher::mismatches`]. All else is as with a [`Publisher`].
pub struct TypedPublisher<T: Typed> {
    publisher: Publisher,
    buffer: Vec<u8>,
    of: PhantomData<fn(T)>,
}

impl<T: Typed> TypedPublisher<T> {
    /// Publishes a value, and waits for full inboxes up to the limit. As [`Publisher::publish`].
    ///
    /// # Errors
    ///
    /// [`TypedPublishError`].
    #[inline]
    pub fn publish(&mut self, value: &T::Value) -> Result<Receipt<'_>, TypedPublishError> {
        let Self { publisher, buffer, .. } = self;
        buffer.clear();
        Ok(publisher.publish(T::encode(value, buffer)?)?)
    }

    /// Publishes a value to those inboxes that have room. Does not block. As [`Publisher::try_publish`].
    ///
    /// # Errors
    ///
    /// [`TypedPublishError`].
    #[inline]
    pub fn try_publish(&mut self, value: &T::Value) -> Result<Receipt<'_>, TypedPublishError> {
        self.publish_timeout(value, Duration::ZERO)
    }

    /// Publishes a value, and waits for full inboxes up to this limit. As [`Publisher::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`TypedPublishError`].
    #[inline]
    pub fn publish_timeout(&mut self, value: &T::Value, timeout: Duration) -> Result<Receipt<'_>, TypedPublishError> {
        let Self { publisher, buffer, .. } = self;
        buffer.clear();
        Ok(publisher.publish_timeout(T::encode(value, buffer)?, timeout)?)
    }

    /// Publishes a value, in a task. As [`Publisher::publish_async`].
    ///
    /// # Errors
    ///
    /// [`TypedPublishError`].
    pub async fn publish_async(&mut self, value: &T::Value) -> Result<Receipt<'_>, TypedPublishError> {
        let Self { publisher, buffer, .. } = self;
        buffer.clear();
        Ok(publisher.publish_async(T::encode(value, buffer)?).await?)
    }
}

impl<T: Typed> Deref for TypedPublisher<T> {
    type Target = Publisher;

    fn deref(&self) -> &Publisher {
        &self.publisher
    }
}

/// Whoever publishes bytes says that they are a value of the type.
impl<T: Typed> DerefMut for TypedPublisher<T> {
    fn deref_mut(&mut self) -> &mut Publisher {
        &mut self.publisher
    }
}

impl<T: Typed> fmt::Debug for TypedPublisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedPublisher").field(&self.publisher).finish()
    }
}

impl PublisherBuilder<'_> {
    /// Opens a publisher of a type. Does not block.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`].
    pub fn open_of<T: Typed>(self) -> Result<TypedPublisher<T>, InvalidTopic> {
        let publisher = self.schema(T::schema()?).open()?;
        Ok(TypedPublisher { publisher, buffer: Vec::new(), of: PhantomData })
    }
}
