//! A receiver dies, and its next incarnation gets what it had not processed: in order, once, and flagged where it was in work.

use librpc_system_tests::{Forked, Puppet, TestDomain};

/// A sender with redelivery, connected.
fn sender(domain: &TestDomain, ms: u64) -> Puppet {
    let mut source = domain.node("source");
    source.does("sender sink");
    source.does(&format!("redeliver sink {ms}"));
    source
}

#[test]
fn the_next_incarnation_gets_what_was_not_processed() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 5");
    assert_eq!(sink.says("hear-numbered"), "0:1");
    assert_eq!(sink.says("hear-numbered"), "1:2"); // 1 is processed now, 2 is in work
    sink.kill();
    source.does("send sink 6"); // while nobody is there
    let mut sink = domain.receiver("sink");
    source.does("send sink 7");
    for expected in ["1:2!", "2:3", "3:4", "4:5", "5:6", "6:7"] {
        assert_eq!(sink.says("hear-numbered"), expected);
    }
    sink.begins("recv"); // acknowledges the last one, then waits
    source.does("flush sink 10000");
    assert_eq!(source.says("account sink"), "7 7 0 0 0");
    source.does("send sink 8");
    assert_eq!(sink.answer().as_deref(), Some("8"));
}

#[test]
fn a_flush_waits_for_the_receiver_to_be_back() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 100");
    sink.kill();
    source.begins("flush sink 30000");
    let mut sink = domain.receiver("sink");
    sink.does("expect 1 100");
    sink.begins("recv");
    assert_eq!(source.answer().as_deref(), Some("ok"));
}

#[test]
fn what_is_kept_comes_back_when_the_time_is_over() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 100);
    source.does("count sink 1 3");
    assert_eq!(sink.says("hear-numbered"), "0:1");
    sink.kill();
    let error = source.fails("flush sink 30000");
    assert!(error.contains("3 messages were not processed: node \"sink\" is gone"), "{error}");
    assert_eq!(source.says("account sink"), "3 0 0 0 3");
    assert_eq!(source.says("take-returned sink"), "0:1!,1:2,2:3");
    assert_eq!(source.says("take-returned sink"), "", "once");
    let mut sink = domain.receiver("sink");
    source.does("send sink 4");
    assert_eq!(sink.says("recv"), "4", "what came back is not delivered any more");
}

#[test]
fn no_more_is_kept_than_the_ring_holds() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096");
    let mut source = sender(&domain, 60_000);
    source.does("send sink first");
    assert_eq!(sink.says("recv"), "first");
    sink.kill();
    let kept: u64 = source.says("fill sink 100").parse().unwrap();
    assert!((30..=40).contains(&kept), "{kept}");
    source.does("limit sink 20");
    assert!(source.fails(&format!("send sink {}", "x".repeat(100))).contains("full"));
    let mut sink = domain.receiver("sink");
    source.does("send sink last");
    assert_eq!(sink.says("recv"), "first", "it was in work");
    for _ in 0..kept {
        assert_eq!(sink.says("recv").len(), 100);
    }
    assert_eq!(sink.says("recv"), "last");
}

#[test]
fn what_does_not_fit_at_once_follows() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 5000");
    sink.kill();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096"); // holds 170 of them
    source.begins("flush sink 60000");
    sink.does("expect 1 5000");
    sink.begins("recv");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    assert_eq!(source.says("account sink"), "5000 5000 0 0 0");
}

