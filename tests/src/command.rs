//! The protocol between a test and a puppet: one line of JSON for each command, and one for each reply.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a puppet sends back: an answer of the order's type, or the text of the error.
pub type Reply<Answer> = Result<Answer, String>;

/// A command, by its subject.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// The node.
    Node(NodeCommand),
    /// The subscription of this name; without one, the node's own inbox.
    Inbox(Option<String>, InboxCommand),
    /// The sender to this node.
    Sender(String, SenderCommand),
    /// The outbox that all topics of the puppet share.
    Topics(TopicsCommand),
    /// The process.
    Process(ProcessCommand),
}

#[expect(missing_docs, reason = "the functions in `orders` say what each does")]
#[derive(Debug, Serialize, Deserialize)]
pub enum NodeCommand {
    Open(Open),
    Close { limit: Duration },
    CloseAlone { limit: Duration },
    Leave,
    OpenAndLeave { id: String, times: u64 },
}

#[expect(missing_docs, reason = "the functions in `orders` say what each does")]
#[derive(Debug, Serialize, Deserialize)]
pub enum InboxCommand {
    Open(OpenInbox),
    Drop,
    Receive,
    TryReceive,
    ReceiveNumbers(RangeInclusive<u64>),
    ReceiveUntil { last: u64 },
    Collect { count: u64 },
    Hold { count: usize },
    Acknowledge,
    NextEvent,
    Denied,
}

#[expect(missing_docs, reason = "the functions in `orders` say what each does")]
#[derive(Debug, Serialize, Deserialize)]
pub enum SenderCommand {
    Connect { limit: Option<Duration> },
    TryConnect,
    SetLimit(Duration),
    SetRedelivery(Duration),
    Send { text: String },
    SendNumbers(RangeInclusive<u64>),
    Fill { bytes: usize },
    Flush { limit: Duration },
    Progress,
    Account,
    TakeReturned,
    Drop,
}

#[expect(missing_docs, reason = "the functions in `orders` say what each does")]
#[derive(Debug, Serialize, Deserialize)]
pub enum TopicsCommand {
    SetLimit(Duration),
    SetRedelivery(Duration),
    Publish { topic: String, text: String },
    PublishNumbers { topic: String, numbers: RangeInclusive<u64>, bytes: usize },
    Loan { topic: String, bytes: usize },
    Subscribers { topic: String },
    Flush { limit: Duration },
    Account,
}

#[expect(missing_docs, reason = "the functions in `orders` say what each does")]
#[derive(Debug, Serialize, Deserialize)]
pub enum ProcessCommand {
    Descriptors,
    LimitDescriptors { spare: u64 },
    UnlimitDescriptors,
    Fork { to: String },
}

/// How a node is opened.
#[must_use]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the methods say what each does")]
pub struct Open {
    pub id: String,
    pub group: Option<u32>,
    pub uids: Vec<u32>,
    pub executables: Vec<String>,
    pub only: Option<String>,
    pub never_decides: bool,
    pub channels_per_user: Option<u32>,
    pub handshake_timeout: Option<Duration>,
    pub readers: Vec<(String, u32)>,
    pub payload_bytes: Option<u64>,
}

impl Open {
    /// In a domain that is shared with this group.
    pub fn group(self, gid: u32) -> Self {
        Self { group: Some(gid), ..self }
    }

    /// The node admits this user, too.
    pub fn admitting_uid(mut self, uid: u32) -> Self {
        self.uids.push(uid);
        self
    }

    /// The node admits processes that run this program, too.
    pub fn admitting_executable(mut self, path: &str) -> Self {
        self.executables.push(path.into());
        self
    }

    /// The node has an admission function, which admits only the node of this id.
    pub fn admitting_only(self, id: &str) -> Self {
        Self { only: Some(id.into()), ..self }
    }

    /// The node has an admission function that never returns.
    pub fn never_deciding(self) -> Self {
        Self { never_decides: true, ..self }
    }

    /// The node limits the channels of each user.
    pub fn channels_per_user(self, channels: u32) -> Self {
        Self { channels_per_user: Some(channels), ..self }
    }

