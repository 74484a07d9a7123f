//! Topics between real processes: who gets what, and what becomes of a message that an inbox has no room for.

use std::collections::{BTreeMap, BTreeSet};

use librpc_system_tests::{Puppet, TestDomain, is_root};

fn subscriber(domain: &TestDomain, id: &str, subscription: &str) -> Puppet {
    let mut puppet = domain.node(id);
    puppet.does(&format!("subscribe s {subscription}"));
    puppet
}

/// Asks again until the answer is this.
#[track_caller]
fn comes_to_say(puppet: &mut Puppet, command: &str, expected: &str) {
    let mut answer = String::new();
    for _ in 0..100_000 {
        answer = puppet.says(command);
        if answer == expected {
            return;
        }
        std::thread::yield_now();
    }
    assert_eq!(answer, expected, "{command}");
}

#[test]
fn each_subscription_gets_what_it_wants() {
    let domain = TestDomain::new();
    let mut one = subscriber(&domain, "one", "sensor/*/temperature");
    let mut all = subscriber(&domain, "all", "**");
    let mut two = subscriber(&domain, "two", "door,sensor/kitchen/**");
    let mut source = domain.node("source");
    assert_eq!(source.says("publish sensor/kitchen/temperature 21"), "3");
    assert_eq!(source.says("publish sensor/temperature 22"), "1");
    assert_eq!(source.says("publish door open"), "2");
    assert_eq!(one.says("hear s"), "source sensor/kitchen/temperature 21 0");
    assert_eq!(two.says("hear s"), "source sensor/kitchen/temperature 21 0");
    assert_eq!(two.says("hear s"), "source door open 0");
    for expected in ["sensor/kitchen/temperature 21", "sensor/temperature 22", "door open"] {
        assert_eq!(all.says("hear s"), format!("source {expected} 0"));
    }
    assert!(source.fails("publish sensor/* x").contains("stand alone"));
    comes_to_say(&mut source, "account", "6 sent, 3 processed, 3 queued, 0 dropped, 0 returned");
}

#[test]
fn a_node_does_not_hear_itself_unless_it_asks_to() {
    let domain = TestDomain::new();
    let mut node = subscriber(&domain, "node", "a");
    assert_eq!(node.says("publish a 1"), "0");
    node.does("subscribe mine a own");
    assert_eq!(node.says("publish a 2"), "1");
    assert_eq!(node.says("hear mine"), "node a 2 0");
}

/// The guarantee: a publish that begins after a subscription was opened reaches it, without any waiting in between.
fn the_guarantee_holds(domain: &TestDomain, options: &str, receipt: &str) {
    let mut source = domain.puppet();
    assert_eq!(source.opens("source", options), "ok");
    assert_eq!(source.says("publish a 0"), "0");
    for round in 0..30 {
        let mut stopped = domain.puppet();
        assert_eq!(stopped.opens("stopped", options), "ok");
        stopped.does("subscribe s a");
        stopped.stop();
        assert_eq!(source.says(&format!("publish a {round}")), receipt, "round {round}");
        stopped.go_on();
        assert_eq!(stopped.says("hear s"), format!("source a {round} 0"));
        stopped.does("leave");
        comes_to_say(&mut source, "subscribers a", "0");
    }
    source.does("leave");
}

#[test]
fn a_publish_reaches_a_subscription_that_was_opened_before_it() {
    the_guarantee_holds(&TestDomain::new(), "", "1");
}

#[test]
fn the_guarantee_holds_in_shared_domains() {
    if is_root() {
        // A stopped subscriber cannot admit anybody: the message waits for it here.
        the_guarantee_holds(&TestDomain::new(), "group=12345", "0, 1 pending");
    }
}

#[test]
fn a_subscription_that_ends_is_left_out_and_one_that_comes_is_taken_in() {
    let domain = TestDomain::new();
    let mut sink = subscriber(&domain, "sink", "a");
    let mut source = domain.node("source");
    assert_eq!(source.says("publish a 1"), "1");
    assert_eq!(sink.says("hear s"), "source a 1 0");
    sink.does("unsubscribe s");
    comes_to_say(&mut source, "subscribers a", "0");
    assert_eq!(source.says("publish a 2"), "0");
    sink.does("subscribe t a");
    assert_eq!(source.says("publish a 3"), "1");
    assert_eq!(sink.says("hear t"), "source a 3 0");
    comes_to_say(&mut source, "account", "2 sent, 1 processed, 1 queued, 0 dropped, 0 returned");
}

