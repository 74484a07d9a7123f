//! A receiver dies, and its next incarnation gets the messages that it had not processed: in order, once, and flagged
//! if they were in work.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use librpc::{Node, Rate};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Begun, ForkedChild, Puppet, Puppets, TestDomain};

/// A connected sender with redelivery.
fn sender(domain: &TestDomain, limit: Duration) -> Puppet {
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(set_redelivery("sink", limit));
    source
}

/// Receives exactly these messages: `number:text`, and `!` if it is redelivered.
#[track_caller]
fn receives(sink: &mut Puppet, expected: &[&str]) {
    for expected in expected {
        assert_eq!(sink.does(receive()).numbered(), *expected);
    }
}

/// The sink acknowledges the last message, so that a flush is done, and then receives one more.
#[track_caller]
fn flushed_then_receives(source: &mut Puppet, flushed: Begun<()>, sink: &mut Puppet, expected: &str) {
    let next = sink.begins(receive()); // acknowledges, then waits
    source.completes(flushed);
    let (_, text) = expected.split_once(':').expect("number:text");
    source.does(send("sink", text));
    assert_eq!(sink.completes(next).numbered(), expected);
}

#[test]
fn the_next_incarnation_gets_what_was_not_processed() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=5));
    assert_eq!(sink.does(receive()).numbered(), "0:1");
    assert_eq!(sink.does(receive()).numbered(), "1:2"); // 1 is processed now, 2 is in work
    sink.kill();
    source.does(send("sink", "6")); // while nobody is there
    let mut sink = domain.receiver("sink");
    source.does(send("sink", "7"));
    receives(&mut sink, &["1:2!", "2:3", "3:4", "4:5", "5:6", "6:7"]);
    let next = sink.begins(receive()); // acknowledges the last one, then waits
    source.does(flush("sink", LONG));
    assert_eq!(source.does(account("sink")), Account { sent: 7, processed: 7, ..Account::default() });
    source.does(send("sink", "8"));
    assert_eq!(sink.completes(next).text, "8");
}

#[test]
fn a_flush_waits_for_the_receiver_to_be_back() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=100));
    sink.kill();
    let flushed = source.begins(flush("sink", LONG));
    let mut sink = domain.receiver("sink");
    sink.does(receive_numbers(1..=100));
    sink.begins(receive()); // acknowledges the last one
    source.completes(flushed);
}

#[test]
fn what_was_kept_is_returned_when_the_time_is_over() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, ms(100));
    source.does(send_numbers("sink", 1..=3));
    assert_eq!(sink.does(receive()).numbered(), "0:1");
    sink.kill();
    let error = source.fails(flush("sink", LONG));
    assert!(error.contains("3 messages were not processed: node \"sink\" is gone"), "{error}");
    assert_eq!(source.does(account("sink")), Account { sent: 3, returned: 3, ..Account::default() });
    assert_eq!(source.does(take_returned("sink")), ["0:1!", "1:2", "2:3"]);
    assert_eq!(source.does(take_returned("sink")), [""; 0], "once");
    let mut sink = domain.receiver("sink");
    source.does(send("sink", "4"));
    assert_eq!(sink.does(receive()).text, "4", "what was returned is not delivered");
}

#[test]
fn no_more_is_kept_than_the_ring_holds() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(inbox().capacity(4096));
    let mut source = sender(&domain, LONG);
    source.does(send("sink", "first"));
    assert_eq!(sink.does(receive()).text, "first");
    sink.kill();
    let kept = source.does(fill("sink", 100));
    assert!((30..=40).contains(&kept), "{kept}");
    source.does(set_timeout("sink", ms(20)));
    assert!(source.fails(send("sink", "x".repeat(100))).contains("full"));
    let mut sink = domain.receiver("sink");
    source.does(send("sink", "last"));
    assert_eq!(sink.does(receive()).text, "first", "it was in work");
    for _ in 0..kept {
        assert_eq!(sink.does(receive()).text.len(), 100);
    }
    assert_eq!(sink.does(receive()).text, "last");
}

