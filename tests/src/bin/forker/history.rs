//! A publisher with a history, whose lock another thread of the parent's may have.

use librpc::{Node, Publisher};

use super::{CLOSED, Case, LIMIT, OUTBOX, case, went};

pub(super) struct Handles {
    publisher: Publisher,
}

impl Handles {
    pub(super) fn new(node: &Node) -> Self {
        let mut publisher = node.publisher_builder("kept").history(3).open().expect("a topic");
        let _ = publisher.publish(b"kept").expect("it is open");
        Self { publisher }
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("Node::publisher_builder", "ok", |h| went(h.node.publisher_builder("a/b").open())),
        case("PublisherBuilder::open", OUTBOX, |h| {
            went(h.node.publisher_builder("a/b").open().expect("a topic").publish(b"x"))
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
        case("Publisher::account (with a history)", "0", |mut h| h.history.publisher.account().sent.to_string()),
    ]
}
