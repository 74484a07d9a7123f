//! Every public method that takes a time limit, with zero, with the longest limit, and with some that are nearly too
//! long. A limit that is too far away for the clock is no limit.

mod sources;

use std::collections::BTreeMap;
use std::time::Duration;

use librpc::{CallOptions, Event, Inbox, Limits, Node, Observer, Outbox, Plain, PublisherEvent, Sender, WaitSet};
use librpc_system_tests::TestDomain;
use pollster::block_on;

const LONG: Duration = Duration::from_secs(30);

/// Time limits, and whether they leave time to do anything.
fn limits() -> impl Iterator<Item = (Duration, bool)> {
    let nearly = [1, 1_000, 1_000_000, 1_000_000_000].map(|less| Duration::from_secs(i64::MAX as u64 - less));
    let long = [Duration::MAX, Duration::MAX - Duration::from_nanos(1), Duration::from_secs(u64::MAX / 2)];
    let short = [Duration::ZERO, Duration::from_nanos(1)];
    short.map(|limit| (limit, false)).into_iter().chain(long.into_iter().chain(nearly).map(|limit| (limit, true)))
}

struct Scene {
    receiver: Node,
    source: Node,
    inbox: Inbox,
    /// Dropped last: by then it must be empty.
    domain: TestDomain,
}

impl Scene {
    fn new() -> Self {
        let domain = TestDomain::new();
        let open = |id: &str| Node::builder(id).domain(domain.domain()).open().unwrap();
        let (receiver, source) = (open("receiver"), open("source"));
        let inbox = receiver.inbox().unwrap();
        Self { receiver, source, inbox, domain }
    }

    /// A sender whose message is processed.
    fn processed(&mut self) -> Sender {
        let mut sender = self.source.connect("receiver").unwrap();
        sender.send(b"hello").unwrap();
        assert!(self.inbox.recv_timeout(LONG).unwrap().is_some());
        self.inbox.ack();
        sender.flush(LONG).unwrap();
        sender
    }
}

type Call = fn(&mut Scene, Duration, bool);

