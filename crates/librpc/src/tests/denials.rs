//! Publishers that say what a subscription may not read: whatever a stranger says of that is checked, and bounded.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::link::channel_shared::ChannelShared;
use crate::link::readers::{Access, Readers};
use crate::name::Address;
use crate::registry::target::Target;
use crate::schema::{ListedSchema, MAX_DEFINITION_BYTES};
use crate::sys::socket::Credentials;
use crate::tests::handshakes::{LONG, Scene};
use crate::wire::{Answer, Deny, Typed};
use crate::{
    Admission, Denial, Encoding, Event, Inbox, Limits, Node, Policy, Reason, RecvError, Schema, SchemaMismatch,
};

/// How many denials an inbox remembers.
const MOST: usize = 8;

fn deny(scene: &Scene, topic: &str) -> Deny {
    Deny {
        lowest: 2,
        highest: 2,
        node: "evil".into(),
        incarnation: *scene.evil.incarnation().bytes(),
        target: *scene.victim.incarnation().bytes(),
        inbox: 0,
        topic: topic.into(),
        text: "no".into(),
        mismatch: None,
    }
}

fn schema(text: &str) -> Schema {
    text.parse().unwrap()
}

/// It says that a topic, or a service, is of this type, and that the inbox wants another one.
fn mismatch(scene: &Scene, topic: &str, theirs: Option<&str>, ours: Option<&str>) -> Deny {
    let listed = |text: Option<&str>| text.map(|text| ListedSchema::from(&schema(text)));
    Deny { mismatch: Some(Typed { schema: listed(theirs), wanted: listed(ours) }), ..deny(scene, topic) }
}

/// Why a denial is refused; `None`: it is not.
fn refusal(scene: &Scene, deny: &Deny) -> Option<Reason> {
    let stranger = scene.stranger();
    stranger.says(deny, &[]);
    match stranger.hears() {
        None => None,
        Some((Answer::Refusal(refusal), _)) => Some(Reason::from_number(refusal.reason)),
        Some(other) => panic!("neither a refusal nor a hang-up: {other:?}"),
    }
}

/// The topic that the next event says is denied.
fn next_denied(inbox: &mut Inbox) -> Arc<Denial> {
    match inbox.recv_event_timeout(LONG).unwrap() {
        Some(Event::Denied(denial)) => denial,
        other => panic!("no denial: {other:?}"),
    }
}

fn topics(node: &Node) -> Vec<Arc<str>> {
    node.stats().denials.iter().map(|denial| denial.topic.clone()).collect()
}

#[test]
fn a_denial_that_is_not_right_is_refused_and_not_kept() {
    let scene = Scene::shared(Limits::default());
    let mut subscriber = scene.victim.subscribe("a/*").unwrap();
    let _own = scene.victim.inbox().unwrap();
    let good = deny(&scene, "a/b");
    let bad = [
        (Deny { lowest: 3, highest: 9, ..good.clone() }, Reason::Version),
        (Deny { target: good.incarnation, ..good.clone() }, Reason::Restarted),
        (Deny { inbox: 7, ..good.clone() }, Reason::NoInbox),
        (Deny { inbox: 1, ..good.clone() }, Reason::BadHandshake), // the node's own inbox
        (Deny { topic: "b".into(), ..good.clone() }, Reason::BadHandshake), // nobody wants it
        (Deny { topic: "a/\n".into(), ..good.clone() }, Reason::BadHandshake),
        (Deny { topic: "a/*".into(), ..good.clone() }, Reason::BadHandshake),
        (Deny { node: "a/b".into(), ..good.clone() }, Reason::Identity),
        (Deny { incarnation: good.target, ..good.clone() }, Reason::Identity),
        (Deny { node: "nobody".into(), ..good.clone() }, Reason::Busy),
    ];
    for (deny, reason) in &bad {
        assert_eq!(refusal(&scene, deny), Some(*reason), "{deny:?}");
    }
    assert!(scene.victim.stats().denials.is_empty());
    assert_eq!(refusal(&scene, &good), None);
    let denial = next_denied(&mut subscriber);
    let Denial { inbox, by, topic, text, .. } = &*denial;
    assert_eq!((*inbox, &**by, &**topic, &**text), (0, "evil", "a/b", "no"));
    assert_eq!(scene.victim.stats().denials, [Denial::clone(&denial)]);
}

