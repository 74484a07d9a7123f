//! Receivers that are slower than their senders: they take only the newest, and each message that is passed over is counted; or their
//! publisher never waits.

use std::time::Duration;

use librpc::{Acknowledge, Inbox, InboxBuilder, Node, Policy, SendError};
use librpc_system_tests::{TestDomain, wait_until};

const LONG: Duration = Duration::from_secs(60);
const TOPIC: &str = "camera/front";

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"))
}

/// What is there, as numbers and how many were missed before each.
fn rest(inbox: &mut Inbox) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    while let Some(message) = inbox.try_recv().unwrap() {
        rest.push((number_of(message.payload()), message.missed()));
    }
    rest
}

/// Receives what a publisher has published, with one message less at the beginning: the first one connects.
fn after(messages: u64, bytes: usize, set_up: impl FnOnce(InboxBuilder<'_>) -> InboxBuilder<'_>) -> Vec<(u64, u64)> {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = set_up(sink.subscriber_builder([TOPIC])).open().unwrap();
    let mut publisher = source.publisher(TOPIC).unwrap();
    let mut payload = vec![0; bytes];
    let mut publish = |number: u64| {
        payload[..8].copy_from_slice(&number.to_le_bytes());
        assert_eq!(publisher.publish(&payload).unwrap().inboxes(), 1);
    };
    publish(0);
    assert_eq!(number_of(inbox.recv_timeout(LONG).unwrap().expect("the first one").payload()), 0);
    (1..=messages).for_each(&mut publish);
    rest(&mut inbox)
}

#[test]
fn an_inbox_keeps_the_last_messages() {
    // As many as fit into the ring, and far more.
    for messages in [1, 2, 3, 40, 10_000] {
        assert_eq!(after(messages, 64, |inbox| inbox.keep_last(1)), [(messages, messages - 1)]);
    }
    for messages in [4, 5, 40, 10_000] {
        let expected = [(messages - 2, messages - 3), (messages - 1, 0), (messages, 0)];
        assert_eq!(after(messages, 64, |inbox| inbox.keep_last(3)), expected);
    }
}

#[test]
fn an_inbox_keeps_the_last_of_few() {
    assert_eq!(after(2, 64, |inbox| inbox.keep_last(3)), [(1, 0), (2, 0)]);
    assert_eq!(after(5, 64, |inbox| inbox.keep_last(0)), [(5, 4)]);
}

#[test]
fn an_inbox_keeps_the_last_large_messages() {
    assert_eq!(after(20, 300_000, |inbox| inbox.keep_last(1)), [(20, 19)]);
    assert_eq!(after(20, 300_000, |inbox| inbox.keep_last(2)), [(19, 18), (20, 0)]);
}

#[test]
fn an_inbox_for_which_senders_wait_can_keep_the_last_ones_too() {
    assert_eq!(after(40, 64, |inbox| inbox.keep_last(1).policy(Policy::Block)), [(40, 39)]);
}

#[test]
fn the_newest_is_that_of_a_topic_and_a_sender() {
    let domain = TestDomain::new();
    let (sink, one, other) = (open(&domain, "sink"), open(&domain, "one"), open(&domain, "other"));
    for policy in [Policy::DropOldest, Policy::Block] {
        let mut inbox = sink.subscriber_builder(["**"]).policy(policy).open().unwrap();
        let mut outboxes = [one.outbox(), other.outbox()];
        let mut publish = |who: usize, topic: &str, number: u64| {
            let topic = outboxes[who].topic(topic).unwrap();
            assert_eq!(outboxes[who].publish(topic, &number.to_le_bytes()).unwrap().inboxes(), 1);
        };
        for number in 0..10 {
            publish(0, "a", number);
            publish(0, "b", 100 + number);
            publish(1, "a", 1000 + number);
        }
        publish(0, "b", 110);
        let mut newest = Vec::new();
        while let Some(message) =
            inbox.recv_latest_timeout(Duration::from_millis(if newest.len() < 3 { 60_000 } else { 0 })).unwrap()
        {
            newest.push((
                message.sender().to_owned(),
                message.topic().unwrap_or_default().to_owned(),
                number_of(message.payload()),
                message.missed(),
            ));
        }
        newest.sort();
        // What is passed over is counted with the next message of its sender, as what is overwritten is.
        let of_one: u64 = newest[..2].iter().map(|(.., missed)| missed).sum();
        assert_eq!(of_one, 9 + 10, "{newest:?}");
        let seen: Vec<_> = newest.iter().map(|(sender, topic, number, _)| (&**sender, &**topic, *number)).collect();
        assert_eq!(seen, [("one", "a", 9), ("one", "b", 110), ("other", "a", 1009)]);
        assert_eq!(newest[2].3, 9);
    }
}

#[test]
fn what_was_passed_over_is_counted_exactly_while_its_publisher_goes_on() {
    const MESSAGES: u64 = 200_000;
    for policy in [Policy::DropOldest, Policy::Block] {
        let domain = TestDomain::new();
        let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
        let mut inbox = sink.subscriber_builder([TOPIC]).keep_last(1).policy(policy).capacity(4096).open().unwrap();
        let mut publisher = source.publisher(TOPIC).unwrap();
        let publishing = std::thread::spawn(move || {
            for number in 0..MESSAGES {
                publisher.publish(&number.to_le_bytes()).unwrap().inboxes();
            }
            publisher.flush(LONG).unwrap();
            publisher
        });
        let (mut received, mut missed, mut last) = (0, 0, None);
        while last != Some(MESSAGES - 1) {
            let message = inbox.recv_timeout(LONG).unwrap().expect("more is to come");
            let number = number_of(message.payload());
            assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
            (received, missed, last) = (received + 1, missed + message.missed(), Some(number));
            assert_eq!(received + missed, number + 1);
        }
        inbox.ack();
        drop(publishing.join().unwrap());
    }
}

/// What is passed over counts as processed with the message that was received before it, and no sooner.
#[test]
fn what_is_passed_over_is_acknowledged_in_turn() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.subscriber_builder([TOPIC]).acknowledge(Acknowledge::Explicit).open().unwrap();
    let mut publisher = source.publisher(TOPIC).unwrap();
    publisher.publish(&[0; 8]).unwrap().inboxes();
    assert!(inbox.recv_timeout(LONG).unwrap().is_some());
    (0..5).for_each(|_| assert_eq!(publisher.publish(&[0; 8]).unwrap().inboxes(), 1));
    assert_eq!(inbox.recv_latest().unwrap().expect("five are there").missed(), 4);
    assert_eq!(publisher.account().processed, 0);
    inbox.ack();
    publisher.flush(LONG).unwrap();
    assert_eq!(publisher.account().processed, 6);
}