#[test]
fn what_a_killed_subscriber_had_not_processed_is_told_once() {
    let domain = TestDomain::new();
    let mut other = subscriber(&domain, "other", "a");
    let mut doomed = subscriber(&domain, "doomed", "a");
    let mut source = domain.node("source");
    assert_eq!(source.says("publish-count a 1 10"), "20 0");
    doomed.says("hear s");
    doomed.kill();
    other.says("collect s 10");
    assert!(source.fails("flush-topics 10000").contains("10 messages were not processed: node \"doomed\" is gone"));
    assert_eq!(source.says("publish a 11"), "1", "told once");
    assert_eq!(source.fails("flush-topics 0"), "1 messages are not processed yet");
}

#[test]
fn a_stuck_subscriber_is_left_out_until_it_moves() {
    let domain = TestDomain::new();
    let mut slow = subscriber(&domain, "slow", "a capacity=4096");
    let mut fast = subscriber(&domain, "fast", "a");
    let mut source = domain.node("source");
    source.does("limit-publish 0");
    let mut full = 0;
    while source.says(&format!("publish a {}", "x".repeat(100))).starts_with('2') {
        full += 1;
    }
    let x = "x".repeat(100);
    source.does("limit-publish 50");
    let late = "1; node \"slow\" has made no room within 50ms: its inbox is full";
    assert_eq!(source.says(&format!("publish a {x}")), late);
    source.does("limit-publish 60000"); // whoever waited now would wait for ever
    for _ in 0..3 {
        let stuck = "1; node \"slow\" is stuck: an earlier publish has waited for its inbox in vain";
        assert_eq!(source.says(&format!("publish a {x}")), stuck);
    }
    slow.says("hear s");
    slow.says("hear s"); // the first is processed: there is room for one
    assert_eq!(source.says(&format!("publish a {x}")), "2");
    assert_eq!(fast.says(&format!("collect s {}", full + 6)), format!("source:a={}", full + 6));
    let (sent, queued) = (2 * (full + 6), full);
    fast.begins("hear s"); // acknowledges the last one
    assert_eq!(source.says("publish a end"), "2");
    fast.answer();
    let processed = full + 6 + 1;
    assert_eq!(
        source.says("account"),
        format!("{} sent, {processed} processed, {} queued, 0 dropped, 5 returned", sent + 2, queued + 2)
    );
}

#[test]
fn whoever_has_moved_is_waited_for_again() {
    let domain = TestDomain::new();
    let mut slow = subscriber(&domain, "slow", "a capacity=4096");
    let mut source = domain.node("source");
    let publish = format!("publish a {}", "x".repeat(100));
    let late = "0; node \"slow\" has made no room within 50ms: its inbox is full";
    source.does("limit-publish 50");
    while source.says(&publish) == "1" {}
    assert!(source.says(&publish).contains("is stuck"));
    slow.says("hear s");
    slow.says("hear s"); // there is room for one
    assert_eq!(source.says(&publish), "1");
    assert_eq!(source.says(&publish), late, "it is stuck no more, and is waited for");
}

#[test]
fn drop_newest_drops_and_counts() {
    let domain = TestDomain::new();
    let mut sink = subscriber(&domain, "sink", "a capacity=4096 drop-newest");
    let mut source = domain.node("source");
    let answer = source.says("publish-count a 1 1000");
    let (delivered, dropped) = answer.split_once(' ').expect("two numbers");
    let (delivered, dropped): (u64, u64) = (delivered.parse().unwrap(), dropped.parse().unwrap());
    assert!(delivered < 1000 && delivered + dropped == 1000, "{answer}");
    assert_eq!(source.says("publish a x"), "0; node \"sink\" has dropped the message: its inbox is full");
    assert_eq!(sink.says(&format!("collect s {delivered}")), format!("source:a={delivered}"));
    source.does("flush-topics 10000");
    let expected = format!("1001 sent, {delivered} processed, 0 queued, {} dropped, 0 returned", dropped + 1);
    assert_eq!(source.says("account"), expected);
}

