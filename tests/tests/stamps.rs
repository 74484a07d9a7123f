//! When a message was sent, messages from several slices, and errors by their kind.

use std::io::IoSlice;
use std::time::Duration;

use librpc::{Inbox, Node, Policy, SendErrorKind};
use librpc_system_tests::{TestDomain, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// How many of the messages that are there say when they were sent. Each time is later than the one before, and past.
fn stamped(inbox: &mut Inbox, messages: usize) -> usize {
    let (mut stamped, mut last) = (0, Duration::ZERO);
    for number in 0..messages {
        let message = inbox.recv_timeout(LONG).unwrap().unwrap_or_else(|| panic!("message {number}"));
        assert_eq!(message.sent_at().is_some(), message.age().is_some());
        let Some(sent) = message.sent_at() else { continue };
        let now = sent + message.age().expect("it is stamped");
        assert!(sent >= last && now >= sent, "{last:?}, {sent:?}");
        assert_eq!(message.to_owned().sent_at, Some(sent));
        (stamped, last) = (stamped + 1, sent);
    }
    stamped
}

#[test]
fn each_message_says_when_it_was_sent_if_its_sender_wants_that() {
    const MESSAGES: usize = 1000;
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox_builder().capacity(1 << 20).open().unwrap();
    let mut sender = source.sender_builder("sink").stamp_all().open().unwrap();
    (0..MESSAGES).for_each(|_| sender.send(b"x").unwrap());
    assert_eq!(stamped(&mut inbox, MESSAGES), MESSAGES);
    // Also over a new channel, and of a publisher, an outbox, and with large payloads.
    drop(inbox);
    wait_until(|| sender.send(b"x").is_err()); // until then, they go to the one that is gone
    let mut inbox = sink.inbox_builder().capacity(1 << 20).open().unwrap();
    wait_until(|| sender.send(b"x").is_ok());
    assert_eq!(stamped(&mut inbox, 1), 1);
    let mut topics = sink.subscriber_builder(["a"]).capacity(1 << 20).open().unwrap();
    let mut publisher = source.publisher_builder("a").stamp_all().open().unwrap();
    for _ in 0..MESSAGES {
        assert_eq!(publisher.publish(b"x").unwrap().inboxes(), 1);
    }
    assert_eq!(publisher.publish(&[0; 300_000]).unwrap().inboxes(), 1);
    assert_eq!(stamped(&mut topics, MESSAGES), MESSAGES);
    let sample = topics.recv_sample_timeout(LONG).unwrap().expect("the large one");
    assert!(sample.sent_at().is_some() && sample.age().is_some());
    // By default only some do.
    let mut publisher = source.publisher("a").unwrap();
    (0..MESSAGES).for_each(|_| assert_eq!(publisher.publish(b"x").unwrap().inboxes(), 1));
    let some = stamped(&mut topics, MESSAGES);
    assert!((1..MESSAGES / 2).contains(&some), "{some}");
    let mut outbox = source.outbox();
    let to = outbox.connect("sink").unwrap();
    outbox.stamp_all(true);
    (0..100).for_each(|_| outbox.send(to, b"x").unwrap());
    assert_eq!(stamped(&mut inbox, 100), 100);
    outbox.stamp_all(false);
    (0..100).for_each(|_| outbox.send(to, b"x").unwrap());
    assert!(stamped(&mut inbox, 100) < 50);
}

#[test]
fn a_message_from_several_slices_arrives_as_one() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let (mut inbox, mut topics) = (sink.inbox().unwrap(), sink.subscribe("a").unwrap());
    let mut sender = source.connect("sink").unwrap();
    let mut publisher = source.publisher("a").unwrap();
    for bytes in [0, 1, 100, 5_000, 70_000, 3_000_000] {
        let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let parts = [IoSlice::new(b"head"), IoSlice::new(&[]), IoSlice::new(&body), IoSlice::new(b"tail")];
        let whole = [b"head", &body[..], b"tail"].concat();
        sender.send_vectored(&parts).unwrap();
        assert!(inbox.recv_timeout(LONG).unwrap().expect("it was sent").payload() == whole, "{bytes}");
        assert_eq!(publisher.publish_vectored(&parts).unwrap().inboxes(), 1);
        assert!(topics.recv_timeout(LONG).unwrap().expect("it was published").payload() == whole, "{bytes}");
    }
    sender.send_vectored(&[]).unwrap();
    assert!(inbox.recv_timeout(LONG).unwrap().expect("it was sent").payload().is_empty());
}

/// A program that logs each text once logs each cause once.
#[test]
fn the_text_of_an_error_stays_the_same_while_its_cause_does() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let inbox = sink.inbox_builder().capacity(4096).max_message(1000).open().unwrap();
    let _drops = sink.subscriber_builder(["a"]).capacity(4096).policy(Policy::DropNewest).open().unwrap();
    let mut sender = source.connect("sink").unwrap();
    let mut publisher = source.publisher("a").unwrap();
    while sender.try_send(&[0; 500]).is_ok() {}
    while publisher.publish(&[0; 500]).unwrap().inboxes() == 1 {}
    let seen = |text: String, kind, node: Option<&str>| {
        assert_eq!(node, Some("sink"), "{text}");
        (kind, text)
    };
    for _ in 0..2 {
        let mut all = Vec::new();
        for _ in 0..3 {
            let full = sender.try_send(&[0; 500]).unwrap_err();
            let large = sender.try_send(&[0; 1001]).unwrap_err();
            let receipt = publisher.publish(&[0; 500]).unwrap();
            let dropped = &receipt.undelivered()[0];
            all.push([&full, &large, dropped].map(|error| seen(error.to_string(), error.kind(), error.node())));
        }
        assert_eq!(
            all[0].clone().map(|(kind, _)| kind),
            [SendErrorKind::Full, SendErrorKind::TooLarge, SendErrorKind::Dropped]
        );
        assert!(all.iter().all(|same| *same == all[0]), "{all:?}");
    }
    drop((inbox, sink));
    let mut sent = Ok(());
    wait_until(|| {
        sent = sender.send(b"x"); // the first error reports what is lost
        sent.is_err()
    });
    let first = sent.unwrap_err();
    let later: Vec<_> = (0..3).map(|_| sender.send(b"x").unwrap_err()).collect();
    assert!(first.undelivered() > 0 && first.kind() == SendErrorKind::ReceiverGone, "{first}");
    assert!(later.iter().all(|error| error.to_string() == "node \"sink\" is gone"), "{later:?}");
}
