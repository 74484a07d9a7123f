//! Messages of a type: what is compared before anything is sent, and what both sides learn if it is not the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use librpc::{
    CallError, Describe, Event, Json, Node, Plain, Policy, Postcard, PublisherEvent, RecvError, Schema, SchemaMismatch,
    SendError, Shape, Typed, TypedCallError, TypedInbox, TypedPublisher,
};
use librpc_system_tests::{TestDomain, wait_until};
use serde::{Deserialize, Serialize};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
struct Goal {
    name: String,
    way: Vec<(f64, f64)>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
enum Kind {
    Stop,
    Drive { speed: Option<f32> },
    Turn(i16, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Describe)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
struct Point {
    x: f32,
    y: f32,
    at: u64,
}

fn goal(name: &str) -> Goal {
    Goal { name: name.to_owned(), way: vec![(1.5, -2.0); 3], kind: Kind::Drive { speed: Some(0.25) } }
}

fn point(at: u64) -> Point {
    Point { x: 1.0, y: -1.0, at }
}

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn publish<T: Typed>(publisher: &mut TypedPublisher<T>, value: &T::Value) -> usize {
    let receipt = publisher.publish(value).expect("it is published");
    assert!(receipt.undelivered().is_empty(), "{:?}", receipt.undelivered());
    receipt.inboxes()
}

#[track_caller]
fn next<T: for<'a> Typed<Read<'a> = V>, V>(inbox: &mut TypedInbox<T>) -> V {
    inbox.recv_timeout(LONG).expect("it is received").expect("none is missing").value().expect("it is one")
}

/// The next receive says that a publisher is of another type.
#[track_caller]
fn mismatch<T: Typed>(inbox: &mut TypedInbox<T>) -> Arc<SchemaMismatch> {
    match inbox.recv_timeout(LONG) {
        Err(RecvError::Mismatch(mismatch)) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_quiet<T: Typed>(inbox: &mut TypedInbox<T>) {
    assert!(inbox.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
}

/// The subscriptions that a publish finds to be of another type.
fn refused(publisher: &mut librpc::Publisher) -> Vec<Arc<SchemaMismatch>> {
    let receipt = publisher.publish(b"x").unwrap();
    let mismatches = receipt.undelivered().iter().map(|error| match error {
        SendError::Mismatch(mismatch) => mismatch.clone(),
        other => panic!("{other}"),
    });
    mismatches.collect()
}

#[test]
fn values_arrive_in_each_encoding() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));

    let mut json = there.subscriber_of::<Json<Goal>>("goal/json").unwrap();
    assert_eq!(publish(&mut here.publisher_of::<Json<Goal>>("goal/json").unwrap(), &goal("a")), 1);
    assert_eq!(next(&mut json), goal("a"));

    let mut postcard = there.subscriber_of::<Postcard<Goal>>("goal/*").unwrap();
    let mut publisher = here.publisher_of::<Postcard<Goal>>("goal/postcard").unwrap();
    let long = goal(&"x".repeat(1_000_000));
    for goal in [&goal("b"), &long, &goal("")] {
        assert_eq!(publish(&mut publisher, goal), 1);
        assert_eq!(&next(&mut postcard), goal);
    }

    let mut plain = there.subscriber_of::<Plain<Point>>("point").unwrap();
    assert_eq!(publish(&mut here.publisher_of::<Plain<Point>>("point").unwrap(), &point(7)), 1);
    let message = plain.recv_timeout(LONG).unwrap().unwrap();
    assert_eq!(*message.value().unwrap(), point(7));
    assert_eq!((message.sender(), message.topic()), ("source", Some("point")));
}

#[test]
fn a_large_cloud_is_read_where_it_is() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    #[allow(unsafe_code)]
    // SAFETY: only this test publishes here.
    let builder = unsafe { there.subscriber_builder(["cloud"]).trust_publishers() };
    let mut clouds = builder.open_of::<Plain<[Point]>>().unwrap();
    let mut publisher = here.publisher_of::<Plain<[Point]>>("cloud").unwrap();
    let cloud: Vec<Point> = (0..100_000).map(point).collect();
    assert_eq!(publish(&mut publisher, &cloud), 1);
    let sample = clouds.recv_sample().unwrap().unwrap();
    drop((publisher, here, clouds));
    assert!(sample.is_lent());
    assert_eq!(sample.value().unwrap(), &cloud[..]);
}

#[test]
fn a_sample_of_an_untrusted_publisher_is_no_value() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut clouds = there.subscriber_of::<Plain<[Point]>>("cloud").unwrap();
    let mut publisher = here.publisher_of::<Plain<[Point]>>("cloud").unwrap();
    let cloud: Vec<Point> = (0..100_000).map(point).collect();
    publish(&mut publisher, &cloud);
    let error = clouds.recv_sample().unwrap().unwrap().value().unwrap_err().to_string();
    assert!(error.contains("trust the publishers"), "{error}");
    publish(&mut publisher, &cloud);
    assert_eq!(clouds.recv().unwrap().unwrap().value().unwrap(), &cloud[..], "a message is a copy");
}

