//! Topics and services that two sides mean as different types: who is told, how often, and what that costs the others.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use librpc::{
    Admission, CallError, Event, Inbox, Node, Plain, Publisher, RecvError, Schema, SchemaMismatch, SendError, WaitSet,
};
use librpc_system_tests::{TestDomain, wait_until};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn schema(text: &str) -> Schema {
    text.parse().expect("a type")
}

fn subscribe(node: &Node, pattern: &str, wanted: &str) -> Inbox {
    node.subscriber_builder([pattern]).schema(schema(wanted)).open().expect("a subscription")
}

fn publisher(node: &Node, topic: &str, given: &str) -> Publisher {
    node.publisher_builder(topic).schema(schema(given)).open().expect("a topic")
}

/// Publishes. Returns how many inboxes got it, and what the receipt says of types.
#[track_caller]
fn publish(publisher: &mut Publisher) -> (usize, Vec<Arc<SchemaMismatch>>) {
    let receipt = publisher.publish(b"x").expect("it is published");
    let mismatches = receipt.undelivered().iter().filter_map(|error| match error {
        SendError::Mismatch(mismatch) => Some(mismatch.clone()),
        SendError::ReceiverGone { .. } => None, // it had not read everything
        other => panic!("{other}"),
    });
    (receipt.inboxes(), mismatches.collect())
}

