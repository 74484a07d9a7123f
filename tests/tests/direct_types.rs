//! The type of what is sent to a node itself: it is compared before anything is sent, and both sides learn of another one.

use std::sync::Arc;
use std::time::Duration;

use librpc::{
    ConnectError, Describe, Event, FlushError, Inbox, Json, Node, Plain, Policy, Postcard, RecvError, Schema,
    SchemaMismatch, SendError, Sender, Typed, TypedSendError, WaitSet,
};
use librpc_system_tests::{TestDomain, wait_until};
use serde::{Deserialize, Serialize};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
struct Goal {
    name: String,
    at: (f64, f64),
}

fn goal(name: &str) -> Goal {
    Goal { name: name.to_owned(), at: (1.5, -2.0) }
}

fn schema(text: &str) -> Schema {
    text.parse().expect("a type")
}

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn wanting(node: &Node, wanted: &str) -> Inbox {
    node.inbox_builder().schema(schema(wanted)).open().expect("an inbox")
}

fn connect(node: &Node, to: &str, given: &str) -> Result<Sender, ConnectError> {
    node.sender_builder(to).schema(schema(given)).wait(LONG).open()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(connected: Result<T, ConnectError>) -> Arc<SchemaMismatch> {
    match connected {
        Err(ConnectError::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unsent<T: std::fmt::Debug>(sent: Result<T, SendError>) -> Arc<SchemaMismatch> {
    match sent {
        Err(SendError::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

/// The next receive says that a sender is of another type.
#[track_caller]
fn told(inbox: &mut Inbox) -> Arc<SchemaMismatch> {
    match inbox.recv_timeout(LONG) {
        Err(RecvError::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_quiet(inbox: &mut Inbox) {
    assert!(inbox.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
}

#[test]
fn values_arrive_at_a_node_in_each_encoding() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));

    let mut inbox = there.inbox_of::<Json<Goal>>().unwrap();
    let mut sender = here.connect_of::<Json<Goal>>("sink").unwrap();
    let long = goal(&"x".repeat(1_000_000)); // it does not go into the ring
    for value in [&goal("a"), &long, &goal("")] {
        sender.send(value).unwrap();
        let message = inbox.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!((message.sender(), message.topic()), ("source", None));
        assert_eq!(**message.schema().expect("it is declared"), Json::<Goal>::schema().unwrap());
        assert_eq!(&message.value().unwrap(), value);
    }
    sender.try_send(&goal("b")).unwrap();
    sender.send_timeout(&goal("c"), LONG).unwrap();
    pollster::block_on(sender.send_async(&goal("d"))).unwrap();
    for name in ["b", "c", "d"] {
        assert_eq!(inbox.recv().unwrap().unwrap().value().unwrap(), goal(name));
    }
    assert!(inbox.try_recv().unwrap().is_none());
    sender.flush(LONG).unwrap();
    assert_eq!((sender.sent(), sender.acknowledged()), (6, 6), "the sender without its type is there, too");
    drop((sender, inbox));

    let mut inbox = there.inbox_builder().open_of::<Postcard<Goal>>().unwrap();
    let open = here.sender_builder("sink").open_of_async::<Postcard<Goal>>();
    pollster::block_on(open).unwrap().send(&goal("a")).unwrap();
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().value().unwrap(), goal("a"));
    drop(inbox);

    let mut inbox = there.inbox_of::<Plain<[u32]>>().unwrap();
    let numbers: Vec<u32> = (0..100_000).collect();
    let mut sender = here.connect_of::<Plain<[u32]>>("sink").unwrap();
    let mut loan = sender.loan_slice::<u32>(numbers.len()).unwrap();
    loan.copy_from_slice(&numbers);
    sender.send_loan(loan).unwrap(); // the first message of its channel
    sender.send(&numbers[..3]).unwrap();
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().value().unwrap(), &numbers[..]);
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().value().unwrap(), &numbers[..3]);
}

#[test]
fn a_value_that_cannot_be_encoded_is_not_sent() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = there.inbox_of::<Json<std::collections::BTreeMap<(u8, u8), u8>>>().unwrap();
    let mut sender = here.connect_of::<Json<std::collections::BTreeMap<(u8, u8), u8>>>("sink").unwrap();
    let error = sender.send(&[((1, 2), 3)].into()).unwrap_err();
    assert!(matches!(error, TypedSendError::Encode(_)), "{error}");
    assert!(inbox.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
}

#[test]
fn both_sides_learn_of_another_type_and_nothing_is_sent() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = wanting(&there, "A/json/0000000000000001");
    for (given, is_right) in [
        ("B/json", false),
        ("A/cdr", false),
        ("A/json/0000000000000002", false),
        ("A/json", true),
        ("A/json/0000000000000001", true),
    ] {
        let connected = connect(&here, "sink", given);
        if is_right {
            connected.unwrap().send(given.as_bytes()).unwrap();
            assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), given.as_bytes());
            continue;
        }
        let (ours, theirs) = (Some(schema(given)), Some(schema("A/json/0000000000000001")));
        let found = refused(connected);
        let text = format!(
            "messages to a node are of type {given} here, and of type A/json/0000000000000001 at node \"sink\", uid {}",
            found.uid
        );
        assert_eq!((found.to_string(), &found.ours, &found.theirs), (text, &ours, &theirs));
        let told = told(&mut inbox);
        assert_eq!((&*told.node, &*told.topic, &told.ours, &told.theirs), ("source", "", &theirs, &ours));
    }
    let bytes = refused(here.connect("sink"));
    assert_eq!(bytes.ours, None);
    assert_eq!(told(&mut inbox).theirs, None);
    refused(here.try_connect("sink"));
    told(&mut inbox);
    refused(pollster::block_on(here.connect_async("sink")));
    told(&mut inbox);
    assert_quiet(&mut inbox);
    let stats = there.stats();
    assert!(stats.denials.iter().all(|denial| denial.is_mismatch && denial.topic.is_empty()), "{:?}", stats.denials);
}

#[test]
fn an_inbox_without_a_type_takes_everything_and_never_fails() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    for policy in [Policy::Block, Policy::DropNewest, Policy::DropOldest] {
        let mut inbox = there.inbox_builder().policy(policy).open().unwrap();
        for given in [Some("A/json"), Some("B/cdr/0000000000000007"), None] {
            let mut sender = match given {
                Some(given) => connect(&here, "sink", given).unwrap(),
                None => here.connect("sink").unwrap(),
            };
            for _ in 0..3 {
                sender.send(b"x").unwrap();
                let message = inbox.recv_timeout(LONG).unwrap().unwrap();
                assert_eq!(message.schema().map(|known| known.to_string()).as_deref(), given);
            }
        }
        assert_quiet(&mut inbox);
    }
}

#[test]
fn an_outbox_reaches_a_node_as_several_types() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = there.inbox().unwrap();
    let mut outbox = here.outbox();
    let bytes = outbox.connect("sink").unwrap();
    let a = outbox.typed_connect("sink", schema("A/json"), LONG).unwrap();
    let b = outbox.typed_connect("sink", schema("B/json"), LONG).unwrap();
    assert_eq!(outbox.typed_connect("sink", schema("A/json"), LONG).unwrap(), a, "the same one");
    assert!(bytes != a && a != b);
    for (to, given) in [(bytes, None), (a, Some("A/json")), (b, Some("B/json")), (a, Some("A/json"))] {
        outbox.send(to, b"x").unwrap();
        let message = inbox.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(message.schema().map(|known| known.to_string()).as_deref(), given);
    }
}

