//! The promises of the documents about handles, when several things happen at once.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use librpc::{Admission, FlushError, Inbox, InboxError, Limits, MAX_PATTERNS, Node, Outbox, Policy, SendError, Sender};
use librpc_system_tests::orders::{limit_descriptors, publish, reached, subscribe, subscribers, unlimit_descriptors};
use librpc_system_tests::{Puppets, TestDomain, wait_until};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// The next message, as text.
#[track_caller]
fn next(inbox: &mut Inbox) -> String {
    let message = inbox.recv_timeout(LONG).expect("it receives").expect("a message comes");
    String::from_utf8_lossy(message.payload()).into_owned()
}

#[test]
fn a_publish_survives_subscriptions_that_come_and_go() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut lasting = sink.subscribe("t").unwrap();
    let mut publisher = source.publisher("t").unwrap();
    let (mut published, until) = (0, Instant::now() + Duration::from_secs(1));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < until {
                    drop(sink.subscribe("t").unwrap());
                }
            });
        }
        while Instant::now() < until {
            assert!(publisher.publish(b"x").unwrap().inboxes() >= 1, "the lasting one");
            published += 1;
            assert_eq!(next(&mut lasting), "x");
        }
    });
    assert!(published > 0);
}

#[test]
fn a_failed_look_drops_no_subscriber() {
    let domain = TestDomain::new();
    let (mut sink, mut source) = (domain.node("sink"), domain.node("source"));
    sink.does(subscribe("s", "a"));
    assert_eq!(source.does(publish("a", "1")), reached(1));
    sink.does(subscribe("another", "a")); // it has to be looked up
    source.does(limit_descriptors(0));
    let _ = source.tries(subscribers("a"));
    let _ = source.tries(publish("a", "2"));
    source.does(unlimit_descriptors());
    source.comes_to(|| subscribers("a"), 2);
    source.comes_to(|| publish("a", "3"), reached(2));
}

#[test]
fn a_durable_subscription_may_return_with_fewer_patterns() {
    // Whether what it still wants is published first, or what it does not.
    for wanted_first in [false, true] {
        let domain = TestDomain::new();
        let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
        let subscribe = |patterns: &[&str]| sink.subscriber_builder(patterns).durable("again").open().unwrap();
        let mut inbox = subscribe(&["x", "y"]);
        let mut outbox = source.outbox();
        outbox.set_redelivery(Some(LONG));
        let (x, y) = (outbox.topic("x").unwrap(), outbox.topic("y").unwrap());
        for (topic, payload) in [(x, b"x1"), (y, b"y1")] {
            assert_eq!(outbox.publish(topic, payload).unwrap().inboxes(), 1);
        }
        assert_eq!([next(&mut inbox), next(&mut inbox)], ["x1", "y1"]);
        inbox.ack();
        drop(inbox);
        let mut inbox = subscribe(&["y"]);
        for round in 2..5 {
            let payload = format!("y{round}");
            let mut publish = [(x, "x", 0), (y, &*payload, 1)];
            publish.rotate_left(usize::from(wanted_first));
            for (topic, payload, inboxes) in publish {
                assert_eq!(outbox.publish(topic, payload.as_bytes()).unwrap().inboxes(), inboxes, "{payload}");
            }
            std::thread::scope(|scope| {
                let flushing = scope.spawn(|| outbox.flush(LONG));
                assert_eq!(next(&mut inbox), payload);
                inbox.ack();
                flushing.join().unwrap().unwrap();
            });
            assert_eq!((outbox.subscribers(x).unwrap(), outbox.subscribers(y).unwrap()), (0, 1));
        }
    }
}

/// While something is still kept for it, too.
#[test]
fn nothing_is_kept_for_a_durable_subscription_that_no_longer_wants_it() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let subscribe = |patterns: &[&str]| sink.subscriber_builder(patterns).durable("again").open().unwrap();
    let mut inbox = subscribe(&["x", "y"]);
    let mut outbox = source.outbox();
    outbox.set_redelivery(Some(LONG));
    let (x, y) = (outbox.topic("x").unwrap(), outbox.topic("y").unwrap());
    for round in 0..5 {
        for (topic, payload) in [(x, b"x"), (y, b"y")] {
            assert_eq!(outbox.publish(topic, payload).unwrap().inboxes(), 1, "round {round}");
        }
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| outbox.flush(LONG));
            assert_eq!([next(&mut inbox), next(&mut inbox)], ["x", "y"]);
            inbox.ack();
            flushing.join().unwrap().unwrap();
        });
        drop(inbox);
        assert_eq!(outbox.publish(y, b"kept").unwrap().inboxes(), 1, "round {round}");
        inbox = subscribe(&["y"]);
        assert_eq!(outbox.publish(x, b"unwanted").unwrap().inboxes(), 0, "round {round}");
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| outbox.flush(LONG));
            assert_eq!(next(&mut inbox), "kept");
            inbox.ack();
            flushing.join().unwrap().unwrap();
        });
        drop(inbox);
        inbox = subscribe(&["x", "y"]);
    }
}

