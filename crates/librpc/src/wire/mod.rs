//! The messages of the rendezvous, and the list of inboxes in a node's file: CBOR maps with numbered keys, so that a
//! reader skips what a later version adds. Everything here is decoded from bytes that a stranger wrote.
//!
//! ```text
//! sender                                   receiver
//! Hello  versions, who, to what  ───────▶  admission
//!        ◀──────────────────────────────   Terms: what the ring must be      (or Refusal)
//! Data   + data memfd  ─────────────────▶  checks, maps, attaches
//!        ◀──────────────────────────────   Attached + ack memfd               (or Refusal)
//! then, on the first connection to this inbox only, both ways: bells (see `bell.rs`)
//!
//! observer                                 any node
//! Observe  versions, whom  ──────────────▶  admission
//!        ◀──────────────────────────────   Page: statistics, and where it ends   (or Refusal)
//! Observe  behind that place  ───────────▶  and so on, until a page is the last
//! ```

use minicbor::data::Type;
use minicbor::{Decode, Encode};

use crate::name::Address;

mod reason; // why a connection is refused
mod page; // what the pages of a node's statistics hold

pub(crate) use page::{ListedChannel, ListedItem, ListedPlace, ListedTotals, Page};
pub use reason::Reason;

/// The version of the handshake that this library speaks.
pub(crate) const PROTOCOL: u32 = 1;

/// An ability, of a sender: it counts as fenced by the `membarrier` of others. Of a receiver: it has one, each time it arms.
pub(crate) const FENCED_BY_RECEIVER: u64 = 1;

/// The sender's first message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Hello {
    /// The lowest and the highest version that the sender speaks.
    #[n(0)]
    pub(crate) lowest: u32,
    #[n(1)]
    pub(crate) highest: u32,
    /// Optional abilities of the sender.
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
    /// The connection to which the new ring is to be added.
    #[n(7)]
    pub(crate) connection: Option<u64>,
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
    /// Behind which place the page is to begin; `None`: at the beginning.
    #[n(3)]
    pub(crate) behind: Option<ListedPlace>,
}

impl Observe {
    /// Whether a first message is an observer's.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        matches!(minicbor::Decoder::new(bytes).datatype(), Ok(Type::Array))
    }
}

/// What the ring must be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Terms {
    #[n(0)]
    pub(crate) version: u32,
    /// Those of them that the receiver makes use of.
    #[n(1)]
    pub(crate) features: u64,
    /// Capacity of the ring in bytes.
    #[n(2)]
    pub(crate) capacity: u64,
    /// What happens to a message that finds the inbox full; it fixes the ring's mode.
    #[n(3)]
    pub(crate) policy: u32,
}

/// The sender's second message; the data memfd comes with it.
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
    /// The connection's number, for further rings.
    #[n(0)]
    pub(crate) connection: u64,
    /// The ring's number on the connection.
    #[n(1)]
    pub(crate) ring: u32,
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

/// What the receiver says to a sender.
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
}

/// An inbox, as its node's file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedInbox {
    #[n(0)]
    pub(crate) number: u32,
    #[n(1)]
    pub(crate) address: ListedAddress,
    #[n(2)]
    pub(crate) capacity: u64,
    #[n(3)]
    pub(crate) policy: u32,
    /// Whether it wants what its own node publishes, too.
    #[n(4)]
    pub(crate) own: bool,
    /// The name under which a subscription may be taken up again.
    #[n(5)]
    pub(crate) durable: Option<String>,
}

/// What an inbox receives, as its node's file says it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum ListedAddress {
    #[n(0)]
    Node,
    #[n(1)]
    Patterns(#[n(0)] Vec<String>),
    #[n(2)]
    Service(#[n(0)] String),
}

impl From<&Address> for ListedAddress {
    fn from(address: &Address) -> Self {
        match address {
            Address::Node => Self::Node,
            Address::Topics(patterns) => Self::Patterns(patterns.iter().map(ToString::to_string).collect()),
        }
    }
}

/// Bytes that are not the message that was due.
#[derive(Debug, thiserror::Error)]
#[error("a message that cannot be read: {0}")]
pub(crate) struct BadMessage(#[from] minicbor::decode::Error);

/// The message as bytes.
pub(crate) fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).expect("a vector takes every byte")
}

