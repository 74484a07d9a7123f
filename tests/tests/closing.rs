//! An inbox that is closed while it receives: messages that were handed out before are flagged when they come again.

use std::collections::BTreeSet;
use std::time::Duration;

use librpc::{Acknowledge, Node, RecvError};
use librpc_system_tests::TestDomain;

const LONG: Duration = Duration::from_secs(30);
const MESSAGES: u64 = 200;

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

#[test]
fn nothing_is_handed_out_twice_without_its_flag_although_the_node_closes_beside_a_receive() {
    let domain = TestDomain::new();
    let source = open(&domain, "source");
    let mut sender = None;
    let mut next = 0;
    for round in 0..100 {
        let acknowledge = if round % 2 == 0 { Acknowledge::Implicit } else { Acknowledge::Explicit };
        let sink = open(&domain, "sink");
        let mut inbox = sink.inbox_builder().acknowledge(acknowledge).open().unwrap();
        let sender = sender.get_or_insert_with(|| {
            let mut sender = source.connect("sink").unwrap();
            sender.set_redelivery(Some(LONG));
            sender
        });
        let receiving = std::thread::spawn(move || {
            let mut taken = BTreeSet::new();
            loop {
                match inbox.recv() {
                    Ok(Some(message)) => assert!(taken.insert(message.sequence())),
                    Ok(None) => panic!("nobody stops it"),
                    Err(RecvError::Closed { .. }) => return taken,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        (0..MESSAGES).for_each(|_| sender.send(b"hello").unwrap());
        next += MESSAGES;
        sink.close(Duration::ZERO).unwrap();
        let taken = receiving.join().unwrap();
        // The next incarnation gets the rest.
        let sink = open(&domain, "sink");
        let mut inbox = sink.inbox().unwrap();
        sender.send(b"the last one").unwrap();
        next += 1;
        let mut again = BTreeSet::new();
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| sender.flush(LONG)); // which brings what is left
            while !again.contains(&(next - 1)) {
                let message = inbox.recv_timeout(LONG).unwrap().expect("what is left is redelivered");
                let number = message.sequence();
                assert!(again.insert(number), "message {number} twice");
                let is_known = !taken.contains(&number) || message.is_redelivered();
                assert!(is_known, "round {round}: message {number} was handed out before, and is not flagged");
            }
            inbox.ack();
            flushing.join().unwrap().unwrap();
        });
        let missing: Vec<_> =
            (next - MESSAGES - 1..next).filter(|n| !taken.contains(n) && !again.contains(n)).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} are lost");
    }
}
