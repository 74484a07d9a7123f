//! Topics between real processes: who gets what, and what happens to a message that an inbox has no room for.

use std::collections::{BTreeMap, BTreeSet};

use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppet, Puppets, TestDomain, is_root, wait_until};

/// A puppet with a node and one subscription.
fn subscriber(domain: &TestDomain, id: &str, subscription: OpenInbox) -> Puppet {
    let mut puppet = domain.node(id);
    puppet.does(subscription);
    puppet
}

/// The subscription `s` to these patterns.
fn to(patterns: &str) -> OpenInbox {
    subscribe("s", patterns)
}

#[test]
fn each_subscription_gets_what_matches_its_patterns() {
    let domain = TestDomain::new();
    let mut one = subscriber(&domain, "one", to("sensor/*/temperature"));
    let mut all = subscriber(&domain, "all", to("**"));
    let mut two = subscriber(&domain, "two", to("door,sensor/kitchen/**"));
    let mut source = domain.node("source");
    assert_eq!(source.does(publish("sensor/kitchen/temperature", "21")), reached(3));
    assert_eq!(source.does(publish("sensor/temperature", "22")), reached(1));
    assert_eq!(source.does(publish("door", "open")), reached(2));
    assert_eq!(one.does(receive_from("s")).in_full(), "source sensor/kitchen/temperature 21 0");
    assert_eq!(two.does(receive_from("s")).in_full(), "source sensor/kitchen/temperature 21 0");
    assert_eq!(two.does(receive_from("s")).in_full(), "source door open 0");
    for expected in ["sensor/kitchen/temperature 21", "sensor/temperature 22", "door open"] {
        assert_eq!(all.does(receive_from("s")).in_full(), format!("source {expected} 0"));
    }
    assert!(source.fails(publish("sensor/*", "x")).contains("misplaced `*`"));
    source.comes_to(topics_account, Account { sent: 6, processed: 3, queued: 3, ..Account::default() });
}

#[test]
fn a_node_does_not_receive_its_own_messages_unless_it_asks_to() {
    let domain = TestDomain::new();
    let mut node = subscriber(&domain, "node", to("a"));
    assert_eq!(node.does(publish("a", "1")), reached(0));
    node.does(subscribe("mine", "a").own());
    assert_eq!(node.does(publish("a", "2")), reached(1));
    assert_eq!(node.does(receive_from("mine")).in_full(), "node a 2 0");
}

/// The guarantee: a publish that begins after a subscription was opened reaches it, without any waiting in between.
fn the_guarantee_holds(open: impl Fn(&str) -> Open, published: &Published) {
    let domain = TestDomain::new();
    let mut source = domain.puppet();
    source.does(open("source"));
    assert_eq!(source.does(publish("a", "0")), reached(0));
    for round in 0..30 {
        let mut stopped = domain.puppet();
        stopped.does(open("stopped"));
        stopped.does(subscribe("s", "a"));
        stopped.stop();
        assert_eq!(&source.does(publish("a", round.to_string())), published, "round {round}");
        stopped.go_on();
        assert_eq!(stopped.does(receive_from("s")).in_full(), format!("source a {round} 0"));
        stopped.does(leave());
        source.comes_to(|| subscribers("a"), 0);
    }
    source.does(leave());
}

#[test]
fn a_publish_reaches_a_subscription_that_was_opened_before_it() {
    the_guarantee_holds(open, &reached(1));
}

#[test]
fn a_publish_in_a_shared_domain_reaches_a_subscription_that_was_opened_before_it() {
    if is_root() {
        // A stopped subscriber cannot admit anybody, so the message waits with its sender.
        the_guarantee_holds(|id| open(id).group(12_345), &pending(1));
    }
}

#[test]
fn a_publish_reaches_exactly_the_subscriptions_of_that_moment() {
    let domain = TestDomain::new();
    let mut sink = subscriber(&domain, "sink", to("a"));
    let mut source = domain.node("source");
    assert_eq!(source.does(publish("a", "1")), reached(1));
    assert_eq!(sink.does(receive_from("s")).in_full(), "source a 1 0");
    sink.does(unsubscribe("s"));
    source.comes_to(|| subscribers("a"), 0);
    assert_eq!(source.does(publish("a", "2")), reached(0));
    sink.does(subscribe("t", "a"));
    assert_eq!(source.does(publish("a", "3")), reached(1));
    assert_eq!(sink.does(receive_from("t")).in_full(), "source a 3 0");
    source.comes_to(topics_account, Account { sent: 2, processed: 1, queued: 1, ..Account::default() });
}

