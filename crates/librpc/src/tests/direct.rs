//! Senders that ignore what a node's own inbox wants: its node finds out, and none of their messages is handed out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use librpc_ring::Head;

use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::dial;
use crate::send::direct::Direct;
use crate::{Departure, Domain, Event, Inbox, Node, Policy, Schema, SchemaMismatch};

const LONG: Duration = Duration::from_secs(20);

fn schema(text: &str) -> Schema {
    text.parse().unwrap()
}

/// Two nodes in a domain of their own.
fn nodes() -> (Node, Node) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = format!("/dev/shm/librpc_unit_direct_{}_{number}", std::process::id());
    let open = |id: &str| Node::builder(id).domain(Domain::at(&path)).open().unwrap();
    (open("source"), open("sink"))
}

/// A channel to the node's inbox, whatever that wants.
fn reckless(from: &Node, to: &str, says: Option<&str>) -> OutboundChannel {
    let target = dial::find(from.shared(), &to.into()).unwrap().expect("it has an inbox");
    let mut channel = dial::to_target(from.shared(), &target, 0).unwrap();
    if let Some(typed) = Direct::new(says.map(schema)).declaration() {
        channel.set_type(typed);
    }
    channel.wait_for_answer(crate::sys::clock::Instant::now() + LONG);
    channel
}

fn departure(inbox: &mut Inbox) -> Departure {
    loop {
        match inbox.recv_event_timeout(LONG).unwrap() {
            Some(Event::SenderLeft(_, departure)) => return departure,
            Some(Event::SenderJoined(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_sender_that_ignores_what_an_inbox_wants_is_closed() {
    let (source, sink) = nodes();
    for policy in [Policy::Block, Policy::DropOldest] {
        let mut inbox = sink.inbox_builder().policy(policy).schema(schema("A/json")).open().unwrap();
        for says in [None, Some("B/json"), Some("A/cdr")] {
            let mut channel = reckless(&source, "sink", says);
            assert!(matches!(channel.push(Head::MESSAGE, b"x"), Pushed::Yes));
            let Departure::Mismatch(told) = departure(&mut inbox) else { panic!("it is not taken") };
            let SchemaMismatch { topic, node, ours, theirs, .. } = &*told;
            assert_eq!((&**topic, &**node), ("", "source"));
            assert_eq!((ours.clone(), theirs.clone()), (Some(schema("A/json")), says.map(schema)));
            assert!(inbox.try_recv().unwrap().is_none());
        }
        let mut channel = reckless(&source, "sink", Some("A/json"));
        assert!(matches!(channel.push(Head::MESSAGE, b"x"), Pushed::Yes));
        let message = inbox.recv_timeout(LONG).unwrap().expect("it is of the right type");
        assert_eq!(
            (message.payload(), message.schema().map(|known| (**known).clone())),
            (&b"x"[..], Some(schema("A/json")))
        );
    }
}

/// Nobody is told of the type before the first message, so a flush has nothing to wait for.
#[test]
fn a_type_is_declared_once_and_before_the_first_message() {
    let (source, sink) = nodes();
    let mut inbox = sink.inbox().unwrap();
    let mut channel = reckless(&source, "sink", Some("A/json"));
    assert!(channel.is_drained());
    assert!(matches!(channel.push(Head::MESSAGE, b"x"), Pushed::Yes));
    let first = channel.consumed().map(|_| channel.account().depth).unwrap();
    assert!(channel.push_plain(None, b"x"), "the second one takes the hot path");
    let second = channel.account().depth - first;
    assert!(second < first, "{second} bytes after {first}");
    for _ in 0..2 {
        let message = inbox.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!(message.schema().map(Arc::as_ref), Some(&schema("A/json")));
    }
}
