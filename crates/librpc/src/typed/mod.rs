//! Messages of a type: what is published or sent is encoded, and what is received is decoded.
//!
//! The type travels in the list of inboxes and in the declaration of a topic or of a sender, and not with messages. Both sides compare it before a
//! message is sent, and the receiver again before one is handed out.

mod calls; //     requests and replies that are values
mod inbox; //     receiving values
mod plain; //     values as they lie in memory
mod publisher; // publishing values
mod sender; //    sending values to a node
#[cfg(feature = "json")]
mod json; //      values as JSON
#[cfg(feature = "postcard")]
mod postcard; //  values in postcard

use std::sync::Arc;

use crate::schema::{InvalidSchema, Schema};
use crate::text;

pub use self::calls::{
    TypedCallError, TypedClient, TypedPending, TypedReplies, TypedReply, TypedReplyError, TypedReplyStream,
    TypedRequest, TypedServer,
};
pub use self::inbox::{TypedInbox, TypedMessage, TypedSample};
#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::plain::Plain;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use self::publisher::{TypedPublishError, TypedPublisher};
pub use self::sender::{TypedSendError, TypedSender};

/// A type of messages: of what values, and how they are encoded. [`Plain`], and with the features of the same names `Postcard` and
/// `Json`; implement it for other encodings.
pub trait Typed {
    /// What is published.
    type Value: ?Sized;
    /// What a message is read as.
    type Read<'a>;

    /// What is compared with the other side's.
    ///
    /// # Errors
    ///
    /// [`InvalidSchema`].
    fn schema() -> Result<Schema, InvalidSchema>;

    /// The bytes of a value: its own, or those that are put into the buffer, which is empty.
    ///
    /// # Errors
    ///
    /// [`EncodeError`].
    fn encode<'a>(value: &'a Self::Value, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], EncodeError>;

    /// Reads a payload, which may be anything.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    fn decode(payload: &[u8]) -> Result<Self::Read<'_>, DecodeError>;
}

/// Why a value has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value cannot be encoded: {why}")]
pub struct EncodeError {
    /// Why.
    pub why: Arc<str>,
}

/// Why a payload is no value of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {} is no value of its type: {why}", text::bytes(*bytes))]
pub struct DecodeError {
    /// The payload's length in bytes.
    pub bytes: usize,
    /// Why.
    pub why: Arc<str>,
}

impl EncodeError {
    /// For this reason.
    pub fn new(why: impl std::fmt::Display) -> Self {
        Self { why: why.to_string().into() }
    }
}

impl DecodeError {
    /// For this reason.
    pub fn new(payload: &[u8], why: impl std::fmt::Display) -> Self {
        Self { bytes: payload.len(), why: why.to_string().into() }
    }
}