fn calls() -> BTreeMap<&'static str, Call> {
    BTreeMap::from([
        (
            "Domain::observe",
            (|scene, limit, has_time| {
                let observed = scene.domain.domain().observe(limit).unwrap();
                assert!(!has_time || observed.iter().all(|observed| observed.stats.is_ok()));
            }) as Call,
        ),
        ("Observer::look", |scene, limit, has_time| {
            let observed = Observer::new(scene.domain.domain()).look(limit).unwrap();
            assert!(!has_time || observed.iter().all(|observed| observed.stats.is_ok()));
        }),
        ("Observer::probe", |scene, limit, has_time| {
            let observed = Observer::new(scene.domain.domain()).probe(limit).unwrap();
            assert!(!has_time || observed.iter().all(|observed| observed.stats.is_ok()));
        }),
        ("Limits::handshake_timeout", |scene, limit, has_time| {
            let limits = Limits::default().handshake_timeout(limit);
            let node = Node::builder("patient").domain(scene.domain.domain()).limits(limits).open().unwrap();
            let _inbox = node.inbox().unwrap();
            let connected = scene.source.connect_timeout("patient", LONG);
            assert!(connected.is_ok() || !has_time, "{connected:?}");
        }),
        ("Node::connect_timeout", |scene, limit, _| drop(scene.source.connect_timeout("receiver", limit).unwrap())),
        ("Node::close", |scene, limit, _| {
            let node = Node::builder("leaving").domain(scene.domain.domain()).open().unwrap();
            node.close(limit).unwrap();
        }),
        ("Inbox::recv_timeout", |scene, limit, has_time| {
            scene.source.connect("receiver").unwrap().send(b"hello").unwrap();
            assert!(scene.inbox.recv_timeout(limit).unwrap().is_some() || !has_time);
        }),
        ("Inbox::recv_latest_timeout", |scene, limit, has_time| {
            scene.source.connect("receiver").unwrap().send(b"hello").unwrap();
            assert!(scene.inbox.recv_latest_timeout(limit).unwrap().is_some() || !has_time);
        }),
        ("Inbox::recv_event_timeout", |scene, limit, has_time| {
            let sender = scene.source.connect("receiver").unwrap();
            let event = scene.inbox.recv_event_timeout(limit).unwrap();
            assert!(matches!(event, Some(Event::SenderJoined(_))) || !has_time, "{event:?}");
            drop(sender);
        }),
        ("Outbox::connect_timeout", |scene, limit, _| {
            assert!(scene.source.outbox().connect_timeout("receiver", limit).is_ok())
        }),
        ("Outbox::send_timeout", |scene, limit, _| {
            let mut outbox = scene.source.outbox();
            let to = outbox.connect("receiver").unwrap();
            outbox.send_timeout(to, b"hello", limit).unwrap();
            // A send that waits for room. The receiver makes room.
            while outbox.try_send(to, &[0; 8192]).is_ok() {}
            let sent = outbox.account(to).accepted;
            std::thread::scope(|scope| {
                let inbox = &mut scene.inbox;
                let receiving =
                    scope.spawn(move || (0..sent).for_each(|_| assert!(inbox.recv_timeout(LONG).unwrap().is_some())));
                let sent = outbox.send_timeout(to, &[0; 8192], limit);
                assert!(sent.is_ok() || limit < LONG, "{sent:?}");
                receiving.join().unwrap();
            });
        }),
        ("Outbox::flush", |scene, limit, _| {
            drop(scene.processed());
            scene.source.outbox().flush(limit).unwrap();
        }),
        ("Outbox::publish_timeout", |scene, limit, _| {
            let (_subscriber, mut outbox) = (scene.receiver.subscribe("topic").unwrap(), scene.source.outbox());
            let topic = outbox.topic("topic").unwrap();
            assert_eq!(outbox.publish_timeout(topic, b"hello", limit).unwrap().inboxes(), 1);
        }),
        ("Outbox::wait_for_subscriber", |scene, limit, _| {
            let (_subscriber, mut outbox) = (scene.receiver.subscribe("topic").unwrap(), scene.source.outbox());
            let topic = outbox.topic("topic").unwrap();
            assert!(outbox.wait_for_subscriber(topic, limit).unwrap());
        }),
        ("Outbox::set_redelivery", |scene, limit, has_time| {
            let mut outbox: Outbox = scene.source.outbox();
            let to = outbox.connect("receiver").unwrap();
            outbox.set_redelivery(Some(limit));
            outbox.send(to, b"hello").unwrap();
            redeliver(scene, has_time, |limit| outbox.flush(limit).is_ok());
        }),
        ("Sender::set_timeout", |scene, limit, _| {
            let mut sender = scene.source.connect("receiver").unwrap();
            sender.set_timeout(limit);
            sender.send(b"hello").unwrap();
        }),
        ("Sender::send_timeout", |scene, limit, _| {
            scene.source.connect("receiver").unwrap().send_timeout(b"hello", limit).unwrap();
        }),
        ("Sender::flush", |scene, limit, _| scene.processed().flush(limit).unwrap()),
        ("Sender::set_redelivery", |scene, limit, has_time| {
            let mut sender = scene.source.connect("receiver").unwrap();
            sender.set_redelivery(Some(limit));
            sender.send(b"hello").unwrap();
            redeliver(scene, has_time, |limit| sender.flush(limit).is_ok());
        }),
        ("Publisher::set_timeout", |scene, limit, _| {
            let (_subscriber, mut publisher) =
                (scene.receiver.subscribe("t").unwrap(), scene.source.publisher("t").unwrap());
            publisher.set_timeout(limit);
            assert_eq!(publisher.publish(b"hello").unwrap().inboxes(), 1);
        }),
        ("Publisher::publish_timeout", |scene, limit, _| {
            let (_subscriber, mut publisher) =
                (scene.receiver.subscribe("t").unwrap(), scene.source.publisher("t").unwrap());
            assert_eq!(publisher.publish_timeout(b"hello", limit).unwrap().inboxes(), 1);
        }),
        ("Inbox::recv_sample_timeout", |scene, limit, has_time| {
            scene.source.connect("receiver").unwrap().send(b"hello").unwrap();
            assert!(scene.inbox.recv_sample_timeout(limit).unwrap().is_some() || !has_time);
        }),
        ("Client::wait_for_server", |scene, limit, has_time| {
            let client = scene.source.client("work").unwrap();
            let _server = scene.receiver.serve("work").unwrap();
            assert!(client.wait_for_server(limit).unwrap() || !has_time);
        }),
        ("CallOptions::new", |scene, limit, has_time| {
            let server = scene.receiver.serve("work").unwrap();
            let call = scene.source.client("work").unwrap().start(b"x", CallOptions::new(limit));
            if has_time {
                server.recv_timeout(LONG).unwrap().expect("it was sent").reply(b"y").unwrap();
                assert_eq!(*call.unwrap().wait().unwrap(), *b"y");
            } else {
                assert!(!call.is_ok_and(|call| call.wait().is_ok()));
            }
        }),
        ("Pending::wait_timeout", |scene, limit, has_time| {
            let server = scene.receiver.serve("work").unwrap();
            let mut call = scene.source.client("work").unwrap().start(b"x", LONG).unwrap();
            server.recv_timeout(LONG).unwrap().expect("it was sent").reply(b"y").unwrap();
            assert!(call.wait_timeout(limit).is_some() || !has_time);
        }),
        ("Replies::next_timeout", |scene, limit, has_time| {
            let server = scene.receiver.serve("work").unwrap();
            let mut parts = scene.source.client("work").unwrap().call_stream(b"x", LONG).unwrap();
            server.recv_timeout(LONG).unwrap().expect("it was sent").reply(b"y").unwrap();
            assert!(parts.next_timeout(limit).is_some() || !has_time);
        }),
        ("Server::recv_timeout", |scene, limit, has_time| {
            let server = scene.receiver.serve("work").unwrap();
            let _call = scene.source.client("work").unwrap().start(b"x", LONG).unwrap();
            assert!(server.recv_timeout(limit).unwrap().is_some() || !has_time);
        }),
        ("Outbox::publish_loan", |scene, limit, has_time| {
            let _subscriber = scene.receiver.subscribe("t").unwrap();
            let mut outbox = scene.source.outbox();
            let topic = outbox.topic("t").unwrap();
            let loan = outbox.loan(topic, 100_000).unwrap();
            let receipt = outbox.publish_loan(topic, loan, limit).unwrap();
            assert!(receipt.inboxes() == 1 || !has_time);
        }),
        ("Outbox::send_loan", |scene, limit, has_time| {
            let mut outbox = scene.source.outbox();
            let to = outbox.connect("receiver").unwrap();
            let loan = outbox.loan(to, 100_000).unwrap();
            match outbox.send_loan(to, loan, limit) {
                Ok(()) => {}
                Err(unsent) => assert!(!has_time && unsent.loan.is_some(), "{unsent}"),
            }
        }),
        ("Publisher::flush", |scene, limit, _| scene.source.publisher("t").unwrap().flush(limit).unwrap()),
        ("Publisher::wait_for_subscriber", |scene, limit, _| {
            let (_subscriber, mut publisher) =
                (scene.receiver.subscribe("t").unwrap(), scene.source.publisher("t").unwrap());
            assert!(publisher.wait_for_subscriber(limit).unwrap());
        }),
        ("Publisher::set_redelivery", |scene, limit, has_time| {
            let mut publisher = scene.source.publisher("t").unwrap();
            publisher.set_redelivery(Some(limit));
            let subscribe = |scene: &Scene| scene.receiver.subscriber_builder(["t"]).durable("again").open().unwrap();
            let subscriber = subscribe(scene);
            assert_eq!(publisher.publish(b"hello").unwrap().inboxes(), 1);
            drop(subscriber);
            let mut again = subscribe(scene);
            let delivered = std::thread::scope(|scope| {
                let flushing =
                    scope.spawn(move || publisher.flush(if has_time { LONG } else { Duration::ZERO }).is_ok());
                let received = again.recv_timeout(if has_time { LONG } else { Duration::ZERO }).unwrap().is_some();
                drop(again);
                flushing.join().unwrap() && received
            });
            assert!(delivered || !has_time);
        }),
        ("Outbox::connect_timeout_async", |scene, limit, _| {
            assert!(block_on(scene.source.outbox().connect_timeout_async("receiver", limit)).is_ok());
        }),
        ("Outbox::send_timeout_async", |scene, limit, _| {
            let mut outbox = scene.source.outbox();
            let to = outbox.connect("receiver").unwrap();
            while outbox.try_send(to, &[0; 8192]).is_ok() {}
            let sent = outbox.account(to).accepted;
            std::thread::scope(|scope| {
                let inbox = &mut scene.inbox;
                let receiving =
                    scope.spawn(move || (0..sent).for_each(|_| assert!(inbox.recv_timeout(LONG).unwrap().is_some())));
                let sent = block_on(outbox.send_timeout_async(to, &[0; 8192], limit));
                assert!(sent.is_ok() || limit < LONG, "{sent:?}");
                receiving.join().unwrap();
            });
        }),
        ("Outbox::publish_timeout_async", |scene, limit, _| {
            let (_subscriber, mut outbox) = (scene.receiver.subscribe("topic").unwrap(), scene.source.outbox());
            let topic = outbox.topic("topic").unwrap();
            assert_eq!(block_on(outbox.publish_timeout_async(topic, b"hello", limit)).unwrap().inboxes(), 1);
        }),
        ("Outbox::wait_for_subscriber_async", |scene, limit, _| {
            let (_subscriber, mut outbox) = (scene.receiver.subscribe("topic").unwrap(), scene.source.outbox());
            let topic = outbox.topic("topic").unwrap();
            assert!(block_on(outbox.wait_for_subscriber_async(topic, limit)).unwrap());
        }),
        ("Outbox::flush_async", |scene, limit, has_time| {
            let mut outbox = scene.source.outbox();
            let to = outbox.connect("receiver").unwrap();
            outbox.send(to, b"hello").unwrap();
            processed_meanwhile(scene, has_time, || block_on(outbox.flush_async(limit)).is_ok());
        }),
        ("Sender::flush_async", |scene, limit, has_time| {
            let mut sender = scene.source.connect("receiver").unwrap();
            sender.send(b"hello").unwrap();
            processed_meanwhile(scene, has_time, || block_on(sender.flush_async(limit)).is_ok());
        }),
        ("Publisher::flush_async", |scene, limit, _| {
            block_on(scene.source.publisher("t").unwrap().flush_async(limit)).unwrap();
        }),
        ("Publisher::wait_for_event", |scene, limit, _| {
            let (_subscriber, mut publisher) =
                (scene.receiver.subscribe("t").unwrap(), scene.source.publisher("t").unwrap());
            assert!(matches!(publisher.wait_for_event(limit).unwrap(), Some(PublisherEvent::Came(_))));
        }),
        ("SharedPublisher::wait_for_event", |scene, limit, _| {
            let publisher = scene.source.publisher("t").unwrap().into_shared();
            let _subscriber = scene.receiver.subscribe("t").unwrap();
            assert!(matches!(publisher.wait_for_event(limit).unwrap(), Some(PublisherEvent::Came(_))));
        }),
        ("Publisher::wait_for_subscriber_async", |scene, limit, _| {
            let (_subscriber, mut publisher) =
                (scene.receiver.subscribe("t").unwrap(), scene.source.publisher("t").unwrap());
            assert!(block_on(publisher.wait_for_subscriber_async(limit)).unwrap());
        }),
        ("Client::wait_for_server_async", |scene, limit, has_time| {
            let client = scene.source.client("work").unwrap();
            let _server = scene.receiver.serve("work").unwrap();
            assert!(block_on(client.wait_for_server_async(limit)).unwrap() || !has_time);
        }),
        ("Client::wait_for_server_at_async", |scene, limit, has_time| {
            let client = scene.source.client("work").unwrap();
            let _server = scene.receiver.serve("work").unwrap();
            assert!(block_on(client.wait_for_server_at_async("receiver", limit)).unwrap() || !has_time);
        }),
        ("SharedSender::send_timeout", |scene, limit, _| {
            scene.source.connect("receiver").unwrap().into_shared().send_timeout(b"hello", limit).unwrap();
        }),
        ("SharedSender::flush", |scene, limit, _| scene.processed().into_shared().flush(limit).unwrap()),
        ("SharedPublisher::flush", |scene, limit, _| {
            scene.source.publisher("t").unwrap().into_shared().flush(limit).unwrap();
        }),
        ("TypedInbox::recv_timeout", |scene, limit, has_time| {
            let mut inbox = scene.receiver.subscriber_of::<Plain<u64>>("t").unwrap();
            let mut publisher = scene.source.publisher_of::<Plain<u64>>("t").unwrap();
            assert_eq!(publisher.publish(&7).unwrap().inboxes(), 1);
            assert!(inbox.recv_timeout(limit).unwrap().is_some() || !has_time);
        }),
        ("TypedPublisher::publish_timeout", |scene, limit, _| {
            let _subscriber = scene.receiver.subscriber_of::<Plain<u64>>("t").unwrap();
            let mut publisher = scene.source.publisher_of::<Plain<u64>>("t").unwrap();
            assert_eq!(publisher.publish_timeout(&7, limit).unwrap().inboxes(), 1);
        }),
        ("TypedSender::send_timeout", |scene, limit, _| {
            let mut sender = scene.source.connect_of::<Plain<u64>>("receiver").unwrap();
            sender.send_timeout(&7, limit).unwrap();
        }),
        ("SenderBuilder::wait", |scene, limit, _| {
            let schema = "a/json".parse().unwrap();
            scene.source.sender_builder("receiver").schema(schema).wait(limit).open().unwrap();
        }),
        ("SenderBuilder::wait (in a task)", |scene, limit, _| {
            block_on(scene.source.sender_builder("receiver").wait(limit).open_async()).unwrap();
        }),
        ("Outbox::typed_connect", |scene, limit, _| {
            let schema = "a/json".parse().unwrap();
            scene.source.outbox().typed_connect("receiver", schema, limit).unwrap();
        }),
        ("TypedServer::recv_timeout", |scene, limit, has_time| {
            let server = scene.receiver.serve_of::<Plain<u64>, Plain<u64>>("work").unwrap();
            let _call = scene.source.client_of::<Plain<u64>, Plain<u64>>("work").unwrap().start(&1, LONG).unwrap();
            assert!(server.recv_timeout(limit).unwrap().is_some() || !has_time);
        }),
        ("WaitSet::wait_timeout", |scene, limit, has_time| {
            let mut set = WaitSet::new().unwrap();
            set.add(1, &scene.inbox).unwrap();
            assert_eq!(set.wait_timeout(limit).unwrap(), [1], "nothing is known of it");
            assert!(scene.inbox.try_recv().unwrap().is_none());
            scene.source.connect("receiver").unwrap().send(b"hello").unwrap();
            assert!(!has_time || set.wait_timeout(limit).unwrap() == [1]);
        }),
    ])
}