#[test]
fn whoever_is_not_admitted_denies_nothing() {
    let scene = Scene::with(Admission::nobody(), Limits::default());
    let _subscriber = scene.victim.subscribe("a").unwrap();
    assert_eq!(refusal(&scene, &deny(&scene, "a")), Some(Reason::NotAdmitted));
    assert!(scene.victim.stats().denials.is_empty());
}

/// It says its word and hangs up: what it has said is kept until the function has decided.
#[test]
fn a_denial_survives_its_publisher_while_the_admission_function_decides() {
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let admission = Admission::nobody().function(move |_| waits.lock().unwrap().recv().is_ok());
    let scene = Scene::with(admission, Limits::default());
    let mut subscriber = scene.victim.subscribe("a").unwrap();
    let stranger = scene.stranger();
    stranger.says(&deny(&scene, "a"), &[]);
    drop(stranger);
    // Whatever comes later is looked at after the hang-up.
    let later = scene.stranger();
    later.says(&Deny { lowest: 9, highest: 9, ..deny(&scene, "a") }, &[]);
    assert_eq!(later.refusal(), Reason::Version);
    go_on.send(()).unwrap();
    assert_eq!(&*next_denied(&mut subscriber).topic, "a");
}

#[test]
fn a_flood_of_denials_is_bounded_and_the_last_ones_stay() {
    let scene = Scene::new();
    let mut subscriber = scene.victim.subscribe("**").unwrap();
    let text = "x\u{1b}".repeat(1500);
    for number in 0..200 {
        let deny = Deny { text: text.clone(), ..deny(&scene, &format!("flood/{number}")) };
        assert_eq!(refusal(&scene, &deny), None, "{number}");
    }
    for _ in 0..50 {
        assert_eq!(refusal(&scene, &deny(&scene, "again")), None);
    }
    let stats = scene.victim.stats();
    assert_eq!(stats.denials.len(), MOST);
    assert!(stats.denials.iter().all(|denial| denial.text.chars().count() <= 800 && !denial.text.contains('\u{1b}')));
    let last: Vec<String> = (193..200).map(|number| format!("flood/{number}")).chain(["again".into()]).collect();
    assert_eq!(topics(&scene.victim).iter().map(ToString::to_string).collect::<Vec<_>>(), last);
    let told: Vec<_> = (0..MOST).map(|_| next_denied(&mut subscriber).topic.to_string()).collect();
    assert_eq!(told, last, "no more than are remembered");
    assert!(subscriber.try_recv_event().unwrap().is_none());
    assert!(scene.victim.shared().ledger.is_settled());
    drop(subscriber);
    assert!(scene.victim.stats().denials.is_empty(), "they end with the subscription");
}

/// The inboxes of the victim: 0 wants `A/json`, 1 wants anything; 2 serves `A/json` with `B/json`, 3 serves anything.
fn typed_inboxes(scene: &Scene) -> (Inbox, Inbox, crate::Server, crate::Server) {
    let typed = scene.victim.subscriber_builder(["a/*"]).schema(schema("A/json")).open().unwrap();
    let untyped = scene.victim.subscribe("a/*").unwrap();
    let server = scene.victim.server_builder("s").schemas(schema("A/json"), schema("B/json")).open().unwrap();
    (typed, untyped, server, scene.victim.serve("s").unwrap())
}