#[test]
fn a_publisher_that_never_waits_keeps_its_rate() {
    const FRAMES: usize = 1000;
    for history in [0, 10] {
        let domain = TestDomain::new();
        let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
        let (mut fast, _slow) = (
            sink.subscriber_builder([TOPIC]).capacity(1 << 20).open().unwrap(),
            sink.subscriber_builder([TOPIC]).capacity(4096).open().unwrap(),
        );
        let mut publisher = source.publisher_builder(TOPIC).never_waits().history(history).open().unwrap();
        let mut full = 0;
        for number in 0..FRAMES as u64 {
            let receipt = publisher.publish(&number.to_le_bytes()).unwrap();
            assert!(receipt.inboxes() >= 1);
            let is_full = |error: &SendError| matches!(error, SendError::Full { .. } | SendError::Stuck { .. });
            assert!(receipt.undelivered().iter().all(is_full), "{:?}", receipt.undelivered());
            full += receipt.undelivered().len();
        }
        assert!(full > 0, "4,096 bytes have room for {FRAMES} frames");
        assert_eq!(publisher.account().blocked, Duration::ZERO);
        for number in 0..FRAMES as u64 {
            let frame = fast.recv_timeout(LONG).unwrap().expect("it was delivered");
            assert_eq!(number_of(frame.payload()), number);
        }
    }
}

/// However many there are, a receive that does not wait finds the newest.
#[test]
fn a_receive_that_does_not_wait_passes_over_a_full_ring() {
    for messages in [4_000, 8_000] {
        assert_eq!(after(messages, 8, |inbox| inbox.keep_last(1).policy(Policy::Block)), [(messages, messages - 1)]);
    }
}