#[test]
fn what_does_not_fit_at_once_is_delivered_later() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=5000));
    sink.kill();
    let mut sink = domain.node("sink");
    sink.does(inbox().capacity(4096)); // has room for 170 of them
    let flushed = source.begins(flush("sink", LONG));
    sink.does(receive_numbers(1..=5000));
    sink.begins(receive()); // acknowledges the last one
    source.completes(flushed);
    assert_eq!(source.does(account("sink")), Account { sent: 5000, processed: 5000, ..Account::default() });
}

#[test]
fn receivers_can_die_again_and_again() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let mut sink = domain.receiver("sink");
    source.does(connect("sink"));
    source.does(set_redelivery("sink", LONG));
    source.does(set_timeout("sink", LONG));
    let sent = source.begins(send_numbers("sink", 1..=20_000));
    let flushed = source.begins(flush("sink", LONG)); // redelivery happens in the sender's calls
    let (mut next, mut twice) = (1, 0);
    for round in 0..20 {
        for _ in 0..round * 37 % 500 {
            let message = sink.does(receive());
            let value: u64 = message.text.parse().unwrap();
            assert_eq!(message.number + 1, value, "the numbers continue");
            if value + 1 == next {
                assert!(message.is_redelivered, "{value} comes twice without a mark");
                twice += 1;
                continue;
            }
            assert_eq!(value, next, "in round {round}");
            next += 1;
        }
        sink.kill();
        sink = domain.receiver("sink");
    }
    while next <= 20_000 {
        let value: u64 = sink.does(receive()).text.parse().unwrap();
        if value + 1 != next {
            assert_eq!(value, next);
            next += 1;
        }
    }
    assert!(twice <= 20, "{twice} came twice");
    sink.begins(receive()); // acknowledges the last one
    source.completes(sent);
    source.completes(flushed);
}

/// Four of these fill a ring of 4096 bytes.
fn quarter() -> String {
    "x".repeat(900)
}

/// Four messages fill the ring, and one waits. Each incarnation gets a full ring of its own, and dies before it has processed the first
/// message. The last one lives.
fn dies_more_often_than_a_message_is_tried(
    mut sink: Puppet,
    open: impl Fn() -> Puppet,
    receive: impl Fn(&mut Puppet) -> u64,
) {
    for _ in 0..20 {
        assert_eq!(receive(&mut sink), 0);
        sink.kill();
        sink = open();
    }
    for number in 0..5 {
        assert_eq!(receive(&mut sink), number);
    }
}

#[test]
fn a_send_waits_although_its_receiver_dies_again_and_again() {
    let domain = TestDomain::new();
    let open = || {
        let mut sink = domain.node("sink");
        sink.does(inbox().capacity(4096));
        sink
    };
    let sink = open();
    let mut source = sender(&domain, LONG);
    source.does(set_timeout("sink", LONG));
    for _ in 0..4 {
        source.does(send("sink", quarter()));
    }
    let waits = source.begins(send("sink", quarter()));
    dies_more_often_than_a_message_is_tried(sink, open, |sink| sink.does(receive()).number);
    source.completes(waits);
}

#[test]
fn a_publish_waits_although_its_receiver_dies_again_and_again() {
    let domain = TestDomain::new();
    let open = || {
        let mut sink = domain.node("sink");
        sink.does(subscribe("s", "a").durable("all").capacity(4096));
        sink
    };
    let sink = open();
    let mut source = domain.node("source");
    source.does(set_topic_redelivery(LONG));
    source.does(set_publish_limit(LONG));
    for _ in 0..4 {
        assert_eq!(source.does(publish("a", quarter())), reached(1));
    }
    let waits = source.begins(publish("a", quarter()));
    dies_more_often_than_a_message_is_tried(sink, open, |sink| sink.does(receive_from("s")).number);
    assert_eq!(source.completes(waits), reached(1));
}

