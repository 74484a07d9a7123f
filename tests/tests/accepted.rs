//! A message for which a send returned `Ok`, or which a receipt counts, survives its sender, however that ends, and
//! whether the receiver is running, stopped, or has not accepted yet.

use librpc::{Inbox, Node};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppet, Puppets, TestDomain, program};

/// Sends one message from a process that ends at once. Returns how many inboxes got it, and for how many it is pending.
fn oneshot(domain: &TestDomain, members: &str, how: &str, end: &str, number: usize) -> (usize, usize) {
    let output = program("oneshot")
        .args([&domain.path().display().to_string(), members, how, end, &number.to_string()])
        .output()
        .expect("the program is built with the tests");
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<usize> = said.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    let &[inboxes, pending] = &numbers[..] else {
        panic!("{how} {end}: {:?} {said:?} {}", output.status, String::from_utf8_lossy(&output.stderr))
    };
    (inboxes, pending)
}

/// The numbers that come, in the order in which they come.
fn numbers(inbox: &mut Inbox, count: usize) -> Vec<usize> {
    let next = |_| {
        let message = inbox.recv_timeout(LONG).expect("it receives").expect("a message comes");
        str::from_utf8(message.payload()).expect("text").parse().expect("a number")
    };
    (0..count).map(next).collect()
}

const ENDS: [&str; 3] = ["return", "exit", "kill"];

#[test]
fn a_message_arrives_however_its_sender_ends() {
    let domain = TestDomain::new();
    let node = Node::builder("sink").domain(domain.domain()).open().expect("it opens");
    let mut topics = node.subscribe("numbers").expect("it opens");
    let mut own = node.inbox().expect("it opens");
    for round in 0..20 {
        for (index, end) in ENDS.into_iter().enumerate() {
            let number = 3 * round + index;
            assert_eq!(oneshot(&domain, "private", "publish", end, number), (1, 0));
            assert_eq!(numbers(&mut topics, 1), [number], "{end}");
            assert_eq!(oneshot(&domain, "private", "send", end, number), (1, 0));
            assert_eq!(numbers(&mut own, 1), [number], "{end}");
        }
    }
    drop((topics, own));
}

/// A stopped receiver with an inbox and the subscription `numbers`.
fn stopped(domain: &TestDomain) -> Puppet {
    let mut sink = domain.receiver("sink");
    sink.does(subscribe("numbers", "numbers"));
    sink.stop();
    sink
}

#[test]
fn a_message_to_a_receiver_that_is_stopped_arrives_however_its_sender_ends() {
    let domain = TestDomain::new();
    for how in ["send", "publish"] {
        let mut sink = stopped(&domain);
        let expected: Vec<String> = (0..30)
            .map(|number| {
                // The receiver has not accepted any of these.
                assert_eq!(oneshot(&domain, "private", how, ENDS[number % 3], number), (1, 0), "{how}");
                number.to_string()
            })
            .collect();
        sink.go_on();
        let next = |_| sink.does(if how == "send" { receive() } else { receive_from("numbers") }).text;
        let mut found: Vec<String> = (0..30).map(next).collect();
        found.sort_by_key(|text| text.parse::<usize>().unwrap_or(usize::MAX));
        assert_eq!(found, expected, "{how}");
        sink.exits();
    }
}

#[test]
fn in_a_shared_domain_a_message_is_accepted_once_its_receiver_has_answered() {
    let domain = TestDomain::new();
    let gid = rustix::process::getegid().as_raw();
    let shared = domain.domain().shared_with_group(gid);
    let node = Node::builder("sink").domain(shared).open().expect("it opens");
    let (mut topics, mut own) = (node.subscribe("numbers").expect("it opens"), node.inbox().expect("it opens"));
    for (number, end) in ENDS.into_iter().cycle().take(30).enumerate() {
        assert_eq!(oneshot(&domain, &gid.to_string(), "publish", end, number), (1, 0));
        assert_eq!(numbers(&mut topics, 1), [number], "{end}");
        assert_eq!(oneshot(&domain, &gid.to_string(), "send", end, number), (1, 0));
        assert_eq!(numbers(&mut own, 1), [number], "{end}");
    }
    drop((topics, own, node));
    domain.domain().shared_with_group(gid).clean().expect("it can be cleaned");
}

#[test]
fn a_second_outbox_of_a_process_that_ends_loses_nothing() {
    let domain = TestDomain::new();
    let mut sink = stopped(&domain);
    let node = Node::builder("source").domain(domain.domain()).open().expect("it opens");
    for number in 0..100 {
        // Each outbox has a channel of its own; the first one opens the connection.
        let mut sender = node.try_connect("sink").expect("it is there");
        sender.send(number.to_string().as_bytes()).expect("it is accepted");
    }
    drop(node);
    sink.go_on();
    let mut found: Vec<usize> = (0..100).map(|_| sink.does(receive()).text.parse().expect("a number")).collect();
    found.sort();
    assert_eq!(found, (0..100).collect::<Vec<_>>());
    sink.exits();
}
