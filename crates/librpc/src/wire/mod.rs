//! The messages of the rendezvous, and the list of inboxes in a node's file: CBOR maps with numbered keys, so that a
//! reader skips what a later version adds. Everything here is decoded from bytes that a stranger wrote.
//!
//! ```text
//! in a private domain: one message, which the kernel keeps whatever becomes of the sender
//!
//! sender                                   receiver
//! Hello  + data memfd  ─────────────────▶  admission, checks, maps, attaches
//!        ◀──────────────────────────────   Attached + ack memfd               (or Refusal)
//!
//! in a shared domain: no descriptor is accepted before admission
//!
//! Hello  versions, who, to what  ───────▶  admission
//!        ◀──────────────────────────────   Terms: what the ring must be      (or Refusal)
//! Data   + data memfd  ─────────────────▶  checks, maps, attaches
//!        ◀──────────────────────────────   Attached + ack memfd               (or Refusal)
//!
//! then, on the socket that opened the connection, both ways: bells (see `link/bell.rs`)
//!
//! observer                                 any node
//! Observe  versions, whom  ──────────────▶  admission
//!        ◀──────────────────────────────   Page: statistics, and where it ends   (or Refusal)
//! Observe  after that place  ────────────▶  and so on, until a page is the last
//!
//! publisher                                subscription's node
//! Deny     versions, who, what  ─────────▶  admission, keeps it; no answer
//!
//! sender of large payloads                 receiver
//! Lend  + memfd  ────────────────────────▶  checks, maps; in a shared domain it first says Ready, and the memfd follows
//!        ◀──────────────────────────────   Lent                               (or Refusal)
//! ```

use minicbor::{Decode, Encode};

mod call; //      what client and server say about a call
mod handshake; // hello, terms, data, attached, refusal
mod inbox; //     an inbox in a node's file
mod page; //      what the pages of a node's statistics hold
mod reason; //    why a connection is refused

pub(crate) use call::{Caller, Cause, Credit, Failure, LONGEST_OF_CALL};
pub(crate) use handshake::{
    Answer, Attached, Data, Deny, FENCED_BY_RECEIVER, Hello, Lend, Observe, PROTOCOL, Refusal, Terms, Typed, Versions,
};
pub(crate) use inbox::{DEFAULT_MAX_MESSAGE, ListedAddress, ListedInbox};
pub(crate) use page::{
    ListedCalls, ListedChannel, ListedDenial, ListedEnded, ListedItem, ListedPlace, ListedRefused, ListedTopic,
    ListedTotals, Page,
};
pub use reason::Reason;

/// Bytes that are not the expected message.
#[derive(Debug, thiserror::Error)]
#[error("invalid message: {0}")]
pub(crate) struct BadMessage(#[from] minicbor::decode::Error);

/// The message as bytes.
pub(crate) fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).expect("a vector takes every byte")
}

/// Decodes a message from another process.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, BadMessage> {
    Ok(minicbor::decode(bytes)?)
}

