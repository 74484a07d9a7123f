//! What a publisher keeps for late subscriptions: who gets what, once, in order, and before anything newer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use librpc::{Inbox, Node, Policy, Publisher, SendError};
use librpc_system_tests::{TestDomain, wait_until};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn keeping(node: &Node, topic: &str, messages: usize) -> Publisher {
    node.publisher_builder(topic).history(messages).open().unwrap()
}

fn publish(publisher: &mut Publisher, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let receipt = publisher.publish(&number.to_le_bytes()).unwrap();
        let is_gone = |error: &SendError| matches!(error, SendError::ReceiverGone { .. });
        assert!(receipt.undelivered().iter().all(is_gone), "{:?}", receipt.undelivered());
    }
}

/// The next messages of an inbox: each number, and whether it is a past one.
fn next(inbox: &mut Inbox, messages: usize) -> Vec<(u32, bool)> {
    let mut next = Vec::new();
    while next.len() < messages {
        let message = inbox.recv_timeout(LONG).unwrap().expect("none is missing");
        next.push((u32::from_le_bytes(message.payload()[..4].try_into().unwrap()), message.is_past()));
    }
    next
}

fn past(numbers: std::ops::Range<u32>) -> Vec<(u32, bool)> {
    numbers.map(|number| (number, true)).collect()
}

fn new(numbers: std::ops::Range<u32>) -> Vec<(u32, bool)> {
    numbers.map(|number| (number, false)).collect()
}

#[track_caller]
fn assert_quiet(inbox: &mut Inbox) {
    assert!(inbox.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
}

#[test]
fn a_late_subscription_gets_the_last_messages_although_nothing_is_published() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "numbers", 3);
    let mut early = there.subscribe("numbers").unwrap();
    publish(&mut publisher, 0..10);
    let mut late = there.subscribe("*").unwrap();
    assert_eq!(next(&mut late, 3), past(7..10));
    assert_quiet(&mut late);
    let mut one = there.subscriber_builder(["**"]).history(1).open().unwrap();
    assert_eq!(next(&mut one, 1), past(9..10));
    let mut none = there.subscriber_builder(["**"]).history(0).open().unwrap();
    publish(&mut publisher, 10..12);
    for inbox in [&mut late, &mut one, &mut none] {
        assert_eq!(next(inbox, 2), new(10..12));
        assert_quiet(inbox);
    }
    assert_eq!(next(&mut early, 12), new(0..12), "what was there from the start gets each message once");
    assert_quiet(&mut early);
}

#[test]
fn counting_subscriptions_does_not_let_a_new_message_pass_by_the_past() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "numbers", 100);
    let payload = |number: u32| [number.to_le_bytes(); 100].concat();
    for number in 0..100 {
        let _ = publisher.publish(&payload(number)).unwrap();
    }
    let mut inbox = there.subscriber_builder(["*"]).capacity(4096).open().unwrap();
    let (mut due, mut number) = ((0..100).collect::<std::collections::VecDeque<_>>(), 100);
    while let Some(expected) = due.pop_front() {
        assert_eq!(publisher.subscribers().unwrap(), 1);
        assert_eq!(next(&mut inbox, 1), [(expected, expected < 100)]);
        if number < 300 {
            // There is room for one just now. Nothing is promised of one that finds none.
            let receipt = publisher.try_publish(&payload(number)).unwrap();
            due.extend((receipt.inboxes() == 1).then_some(number));
            number += 1;
        }
    }
    assert_eq!(number, 300);
}

#[test]
fn other_topics_and_publishers_without_a_history_give_nothing() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut kept = keeping(&here, "kept", 2);
    let mut plain = here.publisher("plain").unwrap();
    publish(&mut kept, 0..2);
    publish(&mut plain, 0..2);
    let mut late = there.subscribe("plain").unwrap();
    publish(&mut plain, 2..3);
    assert_eq!(next(&mut late, 1), new(2..3));
    let mut own = here.subscriber_builder(["kept"]).receive_own(true).open().unwrap();
    assert_eq!(next(&mut own, 2), past(0..2));
    let mut not_own = here.subscribe("kept").unwrap();
    assert_quiet(&mut not_own);
    assert_quiet(&mut late);
}

