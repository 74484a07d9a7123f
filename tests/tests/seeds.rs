//! The tests of the source documents, numbered as there: `SEEDS.md`, "The documents' own tests", 1 to 5.

use librpc_system_tests::orders::*;
use librpc_system_tests::{Begun, Puppet, Puppets, TestDomain};
use rustix::process::Signal;

fn three_nodes_in_one_process(domain: &TestDomain) {
    let open = |id: &str| librpc::Node::builder(id).domain(domain.domain()).open().expect(id);
    let (a, b, c) = (open("a"), open("b"), open("c"));
    let mut inbox = c.inbox().unwrap();
    let (mut from_a, mut from_b) = (a.connect("c").unwrap(), b.connect("c").unwrap());
    from_a.send(b"from a").unwrap();
    from_b.send(b"from b").unwrap();
    let mut received: Vec<String> = (0..2)
        .map(|_| String::from_utf8(inbox.recv().unwrap().expect("nobody stops it").payload().to_vec()).unwrap())
        .collect();
    received.sort();
    assert_eq!(received, ["from a", "from b"]);
}

#[test]
fn test_1_nodes_of_one_process_exchange_and_leave_nothing() {
    let domain = TestDomain::new();
    three_nodes_in_one_process(&domain);
    domain.assert_gone();
}

#[test]
fn test_2_three_receivers_end_by_sigterm_and_the_next_node_cleans_up() {
    let domain = TestDomain::new();
    let receivers: Vec<Puppet> = ["one", "two", "three"].into_iter().map(|id| domain.receiver(id)).collect();
    assert_eq!(domain.entries().iter().filter(|name| name.ends_with(".node")).count(), 3);
    assert_eq!(domain.entries().iter().filter(|name| *name == "generation").count(), 1);
    // A puppet has no signal handler, so SIGTERM is like SIGKILL. (The tests of the command line end `recv` cleanly.)
    for mut receiver in receivers {
        receiver.signal(Signal::TERM);
        receiver.ends();
    }
    domain.node("next").exits();
    domain.assert_gone();
}

#[test]
fn test_3_a_hundred_rounds_leave_nothing() {
    let domain = TestDomain::new();
    for _ in 0..100 {
        three_nodes_in_one_process(&domain);
        domain.assert_gone();
    }
}

#[test]
fn test_4_a_killed_receiver_can_start_again_under_its_id() {
    let domain = TestDomain::new();
    for _ in 0..10 {
        let mut receiver = domain.receiver("receiver");
        receiver.kill();
    }
    domain.receiver("receiver").exits();
    domain.assert_gone();
}

#[test]
fn test_5_a_thousand_short_lived_senders_leak_nothing() {
    let domain = TestDomain::new();
    let mut receiver = domain.receiver("receiver");
    let before = receiver.does(descriptors());
    let mut left = 0;
    for batch in 0..40 {
        let mut senders: Vec<Puppet> = (0..25).map(|n| domain.node(&format!("sender-{batch}-{n}"))).collect();
        let begin = |sender: &mut Puppet| [connect("receiver"), send("receiver", "hello")].map(|it| sender.begins(it));
        let begun: Vec<[Begun<()>; 2]> = senders.iter_mut().map(begin).collect();
        for (sender, begun) in senders.iter_mut().zip(begun) {
            begun.into_iter().for_each(|begun| sender.completes(begun));
            sender.kill();
        }
        while left < (batch + 1) * 25 {
            if let Event::Left(_, how) = receiver.does(next_event()) {
                assert_eq!(how, "Died");
                left += 1;
            }
        }
    }
    receiver.gets_down_to(before);
    assert_eq!(domain.entries(), domain.entries_with(&["receiver"]), "the dead were swept");
    let mut next = domain.node("next");
    next.does(connect("receiver"));
    next.does(send("receiver", "finally"));
    while receiver.does(next_event()) != message("next", "finally") {}
}