#[track_caller]
fn assert_told<T: std::fmt::Debug>(received: Result<T, RecvError>) -> Arc<SchemaMismatch> {
    match received {
        Err(RecvError::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

/// Whoever may not read a topic does not learn of what type it is, and its publisher owes it nothing.
#[test]
fn the_type_of_a_topic_is_not_told_to_whom_it_is_closed() {
    let domain = TestDomain::new();
    let builder = Node::builder("source").domain(domain.domain()).readers("secret/**", Admission::nobody());
    let (here, there) = (builder.open().unwrap(), open(&domain, "sink"));
    let mut wrong = subscribe(&there, "**", "A/json");
    let mut secret = publisher(&here, "secret/x", "Launch/json/0000000000000007");
    assert_eq!(publish(&mut secret), (0, vec![]));
    assert!(secret.mismatches().is_empty());
    match wrong.recv_event_timeout(LONG).unwrap() {
        Some(Event::Denied(denial)) => {
            assert!(!denial.is_mismatch && denial.text.contains("may not be read by"), "{denial:?}");
            assert!(!denial.text.contains("Launch"), "{denial:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(wrong.try_recv().unwrap().is_none(), "that is no error");
    let mut open_to_all = publisher(&here, "open", "Launch/json");
    assert_eq!(publish(&mut open_to_all).1.len(), 1);
    assert_eq!(&*assert_told(wrong.recv_timeout(LONG)).topic, "open");

    // Who may read it is told.
    let builder = Node::builder("second").domain(domain.domain()).readers("secret/**", Admission::same_user());
    let mut secret = publisher(&builder.open().unwrap(), "secret/x", "Launch/json");
    assert_eq!(publish(&mut secret).1.len(), 1);
    assert_eq!(&*assert_told(wrong.recv_timeout(LONG)).topic, "secret/x");
}

/// Others open and close subscriptions as often as they like.
#[test]
fn a_publisher_that_does_not_publish_remembers_those_that_are_there() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = publisher(&here, "t", "A/json");
    for _ in 0..200 {
        let wrong = subscribe(&there, "t", "B/json");
        assert_eq!(publisher.subscribers().unwrap(), 0);
        assert_eq!(publisher.mismatches().len(), 1);
        drop(wrong);
    }
    let _wrong = subscribe(&there, "t", "B/json");
    assert_eq!(publisher.subscribers().unwrap(), 0);
    assert_eq!(publish(&mut publisher).1.len(), 1, "the one that is there");
    assert_eq!(publish(&mut publisher).1.len(), 0, "and that once");
}

#[test]
fn many_subscriptions_of_another_type_hide_none_of_the_right_one() {
    const MANY: usize = 300;
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let wrong: Vec<Inbox> = (0..MANY).map(|_| subscribe(&there, "t", "B/json")).collect();
    let mut right = subscribe(&there, "t", "A/json");
    let mut publisher = publisher(&here, "t", "A/json");
    let (inboxes, told) = publish(&mut publisher);
    assert_eq!((inboxes, told.len(), publisher.mismatches().len()), (1, 64, 64));
    assert!(right.recv_timeout(LONG).unwrap().is_some());
    drop(wrong);
    assert_eq!(publish(&mut publisher), (1, vec![]));
    assert!(publisher.mismatches().is_empty());
    let _wrong = subscribe(&there, "t", "B/json");
    assert_eq!(publish(&mut publisher).1.len(), 1);
}

#[test]
fn a_mismatch_wakes_whoever_waits_and_hides_no_message() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = subscribe(&there, "*", "A/json");
    let mut set = WaitSet::new().unwrap();
    set.add(1, &inbox).unwrap();
    assert_eq!(set.wait_timeout(LONG).unwrap(), [1], "nothing is known of it");
    assert!(inbox.try_recv().unwrap().is_none());
    for round in 0..20 {
        let (mut wrong, mut other) =
            (publisher(&here, "a", "B/json"), publisher(&here, &format!("b{round}"), "C/json"));
        let mut right = publisher(&here, "c", "A/json");
        for publisher in [&mut wrong, &mut other] {
            assert_eq!(publish(publisher).1.len(), 1);
        }
        assert_eq!(publish(&mut right), (1, vec![]));
        let (mut told, mut got) = (0, 0);
        while (told, got) != (2, 1) {
            assert_eq!(set.wait_timeout(LONG).unwrap(), [1], "round {round}: {told} told, {got} got");
            loop {
                match inbox.try_recv() {
                    Ok(Some(_)) => got += 1,
                    Ok(None) => break,
                    Err(RecvError::Mismatch(_)) => told += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

#[test]
fn a_callback_goes_on_after_a_mismatch() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let (send, received) = mpsc::channel();
    let builder = there.subscriber_builder(["*"]).schema(schema("A/json"));
    let callback = builder.callback(move |message| send.send(message.payload().to_vec()).unwrap()).unwrap();
    assert_eq!(publish(&mut publisher(&here, "a", "B/json")).1.len(), 1);
    wait_until(|| there.stats().denials.iter().any(|denial| denial.is_mismatch));
    assert_eq!(publish(&mut publisher(&here, "b", "A/json")), (1, vec![]));
    assert_eq!(received.recv_timeout(LONG).unwrap(), b"x");
    callback.stop().unwrap();
}

#[test]
fn a_stream_goes_on_after_a_mismatch() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = subscribe(&there, "*", "A/json");
    assert_eq!(publish(&mut publisher(&here, "a", "B/json")).1.len(), 1);
    assert_eq!(publish(&mut publisher(&here, "b", "A/json")), (1, vec![]));
    let mut stream = pin!(inbox.stream());
    let mut next = || {
        let mut item = None;
        wait_until(|| {
            if let Poll::Ready(ready) = stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())) {
                item = Some(ready.expect("nobody stops it"));
            }
            item.is_some()
        });
        item.expect("it is ready")
    };
    let (first, second) = (next(), next());
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let mismatch = if first.is_ok() { second } else { first };
    assert!(matches!(mismatch, Err(RecvError::Mismatch(_))), "{mismatch:?}");
}

/// The nodes join the domain again, and what they know of types goes on.
#[test]
fn types_are_compared_in_a_domain_that_was_made_again() {
    let domain = TestDomain::new().without_cleaning();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut right = subscribe(&there, "t", "A/json");
    let mut wrong = subscribe(&there, "t", "B/json");
    let mut publisher = publisher(&here, "t", "A/json");
    assert_eq!(publish(&mut publisher).1.len(), 1);
    assert_told(wrong.recv_timeout(LONG));
    assert!(right.recv_timeout(LONG).unwrap().is_some());
    for round in 0..3 {
        std::fs::remove_dir_all(domain.path()).unwrap();
        let _ = publisher.subscribers().unwrap(); // nobody is listed just now
        let mut late = open(&domain, &format!("late{round}"));
        let mut late_right = subscribe(&late, "t", "A/json");
        let mut late_wrong = subscribe(&late, "t", "C/json");
        wait_until(|| domain.domain().nodes().is_ok_and(|nodes| nodes.len() == 3));
        let mut told = Vec::new();
        wait_until(|| {
            let (inboxes, mismatches) = publish(&mut publisher);
            told.extend(mismatches);
            inboxes == 2 && publisher.mismatches().len() == 2
        });
        assert!(told.iter().any(|mismatch| *mismatch.node == *late.id()), "{told:?}");
        assert!(late_right.recv_timeout(LONG).unwrap().is_some());
        assert_told(late_wrong.recv_timeout(LONG));
        assert!(late_wrong.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
        while right.recv_timeout(Duration::from_millis(20)).unwrap().is_some() {}
        drop((late_right, late_wrong));
        late = open(&domain, &format!("other{round}"));
        drop(late);
    }
    drop((right, wrong, publisher));
    drop((here, there));
    domain.assert_gone();
}

/// What a member of a domain can make a publisher do: at most 64 notices a publish, however many subscriptions it opens and closes.
#[test]
fn subscriptions_of_another_type_that_come_and_go_hold_no_publish_up() {
    let domain = TestDomain::new();
    let (here, there, evil) = (open(&domain, "source"), open(&domain, "sink"), open(&domain, "evil"));
    let mut right = subscribe(&there, "t", "A/json");
    let mut publisher = publisher(&here, "t", "A/json");
    let (opened, stop) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while stop.load(Ordering::Relaxed) == 0 {
                let some: Vec<Inbox> = (0..16).map(|_| subscribe(&evil, "t", "B/json")).collect();
                opened.fetch_add(some.len() as u32, Ordering::Relaxed);
            }
        });
        let mut published = 0;
        while published < 300 || opened.load(Ordering::Relaxed) < 300 {
            let (inboxes, told) = publish(&mut publisher);
            assert_eq!(inboxes, 1);
            assert!(told.len() <= 64 && publisher.mismatches().len() <= 64);
            assert!(right.recv_timeout(LONG).unwrap().is_some());
            published += 1;
        }
        stop.store(1, Ordering::Relaxed);
    });
}

#[test]
fn a_definition_that_is_too_long_does_not_travel() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut any = there.subscriber_builder(["t"]).capacity(1 << 20).open().unwrap();
    for (bytes, travels) in [(librpc::MAX_DEFINITION_BYTES, true), (librpc::MAX_DEFINITION_BYTES + 1, false)] {
        let schema = schema("A/cdr").with_definition(&vec![7; bytes]);
        let mut publisher = here.publisher_builder("t").schema(schema).open().unwrap();
        assert_eq!(publish(&mut publisher), (1, vec![]));
        let message = any.recv_timeout(LONG).unwrap().unwrap();
        let schema = message.schema().expect("it is declared");
        assert_eq!(schema.definition().map(<[u8]>::len), travels.then_some(bytes));
    }
}

/// A client remembers the servers of other types, and asks each time whether one is still there.
#[test]
fn a_client_is_told_of_a_server_that_is_there() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "client"), open(&domain, "server"));
    let client = here.client_of::<Plain<u64>, Plain<u64>>("work").unwrap();
    let call = || match client.call(&1, Duration::from_secs(5)) {
        Err(librpc::TypedCallError::Call(error)) => error,
        other => panic!("{other:?}"),
    };
    for _ in 0..100 {
        let wrong = there.serve_of::<Plain<u32>, Plain<u64>>("work").unwrap();
        assert!(matches!(call(), CallError::Mismatch { .. }));
        drop(wrong);
        assert!(matches!(call(), CallError::NoServer { .. }), "it is gone");
    }
    let _wrong = there.serve_of::<Plain<u64>, Plain<u32>>("work").unwrap();
    let right = there.serve_of::<Plain<u64>, Plain<u64>>("work").unwrap();
    let pending = client.start(&1, LONG).unwrap();
    right.recv_timeout(LONG).unwrap().unwrap().reply(&2).unwrap();
    assert_eq!(pending.wait().unwrap().value(), Ok(&2));
}