/// A message is processed while something waits for that.
fn processed_meanwhile(scene: &mut Scene, has_time: bool, wait: impl FnOnce() -> bool + Send) {
    let has_waited = std::thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        assert!(scene.inbox.recv_timeout(LONG).unwrap().is_some());
        scene.inbox.ack();
        waiting.join().unwrap()
    });
    assert!(has_waited || !has_time, "it is waited for without a limit");
}

/// The receiver is gone and back. It gets what it had not processed if the sender waits for it.
fn redeliver(scene: &mut Scene, has_time: bool, flush: impl FnOnce(Duration) -> bool + Send) {
    let gone = std::mem::replace(&mut scene.inbox, scene.receiver.subscribe("other").unwrap());
    drop(gone);
    scene.inbox = scene.receiver.inbox().unwrap();
    let delivered = std::thread::scope(|scope| {
        let flushing = scope.spawn(move || flush(if has_time { LONG } else { Duration::ZERO }));
        if has_time {
            assert!(scene.inbox.recv_timeout(LONG).unwrap().is_some(), "it is delivered again");
            scene.inbox.ack();
        }
        flushing.join().unwrap()
    });
    assert!(delivered || !has_time, "it is waited for without a limit");
}

#[test]
fn a_limit_may_be_nothing_or_beyond_all_clocks() {
    let calls = calls();
    for (method, call) in &calls {
        for (limit, has_time) in limits() {
            let called = std::panic::catch_unwind(|| call(&mut Scene::new(), limit, has_time));
            assert!(called.is_ok(), "{method} with {limit:?}");
        }
    }
    let takes_time = |signature: &str| signature.split("->").next().is_some_and(|taken| taken.contains("Duration"));
    let methods = sources::public_methods().into_iter().filter(|(_, signature)| takes_time(signature));
    let missing: Vec<_> = methods.map(|(name, _)| name).filter(|name| !calls.contains_key(&**name)).collect();
    assert!(missing.is_empty(), "not called here: {missing:?}");
}