#[test]
fn counting_subscribers_keeps_no_channels() {
    const FEW: u32 = 8;
    let domain = TestDomain::new();
    let sink = open(&domain, "sink");
    let limits = Limits::default().channels_per_user(FEW);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let mut publisher = source.publisher("t").unwrap();
    for round in 0..10 * FEW {
        let subscription = sink.subscribe("t").unwrap();
        assert_eq!(publisher.subscribers().unwrap(), 1, "round {round}");
        drop(subscription);
        assert_eq!(publisher.subscribers().unwrap(), 0, "round {round}");
    }
    let mut inbox = sink.subscribe("t").unwrap();
    assert_eq!(publisher.publish(b"not too much").unwrap().inboxes(), 1);
    assert_eq!(next(&mut inbox), "not too much");
}

/// A node whose admission function lets "slow" wait until the sender that is returned is dropped.
fn hesitating(domain: &TestDomain) -> (Node, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (decide, decided) = mpsc::channel::<()>();
    let (ask, asked) = mpsc::channel();
    let decided = std::sync::Mutex::new(decided);
    let admission = Admission::nobody().function(move |peer| {
        if &*peer.node == "slow" {
            let _ = ask.send(());
            let _ = decided.lock().unwrap().recv();
        }
        true
    });
    // Nobody is hung up on for being silent during a test.
    let limits = Limits::default().handshake_timeout(60 * LONG);
    let sink = Node::builder("sink").domain(domain.domain()).admit(admission).limits(limits).open().unwrap();
    (sink, decide, asked)
}

#[test]
fn only_the_peer_that_is_decided_about_waits() {
    let domain = TestDomain::new();
    let (sink, decide, asked) = hesitating(&domain);
    let mut inbox = sink.inbox().unwrap();
    let (slow, fast) = (open(&domain, "slow"), open(&domain, "fast"));
    let mut waits = slow.try_connect("sink").unwrap();
    waits.try_send(b"slow").unwrap();
    asked.recv_timeout(LONG).unwrap();
    let mut sender = fast.connect("sink").unwrap();
    sender.send(b"fast").unwrap();
    assert_eq!(next(&mut inbox), "fast", "of another node of the same process");
    drop(decide);
    assert_eq!(next(&mut inbox), "slow");
}

/// A hesitating node with an inbox, and a sender that it has not decided about, with a message.
fn undecided(domain: &TestDomain) -> (Node, Inbox, mpsc::Sender<()>, Sender) {
    let (sink, decide, asked) = hesitating(domain);
    let inbox = sink.inbox().unwrap();
    let mut sender = open(domain, "slow").try_connect("sink").unwrap();
    sender.try_send(b"to nobody").unwrap();
    asked.recv_timeout(LONG).unwrap();
    (sink, inbox, decide, sender)
}

#[test]
fn a_node_that_is_closed_hangs_up_on_peers_that_it_has_not_decided_about() {
    let domain = TestDomain::new();
    let (sink, inbox, decide, mut sender) = undecided(&domain);
    drop(inbox);
    drop(sink);
    wait_until(|| !sender.is_connected());
    let lost = sender.send(b"x").unwrap_err();
    assert!(matches!(lost, SendError::ReceiverGone { undelivered: 1, .. }), "{lost}");
    let sink = open(&domain, "sink");
    let mut inbox = sink.inbox().unwrap();
    sender.send(b"to the next one").unwrap();
    assert_eq!(next(&mut inbox), "to the next one");
    drop(decide);
}

#[test]
fn an_inbox_that_is_dropped_hangs_up_on_peers_that_its_node_has_not_decided_about() {
    let domain = TestDomain::new();
    let (_sink, inbox, decide, mut sender) = undecided(&domain);
    drop(inbox);
    wait_until(|| !sender.is_connected());
    let lost = sender.send(b"x").unwrap_err();
    assert!(matches!(lost, SendError::ReceiverGone { undelivered: 1, .. }), "{lost}");
    drop(decide);
}