#[test]
fn an_overwriting_inbox_knows_the_type_whatever_it_missed() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let builder = there.inbox_builder().policy(Policy::DropOldest).capacity(16384);
    let mut inbox = builder.open_of::<Json<Goal>>().unwrap();
    let mut sender = here.connect_of::<Json<Goal>>("sink").unwrap();
    for number in 0..1000 {
        sender.send(&goal(&number.to_string())).unwrap();
    }
    let (mut last, mut missed) = (String::new(), 0);
    while last != "999" {
        let message = inbox.recv_timeout(LONG).unwrap().expect("the newest one comes");
        assert_eq!(message.schema().expect("it is declared again").name(), "Goal");
        missed += message.missed();
        last = message.value().unwrap().name;
    }
    assert!(missed > 0);
}

#[test]
fn a_node_that_returns_as_another_type_gets_nothing_of_the_former_one() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let inbox = wanting(&there, "A/json");
    let mut sender = connect(&here, "sink", "A/json").unwrap();
    sender.set_redelivery(Some(LONG));
    sender.send(b"1").unwrap();
    drop((inbox, there));
    wait_until(|| !sender.is_connected());
    sender.send(b"2").unwrap(); // it is kept
    let there = open(&domain, "sink");
    let mut inbox = wanting(&there, "B/json");
    let mut causes = Vec::new();
    wait_until(|| {
        match sender.flush(LONG) {
            Err(FlushError::Lost { lost: 2, causes: found, .. }) => causes = found,
            other => panic!("{other:?}"),
        }
        !causes.is_empty()
    });
    let [SendError::Mismatch(found)] = &causes[..] else { panic!("{causes:?}") };
    assert_eq!((&found.ours, &found.theirs), (&Some(schema("A/json")), &Some(schema("B/json"))));
    let back: Vec<_> = sender.take_returned().unwrap().into_iter().map(|back| back.payload).collect();
    assert_eq!(back, [Box::from(*b"1"), Box::from(*b"2")]);
    unsent(sender.send(b"3"));
    assert_eq!(told(&mut inbox).theirs, Some(schema("A/json")));
    // Once, however often it is tried: the next notice is another sender's.
    for _ in 0..3 {
        unsent(sender.send(b"3"));
    }
    refused(open(&domain, "other").connect("sink"));
    assert_eq!(&*told(&mut inbox).node, "other");
    drop(inbox);
    let mut inbox = wanting(&there, "A/json");
    sender.send(b"4").unwrap();
    assert_eq!(inbox.recv_timeout(LONG).unwrap().unwrap().payload(), b"4");
}