#[test]
fn receivers_may_die_again_and_again() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let mut sink = domain.receiver("sink");
    source.does("sender sink");
    source.does("redeliver sink 60000");
    source.does("limit sink 60000");
    source.begins("count sink 1 20000");
    source.begins("flush sink 60000"); // redelivery happens in the sender's calls
    let (mut next, mut twice) = (1, 0);
    for round in 0..20 {
        for _ in 0..round * 37 % 500 {
            let heard = sink.says("hear-numbered");
            let (number, text) = heard.split_once(':').expect("a number");
            let redelivered = text.ends_with('!');
            let value: u64 = text.trim_end_matches('!').parse().unwrap();
            assert_eq!(number.parse::<u64>().unwrap() + 1, value, "numbers go on");
            if value + 1 == next {
                assert!(redelivered, "{value} comes twice without a mark");
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
        let heard = sink.says("hear-numbered");
        let value: u64 = heard.split_once(':').unwrap().1.trim_end_matches('!').parse().unwrap();
        if value + 1 != next {
            assert_eq!(value, next);
            next += 1;
        }
    }
    assert!(twice <= 20, "{twice} came twice");
    sink.begins("recv"); // acknowledges the last one, then waits
    assert_eq!(source.answer().as_deref(), Some("ok"));
    assert_eq!(source.answer().as_deref(), Some("ok"));
}

#[test]
fn a_durable_subscription_is_taken_up_again() {
    let domain = TestDomain::new();
    let mut other = domain.node("other");
    other.does("subscribe s a");
    let mut sink = domain.node("sink");
    sink.does("subscribe s a,b durable=orders");
    let mut source = domain.node("source");
    source.does("redeliver-topics 60000");
    assert_eq!(source.says("publish a 1"), "2");
    assert_eq!(source.says("publish b 2"), "1");
    assert_eq!(source.says("publish a 3"), "2");
    assert_eq!(sink.says("hear s"), "source a 1 0");
    sink.kill();
    // The durable one counts on: what is published is kept for it.
    assert_eq!(source.says("publish b 4"), "1");
    let mut sink = domain.node("sink");
    sink.does("subscribe t a,b durable=orders");
    assert_eq!(source.says("publish a 5"), "2");
    for expected in ["a 1 0!", "b 2 0", "a 3 0", "b 4 0", "a 5 0"] {
        assert_eq!(sink.says("hear t"), format!("source {expected}"));
    }
    for expected in ["1", "3", "5"] {
        assert_eq!(other.says("hear s"), format!("source a {expected} 0"));
    }
    assert!(sink.fails("subscribe u c durable=orders").contains("already"));
}

#[test]
fn a_durable_subscription_that_does_not_return_is_given_up() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("subscribe s a durable=orders");
    let mut source = domain.node("source");
    source.does("redeliver-topics 100");
    assert_eq!(source.says("publish-count a 1 10"), "10 0");
    sink.kill();
    let error = source.fails("flush-topics 30000");
    assert!(error.contains("10 messages were not processed: node \"sink\" is gone"), "{error}");
    assert_eq!(source.says("publish a 11"), "0");
    assert_eq!(source.says("account"), "10 sent, 0 processed, 0 queued, 0 dropped, 10 returned");
}

#[test]
fn an_inbox_that_is_closed_and_opened_again_goes_on() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 3");
    assert_eq!(sink.says("hear-numbered"), "0:1");
    sink.does("drop-inbox"); // not by a panic: the message is processed
    sink.does("inbox");
    source.does("send sink 4"); // the source may hear of the end only now: what it does next brings the rest
    source.begins("flush sink 30000");
    for expected in ["1:2", "2:3", "3:4"] {
        assert_eq!(sink.says("hear-numbered"), expected);
    }
    sink.begins("recv"); // acknowledges the last one, then waits
    assert_eq!(source.answer().as_deref(), Some("ok"));
    source.does("send sink 5");
    assert_eq!(sink.answer().as_deref(), Some("5"));
}

#[test]
fn what_came_back_waits_until_it_is_taken() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 50);
    source.does("count sink 1 2");
    sink.kill();
    assert!(source.fails("flush sink 30000").contains("2 messages were not processed"));
    let mut sink = domain.receiver("sink");
    source.does("send sink 3");
    sink.kill();
    assert!(source.fails("flush sink 30000").contains("1 messages were not processed"));
    assert_eq!(source.says("take-returned sink"), "0:1,1:2,0:3");
}

#[test]
fn what_does_not_fit_any_more_is_told() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    let long = "x".repeat(5000);
    for text in ["1", &long, "3"] {
        source.does(&format!("send sink {text}"));
    }
    sink.kill();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096");
    let error = source.fails("flush sink 30000");
    assert!(error.contains("takes shorter messages") && error.contains("1 messages sent before"), "{error}");
    assert_eq!(source.says("take-returned sink"), format!("1:{long}"));
    source.begins("flush sink 30000");
    assert_eq!(sink.says("hear-numbered"), "0:1");
    assert_eq!(sink.says("hear-numbered"), "2:3", "what was left out keeps its number");
    sink.begins("recv");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    assert_eq!(source.says("account sink"), "3 2 0 0 1");
    source.does("send sink 4");
    assert_eq!(sink.answer().as_deref(), Some("4"));
}