#[test]
fn both_sides_learn_of_another_type_and_nothing_is_sent() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut wrong = there.subscriber_of::<Postcard<Goal>>("goal").unwrap();
    let mut right = there.subscriber_of::<Json<Goal>>("goal").unwrap();
    let mut any = there.subscribe("goal").unwrap();
    let mut publisher = here.publisher_of::<Json<Goal>>("goal").unwrap();
    assert_eq!(publisher.subscribers().unwrap(), 2, "it does not count");

    let receipt = publisher.publish(&goal("a")).unwrap();
    assert_eq!(receipt.inboxes(), 2);
    let [SendError::Mismatch(of_publisher)] = receipt.undelivered() else { panic!("{:?}", receipt.undelivered()) };
    let (json, postcard) = (Json::<Goal>::schema().unwrap(), Postcard::<Goal>::schema().unwrap());
    let text =
        format!("\"goal\" is of type {json} here, and of type {postcard} at node \"sink\", uid {}", of_publisher.uid);
    assert_eq!(of_publisher.to_string(), text);
    assert!(receipt.undelivered()[0].undelivered() == 0, "no message is lost");
    for name in ["b", "c"] {
        assert_eq!(publish(&mut publisher, &goal(name)), 2, "each receipt would be too much");
    }
    assert_eq!(publisher.mismatches().len(), 1);

    let of_subscription = mismatch(&mut wrong);
    assert_eq!((&*of_subscription.node, &*of_subscription.topic), ("source", "goal"));
    assert!(of_subscription.theirs.as_ref().unwrap().matches(&json));
    assert!(of_subscription.ours.as_ref().unwrap().matches(&postcard));
    assert_quiet(&mut wrong);
    for name in ["a", "b", "c"] {
        assert_eq!(next(&mut right), goal(name));
        let message = any.recv_timeout(LONG).unwrap().unwrap();
        let schema = message.schema().expect("it is declared");
        assert_eq!(**schema, json, "with its definition");
    }

    drop(wrong);
    publish(&mut publisher, &goal("d"));
    assert!(publisher.mismatches().is_empty(), "it is gone");
}

#[test]
fn bytes_without_a_type_do_not_reach_those_who_want_one() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut goals = there.subscriber_of::<Json<Goal>>("**").unwrap();
    let mut publisher = here.publisher("goal").unwrap();
    let [found] = &refused(&mut publisher)[..] else { panic!() };
    assert_eq!(found.ours, None);
    assert!(found.to_string().contains("bytes without a type here"), "{found}");
    assert_eq!(mismatch(&mut goals).theirs, None);
    // Each topic has a type of its own, also on one channel.
    let mut outbox = here.outbox();
    let (bytes, typed) = (outbox.topic("bytes").unwrap(), Json::<Goal>::schema().unwrap());
    let typed = outbox.typed_topic("typed", typed).unwrap();
    assert_eq!(outbox.publish(bytes, b"{}").unwrap().inboxes(), 0);
    let value = br#"{"name":"a","way":[],"kind":"Stop"}"#;
    assert_eq!(outbox.publish(typed, value).unwrap().inboxes(), 1);
    assert_eq!(&*mismatch(&mut goals).topic, "bytes");
    assert_eq!(next(&mut goals).kind, Kind::Stop);
    assert!(outbox.typed_topic("bytes", Json::<Goal>::schema().unwrap()).is_err());
    assert!(outbox.topic("typed").is_err(), "nor as bytes");
}