/// A message from a stranger's bytes.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, BadMessage> {
    Ok(minicbor::decode(bytes)?)
}

/// The first items of a list from a stranger's bytes, at most so many, and whether there are more.
pub(crate) fn decode_list<'b, T: Decode<'b, ()>>(bytes: &'b [u8], most: usize) -> Result<(Vec<T>, bool), BadMessage> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut items = decoder.array_iter()?;
    let list = items.by_ref().take(most).collect::<Result<_, _>>()?;
    Ok((list, items.next().transpose()?.is_some()))
}

#[cfg(test)]
mod golden {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hello_is_pinned() {
        let hello = Hello {
            lowest: 1,
            highest: 1,
            features: 0,
            node: "a".into(),
            incarnation: [0x11; 16],
            target: [0x22; 16],
            inbox: 3,
            connection: Some(4),
        };
        let bytes = encode(&hello);
        assert_eq!(
            hex(&bytes),
            "a8000101010200036161045011111111111111111111111111111111055022222222222222222222222222222222\
             06030704"
        );
        assert_eq!(decode::<Hello>(&bytes).unwrap(), hello);
    }

    #[test]
    fn observe_is_pinned_and_is_no_hello() {
        let first = Observe { lowest: 1, highest: 1, target: [0x22; 16], behind: None };
        assert_eq!(hex(&encode(&first)), "830101".to_owned() + "5022222222222222222222222222222222");
        let place = ListedPlace { part: 0, inbox: 7, serial: 300, begun: true };
        let next = Observe { behind: Some(place), ..first };
        let bytes = encode(&next);
        assert_eq!(hex(&bytes), "840101".to_owned() + "5022222222222222222222222222222222" + "84000719012cf5");
        assert_eq!(decode::<Observe>(&bytes).unwrap(), next);
        assert!(Observe::is_one(&bytes));
        assert!(!Observe::is_one(&[0xa8, 0x00, 0x01]) && !Observe::is_one(&[]));
    }

    #[test]
    fn answers_are_pinned() {
        let terms = Answer::Terms(Terms { version: 1, features: 0, capacity: 262_144, policy: 0 });
        let attached = Answer::Attached(Attached { connection: 7, ring: 2 });
        let refusal = Answer::Refusal(Refusal { reason: 4, text: "no".into() });
        let pinned = [
            (terms, "820081a400010100021a000400000300"),
            (attached, "820181a200070102"),
            (refusal, "820281a2000401626e6f"),
        ];
        for (answer, expected) in pinned {
            let bytes = encode(&answer);
            assert_eq!(hex(&bytes), expected);
            assert_eq!(decode::<Answer>(&bytes).unwrap(), answer);
        }
    }

    #[test]
    fn data_and_the_list_of_inboxes_are_pinned() {
        assert_eq!(hex(&encode(&Data { capacity: 4096, policy: 0 })), "a2001910000100");
        let list = vec![ListedInbox {
            number: 1,
            address: ListedAddress::Node,
            capacity: 4096,
            policy: 0,
            own: false,
            durable: None,
        }];
        assert_eq!(hex(&encode(&list)), "81a500010182008002191000030004f4");
        assert_eq!(decode::<Vec<ListedInbox>>(&encode(&list)).unwrap(), list);
    }

    #[test]
    fn keys_of_a_later_version_are_skipped() {
        let later = [0xa3, 0x00, 0x19, 0x10, 0x00, 0x01, 0x00, 0x18, 0x63, 0x61, 0x78];
        assert_eq!(decode::<Data>(&later).unwrap(), Data { capacity: 4096, policy: 0 });
    }
}
