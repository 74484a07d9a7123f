//! The messages of a handshake. `wire/mod.rs` draws their order.

use minicbor::data::Type;
use minicbor::{Decode, Encode};

use crate::schema::ListedSchema;
use crate::wire::{ListedPlace, Page};

/// The version of the handshake that this library speaks.
pub(crate) const PROTOCOL: u32 = 2;

/// Feature bit. Sender: registered for `membarrier`, so it needs no fence of its own. Receiver: has a barrier in its senders
/// each time it arms.
pub(crate) const FENCED_BY_RECEIVER: u64 = 1;

/// The beginning of every first message, in all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Versions {
    /// The lowest and the highest version that the peer speaks.
    #[n(0)]
    pub(crate) lowest: u32,
    #[n(1)]
    pub(crate) highest: u32,
}

impl Versions {
    /// Whether this library's version is among them.
    pub(crate) fn include_ours(self) -> bool {
        self.lowest <= PROTOCOL && PROTOCOL <= self.highest
    }
}

/// The sender's first message. In a private domain the data memfd comes with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Hello {
    #[n(0)]
    pub(crate) lowest: u32,
    #[n(1)]
    pub(crate) highest: u32,
    /// Feature bits of the sender. A receiver ignores those that it does not know.
    #[n(2)]
    pub(crate) features: u64,
    /// The sender's node.
    #[n(3)]
    pub(crate) node: String,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(crate) incarnation: [u8; 16],
    /// The incarnation that the sender wants to reach.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(crate) target: [u8; 16],
    /// The number of the inbox, from the node's file.
    #[n(6)]
    pub(crate) inbox: u32,
    /// The number of the connection that the channel uses: random, chosen by the sender.
    #[n(7)]
    pub(crate) connection: u64,
    /// Whether this socket becomes that connection. Otherwise it closes after the handshake.
    #[n(8)]
    pub(crate) opens: bool,
    /// The memory that comes with this message; `None`: it comes after the terms.
    #[n(9)]
    pub(crate) data: Option<Data>,
}

/// An observer's message, the first one and every later one. An array, where a [`Hello`] is a map.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Observe {
    /// The lowest and the highest version that the observer speaks.
    #[n(0)]
    pub(crate) lowest: u32,
    #[n(1)]
    pub(crate) highest: u32,
    /// The incarnation that the observer asks.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) target: [u8; 16],
    /// The place after which the page is to begin; `None`: at the beginning.
    #[n(3)]
    pub(crate) behind: Option<ListedPlace>,
}

impl Observe {
    /// Whether a first message is an observer's.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        matches!(minicbor::Decoder::new(bytes).datatype(), Ok(Type::Array))
    }
}

/// A publisher's message to a subscription that may not read a topic. Tagged, where a [`Hello`] is a map and an [`Observe`] an
/// array. It has no answer; a node that does not know it refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map, tag(40_001))]
pub(crate) struct Deny {
    /// The lowest and the highest version that the publisher speaks.
    #[n(0)]
    pub(crate) lowest: u32,
    #[n(1)]
    pub(crate) highest: u32,
    /// The publisher's node.
    #[n(2)]
    pub(crate) node: String,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) incarnation: [u8; 16],
    /// The incarnation that subscribes.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(crate) target: [u8; 16],
    /// The number of the subscription's inbox.
    #[n(5)]
    pub(crate) inbox: u32,
    #[n(6)]
    pub(crate) topic: String,
    /// The reason, in words.
    #[n(7)]
    pub(crate) text: String,
    /// The topic is of another type than the inbox wants, or a service than its client.
    #[n(8)]
    pub(crate) mismatch: Option<Typed>,
}

/// What a topic is at its publisher, or the requests or replies of a service at its client.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Typed {
    /// `None`: bytes without a type.
    #[n(0)]
    pub(crate) schema: Option<ListedSchema>,
    /// The inbox wants another one.
    #[n(1)]
    pub(crate) wanted: Option<ListedSchema>,
}

impl Deny {
    /// Whether a first message is one.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        tag(bytes) == Some(40_001)
    }
}

/// A sender hands over a memory for payloads, to the inbox at the end of one of its channels. In a private domain the memfd comes
/// with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map, tag(40_002))]
pub(crate) struct Lend {
    /// The lowest and the highest version that the sender speaks.
    #[n(0)]
    pub(crate) lowest: u32,
    #[n(1)]
    pub(crate) highest: u32,
    /// The incarnation that receives.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(crate) target: [u8; 16],
    #[n(3)]
    pub(crate) inbox: u32,
    /// The channel: its connection's number, and its ring's on it.
    #[n(4)]
    pub(crate) connection: u64,
    #[n(5)]
    pub(crate) ring: u32,
    /// The memory's number, and its length in bytes.
    #[n(6)]
    pub(crate) segment: u64,
    #[n(7)]
    pub(crate) bytes: u64,
}

impl Lend {
    /// Whether a first message is one.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        tag(bytes) == Some(40_002)
    }
}

/// The number of a message's tag, if it has one.
fn tag(bytes: &[u8]) -> Option<u64> {
    let mut decoder = minicbor::Decoder::new(bytes);
    matches!(decoder.datatype(), Ok(Type::Tag)).then(|| decoder.tag().ok()).flatten().map(|tag| tag.as_u64())
}

/// What the ring must be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Terms {
    #[n(0)]
    pub(crate) version: u32,
    /// Those feature bits of the sender that the receiver makes use of.
    #[n(1)]
    pub(crate) features: u64,
    /// Capacity of the ring in bytes.
    #[n(2)]
    pub(crate) capacity: u64,
    /// What happens to a message when the inbox is full. This fixes the ring's mode.
    #[n(3)]
    pub(crate) policy: u32,
}

/// The sender's memory. A separate message if the memory comes after the terms.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Data {
    #[n(0)]
    pub(crate) capacity: u64,
    #[n(1)]
    pub(crate) policy: u32,
}

/// The receiver's last message; the ack memfd comes with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Attached {
    /// The ring's number on its connection.
    #[n(0)]
    pub(crate) ring: u32,
    /// As in [`Terms`].
    #[n(1)]
    pub(crate) features: u64,
}

/// Why the receiver does not take a connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Refusal {
    #[n(0)]
    pub(crate) reason: u32,
    #[n(1)]
    pub(crate) text: String,
}

/// The answer of a receiver to a sender, or of a node to an observer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Answer {
    #[n(0)]
    Terms(#[n(0)] Terms),
    #[n(1)]
    Attached(#[n(0)] Attached),
    #[n(2)]
    Refusal(#[n(0)] Refusal),
    #[n(3)]
    Page(#[n(0)] Page),
    /// A memory for payloads may be sent now.
    #[n(4)]
    Ready,
    /// It was mapped. The socket stays open for as long as it is.
    #[n(5)]
    Lent,
}