#[test]
fn a_schema_without_a_hash_matches_by_name_and_encoding() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut goals = there.subscriber_of::<Json<Goal>>("goal").unwrap();
    let publisher = |schema: &str| {
        let schema = schema.parse::<Schema>().unwrap();
        here.publisher_builder("goal").schema(schema).open().unwrap()
    };
    assert!(refused(&mut publisher("Goal/json")).is_empty());
    assert_eq!(refused(&mut publisher("Goal/cdr")).len(), 1);
    assert_eq!(refused(&mut publisher("goal/json")).len(), 1);
    let error = loop {
        match goals.recv_timeout(LONG) {
            Err(RecvError::Mismatch(_)) => {} // the others may be told first
            received => break received.unwrap().unwrap().value().unwrap_err(),
        }
    };
    assert!(error.to_string().starts_with("a payload of 1 byte is no value of its type: "), "{error}");
}

#[test]
fn those_who_ask_for_events_get_a_mismatch_as_one() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut goals = there.subscriber_of::<Json<Goal>>("goal").unwrap();
    let mut publisher = here.publisher("goal").unwrap();
    let _ = publisher.publish(b"x").unwrap();
    match goals.recv_event_timeout(LONG).unwrap() {
        Some(Event::Mismatch(mismatch)) => assert_eq!(&*mismatch.node, "source"),
        other => panic!("{other:?}"),
    }
    let denial = there.stats().denials[0].clone();
    assert!(denial.is_mismatch && denial.text.contains("bytes without a type at node \"source\""), "{denial:?}");
}

#[test]
fn a_publisher_who_asks_for_events_is_told_once() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let _wrong = there.subscriber_of::<Plain<Point>>("goal").unwrap();
    let _right = there.subscriber_of::<Json<Goal>>("goal").unwrap();
    let mut publisher = here.publisher_of::<Json<Goal>>("goal").unwrap();
    let mut events = Vec::new();
    while let Some(event) =
        publisher.wait_for_event(Duration::from_millis(if events.len() < 2 { 60_000 } else { 20 })).unwrap()
    {
        events.push(event);
    }
    let mismatches: Vec<_> = events.iter().filter(|event| matches!(event, PublisherEvent::Mismatch(..))).collect();
    let [PublisherEvent::Mismatch(inbox, mismatch)] = mismatches[..] else { panic!("{events:?}") };
    assert_eq!((&*inbox.node, &*mismatch.node), ("sink", "sink"));
    assert!(events.iter().any(|event| matches!(event, PublisherEvent::Came(_))), "{events:?}");
    assert_eq!(events.len(), 2);
    let receipt = publisher.publish(&goal("a")).unwrap();
    assert!(matches!(receipt.undelivered(), [SendError::Mismatch(_)]), "the receipt says it, too");
}

#[test]
fn tasks_receive_values_and_mismatches() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut goals = there.subscriber_of::<Postcard<Goal>>("goal").unwrap();
    let mut publisher = here.publisher_of::<Postcard<Goal>>("goal").unwrap();
    pollster::block_on(async {
        assert_eq!(publisher.publish_async(&goal("a")).await.unwrap().inboxes(), 1);
        assert_eq!(goals.recv_async().await.unwrap().unwrap().value().unwrap(), goal("a"));
        let _ = here.publisher("goal").unwrap().publish(b"x").unwrap();
        let failed = goals.recv_async().await;
        assert!(matches!(failed, Err(RecvError::Mismatch(_))), "{failed:?}");
    });
}

#[test]
fn what_is_kept_for_late_subscriptions_is_of_the_same_type() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = here.publisher_builder("goal").history(2).open_of::<Json<Goal>>().unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(publish(&mut publisher, &goal(name)), 0);
    }
    let mut wrong = there.subscriber_of::<Plain<Point>>("goal").unwrap();
    assert_eq!(&*mismatch(&mut wrong).node, "source", "also while nothing is published");
    let mut right = there.subscriber_of::<Json<Goal>>("goal").unwrap();
    assert_eq!([next(&mut right), next(&mut right)], [goal("b"), goal("c")]);
    let receipt = publisher.publish(&goal("d")).unwrap();
    assert!(matches!(receipt.undelivered(), [SendError::Mismatch(_)]), "the next receipt says it: {receipt:?}");
    assert_eq!(next(&mut right), goal("d"));
    assert_quiet(&mut wrong);
}

#[test]
fn an_overwriting_inbox_knows_the_type_whatever_it_missed() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let builder = there.subscriber_builder(["goal"]).policy(Policy::DropOldest).capacity(16384);
    let mut goals = builder.open_of::<Json<Goal>>().unwrap();
    let mut publisher = here.publisher_of::<Json<Goal>>("goal").unwrap();
    for number in 0..1000 {
        publish(&mut publisher, &goal(&number.to_string()));
    }
    let (mut last, mut missed) = (String::new(), 0);
    while last != "999" {
        let message = goals.recv_timeout(LONG).unwrap().expect("the newest one comes");
        assert_eq!(message.schema().expect("it is declared again").name(), "Goal");
        missed += message.missed();
        last = message.value().unwrap().name;
    }
    assert!(missed > 0);
}