#[test]
fn a_mismatch_is_believed_only_if_it_is_one() {
    let scene = Scene::shared(Limits::default());
    let (mut typed, mut untyped, server, plain) = typed_inboxes(&scene);
    let (a, b, c) = (Some("A/json"), Some("B/json"), Some("C/json"));
    let says = |inbox, topic: &str, theirs, ours| Deny { inbox, ..mismatch(&scene, topic, theirs, ours) };
    let lies = [
        says(0, "a/b", b, c),    // wants something else
        says(0, "a/b", b, None), // wants a type
        says(0, "a/b", b, Some("A/json/00000000000000ff")),
        says(0, "a/b", a, a), // can be read
        says(0, "a/b", Some("A/json/00000000000000ff"), a),
        says(0, "b", b, a),   // nobody wants it
        says(1, "a/b", a, b), // takes everything
        says(1, "a/b", a, None),
        says(1, "a/b", None, None),
        says(2, "s", a, a), // is the same request
        says(2, "s", b, b), // is the same reply
        says(2, "s", b, c),
        says(2, "t", b, a), // another service
        says(3, "s", a, b),
        says(3, "s", None, None),
        Deny { inbox: 2, ..deny(&scene, "s") }, // who may call a service is not decided by its clients
        Deny { inbox: 3, ..deny(&scene, "s") },
    ];
    for lie in &lies {
        assert_eq!(refusal(&scene, lie), Some(Reason::BadHandshake), "{lie:?}");
    }
    assert!(scene.victim.stats().denials.is_empty());
    assert!(typed.try_recv().unwrap().is_none() && untyped.try_recv().unwrap().is_none());
    for (inbox, theirs, ours) in [(0, b, a), (0, None, a), (2, b, a), (2, None, a), (2, c, b), (3, c, None)] {
        let topic = if inbox == 0 { "a/b" } else { "s" };
        assert_eq!(refusal(&scene, &says(inbox, topic, theirs, ours)), None, "{inbox} {theirs:?} {ours:?}");
    }
    let Err(RecvError::Mismatch(told)) = typed.recv_timeout(LONG) else { panic!() };
    let SchemaMismatch { ours, theirs, .. } = &*told;
    assert_eq!((ours.clone(), theirs.clone()), (Some(schema("A/json")), None), "the last one");
    assert!(typed.try_recv().unwrap().is_none() && untyped.try_recv().unwrap().is_none());
    let texts: Vec<_> = scene.victim.stats().denials.iter().map(|denial| denial.text.to_string()).collect();
    assert!(texts.iter().any(|text| text.starts_with("\"s\" is of type B/json here, and of type C/json")), "{texts:?}");
    assert!(server.try_recv().unwrap().is_none() && plain.try_recv().unwrap().is_none());
    let mut own = scene.victim.inbox().unwrap(); // takes everything
    for (topic, theirs, ours) in [("", b, a), ("", b, None), ("", None, a), ("", None, None), ("a/b", b, a)] {
        assert_eq!(refusal(&scene, &says(4, topic, theirs, ours)), Some(Reason::BadHandshake), "{topic:?} {theirs:?}");
    }
    assert!(own.try_recv().unwrap().is_none());
    drop(own);
    let mut own = scene.victim.inbox_builder().schema(schema("A/json")).open().unwrap();
    for (topic, theirs, ours) in [("", b, c), ("", a, a), ("", b, None), ("a/b", b, a), ("s", b, a)] {
        assert_eq!(refusal(&scene, &says(5, topic, theirs, ours)), Some(Reason::BadHandshake), "{topic:?} {theirs:?}");
    }
    assert_eq!(refusal(&scene, &Deny { inbox: 5, ..deny(&scene, "") }), Some(Reason::BadHandshake), "who may send");
    assert!(own.try_recv().unwrap().is_none());
    assert_eq!(refusal(&scene, &says(5, "", b, a)), None);
    let Err(RecvError::Mismatch(told)) = own.recv_timeout(LONG) else { panic!() };
    assert_eq!((&*told.topic, &*told.node, told.theirs.clone()), ("", "evil", b.map(schema)));
    let nameless = ListedSchema { name: String::new(), ..(&schema("B/json")).into() };
    let typed = Typed { schema: Some(nameless), wanted: Some((&schema("A/json")).into()) };
    assert_eq!(refusal(&scene, &Deny { mismatch: Some(typed), ..deny(&scene, "a/b") }), Some(Reason::BadHandshake));
}

