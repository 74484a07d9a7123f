//! Sending values of a type to a node.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::send::{ConnectError, SendError, Sender, SenderBuilder};
use crate::typed::{EncodeError, Typed};

/// Why a value was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedSendError {
    /// It cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Its bytes were not sent.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Sends values of a type to one node: [`crate::Node::connect_of`].
///
/// A node whose inbox is of another type is not reached: connecting to it fails with [`ConnectError::Mismatch`], and where it has come
/// back with another type, sending with [`SendError::Mismatch`]. All else is as with a [`Sender`].
pub struct TypedSender<T: Typed> {
    sender: Sender,
    buffer: Vec<u8>,
    of: PhantomData<fn(T)>,
}

impl<T: Typed> TypedSender<T> {
    fn new(sender: Sender) -> Self {
        Self { sender, buffer: Vec::new(), of: PhantomData }
    }

    /// Sends a value, and waits for room up to the limit. As [`Sender::send`].
    ///
    /// # Errors
    ///
    /// [`TypedSendError`]; the value was not sent then.
    #[inline]
    pub fn send(&mut self, value: &T::Value) -> Result<(), TypedSendError> {
        let Self { sender, buffer, .. } = self;
        buffer.clear();
        Ok(sender.send(T::encode(value, buffer)?)?)
    }

    /// Sends a value if there is room. Does not block. As [`Sender::try_send`].
    ///
    /// # Errors
    ///
    /// [`TypedSendError`]; the value was not sent then.
    #[inline]
    pub fn try_send(&mut self, value: &T::Value) -> Result<(), TypedSendError> {
        self.send_timeout(value, Duration::ZERO)
    }

    /// Sends a value, and waits for room up to this limit. As [`Sender::send_timeout`].
    ///
    /// # Errors
    ///
    /// [`TypedSendError`]; the value was not sent then.
    #[inline]
    pub fn send_timeout(&mut self, value: &T::Value, timeout: Duration) -> Result<(), TypedSendError> {
        let Self { sender, buffer, .. } = self;
        buffer.clear();
        Ok(sender.send_timeout(T::encode(value, buffer)?, timeout)?)
    }

    /// Sends a value, in a task. As [`Sender::send_async`].
    ///
    /// # Errors
    ///
    /// [`TypedSendError`]; the value was not sent then.
    pub async fn send_async(&mut self, value: &T::Value) -> Result<(), TypedSendError> {
        let Self { sender, buffer, .. } = self;
        buffer.clear();
        Ok(sender.send_async(T::encode(value, buffer)?).await?)
    }
}

impl<T: Typed> Deref for TypedSender<T> {
    type Target = Sender;

    fn deref(&self) -> &Sender {
        &self.sender
    }
}

/// Whoever sends bytes says that they are a value of the type.
impl<T: Typed> DerefMut for TypedSender<T> {
    fn deref_mut(&mut self) -> &mut Sender {
        &mut self.sender
    }
}

impl<T: Typed> fmt::Debug for TypedSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedSender").field(&self.sender).finish()
    }
}

impl SenderBuilder<'_> {
    /// Connects to the node for values of a type. As [`SenderBuilder::open`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn open_of<T: Typed>(self) -> Result<TypedSender<T>, ConnectError> {
        self.schema(T::schema()?).open().map(TypedSender::new)
    }

    /// The same in a task. As [`SenderBuilder::open_async`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn open_of_async<T: Typed>(self) -> Result<TypedSender<T>, ConnectError> {
        self.schema(T::schema()?).open_async().await.map(TypedSender::new)
    }
}