#[test]
fn a_durable_subscription_that_returns_as_another_type_gets_nothing_of_the_former_one() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = here.publisher_of::<Json<Goal>>("goal").unwrap();
    publisher.set_redelivery(Some(LONG));
    let goals = there.subscriber_builder(["goal"]).durable("goals").open_of::<Json<Goal>>().unwrap();
    publish(&mut publisher, &goal("a"));
    drop(goals);
    drop(there);
    let there = open(&domain, "sink");
    let mut points = there.subscriber_builder(["goal"]).durable("goals").open_of::<Plain<Point>>().unwrap();
    let mut found = Vec::new();
    wait_until(|| {
        let receipt = publisher.publish(&goal("b")).unwrap();
        found.extend(receipt.undelivered().iter().map(ToString::to_string));
        !publisher.mismatches().is_empty()
    });
    assert_eq!(&*mismatch(&mut points).topic, "goal");
    assert_quiet(&mut points);
    let mut back = Vec::new();
    wait_until(|| {
        let _ = publisher.flush(Duration::from_millis(1));
        back.extend(publisher.take_returned().unwrap());
        !back.is_empty()
    });
    assert!(back.iter().all(|back| &*back.topic == "goal"), "{back:?}");
    drop(points);
    let mut goals = there.subscriber_builder(["goal"]).durable("goals").open_of::<Json<Goal>>().unwrap();
    wait_until(|| publisher.publish(&goal("c")).unwrap().inboxes() > 0);
    assert_eq!(next(&mut goals).kind, goal("c").kind);
}

#[test]
fn the_next_incarnation_is_told_the_type_again() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = here.publisher_of::<Postcard<Goal>>("goal").unwrap();
    publisher.set_redelivery(Some(LONG));
    let builder = |node: &Node| node.subscriber_builder(["goal"]).durable("goals").open_of::<Postcard<Goal>>().unwrap();
    let goals = builder(&there);
    publish(&mut publisher, &goal("a"));
    drop((goals, there));
    let there = open(&domain, "sink");
    let mut goals = builder(&there);
    wait_until(|| publisher.flush(Duration::from_millis(10)).is_ok() || !publisher.inboxes().is_empty());
    publish(&mut publisher, &goal("b"));
    for name in ["a", "b"] {
        let message = goals.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(message.schema().expect("it is declared").name(), "Goal");
        assert_eq!(message.value().unwrap(), goal(name));
    }
}

#[test]
fn the_longest_names_fit_into_the_smallest_ring() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let schema: Schema = format!("{}/json/ffffffffffffffff", "x".repeat(128)).parse().unwrap();
    let schema = schema.with_definition(&[7; 10_000]);
    let topic = "t".repeat(255);
    for policy in [Policy::Block, Policy::DropNewest, Policy::DropOldest] {
        let mut inbox = there.subscriber_builder([&topic]).capacity(4096).policy(policy).open().unwrap();
        let mut publisher = here.publisher_builder(&topic).schema(schema.clone()).open().unwrap();
        assert_eq!(publisher.publish(b"x").unwrap().inboxes(), 1);
        let message = inbox.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(message.schema().unwrap().to_string(), schema.to_string());
        assert_eq!(message.schema().unwrap().definition(), None, "there is no room for it");
    }
    let mut inbox = there.subscriber_builder([&topic]).open().unwrap();
    let mut publisher = here.publisher_builder(&topic).schema(schema.clone()).open().unwrap();
    let _ = publisher.publish(b"x").unwrap();
    assert_eq!(**inbox.recv_timeout(LONG).unwrap().unwrap().schema().unwrap(), schema);
}