/// The first `most` items of a list from another process, and whether there are more.
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
            lowest: 2,
            highest: 2,
            features: 0,
            node: "a".into(),
            incarnation: [0x11; 16],
            target: [0x22; 16],
            inbox: 3,
            connection: 4,
            opens: true,
            data: None,
        };
        let bytes = encode(&hello);
        assert_eq!(
            hex(&bytes),
            "a9000201020200036161045011111111111111111111111111111111055022222222222222222222222222222222\
             0603070408f5"
        );
        let with_memory = Hello { opens: false, data: Some(Data { capacity: 4096, policy: 0 }), ..hello.clone() };
        assert!(hex(&encode(&with_memory)).ends_with("0603070408f409a2001910000100"));
        assert_eq!(decode::<Hello>(&bytes).unwrap(), hello);
    }

    #[test]
    fn the_versions_of_any_hello_can_be_read() {
        // A hello of version 1 lacks the fields that version 2 added.
        let old =
            "a8000101010200036161045011111111111111111111111111111111055022222222222222222222222222222222060307f6";
        let bytes: Vec<u8> =
            (0..old.len()).step_by(2).map(|at| u8::from_str_radix(&old[at..at + 2], 16).unwrap()).collect();
        assert!(decode::<Hello>(&bytes).is_err());
        let versions = decode::<Versions>(&bytes).unwrap();
        assert_eq!(versions, Versions { lowest: 1, highest: 1 });
        assert!(!versions.include_ours() && Versions { lowest: 1, highest: 9 }.include_ours());
    }

    #[test]
    fn observe_is_pinned_and_is_no_hello() {
        let first = Observe { lowest: 2, highest: 2, target: [0x22; 16], behind: None };
        assert_eq!(hex(&encode(&first)), "830202".to_owned() + "5022222222222222222222222222222222");
        let place = ListedPlace { part: 0, inbox: 7, serial: 300, begun: true };
        let next = Observe { behind: Some(place), ..first };
        let bytes = encode(&next);
        assert_eq!(hex(&bytes), "840202".to_owned() + "5022222222222222222222222222222222" + "84000719012cf5");
        assert_eq!(decode::<Observe>(&bytes).unwrap(), next);
        assert!(Observe::is_one(&bytes));
        assert!(!Observe::is_one(&[0xa8, 0x00, 0x01]) && !Observe::is_one(&[]));
    }

    #[test]
    fn deny_is_pinned_and_is_nothing_else() {
        let deny = Deny {
            lowest: 2,
            highest: 2,
            node: "a".into(),
            incarnation: [0x11; 16],
            target: [0x22; 16],
            inbox: 3,
            topic: "t".into(),
            text: "no".into(),
            mismatch: None,
        };
        let bytes = encode(&deny);
        let pinned = "d99c41a8000201020261610350111111111111111111111111111111110450222222222222222222222222222222\
                      220503066174076 26e6f"
            .replace(' ', "");
        assert_eq!(hex(&bytes), pinned);
        assert_eq!(decode::<Deny>(&bytes).unwrap(), deny);
        assert!(Deny::is_one(&bytes) && !Observe::is_one(&bytes) && !Deny::is_one(&[0xa8, 0x00, 0x01]));
        assert!(decode::<Versions>(&bytes).is_err(), "a node that does not know it refuses it as no hello");
    }

    #[test]
    fn lend_is_pinned_and_is_nothing_else() {
        let lend = Lend {
            lowest: 2,
            highest: 2,
            target: [0x22; 16],
            inbox: 3,
            connection: 4,
            ring: 5,
            segment: 0x1234,
            bytes: 4096,
        };
        let bytes = encode(&lend);
        let pinned =
            "d99c42a800020102025022222222222222222222222222222222030304040505061912340719 1000".replace(' ', "");
        assert_eq!(hex(&bytes), pinned);
        assert_eq!(decode::<Lend>(&bytes).unwrap(), lend);
        assert!(Lend::is_one(&bytes) && !Deny::is_one(&bytes) && !Observe::is_one(&bytes) && !Lend::is_one(&[0xa8]));
        assert!(decode::<Versions>(&bytes).is_err(), "a node that does not know it refuses it as no hello");
    }

    #[test]
    fn answers_are_pinned() {
        let terms = Answer::Terms(Terms { version: 2, features: 0, capacity: 262_144, policy: 0 });
        let attached = Answer::Attached(Attached { ring: 2, features: 1 });
        let refusal = Answer::Refusal(Refusal { reason: 4, text: "no".into() });
        let pinned = [
            (terms, "820081a400020100021a000400000300"),
            (attached, "820181a200020101"),
            (refusal, "820281a2000401626e6f"),
            (Answer::Ready, "820480"),
            (Answer::Lent, "820580"),
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
            max_message: None,
            history: None,
            schemas: None,
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
