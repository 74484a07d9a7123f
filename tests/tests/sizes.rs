//! README's table of limits: the largest value that is allowed, the first that is not, and how much memory things take.

use librpc::{InboxError, InvalidTopic, MAX_PATTERNS, MAX_TOPIC_BYTES, MAX_TOPICS, Node, Policy, SendError};
use librpc_system_tests::orders::{self, connect, descriptors, inbox, receive, send};
use librpc_system_tests::{Puppets, TestDomain, wait_until};

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

#[test]
fn a_ring_has_4_kib_to_1_gib() {
    let domain = TestDomain::new();
    let node = open(&domain, "node");
    for bytes in [4096, 1 << 30] {
        drop(node.inbox_builder().capacity(bytes).open().unwrap());
    }
    for bytes in [0, 1, 2048, 4097, 1 << 31, u64::MAX] {
        let refused = node.inbox_builder().capacity(bytes).open();
        assert!(matches!(refused, Err(InboxError::Capacity { bytes: said }) if said == bytes), "{bytes}: {refused:?}");
    }
}

#[test]
fn a_message_is_in_the_ring_up_to_a_quarter_of_it_or_an_eighth_in_mode_latest_and_lent_above() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    for (policy, capacity, limit) in [
        (Policy::Block, 256 << 10, 65_472),
        (Policy::Block, 1 << 20, (1 << 18) - 64),
        (Policy::DropOldest, 1 << 20, 131_008),
    ] {
        let mut inbox = sink.inbox_builder().policy(policy).capacity(capacity).open().unwrap();
        let mut sender = source.connect("sink").unwrap();
        assert_eq!(sender.max_message().unwrap(), Some(1 << 30));
        for (bytes, is_lent) in [(limit, false), (limit + 1, true)] {
            sender.send(&vec![7; bytes]).unwrap();
            let sample = inbox.recv_sample().unwrap().expect("nobody stops it");
            assert_eq!((sample.is_lent(), sample.to_vec()), (is_lent, vec![7; bytes]));
        }
    }
}

#[test]
fn a_message_has_at_most_1_gib_by_default() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let _inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    // Pages that nobody has written take no memory.
    let refused = sender.try_send(&vec![0; (1 << 30) + 1]);
    assert!(matches!(refused, Err(SendError::TooLarge { max: 1_073_741_824, .. })), "{refused:?}");
}

#[test]
fn a_subscription_has_1_to_64_patterns() {
    let domain = TestDomain::new();
    let node = open(&domain, "node");
    let patterns = |count: usize| (0..count).map(|number| format!("topic/{number}")).collect::<Vec<_>>();
    assert_eq!(MAX_PATTERNS, 64);
    drop(node.subscriber_builder(patterns(64)).open().unwrap());
    for count in [0, 65] {
        let refused = node.subscriber_builder(patterns(count)).open();
        assert!(matches!(refused, Err(InboxError::Patterns { patterns }) if patterns == count), "{refused:?}");
    }
}

#[test]
fn a_topic_has_255_bytes_and_an_outbox_65_536_topics() {
    let domain = TestDomain::new();
    let mut outbox = open(&domain, "node").outbox();
    assert_eq!((MAX_TOPIC_BYTES, MAX_TOPICS), (255, 65_536));
    assert!(outbox.topic(&"x".repeat(256)).is_err());
    let longest = outbox.topic(&"x".repeat(255)).unwrap();
    for number in 1..65_536 {
        outbox.topic(&number.to_string()).unwrap();
    }
    let refused = outbox.topic("one/more");
    assert!(matches!(refused, Err(InvalidTopic::TooMany { .. })), "{refused:?}");
    assert_eq!(outbox.topic(&"x".repeat(255)).unwrap(), longest, "a topic that it has is no new one");
}

#[test]
fn a_process_takes_3_descriptors_a_node_5_an_inbox_2_and_a_connection_1_on_either_side() {
    let domain = TestDomain::new();
    let (mut sink, mut source) = (domain.puppet(), domain.puppet());
    let before = sink.does(descriptors());
    sink.does(orders::open("sink"));
    let with_node = sink.does(descriptors());
    sink.does(inbox());
    let with_inbox = sink.does(descriptors());
    assert_eq!((with_node - before, with_inbox - with_node), (3 + 5, 2));
    source.does(orders::open("source"));
    let alone = source.does(descriptors());
    source.does(connect("sink"));
    source.does(send("sink", "hello"));
    sink.does(receive());
    // The descriptors of the handshake are closed in the background.
    wait_until(|| source.does(descriptors()) == alone + 1 && sink.does(descriptors()) == with_inbox + 1);
}