/// `HISTORY_SUBSCRIBERS=1000` for the long run.
#[test]
fn late_subscriptions_get_the_last_and_then_everything_while_the_publisher_goes_on() {
    const KEPT: usize = 10;
    let subscribers: u32 = std::env::var("HISTORY_SUBSCRIBERS").map_or(60, |n| n.parse().expect("a number"));
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "numbers", KEPT);
    publisher.set_timeout(LONG);
    let (is_over, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let publishing = std::thread::spawn({
        let (is_over, published) = (is_over.clone(), published.clone());
        move || {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                publish(&mut publisher, number..number + 1);
                number += 1;
                published.store(number, Ordering::Release);
                // Sometimes it pauses, so that the background thread is the one that finds a subscription.
                match number % 64 {
                    0 => std::thread::sleep(Duration::from_millis(2)),
                    _ => std::thread::yield_now(),
                }
            }
            publisher
        }
    });
    wait_until(|| published.load(Ordering::Acquire) > 100);
    for _ in 0..subscribers {
        let before = published.load(Ordering::Acquire);
        let mut inbox = there.subscribe("numbers").unwrap();
        let got = next(&mut inbox, KEPT + 100);
        let first = got[0].0;
        assert!(first + KEPT as u32 >= before, "{first} is older than the last {KEPT} of {before}");
        let split = first + KEPT as u32;
        assert_eq!(got, [past(first..split), new(split..first + KEPT as u32 + 100)].concat());
    }
    is_over.store(true, Ordering::Relaxed);
    drop(publishing.join().unwrap());
}

#[test]
fn each_publisher_keeps_its_own_and_a_new_one_begins_anew() {
    let domain = TestDomain::new();
    let (first, second, there) = (open(&domain, "first"), open(&domain, "second"), open(&domain, "sink"));
    let (mut one, mut two) = (keeping(&first, "t", 2), keeping(&second, "t", 3));
    publish(&mut one, 0..5);
    publish(&mut two, 100..105);
    let mut late = there.subscribe("t").unwrap();
    let mut got = next(&mut late, 5);
    got.sort_unstable();
    assert_eq!(got, [past(3..5), past(102..105)].concat());
    // The first one is restarted: what it kept is gone, and nobody gets anything twice.
    drop(one);
    let mut one = keeping(&first, "t", 2);
    assert_quiet(&mut late);
    publish(&mut one, 5..6);
    assert_eq!(next(&mut late, 1), new(5..6));
    let mut later = there.subscribe("t").unwrap();
    let mut got = next(&mut later, 4);
    got.sort_unstable();
    assert_eq!(got, [past(5..6), past(102..105)].concat());
}

#[test]
fn more_than_fits_in_a_ring_comes_as_it_is_read() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "t", 1000);
    let mut body = [0; 100];
    for number in 0..1500_u32 {
        body[..4].copy_from_slice(&number.to_le_bytes());
        assert_eq!(publisher.publish(&body).unwrap().inboxes(), 0);
    }
    let mut late = there.subscriber_builder(["t"]).capacity(4096).open().unwrap();
    assert_eq!(next(&mut late, 1000), past(500..1500));
    assert_quiet(&mut late);
    // A publish waits until all of it is in the ring, and comes after it.
    let mut later = there.subscriber_builder(["t"]).capacity(4096).open().unwrap();
    let reading = std::thread::spawn(move || next(&mut later, 1001));
    publisher.set_timeout(LONG);
    let early = std::thread::spawn(move || next(&mut late, 1));
    assert_eq!(publisher.publish(&1500_u32.to_le_bytes()).unwrap().inboxes(), 2);
    assert_eq!(reading.join().unwrap(), [past(500..1500), new(1500..1501)].concat());
    assert_eq!(early.join().unwrap(), new(1500..1501));
}

#[test]
fn a_publish_that_cannot_wait_says_so_and_nothing_comes_out_of_order() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "t", 100);
    let mut body = [0; 1000];
    for number in 0..100_u32 {
        body[..4].copy_from_slice(&number.to_le_bytes());
        let _ = publisher.publish(&body).unwrap();
    }
    let mut late = there.subscriber_builder(["t"]).capacity(4096).open().unwrap();
    body[..4].copy_from_slice(&100_u32.to_le_bytes());
    let receipt = publisher.try_publish(&body).unwrap();
    assert_eq!((receipt.inboxes(), receipt.undelivered().len()), (0, 1), "the past fills the ring");
    let got = next(&mut late, 100);
    assert_eq!(got, past(0..100));
    assert_quiet(&mut late);
    body[..4].copy_from_slice(&101_u32.to_le_bytes());
    assert_eq!(publisher.publish(&body).unwrap().inboxes(), 1);
    assert_eq!(next(&mut late, 1), new(101..102));
}

#[test]
fn policies_hold_for_the_past_too() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "t", 100);
    let mut body = [0; 500];
    for number in 0..100_u32 {
        body[..4].copy_from_slice(&number.to_le_bytes());
        let _ = publisher.publish(&body).unwrap();
    }
    let last = |mut inbox: Inbox| {
        let mut last = 0;
        while last != 99 {
            let got = next(&mut inbox, 1);
            assert!(got[0].1 && (last == 0 || got[0].0 > last), "{got:?} after {last}");
            last = got[0].0;
        }
        assert_quiet(&mut inbox);
    };
    last(there.subscriber_builder(["t"]).policy(Policy::DropOldest).capacity(4096).open().unwrap());
    // One that drops what is new keeps the oldest, as many as its ring takes.
    let mut dropping = there.subscriber_builder(["t"]).policy(Policy::DropNewest).capacity(65536).open().unwrap();
    let first = next(&mut dropping, 1);
    assert_eq!(first, past(0..1));
}

