//! Why a call, or an answer, has failed.

use std::sync::Arc;
use std::time::Duration;

use crate::receive::{InboxError, RecvError};
use crate::schema::InvalidSchema;
use crate::send::SendError;
use crate::stats::CallFailure;
use crate::sys::OsError;
use crate::text;
use crate::topic::InvalidTopic;
use crate::wire::Reason;

/// Why a call has failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No node serves it, or not the one that was asked for.
    #[error("nobody serves {service:?}{}", .node.as_ref().map_or(String::new(), |node| format!(" on node {node:?}")))]
    NoServer {
        /// The service.
        service: Arc<str>,
        /// The node that was asked for.
        node: Option<Arc<str>>,
    },
    /// The time was up. Nothing is delivered afterwards, and the server learns that nobody waits.
    #[error("service {service:?} has not answered within {timeout:?}")]
    Deadline {
        /// The service.
        service: Arc<str>,
        /// The limit.
        timeout: Duration,
    },
    /// A [`crate::CancelHandle`] has cancelled the call. Nothing is delivered afterwards, and the server learns it.
    #[error("the call of {service:?} was cancelled")]
    Cancelled {
        /// The service.
        service: Arc<str>,
    },
    /// The server is gone.
    #[error(
        "the server of {service:?}, node {node:?}, is gone: {}",
        if *.taken { "it had taken the request, and may have carried it out" } else { "it had not taken the request" }
    )]
    ServerDied {
        /// The service.
        service: Arc<str>,
        /// The server's node.
        node: Arc<str>,
        /// Whether it had taken the request, and so may have carried it out. If not, no other server was there to take it.
        taken: bool,
    },
    /// There are as many calls in flight as there may be, here or at the server. The request was not taken.
    #[error("service {service:?} is busy: {what}")]
    Busy {
        /// The service.
        service: Arc<str>,
        /// Whose limit it is.
        what: Arc<str>,
    },
    /// The server does not know such requests.
    #[error("service {service:?} of node {node:?} does not know this request: {text}")]
    Unimplemented {
        /// The service.
        service: Arc<str>,
        /// The server's node.
        node: Arc<str>,
        /// What the server says.
        text: Arc<str>,
    },
    /// The answer is not of the kind that the call expects, or the service is of other types ([`crate::ClientBuilder::schemas`]): then
    /// nothing was sent.
    #[error("service {service:?} of node {node:?} {why}")]
    Mismatch {
        /// The service.
        service: Arc<str>,
        /// The server's node.
        node: Arc<str>,
        /// What is different.
        why: Arc<str>,
    },
    /// The server says that the request has failed.
    #[error("service {service:?} of node {node:?} has failed ({code}): {message}")]
    Failed {
        /// The service.
        service: Arc<str>,
        /// The server's node.
        node: Arc<str>,
        /// A number that client and server agree on; 0 if the server dropped the request.
        code: i32,
        /// What the server says.
        message: Arc<str>,
    },
    /// The server does not let this client call the service.
    #[error("node {node:?} refuses calls of {service:?} ({reason:?}): {text}")]
    Refused {
        /// The service.
        service: Arc<str>,
        /// The server's node.
        node: Arc<str>,
        /// Why.
        reason: Reason,
        /// Why, in the server's words.
        text: Arc<str>,
    },
    /// The request could not be sent.
    #[error("the request to {service:?} could not be sent: {source}")]
    Send {
        /// The service.
        service: Arc<str>,
        /// Why.
        source: Arc<SendError>,
    },
    /// The reply could not be received.
    #[error("the reply of {service:?} could not be received: {source}")]
    Receive {
        /// The service.
        service: Arc<str>,
        /// Why.
        source: Arc<RecvError>,
    },
    /// The servers could not be looked up.
    #[error("the servers of {service:?} could not be looked up: {source}")]
    Lookup {
        /// The service.
        service: Arc<str>,
        /// Why.
        source: Arc<OsError>,
    },
    /// The client's node was closed.
    #[error("node {node:?} is closed")]
    Closed {
        /// The node.
        node: Arc<str>,
    },
    /// The client was made before a fork, and belongs to the parent process.
    #[error("this client belongs to the process that forked this one: open a node of its own here")]
    Forked,
}

impl CallError {
    /// What kind of error it is, as statistics count it ([`crate::CallStats`]): for a `match`, or to count errors by it.
    pub fn kind(&self) -> CallFailure {
        match self {
            Self::NoServer { .. } => CallFailure::NoServer,
            Self::Deadline { .. } => CallFailure::Deadline,
            Self::Cancelled { .. } => CallFailure::Cancelled,
            Self::ServerDied { .. } => CallFailure::ServerDied,
            Self::Busy { .. } => CallFailure::Busy,
            Self::Unimplemented { .. } => CallFailure::Unimplemented,
            Self::Mismatch { .. } => CallFailure::Mismatch,
            Self::Failed { .. } => CallFailure::Failed,
            Self::Refused { .. } => CallFailure::Refused,
            Self::Send { .. } | Self::Receive { .. } | Self::Lookup { .. } | Self::Closed { .. } | Self::Forked => {
                CallFailure::Other
            }
        }
    }
}

/// Why an answer was not sent. A client that is gone, or no longer waits, is no error: see [`crate::Request::is_cancelled`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// It is longer than the client takes. The client learns that.
    #[error("a reply of {} exceeds the limit of node {node:?}, {}", text::bytes(*bytes), text::bytes(*max))]
    TooLarge {
        /// The client's node.
        node: Arc<str>,
        /// The reply's length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The client does not read its replies, and more than 64 MiB of them wait for it. It learns that this one is lost.
    #[error("node {node:?} does not read its replies: this one was dropped")]
    Dropped {
        /// The client's node.
        node: Arc<str>,
    },
    /// The clients of this client's user do not read their replies, and as many bytes as they may have wait for them
    /// ([`crate::Limits::waiting_bytes_per_user`]). The client learns that this one is lost.
    #[error(
        "more than {limit} bytes would wait for the clients of uid {uid} that do not read their replies: this one to node {node:?} was \
         dropped (Limits::waiting_bytes_per_user)"
    )]
    OverLimit {
        /// The client's node.
        node: Arc<str>,
        /// The user.
        uid: u32,
        /// The limit in bytes.
        limit: u64,
    },
    /// The client no longer waits, or is gone, so a stream of parts has no reader.
    #[error("node {node:?} no longer waits for this reply")]
    Cancelled {
        /// The client's node.
        node: Arc<str>,
    },
    /// The client did not take the part in time.
    #[error("node {node:?} has not taken a part of the reply within the time of its call")]
    Deadline {
        /// The client's node.
        node: Arc<str>,
    },
    /// The server's node was closed.
    #[error("node {node:?} is closed")]
    Closed {
        /// The server's node.
        node: Arc<str>,
    },
    /// It could not be sent for another reason.
    #[error(transparent)]
    Send(Arc<SendError>),
    /// The server's inbox failed.
    #[error(transparent)]
    Receive(Arc<RecvError>),
    /// The server was opened before a fork, and belongs to the parent process.
    #[error("this server belongs to the process that forked this one: open a node of its own here")]
    Forked,
}

/// Why a server or a client could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The name of the service is not valid: it follows the rules of topics.
    #[error("invalid name of a service, which follows the rules of topics: {0}")]
    InvalidService(#[from] InvalidTopic),
    /// The type of its requests or of its replies has no valid name.
    #[error(transparent)]
    Type(#[from] InvalidSchema),
    /// Its inbox could not be opened.
    #[error(transparent)]
    Inbox(#[from] InboxError),
}
