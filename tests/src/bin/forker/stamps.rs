//! Stamps, messages from several slices, and what errors are about.

use std::io::IoSlice;

use librpc::{CallError, Event, Node, SendError, TurnedAway};

use super::{Case, LIMIT, OUTBOX, UNCONNECTED, case, went};

pub(super) struct Handles {
    away: TurnedAway,
}

impl Handles {
    pub(super) fn new(node: &Node) -> Self {
        let mut inbox = node.subscriber_builder(["large"]).receive_own(true).max_message(1).open().expect("it is open");
        let mut publisher = node.publisher("large").expect("a topic");
        assert_eq!(publisher.publish(b"two").expect("it is open").inboxes(), 0);
        loop {
            let event = inbox.recv_event_timeout(LIMIT).expect("it is open").expect("it is told");
            if let Event::TurnedAway(away) = event {
                return Self { away };
            }
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("PublisherBuilder::stamp_all", OUTBOX, |h| {
            went(h.node.publisher_builder("a/b").stamp_all().open().expect("a topic").publish(b"x"))
        }),
        case("SenderBuilder::stamp_all", UNCONNECTED, |h| went(h.node.sender_builder("peer").stamp_all().open())),
        case("Outbox::stamp_all", "ok", |mut h| {
            h.outbox.stamp_all(true);
            "ok".into()
        }),
        // The first message of a sender has a stamp.
        case("Message::sent_at", "true", |h| h.message.sent_at().is_some().to_string()),
        case("Message::age", "true", |h| h.message.age().is_some().to_string()),
        case("Sample::sent_at", "true", |h| (h.sample.sent_at().is_some() || h.sample.age().is_none()).to_string()),
        case("Sample::age", "true", |h| (h.sample.age().is_some() || h.sample.sent_at().is_none()).to_string()),
        case("Publisher::publish_vectored", OUTBOX, |mut h| {
            went(h.publisher.publish_vectored(&[IoSlice::new(b"x"), IoSlice::new(&[0; 100_000])]))
        }),
        case("Sender::send_vectored", OUTBOX, |mut h| {
            went(h.sender.send_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")]))
        }),
        case("TurnedAway::messages", "1", |h| h.stamps.away.messages().to_string()),
        case("SendError::kind", "Forked", |mut h| {
            format!("{:?}", h.sender.send(b"x").expect_err("it is the parent's").kind())
        }),
        case("SendError::node", "None", |_| format!("{:?}", SendError::Forked.node())),
        case("CallError::kind", "Other", |_| format!("{:?}", CallError::Forked.kind())),
    ]
}