#[test]
fn latest_never_waits_and_says_what_was_missed() {
    let domain = TestDomain::new();
    let mut sink = subscriber(&domain, "sink", "a,b capacity=4096 latest");
    let mut source = domain.node("source");
    source.does("limit-publish 0");
    assert_eq!(source.says("publish-count a 1 100000"), "100000 0");
    let heard = sink.says("hear-until s 100000");
    let (received, missed) = heard.split_once(' ').unwrap_or_else(|| panic!("{heard}"));
    let (received, missed): (u64, u64) = (received.parse().unwrap(), missed.parse().unwrap());
    assert_eq!(received + missed, 100_000);
    assert!((10..200).contains(&received), "{received}");
    // A topic that was declared laps ago is known all the same.
    assert_eq!(source.says("publish b 100001"), "1");
    assert_eq!(sink.says("hear s"), "source b 100001 0");
    sink.begins("hear s"); // acknowledges, then waits
    source.does("flush-topics 10000");
}

#[test]
fn publishers_follow_a_domain_that_was_removed_under_them() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let mut old = subscriber(&domain, "old", "a");
    assert_eq!(source.says("publish a 1"), "1");
    assert_eq!(old.says("hear s"), "source a 1 0");
    std::fs::remove_dir_all(domain.path()).expect("the domain is there");
    let mut new = subscriber(&domain, "new", "a");
    old.does("subscribe t b"); // has to do with the registry, and joins anew; the publisher hears of that
    assert_eq!(source.says("publish a 2"), "2");
    assert_eq!(new.says("hear s"), "source a 2 0");
    assert_eq!(old.says("hear s"), "source a 2 0");
}

#[test]
fn many_topics_many_subscribers() {
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
    let descriptors = sinks[0].says("descriptors").parse::<u64>().unwrap();
    for n in 0..200 {
        sinks[n / 10].does(&format!("subscribe s{n} {}", pattern(n)));
    }
    let mut expected = vec![BTreeMap::<String, u64>::new(); 200];
    for round in 0..2 {
        for id in ["left", "right"] {
            let mut source = domain.node(id);
            let before = source.says("descriptors").parse::<usize>().unwrap();
            let mut reached = BTreeSet::<usize>::new();
            for topic in &topics {
                let wants = |n: &usize| pattern(*n).split(',').any(|pattern| matches(pattern, topic));
                let wanting: Vec<usize> = (0..200).filter(wants).collect();
                assert_eq!(source.says(&format!("publish {topic} {round}")), wanting.len().to_string(), "{topic}");
                reached.extend(&wanting);
                for n in wanting {
                    *expected[n].entry(format!("{id}:{topic}")).or_default() += 1;
                }
            }
            // A thousand topics, and one connection to each inbox: the memory of a ring that is answered needs none.
            let all = 1 + reached.len();
            let few = |source: &mut Puppet| source.says("descriptors").parse::<usize>().unwrap() <= before + all;
            (0..100_000).find(|_| few(&mut source)).expect("descriptors as few as inboxes");
            source.does("leave");
        }
    }
    for (n, expected) in expected.iter().enumerate() {
        let count: u64 = expected.values().sum();
        let counts: Vec<String> = expected.iter().map(|(topic, count)| format!("{topic}={count}")).collect();
        assert_eq!(sinks[n / 10].says(&format!("collect s{n} {count}")), counts.join(","), "subscriber {n}");
    }
    // Each subscription is an inbox with 2 descriptors, and its last look may not have seen the last publishers leave.
    let now = sinks[0].says("descriptors").parse::<u64>().unwrap();
    assert!(now <= descriptors + 10 * (2 + 2), "{now} descriptors, {descriptors} before");
}

/// Whether a topic of three levels matches, by the words of the definition: a matcher of the test's own.
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