#[test]
fn a_durable_subscription_continues_after_a_death() {
    let domain = TestDomain::new();
    let mut other = domain.node("other");
    other.does(subscribe("s", "a"));
    let mut sink = domain.node("sink");
    sink.does(subscribe("s", "a,b").durable("orders"));
    let mut source = domain.node("source");
    source.does(set_topic_redelivery(LONG));
    assert_eq!(source.does(publish("a", "1")), reached(2));
    assert_eq!(source.does(publish("b", "2")), reached(1));
    assert_eq!(source.does(publish("a", "3")), reached(2));
    assert_eq!(sink.does(receive_from("s")).in_full(), "source a 1 0");
    sink.kill();
    // The durable subscription still counts: what is published is kept for it.
    assert_eq!(source.does(publish("b", "4")), reached(1));
    let mut sink = domain.node("sink");
    sink.does(subscribe("t", "a,b").durable("orders"));
    assert_eq!(source.does(publish("a", "5")), reached(2));
    for expected in ["a 1 0!", "b 2 0", "a 3 0", "b 4 0", "a 5 0"] {
        assert_eq!(sink.does(receive_from("t")).in_full(), format!("source {expected}"));
    }
    for expected in ["1", "3", "5"] {
        assert_eq!(other.does(receive_from("s")).in_full(), format!("source a {expected} 0"));
    }
    assert!(sink.fails(subscribe("u", "c").durable("orders")).contains("already"));
}

#[test]
fn a_durable_subscription_that_does_not_return_is_given_up() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(subscribe("s", "a").durable("orders"));
    let mut source = domain.node("source");
    source.does(set_topic_redelivery(ms(100)));
    assert_eq!(source.does(publish_numbers("a", 1..=10)), (10, 0));
    sink.kill();
    let error = source.fails(flush_topics(LONG));
    assert!(error.contains("10 messages were not processed: node \"sink\" is gone"), "{error}");
    assert_eq!(source.does(publish("a", "11")), reached(0));
    assert_eq!(source.does(topics_account()), Account { sent: 10, returned: 10, ..Account::default() });
}

#[test]
fn an_inbox_that_is_closed_and_opened_again_gets_the_rest() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=3));
    assert_eq!(sink.does(receive()).numbered(), "0:1");
    sink.does(drop_inbox()); // not while panicking, so the message is processed
    sink.does(inbox());
    source.does(send("sink", "4")); // the source may notice the end only now; its next call brings the rest
    let flushed = source.begins(flush("sink", LONG));
    receives(&mut sink, &["1:2", "2:3", "3:4"]);
    flushed_then_receives(&mut source, flushed, &mut sink, "4:5");
}

#[test]
fn returned_messages_wait_until_they_are_taken() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, ms(50));
    source.does(send_numbers("sink", 1..=2));
    sink.kill();
    assert!(source.fails(flush("sink", LONG)).contains("2 messages were not processed"));
    let mut sink = domain.receiver("sink");
    source.does(send("sink", "3"));
    sink.kill();
    assert!(source.fails(flush("sink", LONG)).contains("1 message was not processed"));
    let returned = source.does(take_returned("sink"));
    assert_eq!(returned[..2], ["0:1", "1:2"]);
    // Whether the second incarnation had handed it out is not known if it died before its answer was seen.
    assert_eq!(returned[2].trim_end_matches('!'), "0:3");
}

#[test]
fn what_is_too_large_for_the_next_incarnation_is_returned() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    let long = "x".repeat(5000);
    for text in ["1", &long, "3"] {
        source.does(send("sink", text));
    }
    sink.kill();
    let mut sink = domain.node("sink");
    sink.does(inbox().max_message(4096));
    let error = source.fails(flush("sink", LONG));
    assert!(error.contains("takes shorter messages") && error.contains("1 message sent before"), "{error}");
    assert_eq!(source.does(take_returned("sink")), [format!("1:{long}")]);
    let flushed = source.begins(flush("sink", LONG));
    assert_eq!(sink.does(receive()).numbered(), "0:1");
    assert_eq!(sink.does(receive()).numbered(), "2:3", "the message that was left out keeps its number");
    let next = sink.begins(receive());
    source.completes(flushed);
    assert_eq!(source.does(account("sink")), Account { sent: 3, processed: 2, returned: 1, ..Account::default() });
    source.does(send("sink", "4"));
    assert_eq!(sink.completes(next).text, "4");
}

