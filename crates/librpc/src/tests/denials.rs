//! Publishers that say what a subscription may not read: whatever a stranger says of that is checked, and bounded.

use std::sync::{Arc, Mutex, mpsc};

use crate::link::channel_shared::ChannelShared;
use crate::link::readers::{Access, Readers};
use crate::name::Address;
use crate::registry::target::Target;
use crate::sys::socket::Credentials;
use crate::tests::handshakes::{LONG, Scene};
use crate::wire::{Answer, Deny};
use crate::{Admission, Denial, Event, Inbox, Limits, Node, Policy, Reason};

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
    }
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
    assert!(stats.denials.iter().all(|denial| denial.text.chars().count() <= 200 && !denial.text.contains('\u{1b}')));
    let last: Vec<String> = (193..200).map(|number| format!("flood/{number}")).chain(["again".into()]).collect();
    assert_eq!(topics(&scene.victim).iter().map(ToString::to_string).collect::<Vec<_>>(), last);
    let told: Vec<_> = (0..MOST).map(|_| next_denied(&mut subscriber).topic.to_string()).collect();
    assert_eq!(told, last, "no more than are remembered");
    assert!(subscriber.try_recv_event().unwrap().is_none());
    assert!(scene.victim.shared().ledger.is_settled());
    drop(subscriber);
    assert!(scene.victim.stats().denials.is_empty(), "they end with the subscription");
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