#[test]
fn what_a_subscription_wants_can_be_seen() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut goals = there.subscriber_of::<Json<Goal>>("goal").unwrap();
    let _bytes = there.subscribe("bytes").unwrap();
    let nodes = domain.domain().nodes().unwrap();
    let of = |address: &str| {
        let node = nodes.iter().find(|node| node.id == "sink").unwrap();
        let inbox = node.listed.iter().find(|inbox| inbox.addresses == [address]).unwrap();
        inbox.schemas.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of("goal"), [Json::<Goal>::schema().unwrap().to_string()]);
    assert!(of("bytes").is_empty());
    publish(&mut here.publisher_of::<Json<Goal>>("goal").unwrap(), &goal("a"));
    assert_eq!(next(&mut goals), goal("a"));
    let stats = there.stats();
    let channel = stats.inboxes.iter().find_map(|inbox| inbox.channels.first()).unwrap();
    let schema = Json::<Goal>::schema().unwrap().to_string();
    assert_eq!((&channel.topics[..], &channel.types[..]), (&["goal".into()][..], &[schema.into()][..]));
}

#[test]
fn calls_have_types_too() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "client"), open(&domain, "server"));
    let server = there.serve_of::<Postcard<Goal>, Json<Kind>>("plan").unwrap();
    let client = here.client_of::<Postcard<Goal>, Json<Kind>>("plan").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = server.recv().unwrap().unwrap();
            assert_eq!(request.value().unwrap(), goal("a"));
            request.reply(&Kind::Turn(-7, true)).unwrap();
            let request = server.recv().unwrap().unwrap();
            let mut parts = request.stream();
            for turn in 0..40 {
                parts.send(&Kind::Turn(turn, false)).unwrap();
            }
            parts.finish().unwrap();
        });
        let reply = client.call(&goal("a"), LONG).unwrap();
        assert_eq!(reply.value().unwrap(), Kind::Turn(-7, true));
        let parts = client.call_stream(&goal("b"), LONG).unwrap();
        let parts: Vec<Kind> = parts.map(|part| part.unwrap().value().unwrap()).collect();
        assert_eq!(parts, (0..40).map(|turn| Kind::Turn(turn, false)).collect::<Vec<_>>());
    });
}

#[test]
fn a_service_of_other_types_is_not_called() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "client"), open(&domain, "server"));
    let server = there.serve_of::<Postcard<Goal>, Json<Kind>>("plan").unwrap();
    let failed = |error: CallError| match error {
        CallError::Mismatch { node, why, .. } => format!("{node}: {why}"),
        other => panic!("{other}"),
    };
    let [goals, kinds] = [Postcard::<Goal>::schema().unwrap(), Json::<Kind>::schema().unwrap()];
    let other = here.client_of::<Json<Goal>, Json<Kind>>("plan").unwrap();
    let Err(TypedCallError::Call(error)) = other.call(&goal("a"), LONG) else { panic!() };
    let why = failed(error);
    assert!(why.contains(&goals.to_string()) && why.contains(&Json::<Goal>::schema().unwrap().to_string()), "{why}");
    let replies = here.client_of::<Postcard<Goal>, Postcard<Kind>>("plan").unwrap();
    let Err(TypedCallError::Call(error)) = replies.call(&goal("a"), LONG) else { panic!() };
    let why = failed(error);
    assert!(why.contains(&kinds.to_string()) && why.contains("Kind/postcard"), "{why}");
    let why = failed(here.client("plan").unwrap().call(b"x", LONG).unwrap_err());
    assert!(why.contains("bytes without a type"), "{why}");
    assert!(here.client("plan").unwrap().servers().unwrap().is_empty());
    assert!(server.try_recv().unwrap().is_none(), "nothing has come");
    wait_until(|| !there.stats().denials.is_empty());
    let texts: Vec<_> = there.stats().denials.iter().map(|denial| denial.text.to_string()).collect();
    assert!(texts.iter().all(|text| text.starts_with("\"plan\" is of type ")), "{texts:?}");

    // A server of the right types is found beside the other one.
    let third = open(&domain, "third");
    let plain = third.serve("plan").unwrap();
    let client = here.client("plan").unwrap();
    let pending = client.start(b"x", LONG).unwrap();
    plain.recv().unwrap().unwrap().reply(b"y").unwrap();
    assert_eq!(*pending.wait().unwrap(), *b"y");
    drop((server, plain, third, there));
    wait_until(|| match client.call(b"x", LONG) {
        Err(CallError::NoServer { .. }) => true,
        Err(CallError::ServerDied { .. }) => false, // its end was not noticed before
        other => panic!("{other:?}"),
    });
}

/// What the derive says.
mod derived {
    use super::*;

    #[derive(Serialize, Deserialize, Describe)]
    struct Tree {
        left: Option<Box<Tree>>,
        r#type: u8,
    }

    #[derive(Serialize, Deserialize, Describe)]
    #[describe(name = "geometry/Stamped")]
    struct Stamped<T> {
        of: Vec<T>,
        #[describe(like = String)]
        id: std::net::IpAddr,
    }

