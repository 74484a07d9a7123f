//! A process that forks. In its child every method of an inherited handle returns an error, and nothing hangs or crashes.

mod sources;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use librpc::{Message, Node};
use librpc_system_tests::{TestDomain, program};

#[test]
fn every_public_method_in_a_forked_child_returns_an_error_or_is_harmless() {
    let domain = TestDomain::new();
    let output =
        program("forker").env("LIBRPC_DOMAIN", domain.path()).output().expect("the program is built with the tests");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut called = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in said.lines() {
        let [method, got, expected] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        called.insert(method.split(" (").next().unwrap_or(method).to_owned());
        if got != expected {
            wrong.push(format!("{method}: {got}\n    should be: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(output.status.success(), "{}: {complained}", output.status);
    let missing: Vec<_> = sources::public_methods().into_keys().filter(|method| !called.contains(method)).collect();
    assert!(missing.is_empty(), "not called in a child: {missing:?}: add them to tests/src/bin/forker.rs");
}

#[test]
fn a_child_of_a_busy_process_can_open_nodes_of_its_own() {
    const FORKS: u64 = 40;
    let domain = TestDomain::new();
    let peer = Node::builder("peer").domain(domain.domain()).open().unwrap();
    let from_children = Arc::new(AtomicU64::new(0));
    let count = from_children.clone();
    let callback = move |message: Message<'_>| {
        count.fetch_add(u64::from(message.payload() == b"from a child"), Ordering::Relaxed);
    };
    let inbox = peer.inbox_builder().callback(callback).unwrap();
    for round in 1..=3 {
        let mut command = program("busy_forker");
        let output = command.arg(FORKS.to_string()).env("LIBRPC_DOMAIN", domain.path()).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(said, "ok\n", "{complained}");
        assert_eq!(from_children.load(Ordering::Relaxed), round * FORKS);
    }
    inbox.stop().unwrap();
}