    /// The node lets only this user read topics that match this pattern.
    pub fn readers(mut self, pattern: &str, uid: u32) -> Self {
        self.readers.push((pattern.into(), uid));
        self
    }

    /// The node limits its memory for large payloads.
    pub fn payload_bytes(self, bytes: u64) -> Self {
        Self { payload_bytes: Some(bytes), ..self }
    }

    /// The node limits how long a peer may be silent in its handshake.
    pub fn handshake_timeout(self, limit: Duration) -> Self {
        Self { handshake_timeout: Some(limit), ..self }
    }
}

/// How an inbox is opened: the node's own, or a subscription.
#[must_use]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the methods say what each does")]
pub struct OpenInbox {
    pub name: Option<String>,
    pub patterns: Vec<String>,
    pub capacity: Option<u64>,
    pub max_message: Option<usize>,
    pub drop_newest: bool,
    pub latest: bool,
    pub explicit: bool,
    pub block: bool,
    pub durable: Option<String>,
    pub own: bool,
}

impl OpenInbox {
    /// The capacity of its rings, in bytes.
    pub fn capacity(self, bytes: u64) -> Self {
        Self { capacity: Some(bytes), ..self }
    }

    /// The longest message that it takes, in bytes.
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: Some(bytes), ..self }
    }

    /// A full inbox drops new messages.
    pub fn drop_newest(self) -> Self {
        Self { drop_newest: true, ..self }
    }

    /// A full inbox has its oldest messages overwritten.
    pub fn latest(self) -> Self {
        Self { latest: true, ..self }
    }

    /// Messages are acknowledged explicitly.
    pub fn explicit(self) -> Self {
        Self { explicit: true, ..self }
    }

    /// A receive sleeps at once when there is nothing.
    pub fn block(self) -> Self {
        Self { block: true, ..self }
    }

    /// A durable subscription of this name.
    pub fn durable(self, name: &str) -> Self {
        Self { durable: Some(name.into()), ..self }
    }

    /// A subscription that receives what its own node publishes, too.
    pub fn own(self) -> Self {
        Self { own: true, ..self }
    }
}

/// A message that a puppet has received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The node that sent it.
    pub from: String,
    /// The topic; empty if it was sent to the node itself.
    pub topic: String,
    /// Its number on the channel.
    pub number: u64,
    /// The payload.
    pub text: String,
    /// How many messages were missed before it.
    pub missed: u64,
    /// Whether it is delivered again.
    pub is_redelivered: bool,
}

impl Message {
    /// `number:text`, and `!` if it is redelivered.
    pub fn numbered(&self) -> String {
        let Self { number, text, .. } = self;
        format!("{number}:{text}{}", self.mark())
    }

    /// `from topic text missed`, and `!` if it is redelivered.
    pub fn in_full(&self) -> String {
        let Self { from, topic, text, missed, .. } = self;
        format!("{from} {topic} {text} {missed}{}", self.mark())
    }

    fn mark(&self) -> &'static str {
        if self.is_redelivered { "!" } else { "" }
    }
}

/// What happened at an inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A message came: the node that sent it, and the payload.
    Message(String, String),
    /// This node's sender has joined.
    Joined(String),
    /// This node's sender has left: `Closed`, `Died`, ...
    Left(String, String),
    /// This node does not let the subscription read this topic.
    Denied(String, String),
    /// Anything else.
    Other(String),
}

/// What happened to the messages of a sender, or of all topics: see [`librpc::Account`].
#[expect(missing_docs, reason = "as there")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub sent: u64,
    pub processed: u64,
    pub queued: u64,
    pub dropped: u64,
    pub returned: u64,
}

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// How many inboxes have the message.
    pub inboxes: usize,
    /// For how many inboxes it is pending.
    pub pending: usize,
    /// Why other inboxes do not have it.
    pub undelivered: Vec<String>,
}

/// What a forked child could do with the handles that it had inherited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InChild {
    /// The child's process id.
    pub pid: i32,
    /// The outcome of sending.
    pub sent: Reply<()>,
    /// The outcome of receiving.
    pub received: Reply<()>,
}
