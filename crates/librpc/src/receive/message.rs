//! The messages and events that an inbox hands out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Peer;
use crate::receive::topic_names::Names;
use crate::receive::turned_away::TurnedAway;
use crate::schema::{Schema, SchemaMismatch};
use crate::stats::{Denial, Refused};
use crate::sys::clock::now_ns;

/// A message that was handed out. Its payload is in the receiver's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) channel: usize,
    pub(crate) sequence: u64,
    pub(crate) topic: Option<u64>,
    pub(crate) redelivered: bool,
    pub(crate) past: bool,
    pub(crate) missed: u64,
    /// When it was sent, in ns of the shared clock; 0: it does not say.
    pub(crate) sent: u64,
}

/// A message. It is valid until the next receive.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    peer: &'a Arc<Peer>,
    payload: &'a [u8],
    topics: &'a Names,
    taken: &'a Taken,
}

impl<'a> Message<'a> {
    #[inline(always)]
    pub(crate) fn new(peer: &'a Arc<Peer>, topics: &'a Names, payload: &'a [u8], taken: &'a Taken) -> Self {
        Self { peer, payload, topics, taken }
    }

    /// The id of the node that sent it.
    #[inline]
    pub fn sender(&self) -> &'a str {
        &self.peer.node
    }

    /// Who sent it, as the kernel and the registry know it.
    #[inline]
    pub fn peer(&self) -> &'a Arc<Peer> {
        self.peer
    }

    /// What was sent: a private copy, or a large payload where its sender has put it, if the inbox trusts its publishers
    /// ([`crate::InboxBuilder::trust_publishers`]).
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The topic that it was published on; `None`: it was sent to the node itself.
    #[inline]
    pub fn topic(&self) -> Option<&'a str> {
        self.topics.of(self.taken.topic)
    }

    /// The type of the topic, as its publisher has declared it, or of what is sent to the node itself; `None`: bytes without a type.
    pub fn schema(&self) -> Option<&'a Arc<Schema>> {
        self.topics.schema_of(self.taken.topic)
    }

    /// How many messages of this outbox, before this one, were overwritten before they could be received, or passed over
    /// ([`crate::InboxBuilder::keep_last`], [`crate::Inbox::recv_latest`]). Otherwise 0.
    #[inline]
    pub fn missed(&self) -> u64 {
        self.taken.missed
    }

    /// Its number, counted from 0 by the outbox that sent it, for this inbox.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.taken.sequence
    }

    /// Whether an earlier incarnation of this node may have processed it already.
    #[inline]
    pub fn is_redelivered(&self) -> bool {
        self.taken.redelivered
    }

    /// Whether it was published before the subscription was opened, and kept for it: see [`crate::PublisherBuilder::history`].
    #[inline]
    pub fn is_past(&self) -> bool {
        self.taken.past
    }

    /// When it was sent, on the machine's monotonic clock (`CLOCK_MONOTONIC`), which all processes share: just before it was put into the
    /// inbox. `None`: it does not say. Each message of a sender says so if the sender wants that ([`crate::PublisherBuilder::stamp_all`],
    /// [`crate::SenderBuilder::stamp_all`]). Otherwise about one in 64 does. A message that is redelivered, or was kept as history, says when
    /// it was put into this inbox.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_sent_at_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (detector, camera) = (open("detector")?, open("camera")?);
    /// let mut frames = detector.subscribe("camera/front")?;
    /// let mut publisher = camera.publisher_builder("camera/front").stamp_all().open()?;
    /// publisher.publish(b"a frame")?;
    /// let frame = frames.recv()?.expect("nobody stops this inbox");
    /// println!("{:?} old", frame.age().expect("each is stamped"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn sent_at(&self) -> Option<Duration> {
        sent_at(self.taken.sent)
    }

    /// How long ago it was sent; `None`: it does not say ([`Message::sent_at`]).
    pub fn age(&self) -> Option<Duration> {
        age(self.taken.sent)
    }

    /// A copy that does not borrow the inbox.
    pub fn to_owned(&self) -> OwnedMessage {
        let Taken { sequence, missed, redelivered, past, topic, sent, .. } = *self.taken;
        let (peer, topic) = (self.peer.clone(), self.topics.of(topic).map(Arc::from));
        OwnedMessage {
            peer,
            topic,
            payload: self.payload.into(),
            sequence,
            missed,
            redelivered,
            past,
            sent_at: sent_at(sent),
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("sender", &self.sender())
            .field("topic", &self.topic())
            .field("payload", &self.payload)
            .field("sequence", &self.sequence())
            .field("missed", &self.missed())
            .field("redelivered", &self.is_redelivered())
            .field("past", &self.is_past())
            .finish()
    }
}

/// A time stamp of a record; 0: none.
pub(crate) fn sent_at(ns: u64) -> Option<Duration> {
    (ns != 0).then(|| Duration::from_nanos(ns))
}

/// How long ago that is. A sender may claim any time; one that is still to come counts as now.
pub(crate) fn age(ns: u64) -> Option<Duration> {
    sent_at(ns).map(|sent| Duration::from_nanos(now_ns()).saturating_sub(sent))
}

/// A copy of a message: [`Message::to_owned`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnedMessage {
    /// Who sent it.
    pub peer: Arc<Peer>,
    /// The topic, as in [`Message::topic`].
    pub topic: Option<Arc<str>>,
    /// What was sent.
    pub payload: Box<[u8]>,
    /// Its number, as in [`Message::sequence`].
    pub sequence: u64,
    /// As in [`Message::missed`].
    pub missed: u64,
    /// As in [`Message::is_redelivered`].
    pub redelivered: bool,
    /// As in [`Message::is_past`].
    pub past: bool,
    /// As in [`Message::sent_at`].
    pub sent_at: Option<Duration>,
}

impl OwnedMessage {
    /// The id of the node that sent it.
    pub fn sender(&self) -> &str {
        &self.peer.node
    }
}

/// What can happen at an inbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message.
    Message(Message<'a>),
    /// A sender has connected.
    SenderJoined(Arc<Peer>),
    /// A sender is gone. Everything that it had sent was received before this.
    SenderLeft(Arc<Peer>, Departure),
    /// A publisher does not let this subscription read a topic. Its other topics still come.
    Denied(Arc<Denial>),
    /// Messages of a sender did not get into this inbox. Each is counted in one event. While messages of that sender come, there is at most
    /// one event in 100 ms.
    TurnedAway(TurnedAway),
    /// A process that wanted to send to this node was refused.
    Refused(Arc<Refused>),
    /// A publisher's topic is of another type than this subscription wants, or what a sender sends to the node: none of its messages come.
    Mismatch(Arc<SchemaMismatch>),
}

/// Why a sender's channel has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It has closed its sender. Everything that it sent was received.
    Closed,
    /// Its process died. Everything that it had committed was received.
    Died,
    /// It has closed the connection, and its node is alive, or its state is unknown.
    Disconnected,
    /// It wrote something that is not valid. Nothing after that was received.
    Corrupt(String),
    /// It has declared more topics than a channel, or its user, may have ([`crate::Limits::topic_bytes_per_user`]). Nothing
    /// after that was received.
    TooMuch(String),
    /// It sends messages of another type than the inbox wants, although the list of inboxes says which. Nothing after that was
    /// received. A publisher that heeds the list sends none: [`Event::Mismatch`].
    Mismatch(Arc<SchemaMismatch>),
}
