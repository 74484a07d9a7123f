//! Pages, and what may be wrong with them.

use super::*;
use crate::wire::{Page, decode, encode};

impl ChannelStats {
    /// Each number is another one.
    pub(crate) fn example() -> Self {
        channel()
    }
}

fn channel() -> ChannelStats {
    let mut latency = Histogram::default();
    [9, 900, 90_000].into_iter().for_each(|ns| latency.record(ns));
    ChannelStats {
        peer: "camera".into(),
        peer_incarnation: Incarnation::from_bytes([7; 16]),
        peer_pid: 8,
        inbox: 1,
        ring: Some(2),
        state: ChannelState::Open,
        policy: Policy::DropOldest,
        topics: vec!["a/b".into()],
        types: vec!["".into()],
        depth: 11,
        depth_max: 12,
        capacity: 4096,
        sent: 13,
        bytes_sent: 14,
        dropped: 15,
        returned: 16,
        blocked: Duration::from_nanos(17),
        received: 18,
        bytes_received: 19,
        processed: 20,
        missed: 21,
        queued: 22,
        lent: 51,
        lent_bytes: 52,
        held: 53,
        too_large: 54,
        no_room: 55,
        no_memory: 56,
        last_sent: Some(Duration::from_nanos(23)),
        last_processed: None,
        latency,
    }
}

#[test]
fn what_a_stranger_writes_means_nothing_to_a_terminal() {
    let listed = ListedChannel { topics: vec!["a/\u{1b}[2Jb\u{9b}c\n".into()], ..(&channel()).into() };
    let channel = ChannelStats::try_from(listed).unwrap();
    assert_eq!(&*channel.topics[0], "a/[2Jbc");
}

#[test]
fn a_page_is_pinned_and_says_the_same_again() {
    let ended = totals(&(1..=13).collect::<Vec<_>>()).unwrap();
    let (address, policy) = (Address::Topics(["a/*".parse().unwrap()].into()), Policy::Block);
    let (peer, latency) = ("camera".into(), channel().latency);
    let pair = EndedChannels { peer, address: address.clone(), totals: ended, latency };
    let (by, topic, text) = ("camera".into(), "a/b".into(), "no".into());
    let denial = Denial { inbox: 1, by, uid: 6, topic, text, is_mismatch: false, mismatch: None };
    let (topic, schema, last_unheard) = ("a/b".into(), "Pose/json".into(), Some(Duration::from_nanos(34)));
    let published = PublishedTopic { topic, schema, publishers: 31, unheard: 32, unheard_bytes: 33, last_unheard };
    let (reason, text, last) = (Reason::NotAdmitted, "no".into(), Duration::from_nanos(64));
    let refused = Refused { uid: 61, pid: 62, reason, text, count: 63, last };
    let items = [
        Item::Inbox { number: 1, address, policy, capacity: 4096, ended },
        Item::Incoming(channel()),
        Item::Outgoing(channel()),
        Item::EndedIncoming(pair.clone()),
        Item::EndedOutgoing(pair),
        Item::Denied(denial),
        Item::Refused(refused),
        Item::Published(published),
    ];
    let next = Some(ListedPlace { part: 1, inbox: 0, serial: 9, begun: false });
    let (version, namespaces) = ("0.1.0".to_owned(), vec![("pid".to_owned(), 4)]);
    let page = Page {
        version,
        namespaces,
        items: items.iter().map(ListedItem::from).collect(),
        next,
        payloads: Some((4096, 8192)),
        left_out: Some(35),
    };
    let bytes = encode(&page);
    let again: Page = decode(&bytes).unwrap();
    assert_eq!(again, page);
    let read: Vec<Item> = again.items.into_iter().map(|item| item.try_into().unwrap()).collect();
    assert_eq!(format!("{read:?}"), format!("{items:?}"), "nothing is lost on the way");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, PINNED);
}

const PINNED: &str = "\
    a60065302e312e3001818263706964040288820081a50001018201818163612f2a021910000300048d010203040506070809\
    0a0b0c0d820181ab006663616d65726101500707070707070707070707070707070702080301040205010602078163612f62\
    08930b0c1910000d0e0f10111213141516183318341835183618371838098217f60a881a0001631d1a00015f900101183c01\
    18a501820281ab006663616d65726101500707070707070707070707070707070702080301040205010602078163612f6208\
    930b0c1910000d0e0f10111213141516183318341835183618371838098217f60a881a0001631d1a00015f900101183c0118\
    a501820381a4006663616d657261018201818163612f2a028d0102030405060708090a0b0c0d03881a0001631d1a00015f90\
    0101183c0118a501820481a4006663616d657261018201818163612f2a028d0102030405060708090a0b0c0d03881a000163\
    1d1a00015f900101183c0118a501820581a50001016663616d65726102060363612f6204626e6f820881a500183d01183e02\
    0203626e6f0482183f1840820781a40063612f620169506f73652f6a736f6e0283181f182018210318220384010009f40482\
    191000192000051823\
    ";

#[test]
fn invalid_statistics_are_refused() {
    let spoilt: [fn(&mut ListedChannel); 4] = [
        |channel| channel.counters.truncate(5),
        |channel| channel.latency.clear(),
        |channel| channel.policy = 99,
        |channel| channel.peer = "a/b".into(),
    ];
    for spoil in spoilt {
        let mut listed = ListedChannel::from(&channel());
        spoil(&mut listed);
        assert!(ChannelStats::try_from(listed).is_err());
    }
    let mut strange = ListedChannel::from(&channel());
    strange.latency.extend([u64::MAX, 5, 3]);
    assert_eq!(ChannelStats::try_from(strange).unwrap().latency.count(), 3, "no such bucket, and half a pair");
}