    #[derive(Serialize, Deserialize, Describe)]
    struct Meters(f64);

    #[derive(Serialize, Deserialize, Describe)]
    struct Nothing;

    #[derive(Describe)]
    #[repr(C)]
    struct Padded {
        _small: u8,
        _large: u64,
    }

    fn text<T: Typed>() -> String {
        T::schema().unwrap().to_string()
    }

    /// These are in the wire format: whoever changes them cuts off everybody who has not changed yet.
    #[test]
    fn the_hashes_are_pinned() {
        let hashes = [
            text::<Json<u32>>(),
            text::<Postcard<Vec<String>>>(),
            text::<Postcard<BTreeMap<String, (i8, Option<char>)>>>(),
            text::<Plain<[f32; 4]>>(),
            text::<Plain<Point>>(),
            text::<Plain<[Point]>>(),
            text::<Json<Goal>>(),
            text::<Postcard<Goal>>(),
            text::<Json<Tree>>(),
            text::<Json<Stamped<u8>>>(),
            text::<Json<Meters>>(),
            text::<Json<Nothing>>(),
        ];
        assert_eq!(hashes, PINNED);
    }

    const PINNED: [&str; 12] = [
        "u32/json/88ba6ebb63a36154",
        "[str]/postcard/f3b30bb1dd637b6a",
        "Map<str, (i8, Option<char>)>/postcard/7890db4562227e24",
        "[f32; 4]/plain/dac5337df03c6bc3",
        "Point/plain/ed2048d3c085bb30",
        "[Point]/plain/7763d8334f2150b3",
        "Goal/json/d13ff2fb84e00d75",
        "Goal/postcard/d13ff2fb84e00d75",
        "Tree/json/2edf013b007ee710",
        "geometry/Stamped/json/e75618b7e279b502",
        "Meters/json/b1c18067da2df9f0",
        "Nothing/json/8dd4471695468291",
    ];

    #[test]
    fn any_change_of_structure_changes_the_hash() {
        mod a {
            #[derive(librpc::Describe)]
            pub(super) struct T {
                pub(super) _x: u8,
                pub(super) _y: u16,
            }
        }
        mod renamed {
            #[derive(librpc::Describe)]
            pub(super) struct T {
                pub(super) _x: u8,
                pub(super) _z: u16,
            }
        }
        mod retyped {
            #[derive(librpc::Describe)]
            pub(super) struct T {
                pub(super) _x: u8,
                pub(super) _y: i16,
            }
        }
        mod reordered {
            #[derive(librpc::Describe)]
            pub(super) struct T {
                pub(super) _y: u16,
                pub(super) _x: u8,
            }
        }
        mod nested {
            #[derive(librpc::Describe)]
            pub(super) struct T {
                pub(super) _x: u8,
                pub(super) _y: Option<u16>,
            }
        }
        let shapes = [
            shape::<a::T>(),
            shape::<renamed::T>(),
            shape::<retyped::T>(),
            shape::<reordered::T>(),
            shape::<nested::T>(),
        ];
        for (at, one) in shapes.iter().enumerate() {
            assert!(shapes[at + 1..].iter().all(|other| one != other), "{at}");
        }
    }

    fn shape<T: Describe>() -> Shape {
        T::describe(&mut librpc::shape::Describer::default())
    }

    #[test]
    fn plain_data_has_its_layout_in_the_hash() {
        let definition = Plain::<Point>::schema().unwrap();
        let Some(Shape::Struct(of)) = Shape::decode(definition.definition().unwrap()) else { panic!() };
        assert_eq!(of.layout, Some((16, 8)));
        assert_eq!(of.fields.iter().map(|field| field.offset).collect::<Vec<_>>(), [Some(0), Some(4), Some(8)]);
        let Shape::Struct(of) = shape::<Padded>() else { panic!() };
        assert_eq!(of.layout, None, "only plain data has one");
        assert_eq!(of.fields[0].name.as_deref(), Some("_small"));
    }

    #[test]
    fn a_type_within_itself_is_named() {
        let Shape::Struct(tree) = shape::<Tree>() else { panic!() };
        assert_eq!(tree.fields[0].shape, Shape::Option(Box::new(Shape::Again("Tree".into()))));
        assert_eq!(tree.fields[1].name.as_deref(), Some("type"));
        assert_eq!(shape::<Stamped<u8>>().name(), "geometry/Stamped");
    }
}