#[test]
fn a_sender_without_redelivery_compares_the_next_incarnation() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = wanting(&there, "A/json");
    let mut sender = connect(&here, "sink", "A/json").unwrap();
    sender.send(b"1").unwrap();
    assert!(inbox.recv_timeout(LONG).unwrap().is_some());
    sender.flush(Duration::ZERO).ok();
    drop((inbox, there));
    wait_until(|| !sender.is_connected());
    let there = open(&domain, "sink");
    let mut inbox = wanting(&there, "B/json");
    wait_until(|| matches!(sender.send(b"2"), Err(SendError::Mismatch(_))));
    unsent(pollster::block_on(sender.send_async(b"3")));
    told(&mut inbox);
    assert_quiet(&mut inbox);
    // The same inbox is another one when it is opened anew.
    drop(inbox);
    let mut inbox = wanting(&there, "C/json");
    assert_eq!(unsent(sender.send(b"4")).theirs, Some(schema("C/json")));
    assert_eq!(told(&mut inbox).ours, Some(schema("C/json")));
}

#[test]
fn the_next_incarnation_is_told_the_type_again() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let inbox = there.inbox_of::<Postcard<Goal>>().unwrap();
    let mut sender = here.connect_of::<Postcard<Goal>>("sink").unwrap();
    sender.set_redelivery(Some(LONG));
    sender.send(&goal("a")).unwrap();
    sender.send(&goal(&"x".repeat(200_000))).unwrap();
    drop((inbox, there));
    wait_until(|| !sender.is_connected());
    sender.send(&goal("c")).unwrap();
    let there = open(&domain, "sink");
    let mut inbox = there.inbox_of::<Postcard<Goal>>().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.flush(LONG).unwrap());
        for name in ["a", &"x".repeat(200_000), "c"] {
            let message = inbox.recv_timeout(LONG).unwrap().unwrap();
            assert_eq!(message.schema().expect("it is declared").name(), "Goal");
            assert_eq!(message.value().unwrap(), goal(name));
        }
        assert!(inbox.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
    });
}

#[test]
fn those_who_ask_for_events_get_a_mismatch_as_one_and_those_who_wait_are_woken() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut inbox = wanting(&there, "A/json");
    let mut set = WaitSet::new().unwrap();
    set.add(1, &inbox).unwrap();
    assert_eq!(set.wait_timeout(LONG).unwrap(), [1], "nothing is known of it");
    assert!(inbox.try_recv().unwrap().is_none());
    refused(here.connect("sink"));
    assert_eq!(set.wait_timeout(LONG).unwrap(), [1]);
    match inbox.recv_event_timeout(LONG).unwrap() {
        Some(Event::Mismatch(mismatch)) => assert_eq!((&*mismatch.node, &*mismatch.topic), ("source", "")),
        other => panic!("{other:?}"),
    }
    let denial = there.stats().denials[0].clone();
    assert!(denial.is_mismatch && denial.text.contains("bytes without a type at node \"source\""), "{denial:?}");
}

#[test]
fn the_longest_name_fits_into_the_smallest_ring() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let schema = schema(&format!("{}/json/ffffffffffffffff", "x".repeat(128))).with_definition(&[7; 10_000]);
    for policy in [Policy::Block, Policy::DropNewest, Policy::DropOldest] {
        let mut inbox = there.inbox_builder().capacity(4096).policy(policy).open().unwrap();
        let mut sender = here.sender_builder("sink").schema(schema.clone()).open().unwrap();
        sender.send(b"x").unwrap();
        let message = inbox.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(message.schema().unwrap().to_string(), schema.to_string());
        assert_eq!(message.schema().unwrap().definition(), None, "there is no room for it");
    }
    let mut inbox = there.inbox().unwrap();
    here.sender_builder("sink").schema(schema.clone()).open().unwrap().send(b"x").unwrap();
    assert_eq!(**inbox.recv_timeout(LONG).unwrap().unwrap().schema().unwrap(), schema);
}

#[test]
fn a_sender_that_has_sent_nothing_is_flushed_at_once() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let _inbox = there.inbox_of::<Json<Goal>>().unwrap(); // nobody receives
    let mut sender = here.connect_of::<Json<Goal>>("sink").unwrap();
    let begun = sender.account();
    sender.flush(LONG).unwrap();
    assert_eq!((begun.depth, sender.account().depth), (0, 0), "nothing waits");
}

#[test]
fn what_a_nodes_inbox_wants_can_be_seen() {
    let domain = TestDomain::new();
    let there = open(&domain, "sink");
    let _inbox = wanting(&there, "A/json/0000000000000007");
    let nodes = domain.domain().nodes().unwrap();
    let schemas: Vec<_> = nodes[0].listed[0].schemas.iter().map(ToString::to_string).collect();
    assert_eq!(
        (&nodes[0].listed[0].addresses[..], &schemas[..]),
        (&["sink".to_owned()][..], &["A/json/0000000000000007".to_owned()][..])
    );
}