#[test]
fn numbers_continue_wherever_a_message_is_left_out() {
    let domain = TestDomain::new();
    let long = "x".repeat(5000);
    let is_long = |number: u64| [0, 1, 4, 7, 8, 9].contains(&number);
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    for number in 0..10 {
        source.does(send("sink", if is_long(number) { long.clone() } else { number.to_string() }));
    }
    sink.kill();
    let mut sink = domain.node("sink");
    sink.does(inbox().max_message(4096));
    let assert_reports = |error: String, count: u64| {
        let text = format!("{count} message{} sent before", if count == 1 { "" } else { "s" });
        assert!(error.contains("takes shorter messages") && error.contains(&text), "{count}: {error}");
    };
    assert_reports(source.fails(flush("sink", LONG)), 2);
    assert_reports(source.fails(flush("sink", LONG)), 1);
    let flushed = source.begins(flush("sink", LONG));
    assert_eq!(sink.does(receive()).numbered(), "2:2");
    assert_eq!(sink.does(receive()).numbered(), "3:3");
    let next = sink.begins(receive()); // acknowledges; only then comes what follows the gap
    assert_reports(source.reply(flushed).unwrap_err(), 3);
    assert_eq!(sink.completes(next).numbered(), "5:5");
    assert_eq!(sink.does(receive()).numbered(), "6:6");
    let next = sink.begins(receive());
    source.does(flush("sink", LONG));
    source.does(send("sink", "10"));
    assert_eq!(sink.completes(next).numbered(), "10:10");
    assert_eq!(source.does(take_returned("sink")).len(), 6);
}

#[test]
fn closing_a_node_reports_what_was_kept_as_not_processed() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=3));
    sink.kill();
    source.does(send("sink", "4"));
    assert!(source.fails(close_alone(ms(0))).contains("before 4 of its messages"));
    assert!(source.fails(flush("sink", ms(100))).contains("4 messages were not processed"));
}

#[test]
fn an_inbox_that_drops_delays_nobody_while_it_is_gone() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(inbox().capacity(4096).drop_newest());
    let mut source = sender(&domain, LONG);
    source.does(set_timeout("sink", LONG));
    source.does(send_numbers("sink", 0..=2));
    assert_eq!(sink.does(receive()).numbered(), "0:0");
    sink.kill();
    // Filling ends with the first message that is not taken.
    let kept = source.does(fill("sink", 100));
    assert!((30..=40).contains(&kept), "{kept}");
    let dropped = source.fails(send("sink", "x".repeat(100)));
    assert!(dropped.contains("dropped"), "{dropped}");
    let Account { sent, processed, queued, dropped, returned } = source.does(account("sink"));
    assert_eq!((sent, processed, queued, returned), (queued + dropped, 0, kept + 3, 0));
    let mut sink = domain.node("sink");
    sink.does(inbox().capacity(4096).drop_newest());
    let flushed = source.begins(flush("sink", LONG));
    receives(&mut sink, &["0:0!", "1:1", "2:2"]);
    for number in 3..kept + 3 {
        assert!(sink.does(receive()).numbered().starts_with(&format!("{number}:x")));
    }
    // What was dropped has no number.
    flushed_then_receives(&mut source, flushed, &mut sink, &format!("{}:last", kept + 3));
}

#[test]
fn a_domain_that_is_removed_while_its_receiver_is_gone_costs_no_message() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=3));
    assert_eq!(sink.does(receive()).numbered(), "0:1");
    sink.kill();
    source.does(send("sink", "4"));
    let flushed = source.begins(flush("sink", LONG));
    std::fs::rename(domain.path(), domain.path().with_extension("away")).unwrap();
    std::fs::remove_dir_all(domain.path().with_extension("away")).unwrap();
    let mut sink = domain.receiver("sink");
    receives(&mut sink, &["0:1!", "1:2", "2:3", "3:4"]);
    flushed_then_receives(&mut source, flushed, &mut sink, "4:5");
}

