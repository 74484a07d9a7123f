//! Memory that is handed over before it is needed.

use std::sync::Arc;
use std::time::Duration;

use crate::node::Node;
use crate::registry::Domain;
use crate::send::channel::WaitsFor;
use crate::send::dial;
use crate::send::lent_queue::Reap;
use crate::send::pool::{Audience, Pool};
use crate::sys::clock::Instant;
use crate::sys::slots::SlotMut;
use crate::tests::handshakes::{Busy, Scene};

const LONG: Duration = Duration::from_secs(20);

/// Neither the sample nor the memory keeps the other.
#[test]
fn the_memory_of_a_node_that_has_ended_is_given_back_while_a_sample_is_held() {
    let scene = Scene::new();
    let mut inbox = scene.victim.inbox().unwrap();
    let source = Node::builder("source").domain(Domain::at(&scene.path)).open().unwrap();
    let payloads = Arc::downgrade(&source.shared().payloads);
    let mut sender = source.connect("victim").unwrap();
    sender.send(&[7; 1 << 20]).unwrap();
    let sample = inbox.recv_sample().unwrap().expect("nobody stops this inbox");
    drop((sender, source));
    let begun = Instant::now();
    while payloads.strong_count() > 0 {
        assert!(begun.elapsed() < LONG, "the memory is kept for ever");
        std::thread::yield_now();
    }
    assert_eq!(sample.to_vec(), [7; 1 << 20]);
}

/// A server that works on after a reply need not come back to it.
#[test]
fn the_first_long_reply_arrives_although_its_server_does_not_look_again() {
    let scene = Scene::new();
    let server = scene.victim.server_builder("service").lending_grace(LONG).open().unwrap();
    let client = scene.evil.client("service").unwrap();
    let mut pending = client.start(b"a long one", LONG).unwrap();
    let request = server.recv_timeout(LONG).unwrap().expect("a request comes");
    request.reply(&[7; 70_000]).unwrap();
    let reply = pending.wait_timeout(LONG).expect("it comes").unwrap();
    assert_eq!(*reply, [7; 70_000]);
    drop(server);
}

/// A publisher that never waits for room waits a moment for each memory, not only for the first one.
#[test]
fn each_memory_is_waited_for_from_when_it_is_handed_over() {
    let scene = Scene::new();
    let _inbox = scene.victim.inbox_builder().max_message(64 << 20).open().unwrap();
    let source = scene.evil.shared();
    let target = dial::find(source, &"victim".into()).unwrap().expect("it has an inbox");
    let mut channel = dial::to_target(source, &target, 0).unwrap();
    let limit = || Some(Instant::now() + LONG);
    channel.wait_for_answer(limit().unwrap());
    let mut pool = Pool::new(source.payloads.clone());
    let mut memory =
        |bytes: u64| -> SlotMut { pool.take(Audience::All, bytes, Reap::Gone, |_| {}).expect("there is memory") };
    // The receiver has one memory, and another one that nothing was sent in.
    let used = memory(1 << 20).share();
    while channel.prepare_slot(&used).is_err() {
        channel.wait(WaitsFor::Lending, limit());
    }
    let unused = memory(4 << 20);
    channel.lend_ahead(unused.slots());
    channel.wait(WaitsFor::Lending, limit());
    assert_eq!(channel.lends_since(), None);
    let before = Instant::now();
    let next = memory(16 << 20);
    let busy = Busy::keep(source.reactor()); // nobody answers
    channel.lend_ahead(next.slots());
    assert!(channel.lends_since().expect("it is not answered") >= before);
    drop(busy);
    channel.wait(WaitsFor::Lending, limit());
}