#[test]
fn what_a_killed_subscriber_had_not_processed_is_reported_once() {
    let domain = TestDomain::new();
    let mut other = subscriber(&domain, "other", to("a"));
    let mut doomed = subscriber(&domain, "doomed", to("a"));
    let mut source = domain.node("source");
    assert_eq!(source.does(publish_numbers("a", 1..=10)), (20, 0));
    doomed.does(receive_from("s"));
    doomed.kill();
    other.does(collect_from("s", 10));
    assert!(source.fails(flush_topics(LONG)).contains("10 messages were not processed: node \"doomed\" is gone"));
    assert_eq!(source.does(publish("a", "11")), reached(1), "reported once");
    assert_eq!(source.fails(flush_topics(ms(0))), "1 message is not processed yet");
}

/// Publishes 100 bytes on `a`.
fn publish_x() -> impl Order<Answer = Published> {
    publish("a", "x".repeat(100))
}

#[test]
fn a_stuck_subscriber_is_skipped_until_it_has_room() {
    let domain = TestDomain::new();
    let mut slow = subscriber(&domain, "slow", to("a").capacity(4096));
    let mut fast = subscriber(&domain, "fast", to("a"));
    let mut source = domain.node("source");
    source.does(set_publish_limit(ms(0)));
    let mut full = 0;
    while source.does(publish_x()).inboxes == 2 {
        full += 1;
    }
    source.does(set_publish_limit(ms(50)));
    let late = "the inbox of node \"slow\" has stayed full for 50ms";
    assert_eq!(source.does(publish_x()), reached_all_but_one(1, late));
    source.does(set_publish_limit(LONG)); // a publish that waited now would time out
    for _ in 0..3 {
        let stuck = "node \"slow\" is stuck: an earlier publish waited in vain for room in its inbox";
        assert_eq!(source.does(publish_x()), reached_all_but_one(1, stuck));
    }
    slow.does(receive_from("s"));
    slow.does(receive_from("s")); // the first is processed, so there is room for one
    assert_eq!(source.does(publish_x()), reached(2));
    assert_eq!(fast.does(collect_from("s", full + 6)), BTreeMap::from([("source:a".to_owned(), full + 6)]));
    let end = fast.begins(receive_from("s")); // acknowledges the last one
    assert_eq!(source.does(publish("a", "end")), reached(2));
    assert_eq!(fast.completes(end).text, "end");
    let (sent, processed, queued) = (2 * (full + 6) + 2, full + 6 + 1, full + 2);
    assert_eq!(source.does(topics_account()), Account { sent, processed, queued, returned: 5, dropped: 0 });
}

#[test]
fn a_publish_waits_again_for_a_subscriber_that_was_stuck() {
    let domain = TestDomain::new();
    let mut slow = subscriber(&domain, "slow", to("a").capacity(4096));
    let mut source = domain.node("source");
    let late = "the inbox of node \"slow\" has stayed full for 50ms";
    source.does(set_publish_limit(ms(50)));
    while source.does(publish_x()) == reached(1) {}
    assert!(source.does(publish_x()).undelivered[0].contains("is stuck"));
    slow.does(receive_from("s"));
    slow.does(receive_from("s")); // there is room for one
    assert_eq!(source.does(publish_x()), reached(1));
    assert_eq!(source.does(publish_x()), reached_all_but_one(0, late), "it is not stuck any more");
}

#[test]
fn drop_newest_drops_and_counts() {
    let domain = TestDomain::new();
    let mut sink = subscriber(&domain, "sink", to("a").capacity(4096).drop_newest());
    let mut source = domain.node("source");
    let (delivered, dropped) = source.does(publish_numbers("a", 1..=1000));
    assert!(delivered < 1000 && delivered + dropped == 1000, "{delivered} delivered, {dropped} dropped");
    let full = "the inbox of node \"sink\" is full: the message was dropped";
    assert_eq!(source.does(publish("a", "x")), reached_all_but_one(0, full));
    assert_eq!(sink.does(collect_from("s", delivered)), BTreeMap::from([("source:a".to_owned(), delivered)]));
    source.does(flush_topics(LONG));
    let expected = Account { sent: 1001, processed: delivered, queued: 0, dropped: dropped + 1, returned: 0 };
    assert_eq!(source.does(topics_account()), expected);
}

