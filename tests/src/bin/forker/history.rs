//! A publisher with a history, whose lock another thread of the parent's may have, and one that was asked for events.

use librpc::{Node, Publisher, PublisherEvent, WaitSet};

use super::{CLOSED, Case, LIMIT, OUTBOX, case, said, went};

pub(super) struct Handles {
    publisher: Publisher,
    told: Publisher,
    event: PublisherEvent,
}

impl Handles {
    pub(super) fn new(node: &Node) -> Self {
        let mut publisher = node.publisher_builder("kept").history(3).open().expect("a topic");
        let _ = publisher.publish(b"kept").expect("it is open");
        assert_eq!(publisher.try_event().expect("it is open"), None);
        let mut told = node.publisher("topic").expect("a topic");
        let event = told.wait_for_event(LIMIT).expect("it is open").expect("the peer subscribes to it");
        Self { publisher, told, event }
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("Node::publisher_builder", "ok", |h| went(h.node.publisher_builder("a/b").open())),
        case("PublisherBuilder::open", OUTBOX, |h| {
            went(h.node.publisher_builder("a/b").open().expect("a topic").publish(b"x"))
        }),
        case("PublisherBuilder::never_waits", OUTBOX, |h| {
            went(h.node.publisher_builder("a/b").never_waits().open().expect("a topic").publish(b"x"))
        }),
        case("PublisherBuilder::history", OUTBOX, |h| {
            went(h.node.publisher_builder("a/b").history(3).open().expect("a topic").publish(b"x"))
        }),
        case("PublisherBuilder::history_bytes", OUTBOX, |h| {
            let builder = h.node.publisher_builder("a/b").history(3).history_bytes(100);
            went(builder.open().expect("a topic").publish(b"x"))
        }),
        case("InboxBuilder::history", CLOSED, |h| went(h.node.subscriber_builder(["a"]).history(3).open())),
        case("Message::is_past", "false", |h| h.message.is_past().to_string()),
        case("Sample::is_past", "false", |h| h.sample.is_past().to_string()),
        case("Publisher::publish (with a history)", OUTBOX, |mut h| went(h.history.publisher.publish(b"x"))),
        case("Publisher::publish_loan (with a history)", OUTBOX, |mut h| {
            went(h.history.publisher.publish_loan(h.loan))
        }),
        case("Publisher::loan (with a history)", OUTBOX, |mut h| went(h.history.publisher.loan(100))),
        case("Publisher::flush (with a history)", OUTBOX, |mut h| went(h.history.publisher.flush(LIMIT))),
        case("Publisher::subscribers (with a history)", OUTBOX, |mut h| went(h.history.publisher.subscribers())),
        case("Publisher::wait_for_subscriber (with a history)", OUTBOX, |mut h| {
            went(h.history.publisher.wait_for_subscriber(LIMIT))
        }),
        case("Publisher::try_event (with a history)", OUTBOX, |mut h| said(h.history.publisher.try_event())),
        case("Publisher::wait_for_event (with a history)", OUTBOX, |mut h| {
            said(h.history.publisher.wait_for_event(LIMIT))
        }),
        case("Publisher::try_event", OUTBOX, |mut h| said(h.history.told.try_event())),
        case("Publisher::try_event (not asked before)", OUTBOX, |mut h| said(h.publisher.try_event())),
        case("Publisher::wait_for_event", OUTBOX, |mut h| said(h.history.told.wait_for_event(LIMIT))),
        case("PublisherEvent::inbox", "peer", |h| h.history.event.inbox().node.to_string()),
        case("WaitSet::add (what was inherited)", OUTBOX, |mut h| {
            let mut set = WaitSet::new().expect("a set of the child's own");
            set.add(1, &h.history.told).expect("it is new");
            assert_eq!(set.wait().expect("it is the child's own"), [1]);
            said(h.history.told.try_event())
        }),
        case("Publisher::account (with a history)", "0", |mut h| h.history.publisher.account().sent.to_string()),
    ]
}