#[test]
fn a_forked_child_does_not_redeliver() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, LONG);
    source.does(send_numbers("sink", 1..=3));
    assert_eq!(sink.does(receive()).numbered(), "0:1");
    sink.kill();
    source.does(send("sink", "4"));
    let first = source.does(fork("sink"));
    let _first = ForkedChild::of(&first);
    let mut sink = domain.receiver("sink");
    let second = source.does(fork("sink")); // the receiver is back, and nothing has been redelivered yet
    let _second = ForkedChild::of(&second);
    for sent in [first.sent, second.sent] {
        let error = sent.unwrap_err();
        assert!(error.contains("belongs to the process that forked this one"), "{error}");
    }
    let flushed = source.begins(flush("sink", LONG));
    receives(&mut sink, &["0:1!", "1:2", "2:3", "3:4"]);
    flushed_then_receives(&mut source, flushed, &mut sink, "4:5");
}

#[test]
fn a_rate_limit_holds_while_its_receiver_is_killed_again_and_again() {
    const COUNT: u64 = 300;
    const BURST: u32 = 20;
    const PER_SECOND: u32 = 200;
    let domain = TestDomain::new();
    let node = Node::builder("source").domain(domain.domain()).open().unwrap();
    let mut sink = domain.receiver("sink");
    let mut sender = node.connect("sink").unwrap();
    sender.set_redelivery(Some(LONG));
    sender.set_timeout(LONG);
    let [per_second, burst] = [PER_SECOND, BURST].map(|number| NonZeroU32::new(number).unwrap());
    sender.limit_rate(Some(Rate::messages(per_second, burst)));
    let sending = std::thread::spawn(move || {
        let begun = Instant::now();
        for number in 0..COUNT {
            sender.send(number.to_string().as_bytes()).unwrap();
        }
        let took = begun.elapsed();
        sender.flush(LONG).unwrap();
        (sender.account(), took)
    });
    let mut received = BTreeSet::new();
    for _ in 0..10 {
        for _ in 0..10 {
            received.insert(sink.does(receive()).text);
        }
        sink.kill();
        sink = domain.receiver("sink");
    }
    while (received.len() as u64) < COUNT {
        received.insert(sink.does(receive()).text);
    }
    sink.begins(receive()); // acknowledges the last one
    let (account, took) = sending.join().unwrap();
    assert_eq!((account.sent, account.processed, account.returned), (COUNT, COUNT, 0));
    assert!(took >= Duration::from_secs(COUNT - u64::from(BURST)) / PER_SECOND, "faster than the limit: {took:?}");
}

/// Its publisher has looked for it, and has sent it nothing.
#[test]
fn a_durable_subscription_that_returns_before_anything_was_sent_gets_each_message_once() {
    let domain = TestDomain::new();
    let open = |id: &str| Node::builder(id).domain(domain.domain()).open().unwrap();
    let source = open("source");
    let mut publisher = source.publisher("orders").unwrap();
    publisher.set_redelivery(Some(LONG));
    for _ in 0..3 {
        let sink = open("sink");
        let _former = sink.subscriber_builder(["orders"]).durable("all").open().unwrap();
        assert_eq!(publisher.subscribers().unwrap(), 1);
    }
    let sink = open("sink");
    let mut inbox = sink.subscriber_builder(["orders"]).durable("all").open().unwrap();
    for number in 0..10u8 {
        let receipt = publisher.publish(&[number]).unwrap();
        assert_eq!((receipt.inboxes(), receipt.undelivered().len()), (1, 0), "{receipt:?}");
        assert_eq!(inbox.recv_timeout(LONG).unwrap().expect("it was published").payload(), [number]);
    }
    assert!(inbox.try_recv().unwrap().is_none()); // acknowledges the last one
    publisher.flush(LONG).unwrap();
    assert!(inbox.try_recv().unwrap().is_none());
}