#[test]
fn a_subscriber_in_mode_latest_never_delays_a_publish_and_learns_what_it_missed() {
    let domain = TestDomain::new();
    let mut sink = subscriber(&domain, "sink", to("a,b").capacity(4096).latest());
    let mut source = domain.node("source");
    source.does(set_publish_limit(ms(0)));
    assert_eq!(source.does(publish_numbers("a", 1..=100_000)), (100_000, 0));
    let (received, missed) = sink.does(receive_until("s", 100_000));
    assert_eq!(received + missed, 100_000);
    assert!((10..200).contains(&received), "{received}");
    // A topic is known although its declaration was overwritten laps ago.
    assert_eq!(source.does(publish("b", "100001")), reached(1));
    assert_eq!(sink.does(receive_from("s")).in_full(), "source b 100001 0");
    sink.begins(receive_from("s")); // acknowledges, then waits
    source.does(flush_topics(LONG));
}

#[test]
fn publishers_follow_a_domain_that_was_removed_under_them() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let mut old = subscriber(&domain, "old", to("a"));
    assert_eq!(source.does(publish("a", "1")), reached(1));
    assert_eq!(old.does(receive_from("s")).in_full(), "source a 1 0");
    std::fs::remove_dir_all(domain.path()).expect("the domain is there");
    let mut new = subscriber(&domain, "new", to("a"));
    old.does(subscribe("t", "b")); // notices the removal and joins again; the publisher notices that
    assert_eq!(source.does(publish("a", "2")), reached(2));
    assert_eq!(new.does(receive_from("s")).in_full(), "source a 2 0");
    assert_eq!(old.does(receive_from("s")).in_full(), "source a 2 0");
}

#[test]
fn a_thousand_topics_reach_exactly_the_subscribers_that_want_them() {
    let domain = TestDomain::new();
    let levels = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let topics: Vec<String> =
        (0..1000).map(|n| format!("{}/{}/{}", levels[n % 10], levels[n / 10 % 10], levels[n / 100])).collect();
    let pattern = |n: usize| match n % 5 {
        0 => format!("{}/**", levels[n % 7]),
        1 => format!("*/{}/*", levels[n % 9]),
        2 => format!("**/{}", levels[n / 3 % 10]),
        3 => format!("{}/*/{},{}/{}/**", levels[n % 10], levels[n / 7 % 10], levels[n % 10], levels[n % 3]),
        _ => format!("{}/{}/{}", levels[n % 10], levels[n / 2 % 10], levels[n / 4 % 10]),
    };
    let mut sinks: Vec<Puppet> = (0..20).map(|n| domain.node(&format!("sink{n}"))).collect();
    let descriptors_before = sinks[0].does(descriptors());
    for n in 0..200 {
        sinks[n / 10].does(subscribe(&format!("s{n}"), &pattern(n)));
    }
    let mut expected = vec![BTreeMap::<String, u64>::new(); 200];
    for round in 0..2 {
        for id in ["left", "right"] {
            let mut source = domain.node(id);
            let before = source.does(descriptors());
            let mut all_wanting = BTreeSet::<usize>::new();
            for topic in &topics {
                let wants = |n: &usize| pattern(*n).split(',').any(|pattern| matches(pattern, topic));
                let wanting: Vec<usize> = (0..200).filter(wants).collect();
                assert_eq!(source.does(publish(topic, round.to_string())), reached(wanting.len()), "{topic}");
                all_wanting.extend(&wanting);
                for n in wanting {
                    *expected[n].entry(format!("{id}:{topic}")).or_default() += 1;
                }
            }
            // For a thousand topics there is one connection to each inbox. A ring needs no descriptor once it is connected.
            let most = before + 1 + all_wanting.len() as u64;
            wait_until(|| source.does(descriptors()) <= most);
            source.does(leave());
        }
    }
    for (n, expected) in expected.iter().enumerate() {
        let count: u64 = expected.values().sum();
        assert_eq!(&sinks[n / 10].does(collect_from(&format!("s{n}"), count)), expected, "subscriber {n}");
    }
    // Each subscription is an inbox with 2 descriptors. Its last receive may not have noticed the last publishers leave.
    let now = sinks[0].does(descriptors());
    assert!(now <= descriptors_before + 10 * (2 + 2), "{now} descriptors, {descriptors_before} before");
}

/// Whether a pattern matches a topic: the definition in words, as a matcher of the test's own.
fn matches(pattern: &str, topic: &str) -> bool {
    fn levels(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.first(), topic.first()) {
            (None, None) => true,
            (Some(&"**"), _) => (0..=topic.len()).any(|skipped| levels(&pattern[1..], &topic[skipped..])),
            (Some(&wanted), Some(&level)) => (wanted == "*" || wanted == level) && levels(&pattern[1..], &topic[1..]),
            _ => false,
        }
    }
    levels(&pattern.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}