/// A sender with redelivery that has sent "0", "1" and "2" to an inbox which is gone.
fn left_alone(sink: &Node, source: &Node) -> Sender {
    let inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    sender.set_redelivery(Some(LONG));
    for number in 0..3 {
        sender.send(format!("{number}").as_bytes()).unwrap();
    }
    drop(inbox);
    wait_until(|| !sender.is_connected());
    sender
}

#[test]
fn close_waits_for_receivers_that_come_back() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut sender = left_alone(&sink, &source);
    // Its messages are kept now, and the next calls deliver them.
    let _ = sender.flush(Duration::ZERO);
    std::thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let closing = scope.spawn(move || {
            begin.send(()).unwrap();
            source.close(LONG)
        });
        begun.recv().unwrap();
        let mut inbox = sink.inbox().unwrap();
        let flushing = scope.spawn(|| sender.flush(LONG));
        assert_eq!([next(&mut inbox), next(&mut inbox), next(&mut inbox)], ["0", "1", "2"]);
        inbox.ack();
        flushing.join().unwrap().unwrap();
        closing.join().unwrap().unwrap();
    });
    assert!(sender.take_returned().unwrap().is_empty());
}

#[test]
fn what_is_kept_comes_back_once_its_node_is_closed() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut sender = left_alone(&sink, &source);
    let kept = sender.flush(Duration::ZERO);
    assert!(matches!(kept, Err(FlushError::TimedOut { unprocessed: 3 })), "{kept:?}");
    assert_eq!(source.close(Duration::ZERO).unwrap_err().unprocessed, 3);
    let returned = sender.take_returned().unwrap();
    let payloads: Vec<&[u8]> = returned.iter().map(|message| &*message.payload).collect();
    assert_eq!(payloads, [b"0", b"1", b"2"]);
}

#[test]
fn what_is_kept_comes_back_if_the_inbox_returns_as_one_that_overwrites() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut sender = left_alone(&sink, &source);
    let mut inbox = sink.inbox_builder().policy(Policy::DropOldest).open().unwrap();
    let lost = sender.flush(LONG);
    assert!(matches!(lost, Err(FlushError::Lost { lost: 3, unprocessed: 0, .. })), "{lost:?}");
    let returned = sender.take_returned().unwrap();
    let payloads: Vec<&[u8]> = returned.iter().map(|message| &*message.payload).collect();
    assert_eq!(payloads, [b"0", b"1", b"2"]);
    sender.send(b"new").unwrap();
    assert_eq!(next(&mut inbox), "new");
}

#[test]
fn what_is_lost_is_reported_once_and_blamed_on_nobody_else() {
    let domain = TestDomain::new();
    let (gone, slow, source) = (open(&domain, "gone"), open(&domain, "slow"), open(&domain, "source"));
    let mut outbox = source.outbox();
    let (first, mut second) = (gone.inbox().unwrap(), slow.inbox().unwrap());
    let (to_gone, to_slow) = (outbox.connect("gone").unwrap(), outbox.connect("slow").unwrap());
    outbox.send(to_gone, b"lost").unwrap();
    for _ in 0..10 {
        outbox.send(to_slow, b"waits").unwrap();
    }
    drop(first);
    wait_until(|| !outbox.is_connected(to_gone));
    let Err(FlushError::Lost { lost, unprocessed, causes }) = outbox.flush(Duration::ZERO) else { panic!("1 is lost") };
    assert_eq!((lost, unprocessed, causes.len()), (1, 10, 1));
    assert!(matches!(&causes[0], SendError::ReceiverGone { node, undelivered: 1 } if &**node == "gone"), "{causes:?}");
    let again = outbox.flush(Duration::ZERO);
    assert!(matches!(again, Err(FlushError::TimedOut { unprocessed: 10 })), "{again:?}");
    for _ in 0..10 {
        assert_eq!(next(&mut second), "waits");
    }
    second.ack();
    outbox.flush(LONG).unwrap();
}