/// Far more than one receive passes over: it is not the newest then, but it is one.
#[test]
fn a_receive_that_does_not_wait_finds_something_where_there_is_something() {
    const MESSAGES: u64 = 200_000;
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.subscriber_builder([TOPIC]).policy(Policy::Block).capacity(16 << 20).open().unwrap();
    let mut publisher = source.publisher(TOPIC).unwrap();
    publisher.publish(&0u64.to_le_bytes()).unwrap().inboxes();
    assert!(inbox.recv_timeout(LONG).unwrap().is_some());
    (1..=MESSAGES).for_each(|number| assert_eq!(publisher.publish(&number.to_le_bytes()).unwrap().inboxes(), 1));
    let (mut last, mut received, mut missed) = (0, 1, 0);
    while last != MESSAGES {
        let message = match received % 2 {
            0 => inbox.try_recv_latest().unwrap(),
            _ => inbox.recv_latest_timeout(Duration::ZERO).unwrap(),
        };
        let message = message.unwrap_or_else(|| panic!("nothing is there, but {} are", MESSAGES - last));
        (last, received, missed) = (number_of(message.payload()), received + 1, missed + message.missed());
        assert_eq!(received + missed, last + 1);
    }
    assert!(received < 50, "{received} of {MESSAGES}");
}

/// The room of what is passed over is free at once, and a publisher that waits for it goes on, although what was received is not
/// acknowledged.
#[test]
fn a_publisher_that_waits_goes_on_when_messages_are_passed_over() {
    const MESSAGES: u64 = 45; // a ring has room for 31
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink
        .subscriber_builder([TOPIC])
        .keep_last(1)
        .policy(Policy::Block)
        .acknowledge(Acknowledge::Explicit)
        .capacity(4096)
        .open()
        .unwrap();
    let mut publisher = source.publisher(TOPIC).unwrap();
    publisher.publish(&[0; 8]).unwrap().inboxes();
    assert!(inbox.recv_timeout(LONG).unwrap().is_some());
    inbox.ack();
    publisher.set_timeout(LONG); // at the end of its time it would look again
    let (tell, told) = std::sync::mpsc::channel();
    let publishing = std::thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        let mut payload = [0; 104];
        for number in 1..=MESSAGES {
            payload[..8].copy_from_slice(&number.to_le_bytes());
            assert_eq!(publisher.publish(&payload).unwrap().inboxes(), 1);
        }
        publisher
    });
    let stat = std::path::Path::new("/proc").join(told.recv().unwrap()).join("stat");
    let mut quiet = 0;
    wait_until(|| {
        let sleeps = std::fs::read_to_string(&stat).unwrap().contains(") S ");
        quiet = if sleeps { quiet + 1 } else { 0 };
        quiet > 20
    });
    let first = number_of(inbox.recv_timeout(LONG).unwrap().expect("the newest of a full ring").payload());
    assert!((20..MESSAGES).contains(&first), "{first}");
    let mut last = first;
    while last != MESSAGES {
        last =
            number_of(inbox.recv_timeout(Duration::from_secs(20)).unwrap().expect("the publisher goes on").payload());
    }
    drop(publishing.join().unwrap());
}

/// A durable subscription that its publishers wait for gets, when it returns, only the newest of what was kept for it. Nothing is passed over
/// without being counted.
#[test]
fn what_is_redelivered_may_be_only_the_newest() {
    let domain = TestDomain::new();
    let source = open(&domain, "source");
    let mut publisher = source.publisher(TOPIC).unwrap();
    publisher.set_redelivery(Some(LONG));
    let mut publish = |number: u64| {
        let receipt = publisher.publish(&number.to_le_bytes()).unwrap();
        assert_eq!(receipt.inboxes(), 1, "{number}: {receipt:?}");
    };
    let subscribe = |sink: &Node| {
        let newest = sink.subscriber_builder([TOPIC]).durable("newest").keep_last(1).policy(Policy::Block);
        newest.open().unwrap()
    };
    let sink = open(&domain, "sink");
    let mut inbox = subscribe(&sink);
    publish(0);
    assert_eq!(number_of(inbox.recv_timeout(LONG).unwrap().expect("the first one").payload()), 0);
    inbox.ack();
    (1..=10).for_each(&mut publish);
    drop((inbox, sink));
    (11..=20).for_each(&mut publish); // nobody is there
    let sink = open(&domain, "sink");
    let mut inbox = subscribe(&sink);
    publish(21);
    let (mut newest, mut missed) = (0, 0);
    wait_until(|| {
        let _ = publisher.flush(Duration::ZERO); // what is kept is delivered in the publisher's own calls
        while let Some(message) = inbox.try_recv().unwrap() {
            (newest, missed) = (number_of(message.payload()), missed + message.missed() + 1);
        }
        newest == 21
    });
    assert_eq!(missed, 21, "each of them is received, or counted as passed over");
    assert!(inbox.try_recv().unwrap().is_none());
    publisher.flush(LONG).unwrap();
}