#[test]
fn numbers_go_on_wherever_a_message_is_left_out() {
    let domain = TestDomain::new();
    let long = "x".repeat(5000);
    let is_long = |number: u64| [0, 1, 4, 7, 8, 9].contains(&number);
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    for number in 0..10 {
        source.does(&format!("send sink {}", if is_long(number) { long.clone() } else { number.to_string() }));
    }
    sink.kill();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096");
    let fails = |error: String, count: u64| {
        let told = format!("{count} messages sent before");
        assert!(error.contains("takes shorter messages") && error.contains(&told), "{count}: {error}");
    };
    fails(source.fails("flush sink 30000"), 2);
    fails(source.fails("flush sink 30000"), 1);
    source.begins("flush sink 30000");
    assert_eq!(sink.says("hear-numbered"), "2:2");
    assert_eq!(sink.says("hear-numbered"), "3:3");
    sink.begins("hear-numbered"); // acknowledges: only then comes what stands behind the gap
    fails(source.answer().expect("it lives"), 3);
    assert_eq!(sink.answer().as_deref(), Some("5:5"));
    assert_eq!(sink.says("hear-numbered"), "6:6");
    sink.begins("hear-numbered");
    source.does("flush sink 30000");
    source.does("send sink 10");
    assert_eq!(sink.answer().as_deref(), Some("10:10"));
    assert_eq!(source.says("take-returned sink").split(',').count(), 6);
}

#[test]
fn what_is_kept_is_not_processed_when_the_node_is_closed() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 3");
    sink.kill();
    source.does("send sink 4");
    assert!(source.fails("close-under 0").contains("4 messages"));
    assert!(source.fails("flush sink 100").contains("4 messages were not processed"));
}

#[test]
fn an_inbox_that_drops_makes_nobody_wait_while_it_is_gone() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096 drop-newest");
    let mut source = sender(&domain, 60_000);
    source.does("limit sink 60000");
    source.does("count sink 0 2");
    assert_eq!(sink.says("hear-numbered"), "0:0");
    sink.kill();
    // "fill" ends at the first message that is not taken.
    let kept: u64 = source.says("fill sink 100").parse().unwrap();
    assert!((30..=40).contains(&kept), "{kept}");
    let dropped = source.fails(&format!("send sink {}", "x".repeat(100)));
    assert!(dropped.contains("dropped"), "{dropped}");
    let sums: Vec<u64> = source.says("account sink").split(' ').map(|sum| sum.parse().unwrap()).collect();
    let [sent, 0, queued, dropped, 0] = sums[..] else { panic!("{sums:?}") };
    assert_eq!((sent, queued), (queued + dropped, kept + 3), "{sums:?}");
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096 drop-newest");
    source.begins("flush sink 60000");
    for expected in ["0:0!", "1:1", "2:2"] {
        assert_eq!(sink.says("hear-numbered"), expected);
    }
    for number in 3..kept + 3 {
        assert!(sink.says("hear-numbered").starts_with(&format!("{number}:x")));
    }
    sink.begins("hear-numbered");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    source.does("send sink last");
    assert_eq!(sink.answer(), Some(format!("{}:last", kept + 3)), "what was dropped bears no number");
}

#[test]
fn a_domain_that_is_removed_while_its_receiver_is_gone_costs_nothing() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 3");
    assert_eq!(sink.says("hear-numbered"), "0:1");
    sink.kill();
    source.does("send sink 4");
    source.begins("flush sink 60000");
    std::fs::rename(domain.path(), domain.path().with_extension("away")).unwrap();
    std::fs::remove_dir_all(domain.path().with_extension("away")).unwrap();
    let mut sink = domain.receiver("sink");
    for expected in ["0:1!", "1:2", "2:3", "3:4"] {
        assert_eq!(sink.says("hear-numbered"), expected);
    }
    sink.begins("hear-numbered");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    source.does("send sink 5");
    assert_eq!(sink.answer().as_deref(), Some("4:5"));
}

#[test]
fn a_forked_child_does_not_redeliver() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = sender(&domain, 60_000);
    source.does("count sink 1 3");
    assert_eq!(sink.says("hear-numbered"), "0:1");
    sink.kill();
    source.does("send sink 4");
    let said = source.says("fork sink");
    let mut sink = domain.receiver("sink");
    let again = source.says("fork sink"); // the receiver is back, and nobody has brought it anything yet
    let children = [Forked::of(&said), Forked::of(&again)];
    for (_, said) in &children {
        assert!(said.contains("belongs to the process that forked this one"), "{said}");
    }
    source.begins("flush sink 60000");
    for expected in ["0:1!", "1:2", "2:3", "3:4"] {
        assert_eq!(sink.says("hear-numbered"), expected);
    }
    sink.begins("hear-numbered");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    source.does("send sink 5");
    assert_eq!(sink.answer().as_deref(), Some("4:5"));
}