#[test]
fn what_the_next_incarnation_does_not_take_is_reported_once() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    sender.set_redelivery(Some(LONG));
    for number in 0..6 {
        let length = if number % 2 == 0 { 10_000 } else { 10 };
        sender.send(&vec![b'0' + number; length]).unwrap();
    }
    drop(inbox);
    wait_until(|| !sender.is_connected());
    let mut inbox = sink.inbox_builder().max_message(1000).open().unwrap();
    let lost = std::thread::scope(|scope| {
        let flushing = scope.spawn(|| {
            let mut lost = 0;
            loop {
                match sender.flush(LONG) {
                    Ok(()) => return lost,
                    Err(FlushError::Lost { lost: more, .. }) => lost += more,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for number in [1, 3, 5] {
            assert_eq!(
                next(&mut inbox),
                (b'0' + number).to_string().parse::<u8>().map(|n| char::from(n).to_string().repeat(10)).unwrap()
            );
        }
        inbox.ack();
        flushing.join().unwrap()
    });
    assert_eq!(lost, 3);
    assert_eq!(sender.take_returned().unwrap().len(), 3);
}

#[test]
fn the_longest_message_is_that_of_the_subscriptions_of_the_topic() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let subscribe = |topic: &str, bytes| sink.subscriber_builder([topic]).max_message(bytes).open().unwrap();
    let (small, large) = (subscribe("small", 1000), subscribe("large", 1 << 20));
    let mut outbox = source.outbox();
    let topics = ["small", "large", "nobody"].map(|topic| outbox.topic(topic).unwrap());
    let most = |outbox: &mut librpc::Outbox| topics.map(|topic| outbox.max_topic_message(topic).unwrap());
    let before = most(&mut outbox);
    assert_eq!(before, [Some(1000), Some(1 << 20), None], "before the first publish");
    for topic in topics {
        outbox.publish(topic, b"x").map(|receipt| assert!(receipt.undelivered().is_empty())).unwrap();
    }
    assert_eq!(most(&mut outbox), before, "after it");
    drop((small, large));
    wait_until(|| most(&mut outbox) == [None; 3]);
}

#[test]
fn an_inbox_that_is_gone_hides_no_other_at_the_high_water_mark() {
    let domain = TestDomain::new();
    let (gone, full, source) = (open(&domain, "gone"), open(&domain, "full"), open(&domain, "source"));
    let small = |node: &Node| node.inbox_builder().capacity(4096).open().unwrap();
    let (first, second) = (small(&gone), small(&full));
    let mut outbox = source.outbox();
    outbox.set_high_water(Some(0.5));
    let (to_gone, to_full) = (outbox.connect("gone").unwrap(), outbox.connect("full").unwrap());
    let fill = |outbox: &mut Outbox, to| (0..3).for_each(|_| outbox.send(to, &[0; 900]).unwrap());
    let changes = |outbox: &mut Outbox| -> Vec<_> {
        std::iter::from_fn(|| outbox.next_high_water_change()).map(|inbox| inbox.node).collect()
    };
    fill(&mut outbox, to_gone);
    assert_eq!(changes(&mut outbox), ["gone".into()]);
    fill(&mut outbox, to_full);
    drop(first);
    wait_until(|| !outbox.is_connected(to_gone));
    // Its channel is gone, too: it is over the mark no longer, and there is no inbox to name.
    assert!(matches!(outbox.flush(Duration::ZERO), Err(FlushError::Lost { lost: 3, .. })));
    assert_eq!(changes(&mut outbox), ["full".into()]);
    drop(second);
}

#[test]
fn a_list_of_inboxes_that_is_too_long_is_an_error_that_says_what_to_do() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let topic = |inbox: usize, number: usize| format!("{inbox}/{number}/{}", "x".repeat(240));
    let mut inboxes = Vec::new();
    let error = loop {
        let patterns = (0..MAX_PATTERNS).map(|number| topic(inboxes.len(), number));
        match sink.subscriber_builder(patterns).open() {
            Ok(inbox) => inboxes.push(inbox),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, InboxError::ListTooLong { bytes, .. } if bytes > 1 << 20), "{error}");
    assert!(error.to_string().contains("use fewer or shorter patterns"), "{error}");
    // The others are listed as before, and there is room again once one of them has gone.
    let mut publisher = source.publisher(&topic(0, 0)).unwrap();
    assert_eq!(publisher.subscribers().unwrap(), 1);
    inboxes.pop();
    let _inbox = sink.subscriber_builder((0..MAX_PATTERNS).map(|number| topic(0, number))).open().unwrap();
    assert_eq!(publisher.subscribers().unwrap(), 2);
}