#[test]
fn what_a_stranger_says_of_its_type_is_kept_short() {
    let scene = Scene::shared(Limits::default());
    let mut typed = scene.victim.subscriber_builder(["a/*"]).schema(schema("A/json")).open().unwrap();
    let theirs = ListedSchema {
        name: "\u{1b}[2J".to_owned() + &"x".repeat(125),
        encoding: u32::MAX,
        hash: Some(7),
        definition: Some(vec![7; 2000]),
    };
    let typed_as = Typed { schema: Some(theirs), wanted: Some((&schema("A/json")).into()) };
    assert_eq!(refusal(&scene, &Deny { mismatch: Some(typed_as), ..deny(&scene, "a/b") }), None);
    let Err(RecvError::Mismatch(told)) = typed.recv_timeout(LONG) else { panic!() };
    let theirs = told.theirs.as_ref().unwrap();
    assert_eq!((theirs.name().len(), theirs.encoding()), (128, Encoding::Other(u32::MAX)));
    assert_eq!(theirs.definition(), None);
    assert!(!told.to_string().contains('\u{1b}'));
    assert!(scene.victim.stats().denials[0].text.len() < 800);
    const { assert!(MAX_DEFINITION_BYTES > 4096, "one of that length does not fit into the message") };
}

/// Each look takes what is remembered, which is bounded, and between two looks the rings have their turn.
#[test]
fn a_flood_of_mismatches_is_bounded_and_starves_no_message() {
    let scene = Scene::new();
    let mut typed = scene.victim.subscriber_builder(["**"]).schema(schema("A/json")).open().unwrap();
    let honest = Node::builder("honest").domain(crate::Domain::at(&scene.path)).open().unwrap();
    let mut publisher = honest.publisher_builder("a").schema(schema("A/json")).open().unwrap();
    let (stop, said, flood) = (AtomicBool::new(false), AtomicU32::new(0), &scene);
    let mut told = 0;
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let topic = format!("flood/{}", said.fetch_add(1, Ordering::Relaxed));
                assert_eq!(refusal(flood, &mismatch(flood, &topic, Some("B/json"), Some("A/json"))), None);
            }
        });
        while said.load(Ordering::Relaxed) < 100 {
            assert_eq!(publisher.publish(b"x").unwrap().inboxes(), 1);
            let mut before = 0;
            loop {
                match typed.recv_timeout(LONG) {
                    Ok(Some(message)) => break assert_eq!(message.payload(), b"x"),
                    Ok(None) => panic!("the message does not come"),
                    Err(RecvError::Mismatch(_)) => (told, before) = (told + 1, before + 1),
                    Err(error) => panic!("{error}"),
                }
                assert!(before < 100, "the message waits behind {before} mismatches");
            }
        }
        stop.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
    });
    assert!(told > 0);
    assert_eq!(scene.victim.stats().denials.len(), MOST);
    drop(publisher);
}

/// What a process may read was decided for that process: the channel is never connected to another one.
#[test]
fn a_channel_stays_with_the_process_that_it_was_decided_for() {
    let scene = Scene::new();
    let node = scene.evil.shared();
    let address = Address::Topics(["**".parse().unwrap()].into());
    let (incarnation, policy, capacity) = (scene.victim.incarnation(), Policy::Block, 65_536);
    let target = Target {
        node: "victim".into(),
        incarnation,
        uid: 1,
        inbox: 0,
        address,
        capacity,
        policy,
        max_message: 1 << 30,
        schemas: None,
    };
    let (charge, directory) = (node.sending.channel(1, capacity).unwrap(), node.directory().unwrap());
    let readers = Readers::new(vec![("**".parse().unwrap(), Admission::nobody().gid(7))]);
    let ended = node.ended_outgoing.clone();
    let channel =
        ChannelShared::create(target, charge, node.id.clone(), node.incarnation, directory, ended, readers).unwrap();
    assert!(matches!(channel.access("t"), Access::Unknown), "nobody is there yet");
    let (pid, uid, gid) = (5, 1, 6);
    let first = Credentials { pid, uid, gid };
    assert!(channel.meet(first, || vec![7]));
    assert!(matches!(channel.access("t"), Access::Granted));
    assert!(channel.meet(first, || vec![7]), "it is the same one");
    for other in [Credentials { pid: 8, ..first }, Credentials { uid: 8, ..first }, Credentials { gid: 8, ..first }] {
        assert!(!channel.meet(other, || vec![7]), "{other:?}");
    }
    assert!(!channel.meet(first, Vec::new), "of other groups");
    assert!(matches!(channel.access("t"), Access::Granted), "it still leads to the first one");
}