#[test]
fn large_messages_are_kept_where_they_are() {
    const MIB: usize = 1 << 20;
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = here.publisher_builder("t").history(10).history_bytes(3 * MIB as u64).open().unwrap();
    for number in 0..6_u8 {
        match number % 2 {
            0 => assert_eq!(publisher.publish(&vec![number; MIB]).unwrap().inboxes(), 0),
            _ => {
                let mut loan = publisher.loan(MIB).unwrap();
                loan.fill(number);
                assert_eq!(publisher.publish_loan(loan).unwrap().inboxes(), 0);
            }
        }
    }
    for _ in 0..2 {
        let mut late = there.subscribe("t").unwrap();
        for number in 3..6_u8 {
            let message = late.recv_timeout(LONG).unwrap().unwrap();
            assert!(message.is_past() && message.payload() == vec![number; MIB]);
        }
        assert_quiet(&mut late);
    }
    // Short ones beside them, and inboxes that take no long ones.
    publish(&mut publisher, 7..8);
    let mut short = there.subscriber_builder(["t"]).max_message(100).open().unwrap();
    assert_eq!(next(&mut short, 1), past(7..8));
}

#[test]
fn a_durable_subscription_that_returns_gets_what_it_missed_and_no_past() {
    let domain = TestDomain::new();
    let here = open(&domain, "source");
    let mut publisher = keeping(&here, "t", 5);
    publisher.set_redelivery(Some(LONG));
    publish(&mut publisher, 0..10);
    let subscribe = |node: &Node| node.subscriber_builder(["t"]).durable("mine").open().unwrap();
    let there = open(&domain, "sink");
    let mut inbox = subscribe(&there);
    assert_eq!(next(&mut inbox, 5), past(5..10));
    publish(&mut publisher, 10..12);
    assert_eq!(next(&mut inbox, 2), new(10..12));
    assert_quiet(&mut inbox); // everything is processed
    drop(inbox);
    drop(there);
    publish(&mut publisher, 12..15);
    let there = open(&domain, "sink");
    let mut inbox = subscribe(&there);
    publish(&mut publisher, 15..16);
    assert_eq!(next(&mut inbox, 4), new(12..16));
    assert_quiet(&mut inbox);
}

#[test]
fn tasks_publish_and_flush_with_a_history() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let mut publisher = keeping(&here, "t", 4);
    let reading = pollster::block_on(async {
        for number in 0..10_u32 {
            assert_eq!(publisher.publish_async(&number.to_le_bytes()).await.unwrap().inboxes(), 0);
        }
        let mut late = there.subscriber_builder(["t"]).capacity(4096).open().unwrap();
        assert!(publisher.wait_for_subscriber_async(LONG).await.unwrap());
        let reading = std::thread::spawn(move || next(&mut late, 1004));
        publisher.set_timeout(LONG);
        for number in 10..1010_u32 {
            assert_eq!(publisher.publish_async(&number.to_le_bytes()).await.unwrap().inboxes(), 1);
        }
        let _ = publisher.flush_async(LONG).await; // the last one is processed, or lost with its inbox
        reading
    });
    assert_eq!(reading.join().unwrap(), [past(6..10), new(10..1010)].concat());
    wait_until(|| publisher.subscribers().unwrap() == 0);
    assert!(!publisher.wait_for_subscriber(Duration::from_millis(5)).unwrap());
}

#[test]
fn a_shared_publisher_may_have_a_history_and_it_ends_with_it() {
    let domain = TestDomain::new();
    let (here, there) = (open(&domain, "source"), open(&domain, "sink"));
    let publisher = keeping(&here, "t", 4).into_shared();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let publisher = &publisher;
            scope.spawn(move || assert_eq!(publisher.publish(&thread.to_le_bytes()).unwrap().inboxes, 0));
        }
    });
    let mut late = there.subscribe("t").unwrap();
    let mut got = next(&mut late, 4);
    got.sort_unstable();
    assert_eq!(got, past(0..4));
    assert_quiet(&mut late); // everything is processed
    publisher.flush(LONG).unwrap();
    drop(publisher);
    let mut later = there.subscribe("t").unwrap();
    assert_quiet(&mut later);
}

#[test]
fn a_shared_domain_keeps_its_promises_for_the_past() {
    let domain = TestDomain::new();
    let shared = |id| {
        let domain = domain.domain().shared_with_group(rustix::process::getgid().as_raw());
        Node::builder(id).domain(domain).open().expect("a group of one's own may share a domain")
    };
    let (here, there) = (shared("source"), shared("sink"));
    let mut publisher = keeping(&here, "t", 3);
    publish(&mut publisher, 0..5);
    let mut late = there.subscribe("t").unwrap();
    assert_eq!(next(&mut late, 3), past(2..5));
    publish(&mut publisher, 5..6);
    assert_eq!(next(&mut late, 1), new(5..6));
}
